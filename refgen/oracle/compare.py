"""Is a difference rounding? Where does it begin, which layer makes it, which only pass it on, what does it look like?

Every stage of a trace is compared with the exact one in units of the rounding error that is expected there (noise.py).
Then every block is applied by itself, exactly, to the hidden state that the implementation itself gave it (local.py):
a layer that computes rightly is now within rounding, however wrong what it was given. What is not rounding is laid beside
what known faults would do (diagnose.py).

Axes    B rows, T positions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy import ndarray

from refgen.errors import OracleError
from refgen.model import GPT2
from refgen.oracle.diagnose import Diagnosis, View, diagnose
from refgen.oracle.faults import Pass
from refgen.oracle.formats import cast, find_format
from refgen.oracle.local import cut
from refgen.oracle.noise import (
    OVERALL,
    POSITION,
    ErrorRatios,
    Noise,
    expected_error,
    judge_error,
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
        return self.overall <= OVERALL and self.worst <= POSITION

    @property
    def at(self) -> tuple[int, int]:
        """Row and position of the first that rounding does not explain; if none is off by that much, of the worst."""
        limit = min(self.worst, POSITION)
        row, position = min(np.argwhere(self.ratios >= limit).tolist(), key=lambda place: (place[1], place[0]))
        return row, position


@dataclass(frozen=True)
class Comparison:
    """What there is to say about a trace."""

    dtype: str
    stages: tuple[StageError, ...]  # against the exact run, in the order of model.py
    local: tuple[StageError, ...]  # against the exact block on the implementation's own hidden state
    largest: float  # absolute error of the logits, or of the last stage there is
    largest_at: tuple[int, ...]  # row, position, number
    expected: float  # the largest of a noisy run there
    logits: ErrorRatios | None  # None if there are none
    diagnosis: Diagnosis | None  # None if it was not asked for

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
        last = self.stages[-1]
        if self.passes:
            return (
                f"PASS: rounding in {self.dtype} explains it. At {last.name} the error is {last.overall:.2g} times "
                f"the expected one, {last.worst:.2g} times at the worst position."
            )
        looks = "" if self.diagnosis is None else " " + self.diagnosis.sentence
        if self.first is None:
            return f"FAIL: the error is as small as rounding in {self.dtype}, but not rounding.{looks}"
        row, position = self.first.at
        off = self.first.ratios[row, position]
        where = (
            f"FAIL: rounding in {self.dtype} does not explain it. The first stage off is {self.first.name}, at row {row}, "
            f"position {position}, by {off:.3g} times the expected error."
        )
        if not self.local:
            return where + looks
        if not self.faulty:
            return f"{where} No part that could be looked at by itself is at fault.{looks}"
        checked = dict.fromkeys(part_of(stage.name) for stage in self.local)
        others = "; the others pass it on" if len(checked) > len(self.faulty) else ""
        return f"{where} At fault by itself: {', '.join(self.faulty)}{others}.{looks}"


def part_of(name: str) -> str:
    """The part of the network that a stage belongs to: `h.3` of `h.3.attn.q`, `head` of `ln_f`."""
    if name in ("ln_f", "lm_head"):
        return "head"
    return ".".join(name.split(".")[:2]) if name.startswith("h.") else name


# --- Comparing --------------------------------------------------------------------------------------------


def compare(
    gpt2: GPT2,
    theirs: Trace,
    dtype: str | None = None,
    *,
    samples: int = 8,
    diagnosing: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compares a trace with the network `gpt2`, whose weights are rounded to `dtype` first, by default the trace's.

    Tells `progress` what it is at. Raises `OracleError` for a trace of another network or of no known dtype.
    """
    dtype = dtype or theirs.dtype
    check(gpt2, theirs, dtype)
    whole = Pass(cast(gpt2, dtype), theirs.input_ids, theirs.attention_mask, prefill=theirs.prefill)
    progress("expected errors")
    noise = expected_error(gpt2, whole.input_ids, whole.attention_mask, dtype, samples, stages=tuple(theirs.stages))
    own = tuple(stage_error(name, array, noise.exact[name], noise, name) for name, array in theirs.stages.items())
    views: dict[str, View] = {}
    local: list[StageError] = []
    for part, errors, view in by_themselves(whole, theirs, noise, samples, progress):
        local += errors
        if view is not None:
            views[part] = view
    name, array = list(theirs.stages.items())[-1]
    error = np.where(noise.exact[name] == array, 0, np.abs(array - noise.exact[name]))
    error[~np.isfinite(noise.exact[name])] = 0  # hidden scores
    found = Comparison(
        dtype=dtype,
        stages=own,
        local=tuple(local),
        largest=float(error.max()),
        largest_at=tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape)),
        expected=float(np.abs(noise.samples[name]).max()),
        logits=judge_error(noise, array) if name == "lm_head" and np.isfinite(array).all() else None,
        diagnosis=None,
    )
    if not diagnosing or not own[-1].ratios.max() < np.inf:
        return found
    count = lambda done: progress(f"known faults: {done}")  # noqa: E731
    # All there is to see first: it tells a fault of all layers from the same in one. Then the parts at fault alone.
    sights = [
        complete(views, gpt2) or last_view(theirs, noise),
        [views[part] for part in found.faulty if part in views],
    ]
    diagnoses = [diagnose(whole, sights[0], progress=count)] if sights[0] else []
    if sights[1] and (not diagnoses or diagnoses[0].named is None):
        diagnoses.insert(0, diagnose(whole, sights[1], progress=count))
    best = next((each for each in diagnoses if each.named is not None), diagnoses[-1] if diagnoses else None)
    return replace(found, diagnosis=best)


