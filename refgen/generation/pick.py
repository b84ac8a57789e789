"""Pick: one token a row from its scores, greedily or by chance. Rules GREEDY-01, GREEDY-04 and SAMP-01 to SAMP-10 of SPEC.md.

A pick is a function from scores `[B V]` to ids `[B]`. By chance it either follows torch's CPU random stream
bit for bit, so that a seed gives the tokens it gives in transformers, or takes uniform numbers from the caller,
so that any language can follow.

Axes    B rows, V tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy import ndarray

from refgen.model import softmax

Pick = Callable[[ndarray], ndarray]
Exponentials = Callable[[tuple[int, ...]], ndarray]  # [B V] -> the next draws in that shape


def greedy(scores: ndarray) -> ndarray:
    """GREEDY-01. The highest score; on a tie the lowest id."""
    return scores.argmax(axis=1)


class TorchStream:
    """SAMP-03. The random stream of torch's CPU generator after `torch.manual_seed(seed)`: MT19937."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed & 0xFFFFFFFF)

    def words(self, count: int) -> ndarray:
        """The next `count` outputs, uint32."""
        return self._words.randint(0, 2**32, size=count, dtype=np.uint32)

    def exponentials(self, count: int) -> ndarray:
        """The next `count` draws of `torch.empty(count).exponential_()`, float32.

        Each takes two 32-bit words, the first as the high half; their low 53 bits are the uniform u.
        """
        high, low = self.words(2 * count).reshape(count, 2).astype(np.uint64).T
        u = ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) * 2.0**-53
        return (-np.log1p(-u)).astype(np.float32)


def multinomial(scores: ndarray, exponentials: ndarray) -> ndarray:
    """SAMP-01, SAMP-02. The token whose probability, divided by its exponential, is largest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (softmax(scores) / exponentials).argmax(axis=1)


def shared_exponentials(seed: int) -> Exponentials:
    """SAMP-04. One stream for the batch, row after row, V draws a row and step, as in torch."""
    stream = TorchStream(seed)
    return lambda shape: stream.exponentials(math.prod(shape)).reshape(shape)


def exponentials_per_row(seeds: Sequence[int]) -> Exponentials:
    """SAMP-09. A stream of its own for every row, so that each row is what it would be alone."""
    streams = [TorchStream(seed) for seed in seeds]
    return lambda shape: np.stack([stream.exponentials(shape[1]) for stream in streams])


def draw(exponentials: Exponentials) -> Pick:
    """SAMP-01. By chance, each token with its probability."""
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
