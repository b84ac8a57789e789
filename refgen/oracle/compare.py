"""Is a difference rounding? Where does it begin, which layer makes it, which only pass it on, what does it look like?

Every stage of a trace is compared with the exact one in units of the rounding error that is expected there (noise.py).
Then every block is applied by itself, exactly, to the hidden state that the implementation gave it (local.py). So a
correct layer is within rounding, even if its input is wrong. An error that is not rounding is compared with the effects
of known faults (diagnose.py).

Two implementations are compared in the same way, by the difference of their errors. Each error is against the
implementation's own exact numbers, so different weights in float32 and bfloat16 cancel. Either may round, so the
squares of their expected errors add.

Axes    B rows, T positions, M noisy runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
from numpy import ndarray

from refgen.errors import OracleError, listed
from refgen.model import GPT2
from refgen.oracle.counterfactual import Pass
from refgen.oracle.diagnose import Diagnosis, View, diagnose
from refgen.oracle.families import FAMILIES, Family
from refgen.oracle.formats import cast, find_format
from refgen.oracle.local import cut
from refgen.oracle.noise import (
    ErrorRatios,
    Noise,
    expected_error,
    judge_error,
    limits,
    ratio,
    rms_by_position,
)
from refgen.oracle.trace import Trace


@dataclass(frozen=True)
class StageError:
    """How far a stage is off, in units of the expected rounding error; padding counts as 0."""

    name: str
    ratios: ndarray  # [B T] root mean square over the position's numbers; infinite where one is not finite
    real: ndarray  # [B T] bool, False for padding
    limits: tuple[float, ndarray]  # of rounding: overall, and [B T] at each position

    @property
    def overall(self) -> float:
        """The root mean square over all positions."""
        return float(np.sqrt((self.ratios[self.real] ** 2).mean()))

    @property
    def worst(self) -> float:
        """The largest of a position."""
        return float(self.ratios.max())

    @property
    def passes(self) -> bool:
        """Whether rounding explains it."""
        return self.overall <= self.limits[0] and not self.beyond.any()

    @property
    def beyond(self) -> ndarray:
        """`[B T]`, where rounding does not explain it."""
        return self.ratios > self.limits[1]

    @property
    def at(self) -> tuple[int, int]:
        """Row and position of the first that rounding does not explain; if none is off by that much, of the worst."""
        off = self.beyond if self.beyond.any() else self.ratios == self.worst
        row, position = min(np.argwhere(off).tolist(), key=lambda place: (place[1], place[0]))
        return row, position


@dataclass(frozen=True)
class Comparison:
    """The result for a trace, or for two. With two, every error is the difference of their errors."""

    dtype: str
    stages: tuple[StageError, ...]  # against the exact run, in the order of model.py
    local: tuple[StageError, ...]  # against the exact block on the implementation's own hidden state
    largest: float  # absolute error of the logits, or of the last stage there is
    largest_at: tuple[int, ...]  # row, position, number
    expected: float  # the largest of a noisy run there
    logits: ErrorRatios | None  # None if there are none
    diagnosis: Diagnosis | None = None  # None if it was not asked for
    other: str | None = None  # the dtype of the other implementation; None if there is none
    suspect: str = "MINE"  # of two, the one that `diagnosis` is about

    @property
    def first(self) -> StageError | None:
        """The first stage that rounding does not explain, by itself if it can be looked at by itself."""
        return next((stage for stage in (*self.stages, *self.local) if not stage.passes), None)

    @property
    def faulty(self) -> tuple[str, ...]:
        """The parts that are off although what they were given is taken as it was: `drop`, `h.3`, `head`."""
        return tuple(dict.fromkeys(part_of(stage.name) for stage in self.local if not stage.passes))

    @property
    def passes(self) -> bool:
        """Whether rounding explains all of it, and no known fault shows in it."""
        named = self.diagnosis is not None and self.diagnosis.named is not None
        return self.first is None and not named and (self.logits is None or self.logits.passes)

    @property
    def sentence(self) -> str:
        """The verdict, for a person."""
        last, error = self.stages[-1], self.error
        it = "it" if self.other is None else "how far the two are apart"
        rounding = f"rounding in {' and '.join(dict.fromkeys([self.dtype, self.other or self.dtype]))}"
        if self.passes:
            return (
                f"PASS: {rounding} explains {it}. At {last.name} the {error} is {last.overall:.2g} times "
                f"the expected one, {last.worst:.2g} times at the worst position."
            )
        looks = "" if self.diagnosis is None else " " + self.diagnosis.told(self.opening)
        if self.first is None:
            return f"FAIL: the {error} is as small as {rounding}, but not rounding.{looks}"
        row, position = self.first.at
        off = self.first.ratios[row, position]
        where = (
            f"FAIL: {rounding} does not explain {it}. The first stage off is {self.first.name}, at row {row}, "
            f"position {position}, by {off:.3g} times the expected {error}."
        )
        if not self.local:
            return where + looks
        if not self.faulty:
            return f"{where} No part that could be tested by itself is {self.mark}.{looks}"
        checked = dict.fromkeys(part_of(stage.name) for stage in self.local)
        others = "; the others pass it on" if len(checked) > len(self.faulty) else ""
        return f"{where} {self.mark.capitalize()} by itself: {', '.join(self.faulty)}{others}.{looks}"

    @property
    def error(self) -> str:
        """The word for the quantity: error or difference."""
        return "error" if self.other is None else "difference"

    @property
    def mark(self) -> str:
        """The word for a part that is off by itself. Of two implementations, it is unknown which is right."""
        return "at fault" if self.other is None else "different"

    @property
    def opening(self) -> str:
        """How a diagnosis begins."""
        if self.other is None:
            return "It looks like"
        return "MINE looks like OTHER with" if self.suspect == "MINE" else "OTHER looks like MINE with"


def part_of(name: str) -> str:
    """The part of the network that a stage belongs to: `h.3` of `h.3.attn.q`, `head` of `ln_f`."""
    if name in ("ln_f", "lm_head"):
        return "head"
    return ".".join(name.split(".")[:2]) if name.startswith("h.") else name


# --- Comparing --------------------------------------------------------------------------------------------


SUSPECTS, SIGNS = ("MINE", "OTHER"), (1, -1)  # two runs, and the sign that their difference has as an error of each


@dataclass(frozen=True)
class Run:
    """One side of a comparison: a trace, its dtype, and the exact pass of its weights."""

    trace: Trace
    dtype: str
    whole: Pass


@dataclass(frozen=True)
class Part:
    """A part of the network by itself: the errors of its stages, and its last stage to diagnose, as seen from each run."""

    name: str
    errors: list[StageError]
    views: list[View]


def compare(
    gpt2: GPT2,
    mine: Trace,
    dtype: str | None = None,
    other: Trace | None = None,
    other_dtype: str | None = None,
    *,
    samples: int = 8,
    diagnosing: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compares a trace with the network `gpt2`, whose weights are rounded to `dtype` first, by default the trace's.

    With an `other` trace of that network, compares the two in all stages that both have. Tells `progress` what it is at.
    Raises `OracleError` for a trace of another network or of no known dtype, and for two of different tokens.
    """
    runs = [as_run(gpt2, mine, dtype, "the trace")]
    if other is not None:
        runs.append(as_run(gpt2, other, other_dtype, "the other trace"))
        check_pair(mine, other)
    names = [name for name in mine.stages if other is None or name in other.stages]
    progress("expected errors")
    noises = [
        expected_error(gpt2, run.trace.input_ids, run.trace.attention_mask, run.dtype, samples, seed, names)
        for seed, run in enumerate(runs)
    ]
    errors, noises = differences([[run.trace.stages[name] for name in names] for run in runs], names, noises)
    parts = list(by_themselves(runs, errors, noises, samples, progress))
    largest, at, expected = largest_error(runs, noises, names[-1])
    own = tuple(stage_error(name, error, noises[0], name) for name, error in errors.items())
    found = Comparison(
        dtype=runs[0].dtype,
        stages=own,
        local=tuple(error for part in parts for error in part.errors),
        largest=largest,
        largest_at=at,
        expected=expected,
        logits=judged(errors, noises[0]),
        other=None if other is None else runs[1].dtype,
    )
    if not diagnosing or not own[-1].ratios.max() < np.inf:
        return found
    for families, number in product(((), FAMILIES), range(len(runs))):  # known faults of either first
        views = {part.name: part.views[number] for part in parts if part.views}
        whole = complete(views, gpt2) or last_view(errors, noises[number], SIGNS[number])
        faulty = [views[part] for part in found.faulty if part in views]
        seen = named_or_last(runs[number].whole, whole, faulty, families, progress)
        if seen is None:
            continue
        if number == 0 or seen.named is not None:
            found = replace(found, diagnosis=seen, suspect=SUSPECTS[number])
        if seen.named is not None:
            break
    return found


