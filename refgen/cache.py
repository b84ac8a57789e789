"""The keys and values of the positions so far, so that a new token costs one position. Rules CACHE-01 to CACHE-06.

Axes    B rows, H heads, S positions so far, D head width; T positions being added.
"""

from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from refgen.errors import InputError

FEW = 128  # positions, room for which is made at once if they are expected


class Cache:
    """Keys and values of all layers, `[B H S D]` each. `len(cache)` is S, counting padding.

    A forward pass appends to every layer and then advances once, so a pass that fails or is interrupted
    half-way leaves the cache as it was. `expected` is the most positions it is to hold, where that is known.
    """

    def __init__(self, expected: int | None = None) -> None:
        self._layers: list[ndarray] = []  # one [2 B H capacity D] a layer: keys, values
        self._length = 0
        self._expected = expected

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> int:
        """B, the number of rows it holds; 0 while it is empty."""
        return int(self._layers[0].shape[1]) if self._length else 0

    def append(self, layer: int, k: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
        """Puts `k`, `v` `[B H T D]` after those that this layer holds, and returns views of all its keys and values."""
        self.make_room(layer, k.shape, k.dtype)
        return self.put(layer, self._length, k, v)

    def make_room(self, layer: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """For keys and values of `shape` `[B H T D]` after those that this layer holds."""
        B, H, T, D = shape
        end = self._length + T
        if self._length == 0:  # nothing to keep: also the room left by a pass that failed
            self._layers[layer:] = [np.empty((2, B, H, self._capacity(end), D), dtype)]
        room = self._layers[layer]
        held, new = (room.dtype, *room.shape[1:3], room.shape[4]), (np.dtype(dtype), B, H, D)
        if held != new:
            raise InputError(
                f"{new[0]} keys for {B} rows, {H} heads of {D}",
                f"the cache holds {held[0]} keys for {held[1]} rows, {held[2]} heads of {held[3]}",
                "CACHE-01",
                "Start with a new cache.",
            )
        if room.shape[3] < end:
            larger = np.empty((2, B, H, self._capacity(end), D), dtype)
            larger[..., : self._length, :] = room[..., : self._length, :]
            self._layers[layer] = larger

    def _capacity(self, end: int) -> int:
        """Room for `end` positions and as many more, so that copying stays cheap however long it grows; for none never used."""
        if self._expected is None or end > self._expected:
            return 2 * end
        return min(self._expected, max(2 * end, FEW))

    def growth(self, layers: int, shape: tuple[int, int, int, int], dtype: DTypeLike) -> int:
        """The bytes that `make_room` takes in all layers for keys and values of `shape` `[B H T D]`."""
        B, H, T, D = shape
        end = self._length + T
        if self._length and self._layers[0].shape[3] >= end:
            return 0
        return 2 * layers * B * H * self._capacity(end) * D * np.dtype(dtype).itemsize

    def put(self, layer: int, start: int, k: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
        """Writes `k`, `v` at the positions from `start` on; returns views of all up to their last."""
        room, end = self._layers[layer], start + k.shape[2]
        room[0, :, :, start:end] = k
        room[1, :, :, start:end] = v
        return room[0, :, :, :end], room[1, :, :, :end]

    def check_layers(self, n_layer: int) -> None:
        """Refuses to go on with a model of another depth."""
        if self._length and len(self._layers) != n_layer:
            raise InputError(
                f"{n_layer} layers", f"the cache holds {len(self._layers)}", "CACHE-01", "Start with a new cache."
            )

    def advance(self, T: int) -> None:
        """Counts the T positions that every layer has appended."""
        self._length += T

    def select(self, rows: ndarray) -> None:
        """BEAM-04. Row i goes on as row `rows[i]` was: beams that go on take their keys and values along."""
        self._layers = [np.take(layer, rows, axis=1) for layer in self.layers]

    def join(self, other: "Cache") -> None:
        """BATCH-01. The rows of `other` follow these, and all form one batch from now on.

        All rows end at the same column, so a shorter one begins with padding, which the attention mask must hide: the
        first `len(after) - len(before)` columns of its row are 0.
        """
        mine, others = self.layers, other.layers
        if mine and others and [shape_of(each) for each in mine] != [shape_of(each) for each in others]:
            raise InputError(
                "a cache of another model", "cannot join this one", "CACHE-01", "Join caches of one model."
            )
        length, joined = max(len(self), len(other)), []
        for parts in zip(*filter(None, (mine, others)), strict=True):
            rows = [each.shape[1] for each in parts]
            H, D, dtype = shape_of(parts[0])
            room = np.zeros((2, sum(rows), H, self._capacity(length), D), dtype)
            for part, end in zip(parts, np.cumsum(rows), strict=True):
                room[:, end - part.shape[1] : end, :, length - part.shape[3] : length] = part
            joined.append(room)
        self._layers, self._length = joined, length

    @property
    def layers(self) -> list[ndarray]:
        """What each layer holds, `[2 B H S D]`: keys, then values."""
        return [room[..., : self._length, :] for room in self._layers] if self._length else []

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` positions (CACHE-06)."""
        if not isinstance(length, int | np.integer) or not 0 <= length <= self._length:
            raise InputError(f"length={length!r}", f"the cache holds {self._length} positions", "CACHE-06")
        self._length = int(length)


def shape_of(layer: ndarray) -> tuple[int, int, np.dtype[Any]]:
    """Heads, their width and the kind of number in one layer."""
    return layer.shape[2], layer.shape[4], layer.dtype
