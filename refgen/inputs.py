"""Arrays from callers: the one place where lists, arrays and tensors become int64 arrays, and what a pass refuses.

Axes    B rows, T new positions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.config import GPT2Config
from refgen.errors import InputError


def whole_numbers(name: str, values: Any) -> ndarray:
    """IN-01. An int64 copy of any array, tensor on the CPU or nested list of whole numbers; bool counts for a mask."""
    if isinstance(values, Mapping):
        raise InputError(name, "is a mapping, not an array", "IN-01", "Pass **encoding, or encoding['input_ids'].")
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(
            name, "has rows of different lengths", "IN-01", "Pad them: tokenizer(..., padding=True)."
        ) from None
    except Exception as error:  # noqa: BLE001 - tensors raise many kinds
        remedy = "Of a tensor pass tensor.detach().cpu()."
        raise InputError(name, f"is not an array that NumPy can read ({error})", "IN-01", remedy) from None
    if array.dtype.kind == "b" and name.endswith("attention_mask"):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} of dtype {array.dtype}", "must be whole numbers", "IN-01")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} contain {array.max()}", "does not fit 64 bits with a sign", "IN-01")
    return array.astype(np.int64)


def check_ids(input_ids: ndarray, config: GPT2Config, name: str = "input_ids") -> None:
    """FWD-23, FWD-24. Whole numbers in `[B, T]`, at least one row and one column, each the id of a token."""
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InputError(
            f"{name} of shape {list(input_ids.shape)}",
            "must be [rows, tokens] with at least one of each",
            "FWD-24",
            "One sequence has shape [1, T]: add the axis with ids[None, :]." if input_ids.ndim == 1 else "",
        )
    if input_ids.dtype.kind not in "iu":
        raise InputError(f"{name} of dtype {input_ids.dtype}", "must be whole numbers", "FWD-24")
    for worst in (input_ids.min(), input_ids.max()):
        if not 0 <= worst < config.vocab_size:
            raise InputError(
                f"{name} contain {worst}",
                f"token ids of this model run from 0 to {config.vocab_size - 1}",
                "FWD-23",
                "Use the tokenizer that belongs to the model.",
            )


def check_mask(attention_mask: ndarray, B: int, past: int, T: int) -> None:
    """FWD-12. One 0 or 1 for each cached and each new position; transformers takes other widths, and is wrong."""
    if attention_mask.shape != (B, past + T):
        raise InputError(
            f"attention_mask of shape {list(attention_mask.shape)}",
            f"must be [{B}, {past + T}]: {B} rows of {past} cached and {T} new positions",
            "FWD-12",
        )
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise InputError("attention_mask", "must hold only 0 (padding) and 1 (token)", "FWD-12")


def check_positions(position_ids: ndarray, B: int, T: int, config: GPT2Config) -> None:
    """FWD-23. Positions are rows of `wpe`: 0 to n_positions - 1."""
    if position_ids.shape != (B, T) or position_ids.dtype.kind not in "iu":
        raise InputError(
            f"position_ids of shape {list(position_ids.shape)} and dtype {position_ids.dtype}",
            f"must be whole numbers in [{B}, {T}]",
            "FWD-24",
        )
    for worst in (position_ids.min(), position_ids.max()):
        if not 0 <= worst < config.n_positions:
            raise InputError(
                f"position {worst}",
                f"this model has n_positions={config.n_positions}, so positions 0 to {config.n_positions - 1}",
                "FWD-23",
                "Shorten the prompt or ask for fewer new tokens.",
            )
