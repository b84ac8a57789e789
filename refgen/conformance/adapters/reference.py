"""refgen as a subject: the example of an adapter in Python, and the subject that must pass everything."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.tokenizer import Tokenizer


class ReferenceSubject:
    """One model folder."""

    name = "refgen"
    dtype = "float32"

    def __init__(self, folder: Path) -> None:
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=self.dtype)
        self.folder = folder

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's; a network may come without."""
        return Tokenizer.from_pretrained(self.folder)

    def encode(self, text: str) -> list[int]:
        """Ids."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text."""
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> ndarray:
        """Logits `[B T V]`."""
        return self.model(input_ids, attention_mask).logits

    def process(self, input_ids: Any, logits: Any, **settings: Any) -> ndarray:
        """Scores `[B V]` of the step after `input_ids` `[B S]`."""
        raise NotImplementedError

    def generate(self, input_ids: Any, attention_mask: Any = None, **settings: Any) -> list[dict[str, Any]]:
        """New tokens of every row, and why it ended."""
        result = self.model.generate(input_ids, attention_mask, return_dict_in_generate=True, **settings)
        P = np.shape(input_ids)[1]
        rows = zip(result.sequences, result.lengths, result.finish, strict=True)
        return [{"new_ids": ids[P:length].tolist(), "finish": finish} for ids, length, finish in rows]
