"""Matrix products for a few rows, as fast as the weights can be read. Nothing else than x W: rule FWD-06 of SPEC.md.

A BLAS multiplies one row by reading each weight once, which is as fast as memory allows; but for 2 to 48 rows, a batch
that takes a step, it copies every weight before it uses it. So such a product is cut into tiles of up to 10^6
multiplications, which OpenBLAS takes from where they lie, and shared among as many threads as the BLAS has. It is still
a sum of I products for each element, in another order: within I 2^-24 sum |x w| of the exact one, as the BLAS's own is.

One row is multiplied fastest along the longer side of a weight. So `laid_out` leaves a weight with more outputs than inputs
as files have it, an input's numbers one behind the other, and puts those of an output one behind the other elsewhere.

Axes    M rows, I in, O out; d and w of a tile, deep and wide.
"""

from functools import cache

import numpy as np
from numpy import ndarray

from refgen.engines.numpy.threads import get_num_threads, share

FEW = range(2, 49)  # rows; of more, a copied weight is used often enough
LARGE = 2**16  # weights; of fewer, the product is over before a thread has begun
STRIP = 128


def tile(M: int, *, by_outputs: bool) -> tuple[int, int]:
    """The most depth, and the width, of a tile for M rows that OpenBLAS multiplies in place, by measurement."""
    if by_outputs or M > 16:
        return 768, 32 if M <= 32 else 16
    return 96, 384  # a row of a tile is what lies together in memory


def product(x: ndarray, weight: ndarray) -> ndarray:
    """FWD-06. x `[M I]` times weight `[I O]`, in any memory order of the latter; an array of a class of its own does it itself."""
    M, (I, O) = len(x), weight.shape  # noqa: E741
    most, wide = tile(M, by_outputs=weight.flags.f_contiguous)
    if M not in FEW or weight.size < LARGE or (deep := divisor(I, most)) is None or type(x) is not ndarray:
        return x @ weight
    out = np.empty((M, O), x.dtype)
    parts = get_num_threads()
    edges = [O * part // (parts * wide) * wide for part in range(parts)] + [O]

    def fill(part: int) -> None:
        columns = slice(edges[part], edges[part + 1])
        by_tiles(x, weight[:, columns], out[:, columns], deep, wide)

    share(fill, parts)
    return out


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


def laid_out(weight: ndarray) -> ndarray:
    """`weight` `[I O]`, one row's product of which is fast: turned in memory if its outputs are not more than its inputs."""
    if weight.flags.f_contiguous or weight.shape[1] > weight.shape[0]:
        return weight
    turned = np.empty(weight.shape[::-1], weight.dtype)
    strips = range(0, len(weight), STRIP)  # of rows that a core's cache holds while they are turned
    parts = min(get_num_threads(), len(strips)) if weight.size >= LARGE else 1

    def fill(part: int) -> None:
        for start in strips[part::parts]:
            turned[:, start : start + STRIP] = weight[start : start + STRIP].T

    share(fill, parts)
    return turned.T
