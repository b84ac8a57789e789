"""The prompt: the rows before the first step. Rules IN-01 to IN-04 and PAD-01 to PAD-07 of SPEC.md.

Axes    B rows, P prompt columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.config import GPT2Config
from refgen.errors import InputError
from refgen.generation.config import GenerationConfig
from refgen.inputs import check_ids, check_positions, whole_numbers
from refgen.model import positions


@dataclass(frozen=True)
class Prompt:
    """`ids` and `mask`, int64 `[B P]`; the mask is 1 at tokens and 0 at padding."""

    ids: ndarray
    mask: ndarray

    @property
    def width(self) -> int:
        """P, padding included."""
        return int(self.ids.shape[1])

    def repeated(self, n: int) -> "Prompt":
        """SAMP-07. Every row n times in a row: a a a b b b."""
        return Prompt(self.ids.repeat(n, axis=0), self.mask.repeat(n, axis=0))


def contexts(ids: ndarray, mask: ndarray) -> Iterator[tuple[int, list[int]]]:
    """REP-02. Every row's number, and its tokens from its first unmasked column on, without padding.

    The mask may end with the prompt.
    """
    for row, first in enumerate(mask.argmax(axis=1)):
        yield row, ids[row, first:].tolist()


NAMES = ("input_ids", "attention_mask")  # of the arguments that a prompt comes in


def read_prompt(
    input_ids: Any, attention_mask: Any, config: GenerationConfig, names: tuple[str, str] = NAMES
) -> Prompt:
    """The prompt a caller means; raises `InputError`, which cites `names`, where it could mean two things."""
    ids_name, mask_name = names
    ids = read_ids(input_ids, config, ids_name)
    if attention_mask is None:
        if input_ids is None:
            return Prompt(ids, np.ones_like(ids))  # the begin token is text, also where it pads (IN-02)
        return Prompt(ids, inferred_mask(ids, config, names))
    mask = whole_numbers(mask_name, attention_mask)
    if mask.shape != ids.shape:
        raise InputError(
            f"{mask_name} of shape {list(mask.shape)}",
            f"must be {list(ids.shape)}, like {ids_name}",
            "PAD-07",
            "It is continued for new tokens by itself.",
        )
    if not np.isin(mask, (0, 1)).all():
        raise InputError(mask_name, "must hold only 0 (padding) and 1 (token)", "PAD-07")
    for row in np.flatnonzero(mask[:, -1] == 0):
        if not mask[row].any():
            raise InputError(f"row {row} of {mask_name}", "is all padding", "PAD-07", "Give every row a token.")
        raise InputError(
            f"row {row} of {ids_name}",
            "is padded on the right, where its new tokens belong",
            "PAD-06",
            'Pad on the left: tokenizer.padding_side = "left".',
        )
    return Prompt(ids, mask)


def fitted(prompt: Prompt, model: GPT2Config, name: str = "input_ids") -> Prompt:
    """FWD-23. The prompt itself; raises `InputError` if an id or a position is not one of the model's."""
    check_ids(prompt.ids, model, name)
    check_positions(positions(prompt.mask, prompt.width), len(prompt.ids), prompt.width, model)
    return prompt


def read_ids(input_ids: Any, config: GenerationConfig, name: str) -> ndarray:
    """IN-01 to IN-03. int64 `[B P]`; without any, the prompt is one `bos_token_id`."""
    if input_ids is None:
        if config.bos_token_id is None:
            raise InputError(f"{name}=None", "there is no bos_token_id to begin with", "IN-02", "Pass a prompt.")
        return np.array([[config.bos_token_id]])
    ids = whole_numbers(name, input_ids)
    if ids.ndim != 2:
        raise InputError(
            f"{name} of shape {list(ids.shape)}",
            "must be [rows, tokens]",
            "IN-01",
            "One sequence has shape [1, T]: pass [ids]." if ids.ndim == 1 else "",
        )
    if 0 in ids.shape:
        raise InputError(
            f"{name} of shape {list(ids.shape)}",
            "the prompt is empty",
            "IN-03",
            "Begin with a token, for instance tokenizer.bos_token_id.",
        )
    return ids


def inferred_mask(ids: ndarray, config: GenerationConfig, names: tuple[str, str]) -> ndarray:
    """PAD-01 to PAD-03. Without a mask, pad ids on the left are padding; wherever that is a guess, it is an error."""
    pad = config.pad_token_id
    padding = np.zeros_like(ids, dtype=bool) if pad is None else ids == pad
    left = np.logical_and.accumulate(padding, axis=1)
    if pad in config.eos_ids:  # GPT-2's habit: then such an id at either end may just as well be text
        before = left.sum(axis=1)
        behind = np.logical_and.accumulate(padding[:, ::-1], axis=1).sum(axis=1)
        if (before != before[0]).any() or (before > 1).any() or (behind != behind[0]).any():
            raise InputError(
                " without ".join(names),
                f"begin or end with pad_token_id={pad}, which is an end token too, so padding and text look the same",
                "PAD-03",
                "Pass the tokenizer's attention_mask.",
            )
        return np.ones_like(ids)
    if (padding & ~left).any() or left.all(axis=1).any():
        raise InputError(
            " without ".join(names),
            f"hold pad_token_id={pad} inside or after the text, where it cannot be padding",
            "PAD-02",
            f"Pass {names[1]}, all ones if every id is text.",
        )
    return (~left).astype(np.int64)