def named_or_last(
    p: Pass,
    whole: Sequence[View],
    faulty: Sequence[View],
    families: Sequence[Family],
    progress: Callable[[str], None],
) -> Diagnosis | None:
    """A diagnosis of all there is to see, which tells a fault of all layers from the same in one.

    If it names nothing and the parts at fault alone do, theirs; None if nothing can be seen.
    """
    found = None
    for views in filter(None, (whole, faulty)):
        seen = diagnose(p, views, families=families, progress=lambda done: progress(f"faults: {done}"))
        if seen.named is not None:
            return seen
        found = found or seen
    return found


def as_run(gpt2: GPT2, trace: Trace, dtype: str | None, subject: str) -> Run:
    """A trace beside its exact pass. Refuses what cannot be compared with anything."""
    if not trace.stages:
        raise OracleError(subject, "holds no stages")
    dtype = dtype or trace.dtype
    find_format(dtype)
    for field in ("n_layer", "n_head", "n_embd", "vocab_size"):
        own = getattr(gpt2.config, field)
        if trace.config is not None and getattr(trace.config, field) != own:
            raise OracleError(subject, f"is of a network with {field}={getattr(trace.config, field)}, not {own}")
    return Run(trace, dtype, Pass(cast(gpt2, dtype), trace.input_ids, trace.attention_mask, prefill=trace.prefill))


