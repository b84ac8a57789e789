"""float32, float16 and bfloat16: the numbers of each, and rounding to it once, to nearest even.

Results stay in float64, which holds every number of all three. So bfloat16 needs no special code, although NumPy does
not have it. See IEEE 754-2019, sections 3.3 and 4.3.1. A bfloat16 is the upper half of a float32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy import ndarray

from refgen.checkpoints import assemble, disassemble
from refgen.errors import OracleError
from refgen.model import GPT2


@dataclass(frozen=True)
class Format:
    """A binary floating-point format with subnormal numbers."""

    digits: int  # of the significand in bits, the hidden one included
    lowest: int  # the smallest positive number is 2**lowest
    highest: int  # the largest numbers begin with 2**highest

    @property
    def unit(self) -> float:
        """The unit roundoff: rounding moves a number by at most this share of it."""
        return 2.0**-self.digits

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2 * self.unit) * 2.0**self.highest


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"float32": Format(24, -149, 127), "float16": Format(11, -24, 15), "bfloat16": Format(8, -133, 127)}
)
MANY = 2**20  # numbers


def find_format(dtype: str) -> Format:
    """The format of that name; raises `OracleError` for one that is not here."""
    if dtype not in FORMATS:
        remedy = (
            "refgen's own float64 is the reference; refgen generate --proof bounds its error."
            if dtype == "float64"
            else ""
        )
        raise OracleError(f"dtype={dtype!r}", f"must be one of {', '.join(FORMATS)}", remedy=remedy)
    return FORMATS[dtype]


def nearest(x: ndarray, form: Format) -> ndarray:
    """Each number of `x`, float64 in any shape, as `form` holds it: to nearest, ties to even, infinity above the largest.

    Numbers of the size of x stand `step` apart, a power of two. So dividing by it is exact, and `rint`, which
    rounds ties to even, does the only rounding.
    """
    if x.ndim > 1 and x.size > MANY:  # some rows at a time, for the memory's sake
        return np.concatenate([nearest(part, form) for part in np.array_split(x, -(-x.size // MANY))])
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent - form.digits, form.lowest))
    with np.errstate(over="ignore"):
        rounded = np.rint(x / step) * step
    return np.where(np.abs(rounded) <= form.largest, rounded, np.copysign(math.inf, x))


def cast(gpt2: GPT2, dtype: str) -> GPT2:
    """The network with its weights rounded to `dtype`, computing in float64: what a run in `dtype` has to come near.

    It is the network that the configuration describes. Raises `OracleError` for a weight
    that is too large for `dtype`.
    """
    form, tensors = find_format(dtype), {}
    for name, tensor in disassemble(gpt2).items():
        wide = tensor.astype(np.float64)
        tensors[name] = wide if tensor.dtype == dtype else nearest(wide, form)
        if not np.isfinite(tensors[name]).all():
            raise OracleError(
                f"{name}, up to {np.abs(wide).max():.3g}",
                f"does not fit {dtype}, which ends at {form.largest:.6g}",
                remedy="Ask for bfloat16 or float32.",
            )
    return assemble(gpt2.config, tensors)
