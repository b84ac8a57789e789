"""Processors: logits in, scores out, one function a rule, in the measured order PROC-01.

Every function takes and returns float32 `[B V]` and changes nothing in place. A removed token scores -inf and
stays removed (WARP-02). A processor at its neutral value is left out (PROC-05).

Axes    B rows, V tokens, S columns so far.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError
from refgen.generation.config import GenerationConfig
from refgen.generation.prompt import Prompt
from refgen.model import softmax

Processor = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], scores [B V]) -> scores [B V]


def processors(config: GenerationConfig, prompt: Prompt) -> Iterator[Processor]:
    """PROC-01. The processors that `config` asks for, in order; those that shape chance only when sampling (GREEDY-05)."""
    if config.repetition_penalty not in (None, 1.0):
        yield partial(repetition_penalty, penalty=config.repetition_penalty, prompt_mask=prompt.mask)
    if config.eos_ids and config.min_length:
        yield partial(min_length, least=config.min_length, eos_ids=config.eos_ids)
    if config.eos_ids and config.min_new_tokens:
        yield partial(min_length, least=prompt.width + config.min_new_tokens, eos_ids=config.eos_ids)
    if not config.samples:
        return
    if config.temperature not in (None, 1.0):
        yield partial(temperature, value=config.temperature)
    if config.top_k:
        yield partial(top_k, k=config.top_k)
    if config.top_p is not None and config.top_p < 1.0:
        yield partial(top_p, p=config.top_p)
    if config.min_p:
        yield partial(min_p, p=config.min_p)


def repetition_penalty(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """REP-01, REP-02. Each id the row holds: a positive score is divided, a negative one multiplied, once.

    Columns before the row's first unmasked one are padding and do not count.
    """
    scores = scores.copy()
    for row, first in enumerate(prompt_mask.argmax(axis=1)):
        seen = np.unique(ids[row, first:])
        values = scores[row, seen]
        scores[row, seen] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return scores


def min_length(ids: ndarray, scores: ndarray, *, least: int, eos_ids: tuple[int, ...]) -> ndarray:
    """LEN-07, LEN-08. No end token while there are fewer than `least` columns, prompt and padding counted."""
    if ids.shape[1] >= least:
        return scores
    scores = scores.copy()
    scores[:, list(eos_ids)] = -np.inf
    return scores


def temperature(ids: ndarray, scores: ndarray, *, value: float) -> ndarray:
    """TEMP-01. Divided by the temperature; one so small that a score overflows is an error (TEMP-03)."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        warmed = scores / np.float32(value)
    if not np.isfinite(warmed[np.isfinite(scores)]).all():
        raise GenerationError(
            f"temperature={value!r}",
            "makes scores overflow float32",
            "TEMP-03",
            "For greedy decoding use temperature=0.",
        )
    return warmed


def top_k(ids: ndarray, scores: ndarray, *, k: int) -> ndarray:
    """TOPK-01. Scores below the k-th largest are removed, so ties with the k-th all stay, also for k = 1 (TOPK-03)."""
    k = min(k, scores.shape[1])
    kth = np.partition(scores, -k, axis=1)[:, -k, None]
    return np.where(scores < kth, -np.inf, scores)


def top_p(ids: ndarray, scores: ndarray, *, p: float) -> ndarray:
    """TOPP-01, TOPP-02. A token stays if the mass strictly before it, best first, is below p; one always stays.

    Seen from the other end: removed while the mass up to and with it, worst first, is at most 1 - p. That is
    how transformers sums, so it is how we sum: in float64, rounded to float32. Of equal scores the lowest ids
    stay (TOPP-03). Probabilities are those of the scores that are left, already tempered and cut (TOPP-05).
    """
    order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")  # worst first, ties by high id
    mass = softmax(np.take_along_axis(scores, order, axis=1)).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    removed = mass <= np.float32(1 - p)
    removed[:, -1] = False
    scores = scores.copy()
    np.put_along_axis(scores, order, np.where(removed, -np.inf, np.take_along_axis(scores, order, axis=1)), axis=1)
    return scores


def min_p(ids: ndarray, scores: ndarray, *, p: float) -> ndarray:
    """MINP-01. A token is removed if its probability is strictly below p times the largest."""
    probabilities = softmax(scores)
    return np.where(probabilities < np.float32(p) * probabilities.max(axis=1, keepdims=True), -np.inf, scores)
