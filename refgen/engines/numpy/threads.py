"""Threads: as many as NumPy's BLAS has, and work shared among them row by row. Changes no result.

There is one number, the BLAS's own: `set_num_threads`, OPENBLAS_NUM_THREADS or OMP_NUM_THREADS before Python starts, and tools
such as threadpoolctl all change it, and refgen shares its work among as many, so that there are never more at work.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from importlib import import_module
from threading import Lock, local
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.errors import InputError

BLOCK = 2**16  # numbers that a step works on, so that they and what is made of them stay in a core's cache


def get_num_threads() -> int:
    """How many threads NumPy's BLAS uses; of one that cannot be asked, what the environment says, else one a core."""
    if (ask := openblas("get_num_threads")) is not None:
        return max(1, ask())
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 0:
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(count: int) -> None:
    """Makes refgen, and NumPy's BLAS in the whole process, use `count` threads from now on.

    Raises `InputError` for less than one, or if the BLAS is none that can be told.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"count={count!r}", "must be a whole number of threads, at least 1")
    if (tell := openblas("set_num_threads")) is None:
        raise InputError(
            f"count={count}",
            "this NumPy's BLAS cannot be told how many threads to use",
            remedy="Set OMP_NUM_THREADS before Python starts.",
        )
    tell(count)


INSIDE = local()  # whether this thread is in a task of `share`


class Claims:
    """How many want the BLAS to use one thread, and how many it used before."""

    lock, count, before = Lock(), 0, 0


@contextmanager
def one_thread_each() -> Iterator[None]:
    """NumPy's BLAS uses one thread until the last who asked for it is done, so that threads of ours do not have threads."""
    if openblas("set_num_threads") is None:
        yield
        return
    with Claims.lock:
        if Claims.count == 0:
            Claims.before = get_num_threads()
            set_num_threads(1)
        Claims.count += 1
    try:
        yield
    finally:
        with Claims.lock:
            Claims.count -= 1
            if Claims.count == 0:
                set_num_threads(Claims.before)


@cache
def openblas(name: str) -> Any:
    """That function of the OpenBLAS that NumPy has loaded, such as "get_num_threads"; None if it has another BLAS."""
    try:
        core = import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(core.__file__)  # what this loads is looked through too
    except (ImportError, AttributeError, OSError):
        return None
    names = [f"{scipy}openblas_{name}{bits}" for scipy in ("scipy_", "") for bits in ("64_", "")]
    return next((getattr(library, each) for each in names if hasattr(library, each)), None)


@cache
def workers(count: int) -> ThreadPoolExecutor:
    """Threads that wait for work."""
    return ThreadPoolExecutor(count, thread_name_prefix="refgen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not live on in a child


def share(task: Callable[[int], None], parts: int) -> None:
    """Calls `task` with 0 to `parts` - 1, each in a thread, the first in the caller's; the first failure is raised when all are done."""
    if getattr(INSIDE, "a_task", False):  # of ours: it may hold the very threads that it would wait for
        for part in range(parts):
            task(part)
        return

    def run(part: int) -> None:
        INSIDE.a_task = True
        try:
            task(part)
        finally:
            INSIDE.a_task = False

    others: list[Future[None]] = []
    try:
        others.extend(workers(parts - 1).submit(copy_context().run, run, part) for part in range(1, parts))
        run(0)
    finally:
        try:
            wait(others)
        except BaseException:  # an interrupt: what the others write to must not be used before they are done
            wait(others)
            raise
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
    out, parts = np.empty(rows.shape, x.dtype), min(get_num_threads(), -(-len(rows) // step))

    def fill(part: int) -> None:
        for start in range(part * step, len(rows), parts * step):
            out[start : start + step] = function(rows[start : start + step])

    share(fill, parts)
    return out.reshape(x.shape)