def check_pair(mine: Trace, other: Trace) -> None:
    """Refuses two that did not compute the same."""
    remedy = "Record both over the same tokens."
    shapes = list(mine.input_ids.shape), list(other.input_ids.shape)
    if shapes[0] != shapes[1]:
        raise OracleError("the other trace", f"has input_ids of shape {shapes[1]}, not {shapes[0]}", remedy=remedy)
    masks = mine.attention_mask, other.attention_mask
    tokens = [np.where(mask == 1, each.input_ids, -1) for mask, each in zip(masks, (mine, other), strict=True)]
    for name, (a, b) in (("attention_mask", masks), ("input_ids", tokens)):  # at padding any id will do
        if (a != b).any():
            row, at = np.argwhere(a != b)[0].tolist()
            problem = f"has other {name}, first at row {row}, position {at}: {b[row, at]}, not {a[row, at]}"
            raise OracleError("the other trace", problem, remedy=remedy)
    if not mine.stages.keys() & other.stages.keys():
        problem = f"has no stage in common with the first: {listed(list(other.stages))}"
        raise OracleError("the other trace", problem, remedy=f"The first has {listed(list(mine.stages))}.")


def differences(
    given: Sequence[Sequence[ndarray]], names: Sequence[str], noises: Sequence[Noise]
) -> tuple[dict[str, ndarray], list[Noise]]:
    """The errors of a run's stages and what is expected of them; of two, the first one's errors minus the second one's.

    `given` are the stages of each run. The expected size of a difference comes from the noise of either run, each with
    its own exact numbers.
    """
    if len(noises) == 1:
        return {n: minus(array, noises[0].exact[n]) for n, array in zip(names, given[0], strict=True)}, list(noises)
    mine, other = noises
    errors = {
        # In this order nothing is lost: the same in both is 0.
        name: minus(minus(a, b, mine.exact[name]), minus(mine.exact[name], other.exact[name]))
        for name, a, b in zip(names, *given, strict=True)
    }
    samples = {name: mine.samples[name] - other.samples[name] for name in names}
    scale = {name: np.hypot(mine.scale[name], other.scale[name]) for name in names}
    return errors, [replace(each, samples=samples, scale=scale) for each in noises]


