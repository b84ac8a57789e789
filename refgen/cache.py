"""The keys and values of the positions so far, so that a new token costs one position. Rules CACHE-01 to CACHE-06.

Axes    B rows, H heads, S positions so far, D head width; T positions being added.
"""

import numpy as np
from numpy import ndarray

from refgen.errors import InputError


class Cache:
    """Keys and values of all layers, `[B H S D]` each. `len(cache)` is S, counting padding.

    A forward pass appends to every layer and then advances once, so a pass that fails or is interrupted
    half-way leaves the cache as it was.
    """

    def __init__(self) -> None:
        self._layers: list[ndarray] = []  # one [2 B H capacity D] a layer: keys, values
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, layer: int, k: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
        """Puts `k`, `v` `[B H T D]` behind what this layer holds; returns views of all its keys and values."""
        B, H, T, D = k.shape
        end = self._length + T
        if layer == len(self._layers):
            self._layers.append(np.empty((2, B, H, 0, D), k.dtype))
        room = self._layers[layer]
        if room.shape[1] != B:
            raise InputError(
                f"{B} rows", f"the cache holds {room.shape[1]} rows", "CACHE-01", "Start with a new cache."
            )
        if room.shape[3] < end:  # twice as much as needed, so that copying stays cheap however long it grows
            larger = np.empty((2, B, H, 2 * end, D), k.dtype)
            larger[..., : self._length, :] = room[..., : self._length, :]
            room = self._layers[layer] = larger
        room[0, :, :, self._length : end] = k
        room[1, :, :, self._length : end] = v
        return room[0, :, :, :end], room[1, :, :, :end]

    def advance(self, T: int) -> None:
        """Counts the T positions that every layer has appended."""
        self._length += T

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` positions (CACHE-06)."""
        if not 0 <= length <= self._length:
            raise InputError(f"length={length}", f"the cache holds {self._length} positions", "CACHE-06")
        self._length = length