def check(gpt2: GPT2, theirs: Trace, dtype: str) -> None:
    """Refuses what cannot be compared."""
    if not theirs.stages:
        raise OracleError("the trace", "holds no stages")
    find_format(dtype)
    for field in ("n_layer", "n_head", "n_embd", "vocab_size"):
        mine = getattr(gpt2.config, field)
        if theirs.config is not None and getattr(theirs.config, field) != mine:
            raise OracleError("the trace", f"is of a network with {field}={getattr(theirs.config, field)}, not {mine}")


def stage_error(name: str, array: ndarray, exact: ndarray, noise: Noise, key: str) -> StageError:
    """A stage `[B T …]` or `[B H T …]` against the exact one; `key` is its name in `noise`."""
    real = noise.attention_mask.astype(bool)
    seen = np.isfinite(exact)  # hidden scores are -inf, or something very small, and are compared as patterns
    with np.errstate(invalid="ignore"):
        squares = np.where(seen, np.where(np.isfinite(array), array - np.where(seen, exact, 0), np.inf), 0) ** 2
    return StageError(name, np.where(real, ratio(rms_by_position(squares, seen), noise.scale[key]), 0), real)


def by_themselves(
    whole: Pass, theirs: Trace, noise: Noise, samples: int, progress: Callable[[str], None]
) -> Iterator[tuple[str, list[StageError], View | None]]:
    """Every part whose input is in the trace: its name, the errors of its stages, and its last stage to diagnose."""
    L, stages = whole.gpt2.config.n_layer, theirs.stages
    if "drop" in stages:
        error = stage_error("drop", stages["drop"], noise.exact["drop"], noise, "drop")
        yield "drop", [error], View(stages["drop"], noise, "drop")
    for layer in range(L + 1):
        before = "drop" if layer == 0 else f"h.{layer - 1}"
        inside = named_by_layer(stages, layer, L)
        if before not in stages or not inside or not np.isfinite(stages[before]).all():
            continue
        progress(f"layer {layer} of {L}")
        part = partial(cut, layer=layer, hidden=stages[before].astype(np.float64))
        alone = part(whole)
        own = expected_error(
            alone.gpt2, alone.input_ids, alone.attention_mask, noise.dtype, samples, stages=list(inside)
        )
        exact: dict[str, ndarray] = {}
        alone.run(note=exact.__setitem__)
        errors = [stage_error(name, stages[name], exact[key], own, key) for key, name in inside.items()]
        key, name = list(inside.items())[-1]
        is_whole = name in (f"h.{layer}", "lm_head") and np.isfinite(stages[name]).all()
        yield part_of(name), errors, View(stages[name], own, key, part) if is_whole else None


def named_by_layer(stages: Iterable[str], layer: int, n_layer: int) -> dict[str, str]:
    """The stages of a layer, by the names they have in a network of that layer alone; of the one after the last, the head's."""
    if layer == n_layer:
        return {name: name for name in stages if name in ("ln_f", "lm_head")}
    own = f"h.{layer}"
    return {name.replace(own, "h.0", 1): name for name in stages if name == own or name.startswith(f"{own}.")}


def complete(views: Mapping[str, View], gpt2: GPT2) -> list[View]:
    """All parts, if none is missing: together they see every fault, and better than the logits do."""
    return list(views.values()) if len(views) == gpt2.config.n_layer + 2 else []


def last_view(theirs: Trace, noise: Noise) -> list[View]:
    """The last stage that is the stream or the logits."""
    flat = [name for name, array in theirs.stages.items() if array.ndim == 3 and np.isfinite(array).all()]
    return [View(theirs.stages[flat[-1]], noise, flat[-1])] if flat else []


# --- Showing ----------------------------------------------------------------------------------------------


def report(found: Comparison) -> Iterator[str]:
    """The verdict, the numbers behind it, and a line for every part."""
    yield found.sentence
    yield ""
    last = found.stages[-1].name
    row, *place = found.largest_at
    yield (
        f"largest error  {found.largest:.3g} at {last}, row {row}, {places(place)}: the smallest tolerance that would pass. "
        f"Runs that round rightly reach {found.expected:.2g}."
    )
    yield ""
    yield f"{'stage':18} {'error':>9} {'worst':>9}  first at        by itself     worst   (in units of the expected error)"
    local = {stage.name: stage for stage in found.local}
    for stage in found.stages:
        alone = local.get(stage.name)
        itself = " " * 20 if alone is None else f"{alone.overall:>9.3g} {alone.worst:>9.3g}"
        row, position = stage.at
        place_ = "" if stage.passes else f"row {row} pos {position}"
        mark = " <- at fault" if alone is not None and not alone.passes else ""
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
            "sentence": diagnosis.sentence,
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
