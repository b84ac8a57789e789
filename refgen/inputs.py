"""Arrays from callers: the one place where lists, arrays and tensors become int64 arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

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
        raise InputError(name, f"is no array NumPy can read ({error})", "IN-01", remedy) from None
    if array.dtype.kind == "b" and name.endswith("attention_mask"):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} of dtype {array.dtype}", "must be whole numbers", "IN-01")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} contain {array.max()}", "does not fit 64 bits with a sign", "IN-01")
    return array.astype(np.int64)
