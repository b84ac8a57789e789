"""The random stream of torch's CPU generator, bit for bit, without torch. Rules SAMP-03, SAMP-04 and SAMP-09 of SPEC.md.

Axes    B rows, V tokens.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray

Exponentials = Callable[[tuple[int, ...]], ndarray]  # [B V] -> the next draws in that shape


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


def shared_exponentials(seed: int) -> Exponentials:
    """SAMP-04. One stream for the batch, row after row, V draws a row and step, as in torch."""
    stream = TorchStream(seed)
    return lambda shape: stream.exponentials(math.prod(shape)).reshape(shape)


def exponentials_per_row(seeds: Sequence[int]) -> Exponentials:
    """SAMP-09. Every row has its own stream, so that each row gets the tokens it would get alone."""
    streams = [TorchStream(seed) for seed in seeds]
    return lambda shape: np.stack([stream.exponentials(shape[1]) for stream in streams])
