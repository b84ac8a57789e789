"""One request put to refgen and to transformers, and their answers compared."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from transformers.generation import utils as transformers_generation

import refgen
from refgen.generation import guidance, prepare
from refgen.generation.processors import cuts
from refgen.generation.processors.cuts import top_h
from refgen.generation.scores import entropy
from refgen.model import GPT2, MLP, Affine, Attention, Block, forward
from tests.cross.calls import FUNCTIONS, Request, pair
from tests.cross.differences import (
    DIFFERENCES,
    REFUSED_HERE,
    Difference,
    may_remove_all,
    overfull,
    sums_may_overflow,
)

NEAR = 2e-5  # relative to the largest logit, the bound that test_forward.py holds for float32


@dataclass(frozen=True)
class Answer:
    """What came back; lists that were not asked for are empty."""

    sequences: np.ndarray  # [B*n, P + new]
    scores: list[np.ndarray]  # one [rows V] a step
    logits: list[np.ndarray]
    sequences_scores: np.ndarray | None = None
    beam_indices: np.ndarray | None = None
    unguided: list[np.ndarray] = field(default_factory=list)  # CFGG-01: the logits behind the negative prompt
    top_h: list[np.ndarray] = field(default_factory=list)  # TOPH-01: what of the scores it left, in transformers only

    def __str__(self) -> str:
        return f"{self.sequences.tolist()} {self.sequences_scores if self.sequences_scores is not None else ''}"


def answer(said: Any, **kept: list[np.ndarray]) -> Answer:
    """From what either of them returns, and what no result holds but was kept."""
    if isinstance(said, np.ndarray | torch.Tensor):
        return Answer(np.asarray(said), [], [], **kept)
    given = {name: getattr(said, name, None) for name in ("sequences_scores", "beam_indices")}
    return Answer(
        np.asarray(said.sequences),
        [np.asarray(step) for step in said.scores or ()],
        [np.asarray(step) for step in said.logits or ()],
        **{name: None if value is None else np.asarray(value) for name, value in given.items()},
        **kept,
    )


# --- refgen -----------------------------------------------------------------------------------------------


def ask_refgen(request: Request) -> Answer | refgen.RefgenError:
    """Its answer, or the error that refuses one."""
    model, _ = pair(request.model)
    named = {name: FUNCTIONS[name][choice] for name, choice in request.functions.items()}
    arguments: dict[str, Any] = {}
    if "logits_processor" in named:
        arguments["logits_processor"] = [named["logits_processor"]]
    if "stopping_criteria" in named:
        arguments["stopping_criteria"] = [lambda ids, _: named["stopping_criteria"](ids)]
    if "prefix_allowed_tokens_fn" in named:
        arguments["prefix_allowed_tokens_fn"] = partial(named["prefix_allowed_tokens_fn"], request.vocab_size)
    unguided: list[np.ndarray] = []
    try:
        with patch.object(model, "generation_config", refgen.GenerationConfig(**request.own)), kept_here(unguided):
            if request.passed is not None:
                arguments["generation_config"] = refgen.GenerationConfig(**request.passed)
            said = model.generate(request.prompt, request.mask, seed=request.seed, **arguments, **request.call)
    except refgen.RefgenError as error:
        return error
    return answer(said, unguided=unguided)


def kept_here(unguided: list[np.ndarray]) -> AbstractContextManager[Any]:
    """CFGG-01. Keeps the logits behind the negative prompt, which no result holds."""
    make = guidance.after_negative_prompt

    def keeping(*arguments: Any) -> Any:
        said = make(*arguments)
        return lambda ids: unguided.append(said(ids)) or unguided[-1]

    return patch.object(guidance, "after_negative_prompt", keeping)


# --- transformers -----------------------------------------------------------------------------------------


class Criterion:
    """A function of the ids as a criterion of transformers; with an `eos_token_id`, finished rows are filled (STOP-05)."""

    def __init__(self, function: Any, fills: bool) -> None:
        self.function = function
        if fills:
            self.eos_token_id = None

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """For all rows or for each."""
        return torch.from_numpy(np.broadcast_to(self.function(ids.numpy()), len(ids)).copy())


def full(request: Request, ids: np.ndarray) -> np.ndarray:
    """LEN-04. Whether each row, or candidate, has as many tokens as the model has positions, and one more."""
    tokens = request.seen.sum(axis=1).repeat(len(ids) // len(request.seen))
    return tokens + ids.shape[1] - request.width > request.n_positions


def criteria(request: Request, rules: set[str]) -> list[Criterion]:
    """The criterion that was asked for, and where positions end the one that refgen has of its own."""
    fills = bool({"STOP-05", "LEN-04"} & rules) and (request.get("pad_token_id") is not None or bool(request.ends))
    asked = request.functions.get("stopping_criteria")
    functions = [FUNCTIONS["stopping_criteria"][asked]] if asked else []
    return [Criterion(function, fills) for function in functions + [partial(full, request)] * ("LEN-04" in rules)]


def ask_transformers(request: Request, differences: list[Difference]) -> Answer | Exception:
    """Its answer with these differences taken into account, or the error that it ends in."""
    for difference in differences:
        if difference.reworded is not None:
            request = difference.reworded(request)
    with ExitStack() as stack:
        for difference in differences:
            if difference.patched is not None:
                stack.enter_context(difference.patched(request))
        try:
            return put(request, {difference.rule for difference in differences})
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            return error


def put(request: Request, rules: set[str]) -> Answer:
    """The call itself, with what these rules change in its arguments and its answer."""
    _, twin = pair(request.model)
    arguments: dict[str, Any] = {}
    if "logits_processor" in request.functions:
        function = FUNCTIONS["logits_processor"][request.functions["logits_processor"]]
        arguments["logits_processor"] = [
            lambda ids, scores: torch.from_numpy(function(ids.numpy(), scores.numpy()).astype(np.float32))
        ]
    if "prefix_allowed_tokens_fn" in request.functions:
        named = FUNCTIONS["prefix_allowed_tokens_fn"][request.functions["prefix_allowed_tokens_fn"]]
        arguments["prefix_allowed_tokens_fn"] = partial(named, request.vocab_size)
    if found := criteria(request, rules):
        arguments["stopping_criteria"] = found
    if request.passed is not None:
        arguments["generation_config"] = transformers.GenerationConfig(**in_their_kinds(request.passed))
    if request.mask is not None:
        arguments["attention_mask"] = torch.tensor(request.mask, dtype=torch.int64)
    prompt = None if request.prompt is None else torch.tensor(request.prompt, dtype=torch.int64)
    torch.manual_seed(request.seed)
    own, unguided, top_h = transformers.GenerationConfig(**in_their_kinds(request.own)), [], []
    with patch.object(twin, "generation_config", own), kept_there(unguided, top_h):
        said = answer(
            twin.generate(prompt, **arguments, **in_their_kinds(request.call)), unguided=unguided, top_h=top_h
        )
    return filled(request, said) if "BEAM-10" in rules else said


def kept_there(unguided: list[np.ndarray], top_h: list[np.ndarray]) -> AbstractContextManager[Any]:
    """CFGG-01, TOPH-01. Keeps the logits behind the negative prompt and what top_h leaves, which no result holds."""
    guided, cut = "UnbatchedClassifierFreeGuidanceLogitsProcessor", "TopHLogitsWarper"

    class Guided(getattr(transformers_generation, guided)):  # type: ignore[misc]
        def get_unconditional_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
            said = super().get_unconditional_logits(input_ids)
            unguided.append(said[:, -1].numpy())
            return said

    class Cut(getattr(transformers_generation, cut)):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            said = super().__call__(input_ids, scores)
            top_h.append(said.numpy())
            return said

    return patch.multiple(transformers_generation, **{guided: Guided, cut: Cut})


def in_their_kinds(layer: dict[str, Any]) -> dict[str, Any]:
    """The settings as transformers takes them: a watermark is an object of its own there."""
    mark = layer.get("watermarking_config")
    return layer | ({"watermarking_config": transformers.WatermarkingConfig(**mark)} if isinstance(mark, dict) else {})


def filled(request: Request, said: Answer) -> Answer:
    """BEAM-10. Filled as refgen fills: with the pad id, be it 0, else the first end token, else 0."""
    if said.beam_indices is None:
        return said
    said.sequences[:, request.width :][said.beam_indices < 0] = request.get("pad_token_id", [*request.ends, 0][0])
    return said


# --- The two compared -------------------------------------------------------------------------------------


def alive(request: Request, sequences: np.ndarray) -> np.ndarray:
    """Whether each row was still going on at each step, `[B*n, steps]`."""
    P = request.width
    rows = np.ones((sequences.shape[1] - P, len(sequences)), dtype=bool)
    for step in range(len(rows) - 1):
        ids = sequences[:, : P + step + 1]
        ended = np.isin(ids[:, -1], request.ends) | full(request, ids)
        if "stopping_criteria" in request.functions:
            ended |= FUNCTIONS["stopping_criteria"][request.functions["stopping_criteria"]](ids)
        rows[step + 1] = rows[step] & ~ended
    return rows.T


def told(request: Request, said: Answer) -> list[tuple[int, np.ndarray]]:
    """The steps with the rows of scores and logits that mean something: of running rows, or those of returned beams."""
    steps = range(max(len(said.scores), len(said.logits)))
    if request.beams == 1:
        running = alive(request, said.sequences)
        return [(step, np.flatnonzero(running[:, step])) for step in steps]
    assert said.beam_indices is not None
    real = said.beam_indices[np.asarray(said.sequences_scores) > -1e8]
    return [(step, np.unique(column[column >= 0])) for step, column in enumerate(real.T)]


GAIN = {  # how much larger a difference of the logits may be made
    "temperature": lambda value: max(1.0, 1 / float(value)) if value else 1.0,
    "repetition_penalty": lambda value: max(float(value), 1 / float(value)),
    "exponential_decay_length_penalty": lambda value: value[1] ** 20,
    "guidance_scale": lambda value: 1 + 2 * abs(value),
}


def gain(request: Request) -> float:
    """By how much the settings may enlarge a difference of the logits."""
    return float(np.prod([GAIN[name](request.get(name)) for name in request.active() if name in GAIN]))


def off(ours: np.ndarray, theirs: np.ndarray, bound: float) -> str:
    """What is wrong with numbers that should be equal: -inf, NaN and huge ones exactly, others within a bound."""
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    exact = ~(np.isfinite(theirs) & (np.abs(theirs) < max(1e30, 1e6 * bound)))  # a tiny temperature makes all huge
    if not np.array_equal(ours[exact], theirs[exact], equal_nan=True) or not np.isfinite(ours[~exact]).all():
        return f"removed {np.argwhere(~np.isfinite(ours)).tolist()}, not {np.argwhere(~np.isfinite(theirs)).tolist()}"
    worst = np.abs(ours[~exact] - theirs[~exact]).max(initial=0)
    return f"differs by {worst}, bound {bound}" if worst > bound else ""


def wobble(request: Request, sequences: np.ndarray) -> float:
    """How far rounding may move the logits of these sequences: as far as weights do that are off by four roundings.

    In most networks by less than NEAR. But where a sum cancels, before a LayerNorm for instance, it is a hundred
    times as much; there float64 lies between what refgen says and what transformers says.
    """
    model, _ = pair(request.model)
    ids = sequences[:, : request.width + request.n_positions - int(request.seen.sum(axis=1).max())]
    last = request.width - 1
    rows = len(ids) // len(request.seen)
    seen = np.pad(request.seen, [(0, 0), (0, ids.shape[1] - request.width)], constant_values=1).repeat(rows, axis=0)
    rng = np.random.default_rng(0)
    networks = [model.gpt2, *(nudged_weights(model.gpt2, rng) for _ in range(4))]
    moved = [forward(each, ids, seen)[:, last:] for each in networks]
    if guided(request):  # the negative prompt is the last token
        behind = [forward(each, ids[:, last:], np.ones_like(ids[:, last:])) for each in networks]
        moved = [np.stack(both) for both in zip(moved, behind, strict=True)]
    return max(float(np.abs(each - moved[0]).max()) for each in moved[1:])


def guided(request: Request) -> bool:
    """CFGG-01. Whether there is a negative prompt."""
    return bool(request.get("guidance_scale", 1.0) != 1.0)


def nudged_weights(part: Any, rng: np.random.Generator) -> Any:
    """A part of a network whose weights are off by a few times 2**-24 of themselves."""
    if isinstance(part, np.ndarray):
        return (part * (1 + 2**-22 * rng.normal(size=part.shape))).astype(part.dtype)
    if isinstance(part, tuple):
        return tuple(nudged_weights(each, rng) for each in part)
    if isinstance(part, GPT2 | Block | Attention | MLP | Affine):
        return type(part)(**{field.name: nudged_weights(getattr(part, field.name), rng) for field in fields(part)})
    return part


def unlike(request: Request, ours: Answer, theirs: Answer) -> str:
    """The first thing in which two answers differ, or nothing."""
    if ours.sequences_scores is not None and theirs.sequences_scores is not None and overfull(request):
        ours, theirs = with_free_places(request, ours), with_free_places(request, theirs)
    if ours.sequences.shape != theirs.sequences.shape or (ours.sequences != theirs.sequences).any():
        return "other sequences"
    if ours.beam_indices is not None:
        if (ours.beam_indices != theirs.beam_indices).any():
            return f"other origins {ours.beam_indices.tolist()}, {theirs.beam_indices.tolist()}"
        largest = float(np.abs(theirs.sequences_scores).max())  # a sum of a few logarithms, each with some roundings
        if wrong := off(ours.sequences_scores, theirs.sequences_scores, 1e-5 * (1 + largest) * gain(request)):
            return f"sequences_scores: {wrong}"
    for name, enlarged in (("logits", 1.0), ("unguided", 1.0), ("scores", gain(request))):
        ours_list, theirs_list = getattr(ours, name), getattr(theirs, name)
        if ours_list and len(ours_list) != len(theirs_list):
            return f"{len(ours_list)} steps, not {len(theirs_list)}"
        for step, rows in told(request, theirs) if ours_list else ():
            said = ours_list[step][rows], theirs_list[step][rows]
            bound = NEAR * (1 + largest_logit(theirs, step, rows)) * enlarged
            if off(*said, bound) and (wrong := off(*said, max(bound, wobble(request, theirs.sequences) * enlarged))):
                return f"{name} of step {step}, rows {rows.tolist()}: {wrong}"
    return ""


def largest_logit(said: Answer, step: int, rows: np.ndarray) -> float:
    """Of these rows in this step, behind the negative prompt too."""
    return max(float(np.abs(each[step][rows]).max(initial=0)) for each in (said.logits, said.unguided) if each)


def with_free_places(request: Request, said: Answer) -> Answer:
    """LEN-04, BEAM-06. With free places of the pool all alike.

    There a prompt that is full stays open while its batch goes on, and beams that cannot win take these places.
    """
    assert said.sequences_scores is not None
    assert said.beam_indices is not None
    free = said.sequences_scores < -1e8
    sequences, rows = said.sequences.copy(), said.beam_indices.copy()
    sequences[free, request.width :], rows[free] = 0, -1
    scores = np.where(free, np.float32(-1e9), said.sequences_scores)
    return replace(said, sequences=sequences, sequences_scores=scores, beam_indices=rows)


EDGES = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
ROUNDINGS = (0, -1, 1, -2, 2, -4, 4, -16, 16)


def nudged(request: Request) -> Iterator[Request]:
    """The request, and with a setting that cuts at an edge moved by a few roundings of float32."""
    yield request
    for name in set(EDGES) & set(request.active()):
        for roundings in ROUNDINGS:
            yield replace(request, call=request.call | {name: request.get(name) * (1 + roundings * 6e-8)})


def top_h_as_there(ids: np.ndarray, scores: np.ndarray, *, share: float, there: Iterator[np.ndarray]) -> np.ndarray:
    """TOPH-01. Cut as transformers did where rounding may decide it: a sum of -p log p is off by the rounding of a p near 1."""
    wanted, least = next(there), np.maximum(entropy(scores.astype(np.float64)).ravel(), 1e-30)
    ours = top_h(ids, scores, share=share)
    for row in range(len(scores)):
        for roundings in ROUNDINGS:
            cut = top_h(ids[[row]], scores[[row]], share=share + roundings * 6e-8 / least[row])
            if (np.isfinite(cut) == np.isfinite(wanted[row])).all():
                ours[row] = cut
                break
    return ours


def is_near_tie(request: Request, ours: Answer, theirs: Answer) -> bool:
    """Whether rounding alone explains it: the logits agree until tokens differ, and from theirs refgen says what they say."""
    request = everything(request)
    if not any(repeats(each, theirs) for each in nudged(request)):
        return False
    ours = ours if ours.logits else ask_refgen(request)
    width = min(ours.sequences.shape[1], theirs.sequences.shape[1])
    same = (ours.sequences[:, :width] == theirs.sequences[:, :width]).all(axis=0)
    until = width - 1 if same.all() else int(same.argmin())
    agreed = 1 if request.beams > 1 else until - request.width + 1  # beams that change places take their logits along
    running = alive(request, theirs.sequences) if request.beams == 1 else np.ones((len(theirs.logits[0]), 1), bool)
    largest = max(np.abs(step).max() for step in theirs.logits + theirs.unguided)
    bound = max(NEAR * (1 + largest), wobble(request, theirs.sequences))
    return not any(
        off(our_list[step][running[:, step]], their_list[step][running[:, step]], bound)
        for our_list, their_list in ((ours.logits, theirs.logits), (ours.unguided, theirs.unguided))
        for step in range(min(agreed, len(their_list)))
    )


def repeats(request: Request, theirs: Answer) -> bool:
    """Whether refgen, given the logits of transformers instead of its own, says what transformers says."""
    beyond = [np.full_like(theirs.logits[0], np.nan)] * 40  # refused if it goes on longer
    steps, unguided, there = (iter(each + beyond) for each in (theirs.logits, theirs.unguided, theirs.top_h))
    with (
        patch.object(prepare, "by_forward", lambda *_: lambda ids, mask: next(steps)),
        patch.object(guidance, "after_negative_prompt", lambda *_: lambda ids: next(unguided)),
        patch.object(cuts, "top_h", partial(top_h_as_there, there=there)),
    ):
        again = ask_refgen(request)
    return isinstance(again, Answer) and not unlike(request, again, theirs)


def everything(request: Request) -> Request:
    """The same call, with all that can be returned."""
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    return replace(request, call=request.call | wanted)


def verdict(request: Request) -> list[str]:
    """How the answers compare, and by which rules refgen differs; fails where nothing explains how they differ.

    The failure shows the request as Python; `verdict(Request(…))` asks it again.
    """
    __tracebackhide__ = True
    expected = {rule for rule, holds in REFUSED_HERE if holds(request)}
    differences = [difference for difference in DIFFERENCES if difference.holds(request)] if not expected else []
    ours = ask_refgen(request)
    if isinstance(ours, refgen.RefgenError):
        return refusal(request, ours, expected, differences)
    asked, sure = everything(request), [difference for difference in differences if not difference.perhaps]
    theirs = ask_transformers(asked, sure)
    if len(sure) < len(differences) and (isinstance(theirs, Exception) or unlike(request, ours, theirs)):
        sure, theirs = differences, ask_transformers(asked, differences)
    said = f"\n{request}\nrefgen       {ours}\ntransformers {theirs}"
    assert not expected, f"refgen should refuse by {expected}{said}"
    assert not isinstance(theirs, Exception), f"only transformers refuses{said}"
    for difference in sure:
        if difference.refused_there:
            others = [other for other in sure if other is not difference]
            assert isinstance(ask_transformers(asked, others), Exception), f"{difference.rule}: taken there too{said}"
    assert bool(ours.scores) == shows(request, "output_scores"), f"scores asked for or not{said}"
    assert bool(ours.logits) == shows(request, "output_logits"), f"logits asked for or not{said}"
    wrong = unlike(request, ours, theirs)
    assert not wrong or is_near_tie(request, ours, theirs), f"{wrong}{said}"
    return ["near-tie" if wrong else "equal", *(difference.rule for difference in sure)]


def shows(request: Request, name: str) -> bool:
    """OUT-02. Whether an output is asked for and can be returned."""
    return bool(request.get("return_dict_in_generate") and request.get(name))


def refusal(
    request: Request, error: refgen.RefgenError, expected: set[str], differences: list[Difference]
) -> list[str]:
    """What there is to say when refgen refuses: both do, or a rule by which refgen alone does."""
    __tracebackhide__ = True
    theirs = ask_transformers(everything(request), differences)
    if isinstance(theirs, Exception):
        return ["both refuse"]
    said = f"\n{request}\nrefgen       {error}\ntransformers {theirs}"
    if error.rule == "SAMP-08" and not expected:
        assert may_remove_all(request), f"refgen alone refuses{said}"
        emptied = any(not np.isfinite(step.max(axis=1)).all() for step in theirs.scores)
        if not emptied and sums_may_overflow(request):
            # There drawing fails, unless it is corrected for rows that cannot win.
            uncorrected = [difference for difference in differences if difference.rule != "SAMP-08"]
            failed = isinstance(ask_transformers(everything(request), uncorrected), Exception)
            assert failed, f"refgen alone refuses{said}"
            return ["both refuse"]
        assert emptied, f"refgen refuses where transformers has a best token everywhere{said}"
        return ["refused here", "SAMP-08"]
    assert error.rule in expected, f"refgen alone refuses{said}"
    return ["refused here", error.rule]
