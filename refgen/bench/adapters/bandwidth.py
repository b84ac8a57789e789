"""No model: how fast this machine reads memory with as many threads, the ceiling for one row's decoding."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

SIZE = 128 * 2**20  # bytes a thread reads, far more than its share of any cache
REPEATS = 3


def prepare(folder: Path) -> Path:
    """Nothing to make."""
    return folder


def version() -> str:
    """Of NumPy."""
    return np.__version__


class Model:
    """Every thread multiplies its own array with itself as a dot product, which reads every number once."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:  # noqa: ARG002
        self._arrays = [np.full(SIZE // 4, 1.0, dtype=np.float32) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    def read(self) -> float:
        """Bytes a second, the best of `REPEATS`."""
        best = 0.0
        for _ in range(REPEATS):
            start = perf_counter()
            list(self._pool.map(lambda array: np.dot(array, array), self._arrays))
            best = max(best, SIZE * len(self._arrays) / (perf_counter() - start))
        return best
