"""The processors of every sampler: temperature, top-k, top-p and min-p.

`keep` tokens always stay; beam search needs more than one (WARP-01).
"""

import numpy as np
from numpy import ndarray

from refgen.model import softmax


def temperature(ids: ndarray, scores: ndarray, *, value: float) -> ndarray:
    """TEMP-01. Divides by the temperature. The loop refuses what overflows (TEMP-03)."""
    return scores / np.float32(value)


def top_k(ids: ndarray, scores: ndarray, *, k: int) -> ndarray:
    """TOPK-01. Removes scores below the k-th largest; ties with the k-th all stay, also for k = 1 (TOPK-03)."""
    k = min(k, scores.shape[1])
    kth = np.partition(scores, -k, axis=1)[:, -k, None]
    return np.where(scores < kth, -np.inf, scores)


def top_p(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """TOPP-01, TOPP-02. Keeps the best tokens until they hold probability p, with the one that reaches it.

    The code adds from the tail, as transformers does: worst first, a token is removed while the mass up to and
    with it is at most 1 - p. Take p = 0.75. From the front, .5 is not enough and .5 + .3 is. From the tail, .05 and
    .05 + .15 are within 0.25, and .05 + .15 + .3 is not. The same two tokens stay:

    >>> scores = np.log(np.float32([[0.5, 0.3, 0.15, 0.05]]))
    >>> np.isfinite(top_p(None, scores, p=0.75))
    array([[ True,  True, False, False]])

    Of equal scores the lowest ids stay (TOPP-03). Sums are float64, rounded to float32; the probabilities are those
    of scores that temperature and top-k have already changed (TOPP-05).
    """
    order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")  # worst first, ties by high id
    worst_first = np.take_along_axis(scores, order, axis=1)
    mass = softmax(worst_first).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    removed = mass <= np.float32(1 - p)
    removed[:, -keep:] = False
    result = np.empty_like(scores)
    np.put_along_axis(result, order, np.where(removed, -np.inf, worst_first), axis=1)
    return result


def min_p(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """MINP-01. Removes a token whose probability is strictly below p times the largest."""
    probabilities = softmax(scores)
    low = probabilities < np.float32(p) * probabilities.max(axis=1, keepdims=True)
    low[np.arange(len(scores))[:, None], np.argsort(-probabilities, axis=1, kind="stable")[:, :keep]] = False
    return np.where(low, -np.inf, scores)