def minus(a: ndarray, b: ndarray, exact: ndarray | None = None) -> ndarray:
    """a - b in float64: infinite where either is not finite, 0 where the exact number, by default b, is not.

    Hidden scores are -inf or something very small, and are compared as patterns.
    """
    seen = np.isfinite(b if exact is None else exact)
    known = seen & np.isfinite(a) & np.isfinite(b)
    return np.subtract(a, b, where=known, out=np.where(seen, np.inf, 0.0), dtype=np.float64)


def stage_error(name: str, error: ndarray, noise: Noise, key: str) -> StageError:
    """The error of a stage `[B T …]` or `[B H T …]`; `key` is its name in `noise`."""
    real = noise.attention_mask.astype(bool)
    squares = rms_by_position(error**2, np.isfinite(noise.exact[key]))
    return StageError(name, np.where(real, ratio(squares, noise.scale[key]), 0), real, limits(noise, key))


def largest_error(runs: Sequence[Run], noises: Sequence[Noise], name: str) -> tuple[float, tuple[int, ...], float]:
    """The largest absolute difference in a stage, where it is, and that of right runs, padding left out.

    Of two runs it is that of their numbers as they are, as a tolerance sees them.
    """
    exact, real = [noise.exact[name] for noise in noises], noises[0].attention_mask.astype(bool)
    mine, *others = (run.trace.stages[name] for run in runs)
    if mine.ndim == 4:
        real = real[:, None]
    error = np.where(real[..., None], np.abs(minus(mine, [*others, exact[0]][0], exact[0])), 0)
    right = np.where(real[..., None], np.abs(noises[0].samples[name] + minus(exact[0], exact[-1])), 0)
    at = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    return float(error.max()), at, float(right.max())


def judged(errors: Mapping[str, ndarray], noise: Noise) -> ErrorRatios | None:
    """The logits one by one, if they are there and finite."""
    error = errors.get("lm_head")
    return None if error is None or not np.isfinite(error).all() else judge_error(noise, noise.exact["lm_head"] + error)


def by_themselves(
    runs: Sequence[Run],
    errors: Mapping[str, ndarray],
    noises: Sequence[Noise],
    samples: int,
    progress: Callable[[str], None],
) -> Iterator[Part]:
    """Every part whose input is in the traces."""
    L = runs[0].whole.gpt2.config.n_layer
    if "drop" in errors:
        error = stage_error("drop", errors["drop"], noises[0], "drop")
        yield Part("drop", [error], views_of(errors["drop"], "drop", noises, [lambda whole: whole] * len(runs)))
    for layer in range(L + 1):
        before = "drop" if layer == 0 else f"h.{layer - 1}"
        inside = named_by_layer(errors, layer, L)
        if before not in errors or not inside or not np.isfinite(errors[before]).all():
            continue
        progress(f"layer {layer} of {L}")
        alone = [partial(cut, layer=layer, hidden=run.trace.stages[before].astype(np.float64)) for run in runs]
        own = [
            exact_and_expected(part(run.whole), run.dtype, list(inside), samples, seed)
            for seed, (run, part) in enumerate(zip(runs, alone, strict=True))
        ]
        given = [[run.trace.stages[name] for name in inside.values()] for run in runs]
        off, own = differences(given, list(inside), own)
        key, name = list(inside.items())[-1]
        yield Part(
            part_of(name),
            [stage_error(name, off[key], own[0], key) for key, name in inside.items()],
            views_of(off[key], key, own, alone) if name in (f"h.{layer}", "lm_head") else [],
        )


def exact_and_expected(p: Pass, dtype: str, stages: Sequence[str], samples: int, seed: int) -> Noise:
    """The expected error of a pass whose embeddings are not rounded, because they are an implementation's own
    numbers.
    """
    exact: dict[str, ndarray] = {}
    p.run(note=exact.__setitem__)
    noise = expected_error(p.gpt2, p.input_ids, p.attention_mask, dtype, samples, seed, stages)
    return replace(noise, exact=exact)


def views_of(
    error: ndarray, stage: str, noises: Sequence[Noise], parts: Sequence[Callable[[Pass], Pass]]
) -> list[View]:
    """A stage to diagnose, as seen from each run: for the second the same difference has the other sign."""
    if not np.isfinite(error).all():
        return []
    seen = zip(SIGNS, noises, parts, strict=False)
    return [View(own.exact[stage] + sign * error, own, stage, part) for sign, own, part in seen]


