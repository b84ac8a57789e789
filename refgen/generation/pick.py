"""Pick: one token a row from its scores `[B V]`, greedily or by chance. Rules GREEDY-01, GREEDY-04 and SAMP-01 to SAMP-10.

A random pick follows torch's random stream, so that a seed gives the same tokens as in transformers. Or it takes
uniform numbers from the caller, so that any language can follow.

Axes    B rows, V tokens.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy import ndarray

from refgen.generation.torch_stream import Exponentials
from refgen.model import softmax

Pick = Callable[[ndarray], ndarray]  # scores [B V] -> ids [B]


def greedy(scores: ndarray) -> ndarray:
    """GREEDY-01. The highest score; on a tie the lowest id."""
    return scores.argmax(axis=1)


def multinomial(scores: ndarray, exponentials: ndarray) -> ndarray:
    """SAMP-01, SAMP-02. The token whose probability, divided by its exponential, is largest.

    Why that draws by probability: it is a race. A runner of speed p, with an exponential number e to go, arrives
    after e / p, and the share of races it wins is its share of all speeds. Here the second wins, at .6 / .3:

    >>> scores = np.log(np.float32([[0.5, 0.3, 0.15, 0.05]]))
    >>> multinomial(scores, np.float32([[1.2, 0.6, 0.9, 0.4]]))
    array([1])

    First to arrive, smallest e / p, largest p / e. Wins in 40,000 races:

    >>> from refgen.generation.torch_stream import shared_exponentials
    >>> races = shared_exponentials(seed=0)((40_000, 4))
    >>> (np.bincount(multinomial(scores.repeat(40_000, axis=0), races)) / 40_000).round(2)
    array([0.5 , 0.3 , 0.15, 0.05])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return (softmax(scores) / exponentials).argmax(axis=1)


def draw(exponentials: Exponentials) -> Pick:
    """SAMP-01. A pick by chance, each token with its probability."""
    return lambda scores: multinomial(scores, exponentials(scores.shape))


def inverse_cdf(uniforms: ndarray) -> Pick:
    """SAMP-10. In id order, the first token whose cumulative probability exceeds the row's next uniform.

    `uniforms` is `[B N]`, in [0, 1); step t uses column t. Sums are float64.
    """
    columns: Iterator[ndarray] = iter(uniforms.T)

    def pick(scores: ndarray) -> ndarray:
        scores = scores.astype(np.float64)
        cumulative = np.exp(scores - scores.max(axis=1, keepdims=True)).cumsum(axis=1)
        target = next(columns) * cumulative[:, -1]
        # Rounding may put the target on the total itself: then it is the last token that has any probability.
        last = (cumulative < cumulative[:, -1:]).sum(axis=1)
        return np.minimum((cumulative <= target[:, None]).sum(axis=1), last)

    return pick
