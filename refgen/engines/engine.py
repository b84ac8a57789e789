"""The contract of an engine: one network made ready to be computed, in one way.

An engine is a class with a `name`, a line in `ENGINES` (engines/__init__.py) and one method, `run`. Everything around it is
here and the same for all: what is refused, what is filled in, what `note` is shown.

What it is given      A `GPT2` as data, float32 or float64, when it is made; a `Work` each time it runs.
What it keeps         Between calls nothing but its network and what it derived from the weights. What a sequence needs is in the
                      `Cache` of the caller. An engine may be used by several threads at once, each with its own cache.
Weights               `lay_out` is called for each tensor while a checkpoint is read, and may return the same numbers in another
                      memory order; packed or widened copies are made in `__init__`.
Positions             `run` leaves the keys and values of the new positions in every layer of the cache, and advances it when
                      all is done. A pass that fails or is interrupted leaves the cache as it was (CACHE-04).
Prompts               Who cuts a long prompt into parts is the engine; the caller sees one pass.
`note`                Is shown every stage that model.py names, in its order, as a plain array. An engine that fuses steps hands a
                      pass that somebody watches to a way that does not, with the same bounds.
Rows                  A cache's rows can be taken out, repeated and joined by others between passes (`Cache.select`, `Cache.join`),
                      so a server can let requests come and go while a batch runs. An engine that splits a batch does the same.
Held to               model.py: float64 within a stated bound, float32 and coarser within the modelled rounding error
                      (oracle/noise.py); tests/properties/test_engine_laws.py asks every engine in `ENGINES`.

Axes    B rows of the batch, T new positions, S cached and new positions, K positions whose logits are asked for, V tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.errors import InputError
from refgen.inputs import check_ids, check_mask, check_positions
from refgen.memory import Need
from refgen.model import GPT2, Note, positions, silent
from refgen.shapes import Float, Int

LESS = "Pass fewer rows at once, or logits_to_keep=1 for the last position's logits alone."
Watcher = Callable[[str, ndarray], object]


@dataclass(frozen=True)
class Work:
    """One pass: what `run` is given, all of it checked."""

    input_ids: Int[ndarray, "B T"]
    attention_mask: Int[ndarray, "B S"]
    position_ids: Int[ndarray, "B T"]
    cache: Cache
    note: Note  # `silent` if nobody watches
    keep: int  # K, from 1 to T


class Engine(ABC):
    """A network and a way to compute it. `gpt2` is the network as this engine reads it: the same numbers, laid out its way."""

    name: ClassVar[str]

    def __init__(self, gpt2: GPT2) -> None:
        self.gpt2 = gpt2

    @staticmethod
    def lay_out(name: str, weight: ndarray) -> ndarray:  # noqa: ARG004 - of use to engines that do
        """The tensor of that name, such as `h.3.mlp.c_fc.weight`, in the memory order in which this engine reads it fastest."""
        return weight

    @abstractmethod
    def run(self, work: Work) -> Float[ndarray, "B K V"]:
        """The logits of the last K positions."""

    @property
    def config(self) -> GPT2Config:
        """The sizes and switches of the network."""
        return self.gpt2.config

    def forward(
        self,
        input_ids: Int[ndarray, "B T"],
        attention_mask: Int[ndarray, "B S"] | None = None,
        position_ids: Int[ndarray, "B T"] | None = None,
        cache: Cache | None = None,
        note: Watcher = silent,
        logits_to_keep: int = 0,
    ) -> Float[ndarray, "B K V"]:
        """FWD-01 to FWD-04, FWD-21, PAD-05, BATCH-01. The logits of the token that follows each of `input_ids`.

        `attention_mask` (1 token, 0 padding; default all 1) covers cached and new positions; `position_ids` follow from it
        unless given. `cache` holds the positions before these and gains these. `note` is shown every stage by name.
        `logits_to_keep` = n > 0 returns those of the last n positions only (FWD-20). Raises `InputError` for what cannot
        be computed.
        """
        cache = Cache() if cache is None else cache
        cache.check_layers(len(self.gpt2.h))
        check_ids(input_ids, self.config)
        if logits_to_keep < 0:
            remedy = "0 keeps all positions."
            raise InputError(f"logits_to_keep={logits_to_keep}", "must be at least 0", "FWD-20", remedy)
        B, T = input_ids.shape
        if attention_mask is None:
            attention_mask = np.ones((B, len(cache) + T), dtype=np.int64)
        check_mask(attention_mask, B, len(cache), T)
        if position_ids is None:
            position_ids = positions(attention_mask, T)
        check_positions(position_ids, B, T, self.config)
        keep = min(logits_to_keep or T, T)
        with self.need(B, T, keep, cache).check().or_refused():
            return self.run(Work(input_ids, attention_mask, position_ids, cache, watched(note), keep))

    def need(self, B: int, T: int, keep: int, cache: Cache) -> Need:
        """ROOM-01. The bytes of what a pass leaves: the logits of `keep` positions a row, and room in the cache."""
        config, dtype = self.config, self.gpt2.wte.dtype
        heads = (B, config.n_head, T, config.n_embd // config.n_head)
        logits = B * keep * config.vocab_size * dtype.itemsize
        parts = {"logits": logits, "cache": cache.growth(config.n_layer, heads, dtype)}
        return Need(f"a pass over {B} x {T} tokens", parts, InputError, LESS)


def watched(note: Watcher) -> Note:
    """A `note` that shows each array and goes on with it, whatever the watcher returns."""
    if note is silent:
        return silent

    def show(name: str, array: ndarray) -> ndarray:
        note(name, array.view(ndarray))
        return array

    return show
