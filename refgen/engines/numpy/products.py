"""Products of a few rows, as a batch takes them at each step. Nothing else than x W: rule FWD-06 of SPEC.md.

A BLAS multiplies one row by reading each weight once, which is as fast as memory allows. For 2 to 48 rows it copies every
weight before it uses it. Some builds of OpenBLAS spare small products that copy (IN_PLACE): there a product is cut into
tiles small enough for it, shared among as many threads as the BLAS has. On other machines tiles lose by a factor of two, and
the product is the BLAS's own. Either way it is a sum of I products for each element, in one order or another.

Axes    M rows, I in, O out; d and w of a tile, deep and wide.
"""

import ctypes
from functools import cache

import numpy as np
from numpy import ndarray

from refgen.engines.numpy.threads import get_num_threads, openblas, share

IN_PLACE = (
    "SkylakeX",
    "Cooperlake",
    "SapphireRapids",
)  # OpenBLAS's kernels that multiply small matrices where they lie
SMALL = 10**6  # multiplications of a product that they take
FEW = range(2, 49)  # rows; of more, a copied weight is used often enough
LARGE = 2**16  # weights; of fewer, the product is over before a thread has begun


@cache
def has_tiles() -> bool:
    """Whether this machine's BLAS multiplies small matrices without copying them."""
    if (ask := openblas("get_corename")) is None:
        return False
    ask.restype = ctypes.c_char_p
    return (ask() or b"").decode() in IN_PLACE


def product(x: ndarray, weight: ndarray) -> ndarray:
    """FWD-06. x `[M I]` times weight `[I O]`, in any memory order of the latter."""
    M, (I, O) = len(x), weight.shape  # noqa: E741
    if M not in FEW or weight.size < LARGE or not has_tiles():
        return x @ weight
    most, wide = tile(M, by_outputs=weight.flags.f_contiguous)
    if (deep := divisor(I, most)) is None:
        return x @ weight
    out = np.empty((M, O), x.dtype)
    parts = get_num_threads()
    edges = [O * part // (parts * wide) * wide for part in range(parts)] + [O]

    def fill(part: int) -> None:
        columns = slice(edges[part], edges[part + 1])
        by_tiles(x, weight[:, columns], out[:, columns], deep, wide)

    share(fill, parts)
    return out


def tile(M: int, *, by_outputs: bool) -> tuple[int, int]:
    """The most depth, and the width, of a tile of SMALL for M rows; measured, by the memory order of the weight."""
    if by_outputs or M > 16:
        return 768, 32 if M <= 32 else 16
    return 96, 384


def by_tiles(x: ndarray, weight: ndarray, out: ndarray, deep: int, wide: int) -> None:
    """Fills `out` `[M O]`: all tiles in one call, then their sums; what is left at the right edge by narrower ones."""
    (M, I), O = x.shape, weight.shape[1]  # noqa: E741
    n = O // wide * wide
    rows = x.reshape(M, I // deep, deep).swapaxes(0, 1)[:, None]  # [I/d 1 M d]
    tiles = weight[:, :n].reshape(I // deep, deep, n // wide, wide).swapaxes(1, 2)  # [I/d O/w d w]
    target = out[:, :n].reshape(M, n // wide, wide).swapaxes(0, 1)  # [O/w M w]
    if deep == I:
        np.matmul(rows[0], tiles[0], out=target)
    else:
        np.matmul(rows, tiles).sum(axis=0, out=target)
    if n < O:
        by_tiles(x, weight[:, n:], out[:, n:], deep, wide // 2)


@cache
def divisor(size: int, most: int) -> int | None:
    """The largest divisor of `size` up to `most`, if it is not tiny."""
    found = next(each for each in range(min(most, size), 0, -1) if size % each == 0)
    return found if found >= 16 else None
