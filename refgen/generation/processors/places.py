"""Processors that look at where the new token stands or at its id, or repair scores; and the caller's own functions."""

from typing import Any

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError
from refgen.generation.processors import AllowedTokens, Processor
from refgen.generation.scores import log_softmax


def prefix_allowed_tokens(ids: ndarray, scores: ndarray, *, allowed: AllowedTokens, beams: int = 1) -> ndarray:
    """PREF-01. Only the ids a function names for the row so far; if all of those are removed, they all score 0.

    The beams of a prompt share its number, and count as one in this.
    """
    only = np.full_like(scores, -np.inf)
    for row in range(len(ids)):
        named = np.asarray(allowed(row // beams, ids[row].copy()))
        if named.size == 0 or named.dtype.kind not in "iu" or named.min() < 0 or named.max() >= scores.shape[1]:
            raise GenerationError(
                f"prefix_allowed_tokens_fn gave {named.tolist()} for row {row // beams}",
                f"must give ids from 0 to {scores.shape[1] - 1}, at least one",
                "PREF-01",
            )
        only[row, named] = 0
    within = scores + only
    nothing = np.isneginf(within.max(axis=1)).reshape(-1, beams).all(axis=1).repeat(beams)
    return np.where(nothing[:, None], only, within)


def forced(ids: ndarray, scores: ndarray, *, column: int, forced_ids: tuple[int, ...]) -> ndarray:
    """FORCE-01, FORCE-02. For the token in this column nothing but the forced ids, which score 0."""
    if ids.shape[1] != column:
        return scores
    scores = np.full_like(scores, -np.inf)
    scores[:, list(forced_ids)] = 0
    return scores


def remove_invalid_values(ids: ndarray, scores: ndarray) -> ndarray:
    """INV-01. NaN becomes 0, infinities the largest and smallest finite numbers."""
    return np.nan_to_num(scores)


def exponential_decay(ids: ndarray, scores: ndarray, *, start: int, factor: float, eos_ids: tuple[int, ...]) -> ndarray:
    """EXPD-01. From `start` columns on, an end token gains |score| (factor^excess - 1); a removed one stays removed."""
    excess = ids.shape[1] - start
    if excess <= 0:
        return scores
    scores, ends = scores.copy(), list(eos_ids)
    gain = np.abs(scores[:, ends]) * np.float32(factor**excess - 1)
    scores[:, ends] += np.where(np.isfinite(scores[:, ends]), gain, 0)
    return scores


def suppress(ids: ndarray, scores: ndarray, *, suppressed: tuple[int, ...], column: int | None = None) -> ndarray:
    """SUP-01, SUP-02. Removes these ids, everywhere or for the token in one column."""
    if column is not None and ids.shape[1] != column:
        return scores
    scores = scores.copy()
    scores[:, list(suppressed)] = -np.inf
    return scores


def custom(ids: ndarray, scores: ndarray, *, function: Processor) -> ndarray:
    """PROC-03. A function of the caller's own, on copies; it must give numbers of the same shape."""
    result: Any = np.asarray(function(ids.copy(), scores.copy()))
    if result.shape != scores.shape or result.dtype.kind not in "fiu":
        raise GenerationError(
            f"a logits_processor gave {result.dtype} of shape {list(result.shape)}",
            f"must give numbers of shape {list(scores.shape)}",
            "PROC-03",
        )
    return result.astype(np.float32)


def renormalize(ids: ndarray, scores: ndarray) -> ndarray:
    """PROC-04. Scores become log-probabilities; the choice does not change."""
    return log_softmax(scores)
