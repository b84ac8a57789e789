"""The model as a function from ids to the next token's logits: all that the loop and the search know of it.

Axes    B rows, S columns so far, V tokens.
"""

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine, Watcher
from refgen.model import silent

NextLogits = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], mask [B S]) -> [B V]


def by_forward(
    engine: Engine, cache: Cache | None, note: Watcher = silent, chunk: int | None = None, leave: bool = False
) -> NextLogits:
    """CACHE-02, SAMP-06. The engine as such a function; with a cache, it computes only the columns that are new.

    chunk  no pass takes more columns than that (CACHE-03)
    leave  finished rows, whose last column is masked, leave the cache; their logits are 0 (BATCH-03)
    """
    held = np.zeros(0, dtype=np.int64)  # the rows in the cache

    def next_logits(ids: ndarray, mask: ndarray) -> ndarray:
        nonlocal held
        rows = np.flatnonzero(mask[:, -1]) if leave else np.arange(len(ids))
        if cache is not None and len(rows) < len(held):
            cache.select(np.searchsorted(held, rows))
        held = rows
        logits = read(ids[rows], mask[rows])
        whole = np.zeros((len(ids), logits.shape[1]), logits.dtype)
        whole[rows] = logits
        return whole

    def read(ids: ndarray, mask: ndarray) -> ndarray:
        while cache is not None and chunk is not None and ids.shape[1] - len(cache) > chunk:
            end = len(cache) + chunk
            engine.forward(ids[:, len(cache) : end], mask[:, :end], cache=cache, logits_to_keep=1)
        new = ids if cache is None else ids[:, len(cache) :]
        return engine.forward(new, mask, cache=cache, note=note, logits_to_keep=1)[:, -1]

    return next_logits
