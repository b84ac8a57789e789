"""Dot products, sums and functions of float32 numbers: the exact value, rounded once. Rules CANON-02, CANON-03.

An answer that is rounded once from the exact value is the only right answer. So it does not depend on the program, the
order of operations or the number of threads. This is how to find it quickly:

1. Compute in float64, with a bound on the error.
2. If all numbers within the bound round to the same float32, the exact value rounds to it too, because rounding
   never changes the order of two numbers.
3. Compute the few others more exactly. Sums are added in pieces, which errs less, and with `math.fsum` where a doubt
  remains. Functions are computed to 60 digits with `decimal`.

The bound of a sum. Let u = 2**-53. The product of two float32 numbers has at most 48 significant bits and lies
between 2**-298 and 2**256 in size, so it is exact in float64. Adding K terms t in any order, with or without fused multiply-add, takes K - 1 rounded additions. It errs by at most g * sum(abs(t)), with g = (K-1) u / (1 - (K-1) u). See Higham, Accuracy and Stability of Numerical Algorithms, section 4.2. Nothing underflows, since all terms are multiples of 2**-298. For a dot product Cauchy and Schwarz give sum(abs(a * b)) <= norm(a) * norm(b). Adding and subtracting the
bound rounds once more, by u times as much. `slack` is therefore K + 2 times u, and 0.1 % more, which is far more
than the rounding of the norms and of g takes away while K < 2**40.

There are three assumptions. Addition, multiplication and conversion of float64 and float32 follow IEEE 754, subnormal
numbers included. The BLAS multiplies and adds (Strassen's method would need another bound). In the float64 library exp,
tanh, erf and log1p are right to 2**-41, a thousand times less than any of them promises.

Axes    M rows, K terms of a sum, N columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy import ndarray

from refgen.shapes import Float

UNIT = 2.0**-53
LIBRARY = 2.0**-40  # how far off a float64 function may be, relative to its value
DIGITS = 60
DOUBT = Decimal("1e-40")  # what is left of them after the cancellation in `tanh` and `log1p`
Index = tuple[ndarray, ...]  # as `np.nonzero` gives it


# --- Rounding once ----------------------------------------------------------------------------------------


def settle(value: ndarray, error: ndarray, exactly: Callable[[Index], Sequence[np.float32] | ndarray]) -> ndarray:
    """CANON-02. The float32 nearest to numbers that lie within `error` of `value`; the doubtful ones are done `exactly`.

    A zero is +0: its sign would depend on the order of the additions.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (value - error).astype(np.float32), (value + error).astype(np.float32)
        doubtful = np.nonzero(low != high)
        low[doubtful] = value[doubtful]  # infinity and NaN stay what they are
        finite = np.isfinite(value[doubtful])
        for start in range(0, finite.sum(), 256):
            some = tuple(axis[finite][start : start + 256] for axis in doubtful)
            low[some] = exactly(some)
    low += np.float32(0)
    return low


def round_once(nearest: float, rest: Callable[[], float | Decimal]) -> np.float32:
    """CANON-02. The float32 nearest to an exact value, given the float64 nearest to it and, optionally, the rest.

    Rounding first to float64 and then to float32 could round twice in one direction. The exact value lies between the
    two neighbours of `nearest`. If these round differently, an inexact `nearest` is replaced. Of the two float64 around
    the exact value, the one whose last bit is odd takes its place: no float32 and no middle between two is odd.
    """
    below, above = math.nextafter(nearest, -math.inf), math.nextafter(nearest, math.inf)
    if np.float32(below) == np.float32(above):
        return np.float32(below)
    left = rest()
    is_even = np.float64(nearest).view(np.int64) % 2 == 0
    return np.float32(nearest if left == 0 or not is_even else above if left > 0 else below)


# --- Sums and dot products --------------------------------------------------------------------------------


def slack(terms: int) -> float:
    """The error of a float64 sum of that many terms, in units of the sum of their sizes."""
    return (terms + 2) * UNIT * 1.001


def exact_sum(terms: ndarray) -> np.float32:
    """CANON-02. The sum of float64 numbers, rounded once to float32."""
    each = terms.tolist()
    nearest = math.fsum(each)  # fsum keeps all bits and rounds once, to float64
    return round_once(nearest, lambda: math.fsum([*each, -nearest]))


