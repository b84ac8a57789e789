"""Weights in the memory order in which one row's product reads them fastest. The same numbers: FWD-06 of SPEC.md.

A BLAS multiplies one row by reading each weight once, which is as fast as memory allows, and does so best along the longer side
of a weight. So a weight with more outputs than inputs keeps the order of the file, in which an input's numbers are
neighbours. The others are transposed, so that an output's numbers are neighbours.

Axes    I in, O out.
"""

import numpy as np
from numpy import ndarray

from refgen.engines.numpy.threads import get_num_threads, share

LARGE = 2**16  # weights; of fewer, the work is over before a thread has begun
STRIP = 128  # rows that a core's cache holds while they are turned


def laid_out(weight: ndarray) -> ndarray:
    """`weight` `[I O]`, turned in memory if its outputs are not more than its inputs; in one order, whatever the file's."""
    if weight.shape[1] > weight.shape[0]:
        return np.ascontiguousarray(weight)
    if weight.flags.f_contiguous:
        return weight
    turned = np.empty(weight.shape[::-1], weight.dtype)
    strips = range(0, len(weight), STRIP)
    parts = min(get_num_threads(), len(strips)) if weight.size >= LARGE else 1

    def fill(part: int) -> None:
        for start in strips[part::parts]:
            turned[:, start : start + STRIP] = weight[start : start + STRIP].T

    share(fill, parts)
    return turned.T
