"""A long prompt, read in parts by several threads. Changes where numbers are computed, and no rule.

A position needs of those before it only their keys and values, layer by layer. So a prompt is cut into parts of
neighbouring positions. Each thread takes the next part and carries it through all layers. In each layer it waits only
until the part before has stored its keys and values. That keeps every core busy with everything, not only with the
matrix products that a BLAS can share, and no table of attention is ever longer than a part.

Axes    B rows, T new positions.
"""

from collections.abc import Callable
from threading import Event, Lock

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from refgen.cache import Cache
from refgen.engines.numpy.threads import get_num_threads, one_thread_each, share

LEAST, MOST = 64, 256  # rows of a part's matrix products: fewer waste a BLAS, more leave the processor's caches


class Span:
    """A cache as the positions from `start` on see it: they wait for what comes before them, layer by layer.

    `left` says of each layer whether the keys and values of these positions, and of all before, are there.
    """

    def __init__(self, cache: Cache, start: int, before: "Span | None", layers: int) -> None:
        self._cache, self._start, self._before = cache, start, before
        self.left = [Event() for _ in range(layers)]

    def append(self, layer: int, k: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
        """Puts `k`, `v` `[B H T D]` where they belong; returns views of all keys and values up to theirs."""
        both = self._cache.put(layer, self._start, k, v)
        if self._before is not None:
            self._before.left[layer].wait()
        self.left[layer].set()
        return both

    def end(self) -> None:
        """Nobody has to wait any more: the pass has failed."""
        for each in self.left:
            each.set()


class Joined:
    """What parts give, `[B keep ...]` of T positions. Each is put in its place as it comes, so that nothing is there twice."""

    def __init__(self, rows: int, T: int, keep: int) -> None:
        self._rows, self._first, self._keep, self._lock = rows, T - keep, keep, Lock()
        self.whole = np.empty(0)

    def put(self, end: int, given: ndarray) -> None:
        """Those of the positions before `end`."""
        with self._lock:
            if not self.whole.size:
                self.whole = np.empty((self._rows, self._keep, *given.shape[2:]), given.dtype)
        if count := given.shape[1]:
            self.whole[:, end - self._first - count : end - self._first] = given


def in_parts(
    run: Callable[[int, int, Cache | Span], ndarray],
    cache: Cache,
    layers: int,
    shape: tuple[int, int, int, int],
    dtype: DTypeLike,
    keep: int,
) -> ndarray:
    """`run(0, T, cache)`, or the same by `run(start, end, span)` for parts of the positions, joined `[B keep ...]`.

    `shape` `[B H T D]` and `dtype` are those of the keys, and of the values, that the pass leaves in each layer. A part gives
    those of its positions that are among the last `keep`. Each goes to its place as it comes, so that nothing is there twice.
    """
    B, _, T, _ = shape
    threads = get_num_threads()
    if T == 1 or B * T < 2 * LEAST:
        return run(0, T, cache)
    count = min(T, -(-B * T // min(max(B * T // threads, LEAST), MOST)))
    for layer in range(layers):
        cache.make_room(layer, shape, dtype)
    edges = [T * part // count for part in range(count + 1)]
    spans: list[Span] = []
    for start in edges[:-1]:
        spans.append(Span(cache, len(cache) + start, spans[-1] if spans else None, layers))
    joined = Joined(B, T, keep)
    waiting, lock = iter(range(count)), Lock()

    def take_next() -> int | None:
        with lock:
            return next(waiting, None)

    def work(_: int) -> None:
        try:
            while (part := take_next()) is not None:
                joined.put(edges[part + 1], run(edges[part], edges[part + 1], spans[part]))
        except BaseException:
            with lock:
                list(waiting)  # nobody begins another part
            for each in spans:
                each.end()
            raise

    with one_thread_each():
        share(work, min(threads, count))
    return joined.whole