def exact_sums(terms: Float[ndarray, "M K"]) -> Float[ndarray, "M"]:
    """CANON-02. The sum of every row, rounded once: first added in pieces, which settles nearly all.

    With pieces of n terms, a term takes part in no more than n + K / n additions, which take the place of K.
    """
    K = terms.shape[1]
    starts = np.arange(0, K, math.isqrt(K))
    value = np.add.reduceat(terms, starts, axis=1).sum(axis=1)
    error = slack(math.isqrt(K) + len(starts)) * np.abs(terms).sum(axis=1)
    return settle(value, error, lambda at: [exact_sum(row) for row in terms[at]])


def total(x: Float[ndarray, "... K"]) -> Float[ndarray, "... 1"]:
    """CANON-02. The sum over the last axis, rounded once."""
    wide = x.reshape(-1, x.shape[-1]).astype(np.float64)
    error = slack(x.shape[-1]) * np.abs(wide).sum(axis=1)
    return settle(wide.sum(axis=1), error, lambda at: exact_sums(wide[at])).reshape(*x.shape[:-1], 1)


@dataclass(frozen=True)
class Wide:
    """float32 numbers in float64, with the Euclidean norm of every column."""

    numbers: Float[ndarray, "... K N"]
    norms: Float[ndarray, "... N"]


def widen(x: Float[ndarray, "... K N"]) -> Wide:
    """The right factor of a matrix product made ready."""
    wide = x.astype(np.float64)
    return Wide(wide, np.sqrt(np.einsum("...kn,...kn->...n", wide, wide)))


def matmul(x: Float[ndarray, "... M K"], y: Wide) -> Float[ndarray, "... M N"]:
    """CANON-02. x y, every element a dot product rounded once."""
    wide = x.astype(np.float64)
    norms = slack(x.shape[-1]) * np.sqrt(np.einsum("...mk,...mk->...m", wide, wide))
    error = norms[..., :, None] * y.norms[..., None, :]
    columns = y.numbers.swapaxes(-1, -2)  # [... N K]
    return settle(wide @ y.numbers, error, lambda at: exact_sums(wide[at[:-1]] * columns[(*at[:-2], at[-1])]))


# --- Functions --------------------------------------------------------------------------------------------


def evaluate(x: ndarray, fast: Callable[[ndarray], ndarray], slow: Callable[[Decimal], Decimal]) -> ndarray:
    """CANON-03. A function's value, rounded once: `fast` in float64, `slow` where that leaves a doubt."""
    value = fast(x.astype(np.float64))

    def exactly(z: np.float32) -> np.float32:
        digits = slow(Decimal(float(z)))
        # Two answers would mean that 40 digits cannot tell; none of the 2**32 arguments should come that close.
        (answer,) = {rounded(digits * (1 + doubt)) for doubt in (-DOUBT, DOUBT)}
        return answer

    with localcontext(prec=DIGITS):
        return settle(value, LIBRARY * np.abs(value), lambda at: [exactly(z) for z in x[at]])


def rounded(digits: Decimal) -> np.float32:
    """CANON-03. A decimal number, rounded once to float32."""
    nearest = float(digits)
    return round_once(nearest, lambda: digits - Decimal(nearest))


def exp(x: ndarray) -> ndarray:
    """CANON-03. e to the x. Beyond 200 either way it is infinity or 0 in float32, whatever x."""
    return evaluate(np.clip(x, -200.0, 200.0), np.exp, Decimal.exp)


def tanh(x: ndarray) -> ndarray:
    """CANON-03. The hyperbolic tangent."""

    def slow(z: Decimal) -> Decimal:
        square = (2 * z).exp()
        return (square - 1) / (square + 1)

    return evaluate(x, np.tanh, slow)


def log1p(x: ndarray) -> ndarray:
    """CANON-03. The logarithm of 1 + x, for x from 0."""
    return evaluate(x, np.log1p, lambda z: (1 + z).ln())


def erf(x: ndarray) -> ndarray:
    """CANON-03. The error function; NumPy has none, so Python's serves, element by element."""

    def slow(z: Decimal) -> Decimal:
        """2 / sqrt(pi) * exp(-z²) * (z + 2 z³/3 + 4 z⁵/(3·5) + …): all terms have one sign, so none cancels another."""
        series = term = z
        n = 1
        while abs(term) > abs(series) * Decimal(10) ** -DIGITS:
            term *= 2 * z * z / (2 * n + 1)
            series += term
            n += 1
        return 2 * series * (-z * z).exp() / PI.sqrt()

    return evaluate(x, np.vectorize(math.erf, otypes=[float]), slow)


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
