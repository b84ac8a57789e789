"""Products by the BLAS that are exact, and the check that sees when they are not."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen.errors import OracleError
from refgen.oracle import exact_products
from refgen.oracle.exact_products import MOST_INPUTS, cut, digits_of, product, put_together


def whole(weight, unit):
    """float32 numbers in units of 2**unit, as Python integers."""
    ratios = [float(number).as_integer_ratio() for number in weight.ravel()]
    assert all((above << max(0, -unit)) % below == 0 for above, below in ratios)
    numbers = [(above << max(0, -unit)) // below >> max(0, unit) for above, below in ratios]
    return np.array([*numbers, None], object)[:-1].reshape(weight.shape)


def numbers(draw, shape, bits):
    """Python integers of up to `bits` bits, of either sign and all sizes."""
    out = np.empty(shape, object)
    for place in np.ndindex(shape):
        out[place] = draw.choice((-1, 1)) * draw.getrandbits(draw.randrange(1, bits))
    return out


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.integers(2, 500),
    st.sampled_from((0, 4, 30, 120)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_products_are_exact(shape, bits, spread, seed):
    """x W is what Python's integers give, whatever the sizes of the numbers and of the weights."""
    rows, inner, outer = shape
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        weight = np.ldexp(rng.normal(size=(inner, outer)), rng.integers(-spread, spread + 1, (inner, outer))).astype(
            np.float32
        )
    weight[rng.random((inner, outer)) < 0.1] = 0
    weight = weight if seed % 2 else np.asfortranarray(weight)
    x, slices = numbers(draw, (rows, inner), bits), cut(weight)
    assert (product(x, slices) == x @ whole(weight, slices.unit)).all()


def test_weights_are_what_their_slices_add_up_to(monkeypatch):
    """With leftovers and without; a part is a whole number of up to 2**24."""
    weight = np.random.default_rng(0).normal(0, 0.02, (60, 70)).astype(np.float32)
    weight[3, 4], weight[5, 6] = 1e-45, 3e30
    for few, most in ((0, 12), (1000, 12), (10**6, 1)):
        monkeypatch.setattr(exact_products, "FEW", few)
        slices = cut(weight)
        assert len(slices.parts) <= most
        assert all(np.abs(part).max() <= 2**24 and (part == np.rint(part)).all() for part in slices.parts)
        total = sum(part.astype(object).astype(int).astype(object) << (e - slices.unit)
                    for part, e in zip(slices.parts, slices.exponents, strict=True))  # fmt: skip
        for i, o, number in slices.leftovers:
            total[i, o] += number
        assert (total == whole(weight, slices.unit)).all()


def test_the_largest_sum_is_exact():
    """8192 inputs, all digits and weights as large as can be: just below 2**53; more inputs are refused."""
    weight = np.full((MOST_INPUTS, 2), 2**24 - 1, np.float32)
    x = np.full((1, MOST_INPUTS), 2**64 - 1, object)
    slices = cut(weight)
    assert (product(x, slices) == MOST_INPUTS * (2**64 - 1) * (2**24 - 1) >> slices.unit).all()
    with pytest.raises(OracleError, match="8193 inputs: is exact up to 8192 only"):
        cut(np.ones((MOST_INPUTS + 1, 1), np.float32))


@given(st.lists(st.integers(-(2**200), 2**200), min_size=1, max_size=20))
def test_digits_and_back(values):
    """`put_together` undoes `digits_of`."""
    x = np.array([[*values, None]], object)[:, :-1]
    digits = digits_of(x)
    assert ((digits[:-1] >= 0) & (digits[:-1] < 2**16)).all()
    assert (put_together(digits.astype(np.int64)) == x).all()


@pytest.mark.parametrize("error", [1, -1, 2**20, 2**40])
def test_a_wrong_product_is_caught(monkeypatch, error):
    """FREIVALDS: one element of one product off by one, wherever it is, is an error and no proof."""
    rng, honest = np.random.default_rng(1), exact_products.by_blas
    slices = cut(rng.normal(0, 1, (70, 5000)).astype(np.float32))
    x = numbers(random.Random(2), (3, 70), 200)
    calls = 2 * -(-5000 // min(2**18 // 70, 4096))
    for wrong in range(calls):
        counter = iter(range(calls))

        def off(rows, part, wrong=wrong, counter=counter):
            y = honest(rows, part)
            if next(counter) == wrong:
                y[rng.integers(len(y)), rng.integers(y.shape[1])] += error
            return y

        monkeypatch.setattr(exact_products, "by_blas", off)
        with pytest.raises(OracleError, match="came back wrong from the BLAS"):
            product(x, slices)
    monkeypatch.setattr(exact_products, "by_blas", honest)
    product(x, slices)


def test_a_wrong_slice_is_caught():
    """A weight that changed in memory after it was cut is caught too."""
    slices = cut(np.ones((4, 4), np.float32))
    slices.parts[0][2, 1] += 1
    with pytest.raises(OracleError):
        product(numbers(random.Random(0), (1, 4), 100), slices)
