"""Matrix products for a few rows, as fast as the weights can be read. Nothing else than x W: rule FWD-06 of SPEC.md.

A BLAS multiplies one row by reading each weight once, which is as fast as memory allows; but for 2 to 32 rows, a batch
that takes a step, it copies every weight before it uses it. So such a product is cut into tiles small enough that
the BLAS takes them from where they lie, and shared among as many threads as the BLAS has. It is still a sum of I
products for each element, in another order: within I 2^-24 sum |x w| of the exact one, like the BLAS's own.

Axes    M rows, I in, O out; d and w of a tile, deep and wide.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
from numpy import ndarray

FEW = range(2, 33)  # rows; of more, a copied weight is used often enough
LARGE = 2**16  # weights; of fewer, the product is over before a thread has begun
TILE = 2**18  # multiplications; of more, OpenBLAS would start threads of its own
DEEP = 128


def product(x: ndarray, weight: ndarray) -> ndarray:
    """FWD-06. x `[M I]` times weight `[I O]`, in any memory order of the latter."""
    M, (I, O) = len(x), weight.shape  # noqa: E741
    deep = divisor(I)
    if M not in FEW or weight.size < LARGE or deep is None:
        return x @ weight
    wide = max(16, TILE // (M * deep) // 16 * 16)
    out = np.empty((M, O), x.dtype)
    edges = [O * part // (threads() * wide) * wide for part in range(threads())] + [O]
    tasks = [(x, weight[:, a:b], out[:, a:b], deep, wide) for a, b in pairwise(edges) if b > a]
    others = [workers().submit(by_tiles, *task) for task in tasks[1:]]
    by_tiles(*tasks[0])
    finish(others)
    return out


def by_tiles(x: ndarray, weight: ndarray, out: ndarray, deep: int, wide: int) -> None:
    """Fills `out` `[M O]`: all tiles in one call, then their sums; what is left at the right edge plainly."""
    (M, I), O = x.shape, weight.shape[1]  # noqa: E741
    n = O // wide * wide
    rows = x.reshape(M, I // deep, deep).swapaxes(0, 1)[:, None]  # [I/d 1 M d]
    tiles = weight[:, :n].reshape(I // deep, deep, n // wide, wide).swapaxes(1, 2)  # [I/d O/w d w]
    out[:, :n].reshape(M, n // wide, wide).swapaxes(0, 1)[:] = np.matmul(rows, tiles).sum(axis=0)
    if n < O:
        out[:, n:] = x @ weight[:, n:]


def divisor(size: int) -> int | None:
    """The largest divisor of `size` up to DEEP, if it is not tiny."""
    found = next(each for each in range(min(DEEP, size), 0, -1) if size % each == 0)
    return found if found >= 16 else None


# --- Threads ----------------------------------------------------------------------------------------------


@cache
def threads() -> int:
    """How many threads OpenBLAS uses: OPENBLAS_NUM_THREADS, else OMP_NUM_THREADS, else one for each core it may use."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 0:
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def workers() -> ThreadPoolExecutor:
    """Threads that wait for products, one fewer than `threads()`: the caller works too."""
    return ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="refgen-product")


def finish(others: list[Future[None]]) -> None:
    """Waits for all; the first failure is raised."""
    for each in others:
        each.result()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not live on in a child
