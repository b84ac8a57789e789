"""Penalties and bans: processors that look at the tokens so far.

A row's context is its tokens without the padding before them (REP-02, NGRAM-02).
"""

from collections.abc import Iterable

import numpy as np
from numpy import ndarray

from refgen.generation.prompt import contexts


def repetition_penalty(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """REP-01, REP-02. Each id the row holds: a positive score is divided, a negative one multiplied, once.

    Columns before the row's first unmasked one are padding and do not count.
    """
    scores = scores.copy()
    for row, context in contexts(ids, prompt_mask):
        seen = np.unique(context)
        values = scores[row, seen]
        scores[row, seen] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return scores


def sequence_bias(
    ids: ndarray, scores: ndarray, *, biases: Iterable[tuple[tuple[int, ...], float]], prompt_mask: ndarray
) -> ndarray:
    """BIAS-01, BAD-01. Adds a bias to the token that would complete a sequence; biases of one token add up."""
    added = np.zeros_like(scores)
    for row, context in contexts(ids, prompt_mask):
        for (*prefix, last), bias in biases:
            if not prefix or context[-len(prefix) :] == prefix:
                added[row, last] += np.float32(bias)
    return scores + added


def no_repeat_ngram(ids: ndarray, scores: ndarray, *, n: int, prompt_mask: ndarray) -> ndarray:
    """NGRAM-01. Removes every token that would complete n tokens in a row which the row already holds."""
    scores = scores.copy()
    for row, context in contexts(ids, prompt_mask):
        tail = context[len(context) + 1 - n :] if len(context) >= n else None
        for start in range(len(context) - n + 1):
            *beginning, last = context[start : start + n]
            if beginning == tail:
                scores[row, last] = -np.inf
    return scores


def min_length(ids: ndarray, scores: ndarray, *, least: int, eos_ids: tuple[int, ...]) -> ndarray:
    """LEN-07, LEN-08. No end token while there are fewer than `least` columns, prompt and padding counted."""
    if ids.shape[1] >= least:
        return scores
    scores = scores.copy()
    scores[:, list(eos_ids)] = -np.inf
    return scores
