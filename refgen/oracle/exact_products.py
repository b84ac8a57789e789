"""Whole numbers times float32 weights, exactly, by the float64 products of a BLAS: the Ozaki scheme.

A float64 holds every whole number up to 2**53. A sum of such numbers is exact, in any order, with or without fused
multiply-add, as long as no partial sum is larger. So both factors are cut into small enough pieces:

    weights    W = parts[0] 2**exponents[0] + parts[1] 2**exponents[1] + … + leftovers, whole numbers of up to 2**24
    numbers    x = digits[0] + digits[1] 2**16 + digits[2] 2**32 + …, from 0 to 2**16 - 1, the last with a sign

and a sum of up to 8192 products of a digit and a part stays below 8192 * 2**16 * 2**24 = 2**53. The pieces together give the exact product. (Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix multiplication.)

This holds for every BLAS that multiplies and adds in IEEE float64, and not for one that uses Strassen's method. Each
product is therefore checked as it is made, by Freivalds' method modulo a prime: see `multiplied`.

Axes    T rows of numbers, I in, O out, N digits.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.errors import OracleError
from refgen.shapes import Float, Int, Whole

PART, DIGIT = 24, 16  # bits
MOST_INPUTS = 2 ** (53 - PART - DIGIT)
FEW = 1000  # leftovers that are cheaper one by one than as another part
PRIME = 2**31 - 1
BLOCK, MOST_COLUMNS = (
    2**18,
    4096,
)  # of a part that is made float64 at a time, to stay in a core's cache: numbers, columns

# --- The weights, cut -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slices:
    """A float32 matrix `[I O]`, exactly: the sum of `parts[k] * 2**exponents[k]` and of `leftovers`.

    `parts` are whole numbers of up to 2**24, kept as float32. A leftover `(i, o, n)` adds `n * 2**unit` to one weight.
    All weights are multiples of 2**unit. `marks[k]` is `parts[k] @ witness` modulo PRIME.
    """

    parts: tuple[Float[ndarray, "I O"], ...]
    exponents: tuple[int, ...]
    leftovers: tuple[tuple[int, int, int], ...]
    unit: int
    witness: Int[ndarray, "O"]
    marks: tuple[Int[ndarray, "I"], ...]


def cut(weight: Float[ndarray, "I O"]) -> Slices:
    """The slices of float32 weights. Raises `OracleError` if a sum could have too many terms.

    Every step is exact in float32: a quotient by a power of two, the nearest whole number, the remainder, which has
    no more bits than what it remains of. Parts lie 24 bits apart and the unit a multiple of 16 bits below the last, so
    that each part begins at a digit or in the middle of one.
    """
    I, O = weight.shape  # noqa: E741
    if I > MOST_INPUTS:
        raise OracleError(f"a linear map of {I} inputs", f"is exact up to {MOST_INPUTS} only")
    rest = np.array(weight, np.float32)  # in the same memory order
    exponent = math.frexp(float(np.abs(rest).max()))[1] - PART
    parts: list[ndarray] = []
    exponents: list[int] = []
    while np.count_nonzero(rest) > FEW or not parts:
        part = np.rint(np.ldexp(rest, -exponent))
        rest -= np.ldexp(part, exponent)
        parts.append(part)
        exponents.append(exponent)
        exponent -= PART
    i, o = np.nonzero(rest)
    ratios = [float(number).as_integer_ratio() for number in rest[i, o]]
    finest = min([exponents[-1], *(1 - below.bit_length() for _, below in ratios)])
    unit = finest - (finest - exponents[-1]) % DIGIT
    numbers = [(above << -unit) // below for above, below in ratios]
    # The witness needs no secret, only to have nothing to do with the errors that a BLAS may make.
    witness = np.random.default_rng(0).integers(0, 2**20, size=(O,))
    marks = tuple(mark(part, witness) for part in parts)
    return Slices(
        tuple(parts), tuple(exponents), tuple(zip(i.tolist(), o.tolist(), numbers, strict=True)), unit, witness, marks
    )


def mark(part: Float[ndarray, "I O"], witness: Int[ndarray, "O"]) -> Int[ndarray, "I"]:
    """`part @ witness` modulo PRIME, in int64 and without a BLAS: at most 4096 * 2**24 * 2**20 < 2**57 at a time."""
    total = np.zeros(len(part), np.int64)
    for start in range(0, part.shape[1], MOST_COLUMNS):
        columns = slice(start, start + MOST_COLUMNS)
        total = (total + np.einsum("io,o->i", part[:, columns].astype(np.int64), witness[columns])) % PRIME
    return total


# --- The product ------------------------------------------------------------------------------------------


def product(x: Whole[ndarray, "T I"], weight: Slices) -> Whole[ndarray, "T O"]:
    """x W exactly, in units of 2**weight.unit. Raises `OracleError` if the BLAS errs.

    Some columns at a time: their products, each set at the digit that its exponent says, are added and put together.

    Freivalds' check compares Y w with X (S w) modulo a prime, for a random w below 2**20. If a row of Y is not the row
    of X S, the two are equal with a chance of one in 2**20 only. The check is in int64 and exact: it adds at most 4096
    numbers below 2**31 * 2**20, or 8192 below 2**16 * 2**31, which stays below 2**63.
    """
    digits = digits_of(x)
    (N, T, I), O = digits.shape, len(weight.witness)  # noqa: E741
    rows = digits.reshape(N * T, I)
    total = np.empty((T, O), object)
    seen = np.zeros((len(weight.parts), N * T), np.int64)
    places = [divmod(exponent - weight.unit, DIGIT) for exponent in weight.exponents]
    width = max(1, min(BLOCK // I, MOST_COLUMNS))
    for start in range(0, O, width):
        columns = slice(start, start + width)
        witness = weight.witness[columns]
        y_at = np.zeros((places[0][0] + N, T, len(witness)), np.int64)
        for k, (part, (place, shift)) in enumerate(zip(weight.parts, places, strict=True)):
            y = by_blas(rows, part[:, columns])
            seen[k] += np.einsum("ro,o->r", y % PRIME, witness) % PRIME
            y_at[place : place + N] += y.reshape(N, T, -1) << shift
        total[:, columns] = put_together(y_at)
    whole_rows = rows.astype(np.int64)
    for found, marks in zip(seen, weight.marks, strict=True):
        if not np.array_equal(found % PRIME, np.einsum("ri,i->r", whole_rows, marks) % PRIME):
            raise OracleError(
                "a product of whole numbers",
                "came back wrong from the BLAS that NumPy uses, so nothing can be proved with it",
                remedy="Run with another BLAS, or on another machine.",
            )
    for i, o, number in weight.leftovers:
        total[:, o] += x[:, i] * number
    return total


def by_blas(rows: Float[ndarray, "R I"], part: Float[ndarray, "I O"]) -> Int[ndarray, "R O"]:
    """The one place where it is asked: rows of digits times a part, a sum of whole numbers below 2**53 each."""
    return (rows @ part.astype(np.float64)).astype(np.int64)


def digits_of(x: Whole[ndarray, "T I"]) -> Float[ndarray, "N T I"]:
    """The digits of whole numbers to the base 2**16, lowest first; the last one carries the sign (two's complement)."""
    numbers = x.ravel().tolist()
    N = max(abs(number).bit_length() for number in numbers) // DIGIT + 1
    data = b"".join([number.to_bytes(2 * N, "little", signed=True) for number in numbers])
    words = np.frombuffer(data, "<u2").reshape(*x.shape, N)
    digits = words.astype(np.float64)
    digits[..., -1] = words.view("<i2")[..., -1]
    return np.ascontiguousarray(np.moveaxis(digits, -1, 0))


def put_together(y: Int[ndarray, "N T O"]) -> Whole[ndarray, "T O"]:
    """The sum of `y[n] * 2**(16 n)`, the inverse of `digits_of` for digits of up to 2**62, carried upwards."""
    N, *shape = y.shape
    width = 2 * N + 8
    data = np.empty((*shape, width), np.uint8)
    carry = np.zeros(shape, np.int64)
    for n in range(N):
        carry += y[n]
        data[..., 2 * n : 2 * n + 2] = (carry & 0xFFFF).astype("<u2")[..., None].view(np.uint8)
        carry >>= DIGIT
    data[..., 2 * N :] = carry.astype("<i8")[..., None].view(np.uint8)
    text = data.tobytes()
    total = np.empty(math.prod(shape), object)
    total[:] = [
        int.from_bytes(text[start : start + width], "little", signed=True) for start in range(0, len(text), width)
    ]
    return total.reshape(shape)
