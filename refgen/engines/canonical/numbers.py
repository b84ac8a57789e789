"""float32 numbers on which every operation is rounded once. Rules CANON-01 to CANON-08 of SPEC.md.

A `Canonical` array is a NumPy array with another arithmetic. Each single operation of NumPy on it gives the exact
value, rounded to the nearest float32, as another Canonical array. So model.py and activations.py need no second
version: with Canonical weights all of a forward pass is canonical, and its formulas say in which order operations are
done.

+ - * / and the square root are rounded once by every float32; sums, dot products and exp, tanh, log1p and erf come from
rounding.py. Constants are rounded to float32. An operation without a rule for rounding is refused.

Axes    M rows, K terms of a sum, N columns.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy import ndarray

from refgen.activations import ERF
from refgen.engines.canonical.rounding import Wide, erf, exp, log1p, matmul, tanh, total, widen

ROUNDED = frozenset({np.add, np.subtract, np.multiply, np.divide, np.sqrt, np.square})  # once, by any float32
EXACT = frozenset(
    {np.maximum, np.minimum, np.negative, np.less, np.less_equal, np.greater, np.greater_equal, np.isfinite, np.isnan}
)
MOVES = frozenset({np.where, np.concatenate, np.split, np.array_split, np.stack, np.swapaxes})
FUNCTIONS: Mapping[np.ufunc, Callable[[ndarray], ndarray]] = {np.exp: exp, np.tanh: tanh, np.log1p: log1p, ERF: erf}
ROWS = 128  # of a product at a time, for the memory's sake


class Canonical(np.ndarray):
    """float32 numbers. `wide` is what a weight's products are made of, kept between passes at twice its memory."""

    wide: Wide | None = None
    turned: Self | None = None

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """The transpose; of a kept head the one that is kept."""
        return super().T if self.turned is None else self.turned

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, out: Any = None, **options: Any) -> Any:
        """CANON-02 to CANON-08. All of NumPy's arithmetic comes here."""
        plain = [plainly(each) for each in operands]
        if ufunc is np.matmul:
            y = product(plain[0], wide(operands[1]))
        elif ufunc is np.add and method == "reduce":
            y = summed(plain[0], **options)
        elif ufunc in FUNCTIONS and method == "__call__":
            y = FUNCTIONS[ufunc](plain[0])
        elif ufunc in EXACT or (ufunc in ROUNDED and method == "__call__"):
            options = {name: value for name, value in options.items() if name not in ("casting", "subok")}
            y = getattr(ufunc, method)(*plain, **options)
        else:
            return NotImplemented
        if out is not None:
            out[0].view(ndarray)[...] = y
            return out[0]
        return canonical(y)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        """What only moves numbers, such as `where`, keeps them canonical; other functions are refused."""
        if function not in MOVES:
            return NotImplemented
        return canonical(super().__array_function__(function, types, arguments, options))


def canonical(y: Any) -> Any:
    """Plain float32 arrays as Canonical ones; anything else as it is."""
    return y.view(Canonical) if type(y) is ndarray and y.dtype == np.float32 else y


def plainly(operand: Any) -> Any:
    """An operand with plain float32 arithmetic: constants and counts are rounded to it."""
    if isinstance(operand, ndarray):
        return operand.view(ndarray)
    return np.float32(operand) if isinstance(operand, int | float | np.number) else operand


def wide(operand: ndarray) -> Wide:
    """The right factor of a product, made ready now or before."""
    found: Wide | None = getattr(operand, "wide", None)
    return widen(operand.view(ndarray)) if found is None else found


def product(x: ndarray, y: Wide) -> ndarray:
    """CANON-04, CANON-06. x y, every element a dot product rounded once; against a weight some rows at a time."""
    if y.numbers.ndim > 2:
        return matmul(x, y)
    rows = x.reshape(-1, x.shape[-1])
    blocks = [matmul(rows[start : start + ROWS], y) for start in range(0, len(rows), ROWS)]
    return np.concatenate(blocks).reshape(*x.shape[:-1], -1)


def summed(x: ndarray, axis: int = 0, keepdims: bool = False, **options: Any) -> ndarray:
    """CANON-05, CANON-07. The sum over the last axis, rounded once; a mean divides it and rounds once more."""
    if axis not in (-1, x.ndim - 1) or not keepdims or options.get("where", True) is not True:
        raise TypeError("canonical sums are over the last axis, which stays")
    return total(x)


def kept(weight: ndarray, *, is_head: bool = False) -> Canonical:
    """CANON-04. A weight whose products, of a head those of its transpose, are made ready once.

    It is read-only from then on, so that its copy stays true.
    """
    weight.flags.writeable = False
    result: Canonical = weight.view(Canonical)
    if is_head:
        result.turned = weight.T.view(Canonical)
        result.turned.wide = widen(weight.T)
    else:
        result.wide = widen(weight)
    return result
