"""A network in bfloat16 or float16 without a library that has them: numbers that are rounded after every operation."""

from dataclasses import replace
from typing import Any

import numpy as np

from refgen.model import GPT2
from refgen.oracle.counterfactual import Pass
from refgen.oracle.formats import FORMATS, Format, nearest
from refgen.oracle.noisy import EXACT


class Rounded(np.ndarray[Any, Any]):
    """float64 numbers that all fit `form`, as does whatever NumPy computes from them; sums are exact until then."""

    form: Format

    def __array_finalize__(self, origin: Any) -> None:
        if isinstance(origin, Rounded):
            self.form = origin.form

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, out: Any = None, **options: Any) -> Any:
        plain = [each.view(np.ndarray) if isinstance(each, Rounded) else each for each in operands]
        y = getattr(ufunc, method)(*plain, **options)
        if not isinstance(y, np.ndarray) or y.dtype != np.float64:
            return y
        if ufunc in EXACT and out is None:
            return rounded(y, self.form)
        with np.errstate(invalid="ignore"):
            y = np.where(np.isfinite(y), nearest(y, self.form), y)
        if out is None:
            return rounded(y, self.form)
        out[0].view(np.ndarray)[...] = y
        return out[0]

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        result = super().__array_function__(function, types, arguments, options)
        return rounded(result, self.form) if type(result) is np.ndarray and result.dtype == np.float64 else result


def rounded(array: Any, form: Format) -> Rounded:
    """`array` of such numbers."""
    result = np.asarray(array, dtype=np.float64).view(Rounded)
    result.form = form
    return result


def rounded_network(gpt2: GPT2, dtype: str) -> GPT2:
    """A network in float64 whose weights fit `dtype`, computing in `dtype`: one rounded operand is enough."""
    return replace(gpt2, wte=rounded(gpt2.wte, FORMATS[dtype]))


def run_in(dtype: str, p: Pass) -> np.ndarray[Any, Any]:
    """The logits of a pass whose network is in float64, as an implementation in `dtype` computes them."""
    return np.asarray(replace(p, gpt2=rounded_network(p.gpt2, dtype)).run().view(np.ndarray))
