"""Numbers that err at every operation as rounded ones would: Monte Carlo arithmetic, as an array class.

A `Noisy` array holds float64. Whatever NumPy computes from it is Noisy too and comes out with a random error as large
as rounding makes. So model.py needs no second version: with Noisy embeddings, all of a forward pass is, because one
Noisy operand is enough. The idea is from D. S. Parker, Monte Carlo arithmetic (1997). The errors are listed here. u is
the unit roundoff of the format in which numbers are stored, w that of the format in which sums are added, and ξ is
uniform on [-1, 1]:

Elementwise operation   v (1 + u ξ). Rounding to nearest errs by at most u |v|, and by any part of that alike.

Sum and dot product     Terms t_1 to t_n, their sum y, their squares' sum Q. Added one after the other, partial sum
s_k = t_1 + … + t_k errs by w s_k ξ_k, of variance w² s_k² / 3. The order in which another program adds is unknown, so
all orders are equally likely. Then the k terms of s_k are any k of the n. A term is among them with chance k/n, and two
terms are with chance k (k-1) / (n (n-1)). The products of two different terms add up to y² - Q. So

    E[s_k²] = k/n Q + k (k-1) / (n (n-1)) (y² - Q)

With Σ k = n (n+1) / 2 and Σ k (k-1) = (n-1) n (n+1) / 3 follows

    variance = w²/3 Σ E[s_k²] = w²/3 (n+1) (y²/3 + Q/6)

and the error is drawn as w sqrt((n+1) (y²/3 + Q/6)) ξ. The term with k = 1, where nothing is added, stands for the rounding of the products. Adding a zero is exact, so n counts the terms that are not zero: a hidden key costs nothing.
Storing the sum costs v (1 + u ξ) once more. w is that of float32 for all three formats: processors multiply float16
and bfloat16 but add in float32.

The model leaves out three things. Rounding is not random, so errors with one cause may add up. Blocked and pairwise
sums err less. A program that fuses operations does not round them at all.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy import ndarray

from refgen.oracle.formats import FORMATS, Format

EXACT = frozenset({np.maximum, np.minimum, np.clip, np.negative, np.positive, np.absolute, np.sign})
MOVES = frozenset(
    {
        np.where,
        np.concatenate,
        np.split,
        np.array_split,
        np.swapaxes,
        np.stack,
        np.pad,
        np.broadcast_to,
        np.empty_like,
        np.zeros_like,
        np.clip,
    }
)
SUM_UNIT = FORMATS["float32"].unit


@dataclass(frozen=True)
class Errors:
    """Random errors of numbers stored in `form`, drawn from `chance`; they change arrays in place."""

    form: Format
    chance: np.random.Generator

    def uniform(self, shape: tuple[int, ...]) -> ndarray:
        """ξ."""
        return 2 * self.chance.random(shape) - 1

    def store(self, y: ndarray) -> None:
        """An operation's result, rounded."""
        y *= 1 + self.form.unit * self.uniform(y.shape)

    def add_up(self, y: ndarray, squares: ndarray, n: ndarray) -> None:
        """A sum of `n` terms with that sum of squares."""
        y += SUM_UNIT * np.sqrt((n + 1) * (y * y / 3 + squares / 6)) * self.uniform(y.shape)


class Noisy(np.ndarray):
    """Float64 numbers, every operation on which errs as `errors` says."""

    errors: Errors

    def __array_finalize__(self, origin: Any) -> None:
        """Slices, copies and reshaped arrays go on erring in the same way."""
        if isinstance(origin, Noisy):
            self.errors = origin.errors

    def like(self, plain: ndarray) -> Self:
        """The same numbers, noisy from now on."""
        result = plain.view(type(self))
        result.errors = self.errors
        return result

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, out: Any = None, **options: Any) -> Any:
        """All of NumPy's arithmetic comes here: compute plainly, then err."""
        is_sum = ufunc is np.add and method == "reduce"
        if ufunc.nout > 1 or (method != "__call__" and not (is_sum or ufunc in EXACT)):
            return NotImplemented  # an operation of which nobody has said how it errs
        plain = [as_plain(each) for each in operands]
        if out is not None:
            options["out"] = tuple(as_plain(each) for each in out)
        y = getattr(ufunc, method)(*plain, **options)
        if y.dtype.kind not in "fO":  # a comparison
            return y
        y = y.astype(np.float64, copy=False)  # `np.vectorize` goes by way of objects
        if ufunc is np.matmul:
            a, b = plain
            self.errors.add_up(y, (a * a) @ (b * b), np.count_nonzero(a, axis=-1)[..., None])
        elif is_sum:
            axis, keepdims = options.get("axis", 0), options.get("keepdims", False)
            squares = np.add.reduce(plain[0] * plain[0], axis=axis, keepdims=keepdims)
            self.errors.add_up(y, squares, np.count_nonzero(plain[0], axis=axis, keepdims=keepdims))
        if ufunc not in EXACT:
            self.errors.store(y)
        return self.like(y) if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        """What only moves numbers, such as `where`, is exact, and keeps them noisy; other functions are refused."""
        if function not in MOVES:
            return NotImplemented
        result = super().__array_function__(function, types, arguments, options)
        return self.like(result) if type(result) is ndarray and result.dtype == np.float64 else result


def as_plain(operand: Any) -> Any:
    """Without errors."""
    return operand.view(ndarray) if isinstance(operand, Noisy) else operand


def noisy(x: ndarray, form: Format, chance: np.random.Generator) -> Noisy:
    """`x`, float64, of any shape: what is computed from it errs as if stored in `form`."""
    result = x.view(Noisy)
    result.errors = Errors(form, chance)
    return result
