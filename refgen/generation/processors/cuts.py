"""The rarer cuts, which look at how surprising a token is: top-h, typical-p, epsilon and eta.

`keep` tokens always stay; beam search needs more than one (WARP-01).
"""

from typing import Any

import numpy as np
from numpy import ndarray

from refgen.generation.scores import entropy, log_softmax
from refgen.model import softmax


def top_h(ids: ndarray, scores: ndarray, *, share: float) -> ndarray:
    """TOPH-01. Of the 100 best, renormalised, the first whose -p log p add up to at most a share of their entropy."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    top = np.take_along_axis(scores, best, axis=1)
    p = softmax(top)
    information = -p * np.log(np.where(p > 0, p, 1))
    within = information.cumsum(axis=1, dtype=np.float64).astype(np.float32) <= entropy(top) * np.float32(share)
    within &= p > 0
    within[:, 0] = True
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, best, within, axis=1)
    return np.where(kept, scores, -np.inf)


def typical_p(ids: ndarray, scores: ndarray, *, mass: float, keep: int = 1) -> ndarray:
    """TYP-01. The tokens whose surprise is closest to the entropy, until they hold `mass`; ties with the last stay."""
    logp = log_softmax(scores)
    deviation = np.abs(-logp - entropy(scores))
    order = np.argsort(deviation, axis=1, kind="stable")
    held = softmax(np.take_along_axis(scores, order, axis=1)).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    last = np.minimum((held < np.float32(mass)).sum(axis=1, keepdims=True), scores.shape[1] - 1)
    furthest = np.take_along_axis(deviation, np.take_along_axis(order, last, axis=1), axis=1)
    far = deviation > furthest
    np.put_along_axis(far, order[:, :keep], False, axis=1)
    return np.where(far, -np.inf, scores)


def epsilon_cutoff(ids: ndarray, scores: ndarray, *, epsilon: float, keep: int = 1) -> ndarray:
    """EPS-01. Tokens less likely than epsilon are removed, but not the best."""
    return cut(scores, np.float32(epsilon), keep)


def eta_cutoff(ids: ndarray, scores: ndarray, *, epsilon: float, keep: int = 1) -> ndarray:
    """ETA-01. The same, with the smaller of epsilon and sqrt(epsilon) exp(-entropy)."""
    least = np.minimum(np.float32(epsilon), np.sqrt(np.float32(epsilon)) * np.exp(-entropy(scores)))
    return cut(scores, least, keep)


def cut(scores: ndarray, least: Any, keep: int) -> ndarray:
    """Removes tokens of a probability below `least`, except those that score as high as the `keep`-th best."""
    keep = min(keep, scores.shape[1])
    low = (softmax(scores) < least) & (scores < np.partition(scores, -keep, axis=1)[:, -keep, None])
    return np.where(low, -np.inf, scores)
