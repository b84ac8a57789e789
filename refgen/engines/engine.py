"""An engine: one network, ready to be computed. The contract that every way to compute it keeps.

Axes    B rows of the batch, T new positions, S cached and new positions, V tokens.
"""

from collections.abc import Callable

from numpy import ndarray

from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.model import GPT2, Note, forward, silent


class Engine:
    """A network and a way to compute it."""

    name = "numpy"

    def __init__(self, gpt2: GPT2) -> None:
        self.gpt2 = gpt2

    @property
    def config(self) -> GPT2Config:
        """The sizes and switches of the network."""
        return self.gpt2.config

    def forward(
        self,
        input_ids: ndarray,
        attention_mask: ndarray | None = None,
        position_ids: ndarray | None = None,
        cache: Cache | None = None,
        note: Note = silent,
        logits_to_keep: int = 0,
    ) -> ndarray:
        """The logits `[B T V]` after each of `input_ids` `[B T]`, or after the last `logits_to_keep`."""
        return forward(self.gpt2, input_ids, attention_mask, position_ids, cache, note, logits_to_keep)


def find_engine(name: str) -> Callable[[GPT2], Engine]:
    """What makes an engine of that name from a network."""
    del name
    return Engine
