"""A forward pass with one change: what would the logits be if …?

The pass is model.py's own. It shows every stage to its `note` and continues with the array that comes back. So another
norm or other scores replace the right ones, and the network is never written twice.

Axes    B rows, T queries, S keys, C = n_embd, H heads, D = C / H, V tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.inputs import check_ids, check_mask, check_positions
from refgen.model import (
    GPT2,
    Affine,
    attention_scale,
    forward,
    layer_norm,
    merge_heads,
    positions,
    visibility,
)

Norm = Callable[[ndarray, Affine, float], ndarray]  # (x [B T C], its Affine, epsilon) -> [B T C]
Attending = Callable[..., tuple[Any, ...]]  # (q, k, v [B H T D], visible [B 1 T S], scale) -> the same five, changed


def ignored(name: str, array: ndarray) -> None:
    """The watcher that looks at nothing."""


@dataclass(frozen=True)
class Pass:
    """The inputs of one forward pass, and the changes in it."""

    gpt2: GPT2
    input_ids: ndarray  # [B T]
    attention_mask: ndarray  # [B T]
    position_ids: ndarray | None = None  # [B T]; None as they follow from the mask
    prefill: int | None = None  # how many positions went first, before the others came one by one; None for all
    norm: Norm = layer_norm
    attending: tuple[Attending, ...] = ()  # one after the other
    stages: tuple[tuple[str, Callable[[ndarray], ndarray]], ...] = ()  # those that a pattern names, changed

    def run(self, note: Callable[[str, ndarray], object] = ignored) -> ndarray:
        """The logits `[B T V]`; `note` is shown every stage. Raises `InputError`."""
        B, T = self.input_ids.shape
        check_ids(self.input_ids, self.gpt2.config)
        check_mask(self.attention_mask, B, 0, T)
        check_positions(self.positions, B, T, self.gpt2.config)
        otherwise = Otherwise(self, note)
        return forward(self.gpt2, self.input_ids, self.attention_mask, self.positions, note=otherwise.stage)

    @property
    def positions(self) -> ndarray:
        """`[B T]`, as they are given or follow from the mask (PAD-04)."""
        if self.position_ids is not None:
            return self.position_ids
        return positions(self.attention_mask, self.input_ids.shape[1])

    @property
    def steps(self) -> ndarray:
        """`[T]`, whether a position came by itself through a cache."""
        T = self.input_ids.shape[1]
        return np.arange(T) >= (T if self.prefill is None else self.prefill)


class Otherwise:
    """The `note` of a pass that makes the changes, and shows the result to a watcher."""

    def __init__(self, p: Pass, watcher: Callable[[str, ndarray], object]) -> None:
        self._pass, self._watcher = p, watcher
        self._stream = np.empty(0)  # what the next layer norm reads
        self._heads: dict[str, ndarray] = {}  # q, k and v of the present layer
        self._pattern = np.empty(0)
        self._given: tuple[Any, ...] = ()  # what its attention is given

    def stage(self, name: str, array: ndarray) -> ndarray:
        """The stage that the pass goes on with."""
        leaf = name.rpartition(".")[2]
        if leaf in ("ln_1", "ln_2", "ln_f") and self._pass.norm is not layer_norm:
            array = self._pass.norm(
                self._stream, affine(self._pass.gpt2, name), self._pass.gpt2.config.layer_norm_epsilon
            )
        if self._pass.attending:
            array = self._attended(name, leaf, array)
        for pattern, change in self._pass.stages:
            if fnmatchcase(name, pattern):
                array = change(array)
        if leaf in ("drop", "resid_mid") or name.count(".") == 1:
            self._stream = array
        self._watcher(name, array)
        return array

    def _attended(self, name: str, leaf: str, array: ndarray) -> ndarray:
        """Scores, pattern and answers as they are if attention is given something else."""
        if leaf in ("q", "k", "v"):
            self._heads[leaf] = array
        elif leaf == "scores":
            config, T = self._pass.gpt2.config, array.shape[2]
            visible = visibility(self._pass.attention_mask, T)
            self._given = (*self._heads.values(), visible, attention_scale(config, int(name.split(".")[1])))
            for change in self._pass.attending:
                self._given = change(*self._given)
            q, k, _, visible, scale = self._given
            return np.where(visible, q @ k.swapaxes(-1, -2) * scale, -np.inf)
        elif leaf == "pattern":
            self._pattern = array
            return array[..., : self._heads["v"].shape[2]]  # more keys than values there are: what they add is dropped
        elif leaf == "z" and self._given[2] is not self._heads["v"]:
            return merge_heads(self._pattern @ self._given[2])
        return array


def affine(gpt2: GPT2, name: str) -> Affine:
    """The gain and shift of a layer norm, by its stage."""
    if name == "ln_f":
        return gpt2.ln_f
    _, i, norm = name.split(".")
    found: Affine = getattr(gpt2.h[int(i)], norm)
    return found
