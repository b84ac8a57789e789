"""Numbers as whole multiples of a unit, 2**-bits, and their functions with proved errors. Python integers only.

Rounding is downwards unless said otherwise: `>>` and `//` of Python integers take the floor, also below zero. A bound is
a whole number of units too, and always rounded up.
"""

import math
from fractions import Fraction
from functools import cache

import numpy as np
from numpy import ndarray

LEAST_BITS = 160  # every float32 is a multiple of 2**-149
SCALE = 64  # bounds of norms are whole numbers of 2**-SCALE, whatever the unit
GUARD = 32  # bits that `exp` computes beyond those asked for
STEP = 8  # bits of its argument that it looks up at a time


# --- Bounds -----------------------------------------------------------------------------------------------


def up(number: int, bits: int) -> int:
    """number / 2**bits, rounded up."""
    return -(-number >> bits)


def root_up(number: int) -> int:
    """The square root, rounded up."""
    return math.isqrt(number - 1) + 1 if number > 0 else 0


def norm_up(x: ndarray) -> int:
    """The Euclidean norm of whole numbers, rounded up."""
    return root_up(int((x * x).sum()))


# --- Constants --------------------------------------------------------------------------------------------


def arc_series(q: int, sign: int, bits: int) -> int:
    """sum of sign**n / ((2n+1) q**(2n+1)), in units of 2**-bits: arctan(1/q) for sign -1, artanh(1/q) for +1.

    `power` is the floor of 2**bits / q**(2n+1), since floors of quotients nest. It and the quotient by 2n+1 lose less
    than 2 units a term. All terms after the last are less than 1 together. There are at most bits / 3 + 1 terms, q
    being 3 or more, so for less than a million bits less than 2**20 units are lost.
    """
    power, total, n = (1 << bits) // q, 0, 0
    while power:
        total += sign**n * (power // (2 * n + 1))
        power //= q * q
        n += 1
    return total


@cache
def ln2(bits: int) -> int:
    """ln 2 = 2 artanh(1/3), within 2 units of 2**-bits: the series lacks far less than 1, and the floor less than 1."""
    return 2 * arc_series(3, 1, bits + 32) >> 32


@cache
def pi(bits: int) -> int:
    """π = 16 arctan(1/5) - 4 arctan(1/239) (Machin), within 2 units of 2**-bits, for the same reason."""
    return 16 * arc_series(5, -1, bits + 32) - 4 * arc_series(239, -1, bits + 32) >> 32


def root(square: Fraction, bits: int) -> int:
    """The square root of a fraction, within 1 unit, downwards: the floor of the root is the root of the floor."""
    return math.isqrt((square.numerator << 2 * bits) // square.denominator)


# --- The arithmetic ---------------------------------------------------------------------------------------


def reciprocal_factorials(bits: int, step: int) -> list[int]:
    """1 / n! in units of 2**-bits, floors, highest n first, down from where r**n / n! is below a unit for r <= 2**-step."""
    out = [1 << bits]
    while out[-1] >> step * (len(out) - 1):
        out.append(out[-1] // len(out))
    return out[::-1]


def series(coefficients: list[int], r: int, bits: int) -> int:
    """A power series with coefficients up to 1, highest first, at r up to 2**-8: within 4 units of 2**-bits.

    This is Horner's scheme. A coefficient lacks less than 1 and a product less than 1, and the earlier error is
    multiplied by r. The first term left out is below 1, and all of them together are less than 1.
    """
    y = 0
    for coefficient in coefficients:
        y = (y * r >> bits) + coefficient
    return y


def powers(bits: int, step: int) -> list[int]:
    """e**(i / 2**step) for i from 0 to 255, step 8 or more, within 2**13 units of 2**-bits.

    The first errs by 4. If a and b err by d and 4, their product errs by 4 a + b d + 1 and a negligible 4 d. All a are
    below e, and so is b to the power of 255. So 255 products err by 255 (4 e + 1) e.
    """
    first = series(reciprocal_factorials(bits, step), 1 << (bits - step), bits)
    out = [1 << bits]
    while len(out) < 2**STEP:
        out.append(out[-1] * first >> bits)
    return out


class FixedPoint:
    """Whole numbers in units of 2**-bits, at least 160 of them, so that every float32 is one.

    For `exp`, and finer by 32 bits: ln 2, powers of e to look up, and coefficients.
    """

    def __init__(self, bits: int) -> None:
        self.bits, self.one, self.fine = bits, 1 << bits, bits + GUARD
        self._ln2 = ln2(self.fine)
        self._high, self._low = powers(self.fine, STEP), powers(self.fine, 2 * STEP)
        self._coefficients = reciprocal_factorials(self.fine, 2 * STEP)

    def of(self, array: ndarray) -> ndarray:
        """float32 numbers, exactly."""
        mantissas, exponents = np.frexp(array.ravel().astype(np.float64))
        numbers = np.ldexp(mantissas, 24).astype(np.int64).tolist()
        shifts = (exponents + (self.bits - 24)).tolist()
        out = np.empty(array.size, object)
        # To the right go zeros only: the lowest bit of a float32 is a unit or more.
        out[:] = [n << s if s >= 0 else n >> -s for n, s in zip(numbers, shifts, strict=True)]
        return out.reshape(array.shape)

    def exp(self, t: int) -> int:
        """The exponential of a number up to 0, within 1 unit; that of 0 is exactly 1.

        t = r - k ln 2, r = i / 2**8 + j / 2**16 + rest, and e**t = e**(i / 2**8) e**(j / 2**16) e**rest / 2**k. In units of 2**-fine:

        1. k is at most bits + 2, else e**t is below a quarter of a unit of 2**-bits, and 0 will do. So r errs by k
           times ln 2's error, at most 2 (bits + 2) <= 2**14, and e**r by twice that.
        2. The series errs by 4, the two powers by 2**13 each, a product by 1. The other factors are below 2, 1.004 and
           1.00002: in all less than 2**17.
        3. Rounding 2**17 / 2**32 of a unit of 2**-bits and the floor of the division to the nearest makes less than 1.
        """
        minus_k, r = divmod(t << GUARD, self._ln2)
        if minus_k < -self.bits - 2:
            return 0
        fine = self.fine
        i, j, r = r >> fine - STEP, r >> fine - 2 * STEP & 2**STEP - 1, r & (1 << fine - 2 * STEP) - 1
        y = (self._high[i] * self._low[j] >> fine) * series(self._coefficients, r, fine) >> fine
        shift = GUARD - minus_k
        return y + (1 << (shift - 1)) >> shift


@cache
def fixed_point(bits: int) -> FixedPoint:
    """The arithmetic with that many bits, made once."""
    return FixedPoint(bits)


# --- Norms of float32 matrices ----------------------------------------------------------------------------


def operator_norm(weight: ndarray) -> int:
    """At least the largest factor by which x W is longer than x, in units of 2**-64; for random weights 1.2 times it."""
    return scaled(bounded_norm(weight.astype(np.float64), squarings=4))


def row_norms(weight: ndarray) -> ndarray:
    """At least the Euclidean norm of every row, in units of 2**-64; 0 for a row of zeros only."""
    out = np.empty(len(weight), object)
    for start in range(0, len(weight), 1024):
        wide = weight[start : start + 1024].astype(np.float64)
        out[start : start + 1024] = [scaled(norm) for norm in frobenius(wide, axis=1).tolist()]
    return out


def scaled(norm: float) -> int:
    """A bound in units of 2**-64, rounded up."""
    above, below = norm.as_integer_ratio()
    return -(-(above << SCALE) // below)


def frobenius(x: ndarray, axis: int | None = None) -> ndarray:
    """At least the root of the sum of squares: fewer than 2**30 float64 operations lose less than 2**-22 of it.

    Squares of float32 numbers neither overflow nor underflow; those of others come here with their largest near 1.
    """
    return np.sqrt(np.square(x).sum(axis=axis)) * (1 + 2.0**-20)


def bounded_norm(x: ndarray, squarings: int) -> float:
    """At least the operator norm of `x`, in float64 with a bound on its rounding.

    The norm of x squared is that of G = xᵀ x, and no norm is larger than Frobenius's. Let n be the number of terms of a sum and u = 2**-53. In float64, G errs by at most n u / (1 - n u) times |x|ᵀ |x| (Higham, section 3.5). In Frobenius's norm that is at most 2 n u |x|², with all room for underflow. So |x|² is at most the bound of the computed G plus that. The more often this is done, the
    nearer: k times leave at most the 2**(k + 1)th root of the smaller side.
    """
    if len(x) < x.shape[1]:
        x = x.T
    largest = float(np.abs(x).max())
    if largest == 0:
        return 0.0
    exponent = math.frexp(largest)[1]
    x = np.ldexp(x, -exponent)  # exact, but for what underflows: see above
    bound = float(frobenius(x))
    if squarings:
        gram = bounded_norm(x.T @ x, squarings - 1) + 2 * len(x) * 2.0**-53 * bound**2
        bound = min(bound, math.sqrt(gram) * (1 + 2.0**-40))
    return math.ldexp(bound, exponent)
