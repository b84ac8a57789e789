"""Threads: as many as OpenBLAS has, and work shared among them row by row. Changes no result.

Set OPENBLAS_NUM_THREADS (or OMP_NUM_THREADS) before Python starts; both kinds of threads go by it, so that there are
never more at work than that.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cache

import numpy as np
from numpy import ndarray

BLOCK = 2**16  # numbers that a step works on, so that they and what is made of them stay in a core's cache


@cache
def threads() -> int:
    """How many threads OpenBLAS uses: OPENBLAS_NUM_THREADS, else OMP_NUM_THREADS, else one for each core it may use."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 0:
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def workers() -> ThreadPoolExecutor:
    """Threads that wait for work, one fewer than `threads()`: the caller works too."""
    return ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="refgen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not live on in a child


def share(task: Callable[[int], None], parts: int) -> None:
    """Calls `task` with 0 to `parts` - 1, each in a thread; the first failure is raised when all are done."""
    others = [workers().submit(copy_context().run, task, part) for part in range(1, parts)]
    try:
        task(0)
    finally:
        wait(others)
    for each in others:
        each.result()


def by_rows(function: Callable[[ndarray], ndarray], x: ndarray) -> ndarray:
    """`function(x)`, which looks at each row `[..., C]` by itself and keeps the shape: some rows at a time.

    An array of a class of its own is left whole, because its arithmetic may not be that of each row by itself.
    """
    rows = x.reshape(-1, x.shape[-1])
    step = max(1, BLOCK // rows.shape[1])
    if len(rows) <= step or type(x) is not ndarray:
        return function(x)
    out, parts = np.empty(rows.shape, x.dtype), min(threads(), -(-len(rows) // step))

    def fill(part: int) -> None:
        for start in range(part * step, len(rows), parts * step):
            out[start : start + step] = function(rows[start : start + step])

    share(fill, parts)
    return out.reshape(x.shape)
