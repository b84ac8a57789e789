"""float32, float16 and bfloat16: rounded once, to nearest even."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refgen.checkpoints import disassemble
from refgen.errors import OracleError
from refgen.oracle.formats import FORMATS, cast, nearest
from tests.strategies import models

floats = st.one_of(
    st.floats(allow_nan=False),
    st.floats(-10, 10),
    st.builds(math.ldexp, st.integers(-(2**12), 2**12), st.integers(-155, 10)),  # many ties, many subnormals
)


@example([1.7976931348623157e308, -math.inf], "float32")
@given(st.lists(floats, min_size=1, max_size=20), st.sampled_from(["float32", "float16"]))
def test_nearest_is_numpys(numbers, dtype):
    """Where NumPy has the format, its conversion gives the same number."""
    x = np.array(numbers)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    np.testing.assert_array_equal(nearest(x, FORMATS[dtype]), expected)


@given(floats.filter(math.isfinite), st.sampled_from(sorted(FORMATS)))
def test_nearest_is_nearest(number, dtype):
    """In fractions: the multiple of the format's spacing that lies nearest, the even one of two."""
    form, exact = FORMATS[dtype], Fraction(number)
    exponent = math.frexp(number)[1] if number else -2000
    step = Fraction(2) ** max(exponent - form.digits, form.lowest)
    expected = round(exact / step) * step  # Python rounds fractions half to even
    rounded = nearest(np.array([number]), form)[0]
    assert rounded == expected if abs(expected) <= form.largest else rounded == math.copysign(math.inf, number)


@pytest.mark.parametrize("dtype", sorted(FORMATS))
def test_the_largest_number_is_held_and_the_next_is_infinite(dtype):
    """What lies below the middle between the largest number and the one that would follow still rounds to it."""
    form = FORMATS[dtype]
    largest, middle = form.largest, form.largest * (1 + form.unit / (2 - 2 * form.unit))
    x = np.array([largest, np.nextafter(middle, 0), middle])
    np.testing.assert_array_equal(
        nearest(np.append(x, -x), form), [largest, largest, np.inf, -largest, -largest, -np.inf]
    )


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_bfloat16_is_the_upper_half_of_a_float32(numbers):
    """Bit by bit: add half of the lower half, one less if the last bit is even, and cut it off."""
    bits = np.array(numbers, np.float32).view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    expected = upper.astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(nearest(np.array(numbers, np.float64), FORMATS["bfloat16"]), expected)


@given(models("float32"), st.sampled_from(sorted(FORMATS)))
def test_cast_rounds_every_weight(model, dtype):
    """All weights are the nearest, in float64; again, nothing changes."""
    rounded = cast(model.gpt2, dtype)
    again = disassemble(cast(rounded, dtype))
    for name, tensor in disassemble(rounded).items():
        expected = nearest(disassemble(model.gpt2)[name].astype(np.float64), FORMATS[dtype])
        np.testing.assert_array_equal(tensor, expected)
        np.testing.assert_array_equal(tensor, again[name])


def test_what_does_not_fit_is_refused(shakespeare):
    """A format that is unknown, and a weight that is too large for one that is."""
    gpt2 = shakespeare[0].gpt2
    with pytest.raises(OracleError, match="dtype='float8': must be one of float32, float16, bfloat16"):
        cast(gpt2, "float8")
    gpt2 = cast(gpt2, "float32")
    gpt2.ln_f.weight[3] = -7e4
    with pytest.raises(OracleError, match=r"ln_f.weight, up to 7e\+04: does not fit float16, which ends at 65504"):
        cast(gpt2, "float16")