def named_by_layer(stages: Iterable[str], layer: int, n_layer: int) -> dict[str, str]:
    """The stages of a layer, by the names they have in a network of that layer alone; of the one after the last, the head's."""
    if layer == n_layer:
        return {name: name for name in stages if name in ("ln_f", "lm_head")}
    own = f"h.{layer}"
    return {name.replace(own, "h.0", 1): name for name in stages if name == own or name.startswith(f"{own}.")}


def complete(views: Mapping[str, View], gpt2: GPT2) -> list[View]:
    """All parts, if none is missing: together they see every fault, and better than the logits do."""
    return list(views.values()) if len(views) == gpt2.config.n_layer + 2 else []


def last_view(errors: Mapping[str, ndarray], noise: Noise, sign: int) -> list[View]:
    """The last stage that is the stream or the logits."""
    flat = [name for name, error in errors.items() if error.ndim == 3 and np.isfinite(error).all()]
    return [View(noise.exact[flat[-1]] + sign * errors[flat[-1]], noise, flat[-1])] if flat else []


# --- Showing ----------------------------------------------------------------------------------------------


def report(found: Comparison) -> Iterator[str]:
    """The verdict, its numbers, and a line for every part."""
    yield found.sentence
    yield ""
    last = found.stages[-1].name
    row, *place = found.largest_at
    yield (
        f"largest {found.error}  {found.largest:.3g} at {last}, row {row}, {places(place)}: the smallest tolerance that would "
        f"pass. Correct runs reach {found.expected:.2g}."
    )
    yield ""
    yield f"{'stage':18} {'error':>9} {'worst':>9}  first at        by itself     worst   (in units of the expected {found.error})"
    local = {stage.name: stage for stage in found.local}
    for stage in found.stages:
        alone = local.get(stage.name)
        itself = " " * 20 if alone is None else f"{alone.overall:>9.3g} {alone.worst:>9.3g}"
        row, position = stage.at
        place_ = "" if stage.passes else f"row {row} pos {position}"
        mark = f" <- {found.mark}" if alone is not None and not alone.passes else ""
        yield f"{stage.name:18} {stage.overall:>9.3g} {stage.worst:>9.3g}  {place_:14} {itself}{mark}".rstrip()


def places(place: Sequence[int]) -> str:
    """Position and number."""
    return f"position {place[0]}, number {place[1]}" if len(place) == 2 else f"place {list(place)}"


def as_json(found: Comparison) -> dict[str, object]:
    """The same for programs."""
    judged, diagnosis = found.logits, found.diagnosis
    return {
        "verdict": "PASS" if found.passes else "FAIL",
        "sentence": found.sentence,
        "dtype": found.dtype,
        "other_dtype": found.other,
        "first": None if found.first is None else stage_json(found.first),
        "at_fault": list(found.faulty),
        "largest_error": found.largest,
        "largest_at": list(found.largest_at),
        "expected_largest": found.expected,
        "logits": None
        if judged is None
        else {"overall": judged.overall, "position": judged.position, "logit": judged.logit},
        "stages": [stage_json(stage) for stage in found.stages],
        "by_itself": [stage_json(stage) for stage in found.local],
        "diagnosis": None
        if diagnosis is None
        else {
            "named": None if diagnosis.named is None else diagnosis.named.name,
            "rules": [] if diagnosis.named is None else list(diagnosis.named.rules),
            "suspect": None if found.other is None else found.suspect,
            "sentence": diagnosis.told(found.opening),
            "matches": [
                {
                    "fault": match.fault.name,
                    "alpha": match.alpha,
                    "deviation": match.deviation,
                    "explained": match.explained,
                    "verdict": match.verdict,
                }
                for match in diagnosis.matches
            ],
        },
    }


def stage_json(stage: StageError) -> dict[str, object]:
    """One stage; where it is infinitely off JSON has no number, and says null."""
    row, position = stage.at
    overall, worst = (each if np.isfinite(each) else None for each in (stage.overall, stage.worst))
    return {
        "name": stage.name,
        "overall": overall,
        "worst": worst,
        "row": row,
        "position": position,
        "passes": stage.passes,
    }
