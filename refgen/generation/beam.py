"""Beam search and beam sampling: the best of several continuations at once. Rules BEAM-01 to BEAM-13 of SPEC.md.

Every prompt has K running beams. In each step all their continuations compete. The best continue, and those that end
are kept in a pool of the K best. A prompt is closed once no running beam can get into its pool any more.

Axes    B prompts, K beams, M candidates a step, V tokens, S columns so far.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.generation.config import GenerationConfig
from refgen.generation.next_logits import NextLogits
from refgen.generation.processors import Processor
from refgen.generation.prompt import Prompt
from refgen.generation.scores import check_scores, log_softmax
from refgen.generation.stopping import Stop
from refgen.generation.torch_stream import Exponentials
from refgen.model import softmax

Choose = Callable[[ndarray, int], ndarray]  # (sums [B K*V], M) -> indices [B M], the preferred first
NEVER = np.float32(-1e9)  # the score of what cannot win, far below any sum of log-probabilities


@dataclass(frozen=True)
class BeamSettings:
    """The settings of a search: K, its exponent of length, when to stop, the number of columns that is full."""

    num_beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    max_length: int
    n_ends: int  # the number of end tokens
    pad: int

    @classmethod
    def of(cls, config: GenerationConfig, max_length: int) -> Self:
        """BEAM-06, BEAM-07, BEAM-10. Those of a call whose search is full at `max_length` columns."""
        return cls(
            num_beams=config.beams,
            length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
            early_stopping=config.early_stopping or False,
            max_length=max_length,
            n_ends=len(config.eos_ids),
            pad=config.pad_token_id if config.pad_token_id is not None else next(iter(config.eos_ids), 0),
        )


@dataclass(frozen=True)
class BeamResult:
    """The pool of every prompt, best first."""

    sequences: ndarray  # [B K max_length], filled with the pad id
    lengths: ndarray  # [B K] columns that are not filling
    sequences_scores: ndarray  # [B K] float32
    beam_indices: ndarray  # [B K new]: the row each token was chosen in, -1 where there is none
    finish: list[list[str]]
    scores: list[ndarray]  # one [B*K V] a step
    logits: list[ndarray]


def best(sums: ndarray, count: int) -> ndarray:
    """BEAM-03. The largest first; of equal ones the lowest index."""
    return np.argsort(-sums, axis=1, kind="stable")[:, :count]


def drawn(exponentials: Exponentials) -> Choose:
    """BEAM-11. Draws without replacement from the softmax of the sums, in the order drawn."""
    return lambda sums, count: best(softmax(sums) / exponentials(sums.shape), count)


@np.errstate(all="ignore")  # what is no number any more is looked for by check_scores
def beam_search(
    next_logits: NextLogits,
    caches: Iterable[Cache],
    prompt: Prompt,
    processors: Iterable[Processor],
    choose: Choose,
    stopping: Mapping[str, Stop],
    settings: BeamSettings,
) -> BeamResult:
    """BEAM-01 to BEAM-09. `prompt` holds every prompt K times; `caches` are those that go with the beams."""
    processors, K = list(processors), settings.num_beams
    B, M = len(prompt.ids) // K, max(2, 1 + settings.n_ends) * K  # BEAM-01: enough that K of them do not end
    ids, mask = prompt.ids.reshape(B, K, -1), prompt.mask
    sums = np.where(np.arange(K) == 0, np.float32(0), NEVER) * np.ones((B, 1), np.float32)  # all K are equal yet
    rows = np.full((B, K, 0), -1)  # the row every token of a beam was chosen in
    pool = empty_pool(ids, settings)
    is_open = np.ones(B, dtype=bool)
    all_scores, all_logits, over = [], [], False
    while not over:
        flat = ids.reshape(B * K, -1)
        logits = next_logits(flat, mask).astype(np.float32)
        scores = log_softmax(logits)
        for processor in processors:
            scores = processor(flat, scores)
        # A beam that cannot win may have nothing left, but no infinite score either: with that it would win.
        alive = (sums > NEVER / 2).ravel() | np.isposinf(scores.max(axis=1))
        check_scores(scores, logits, alive & is_open.repeat(K))
        totals = scores + sums.reshape(-1, 1)
        check_scores(totals, logits, np.isposinf(totals).any(axis=1) & is_open.repeat(K))  # finite ones may overflow
        totals = totals.reshape(B, -1)
        totals = np.where(np.isnan(totals), -np.inf, totals)  # of a beam that has nothing left, and cannot win
        chosen = choose(totals, M)
        beam, token = np.divmod(chosen, logits.shape[1])
        chosen_sums = np.take_along_axis(totals, chosen, axis=1)
        candidates = np.dstack([take(ids, beam), token])
        origins = np.dstack([take(rows, beam), beam + np.arange(B)[:, None] * K])
        reasons = finishes(stopping, candidates, mask[::K], is_open)
        ends = reasons > 0

        running = chosen_sums + np.where(ends, NEVER, np.float32(0))
        going_on = best(running, K)
        ids, rows = take(candidates, going_on), take(origins, going_on)
        sums = np.take_along_axis(running, going_on, axis=1)
        for cache in caches:
            cache.select(rows[:, :, -1].ravel())

        new = candidates.shape[2] - prompt.width
        pool = updated(pool, candidates, origins, reasons, chosen_sums, is_open, new, settings)
        is_open &= can_improve(pool, sums, new, prompt.width, settings) & ~ends.all(axis=1)
        mask = np.column_stack([mask, is_open.repeat(K)])  # what follows a closed prompt takes no position (STOP-05)
        full = settings.early_stopping is True and pool.done.all()
        over = bool(not is_open.any() or full)
        all_scores.append(scores)
        all_logits.append(logits)
    names = ["", *stopping]
    finish = [[names[reason] for reason in reasons] for reasons in pool.reasons.tolist()]
    return BeamResult(pool.ids, pool.lengths, pool.scores, pool.rows, finish, all_scores, all_logits)


def take(values: ndarray, indices: ndarray) -> ndarray:
    """Of `values` `[B X ...]` those at `indices` `[B Y]`: `[B Y ...]`."""
    return values[np.arange(len(values))[:, None], indices]


def finishes(stopping: Mapping[str, Stop], candidates: ndarray, mask: ndarray, is_open: ndarray) -> ndarray:
    """STOP-01. Which condition ends every candidate, `[B M]`: 1 for the first of `stopping`, 0 where it can go on."""
    B, M, S = candidates.shape
    seen = np.column_stack([mask, is_open]).repeat(M, axis=0)
    reasons = np.zeros(B * M, dtype=np.int64)
    for number, stop in enumerate(stopping.values(), start=1):
        hit = np.asarray(stop(candidates.reshape(B * M, S), seen))
        reasons[(reasons == 0) & hit] = number
    return reasons.reshape(B, M)


# --- The pool of finished sequences -----------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """The K best finished sequences of every prompt, best first; not `done` are places still free."""

    ids: ndarray  # [B K max_length]
    lengths: ndarray  # [B K]
    rows: ndarray  # [B K max_length - P]
    scores: ndarray  # [B K]
    done: ndarray  # [B K]
    reasons: ndarray  # [B K]


def empty_pool(ids: ndarray, settings: BeamSettings) -> Pool:
    """All places free."""
    B, K, P = ids.shape
    filled = np.full((B, K, settings.max_length), settings.pad)
    filled[:, :, :P] = ids
    return Pool(
        ids=filled,
        lengths=np.full((B, K), P),
        rows=np.full((B, K, settings.max_length - P), -1),
        scores=np.full((B, K), NEVER),
        done=np.zeros((B, K), dtype=bool),
        reasons=np.zeros((B, K), dtype=np.int64),
    )


def updated(
    pool: Pool,
    candidates: ndarray,
    origins: ndarray,
    reasons: ndarray,
    sums: ndarray,
    is_open: ndarray,
    new: int,
    settings: BeamSettings,
) -> Pool:
    """BEAM-05, BEAM-06. The candidates that end, if they are among the first K, compete with the pool.

    Their score is the sum of log-probabilities divided by the number of new tokens to the length penalty.
    """
    K = settings.num_beams
    enters = (reasons > 0) & (np.arange(sums.shape[1]) < K)
    closed = ~is_open | (pool.done.all(axis=1) if settings.early_stopping is True else False)
    scores = sums / np.float32(new**settings.length_penalty)
    scores = scores + np.where(closed[:, None], NEVER, np.float32(0)) + np.where(enters, np.float32(0), NEVER)
    places = best(np.concatenate([pool.scores, scores], axis=1), K)

    def merged(old: ndarray, fresh: ndarray, fill: object = None) -> ndarray:
        if old.ndim == 3:
            wide = np.full((*fresh.shape[:2], old.shape[2]), fill)
            wide[:, :, : fresh.shape[2]] = fresh
            fresh = wide
        return take(np.concatenate([old, fresh], axis=1), places)

    return Pool(
        ids=merged(pool.ids, candidates, settings.pad),
        lengths=merged(pool.lengths, np.full(sums.shape, candidates.shape[2])),
        rows=merged(pool.rows, origins, -1),
        scores=merged(pool.scores, scores),
        done=merged(pool.done, enters),
        reasons=merged(pool.reasons, reasons),
    )


def can_improve(pool: Pool, sums: ndarray, new: int, width: int, settings: BeamSettings) -> ndarray:
    """BEAM-07. Whether the best running beam, at its present length, would beat the worst of a full pool.

    With early_stopping "never" and a penalty that favours length, at the greatest length instead.
    """
    longest = settings.early_stopping == "never" and settings.length_penalty > 0
    length = settings.max_length - width if longest else new
    hoped = sums[:, :1] / np.float32(length**settings.length_penalty)
    worst = np.where(pool.done, pool.scores.min(axis=1, keepdims=True), NEVER)
    return np.any(hoped > worst, axis=1)
