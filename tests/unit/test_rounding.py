"""Sums, dot products and functions of float32, against fractions and 90 digits."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.engines.canonical import rounding
from refgen.engines.canonical.numbers import kept
from tests import exact_twin

TINY = 2.0**-149
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-(2.0**60), 2.0**60, width=32)


def f32(*values):
    """A row of float32."""
    return np.array(values, dtype=np.float32)


def same_bits(a, b):
    """Equal, signs of zeros included."""
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def exact(terms):
    """The sum of float32 terms, rounded once, by fractions."""
    return np.float32(exact_twin.nearest(sum(map(Fraction, map(float, terms)))))


SUMS = {
    "tie goes down to even": (2**24, 1),
    "tie goes up to even": (2**24 + 2, 1),
    "just above a tie": (2**24, 1, 2**-100),
    "just below a tie": (2**24, 1, -(2**-100)),
    "below a tie by what float64 cannot hold": (2**24 + 2, 1, -TINY),
    "a negative tie": (-(2**24), -1, TINY),
    "cancels to nothing": (1e30, 1, -1e30, -1),
    "cancels to the smallest": (1e30, 3, TINY, -1e30, -3),
    "zeros": (0, 0, 0),
    "minus zeros": (-0.0, -0.0),
    "subnormal": (TINY, TINY, TINY),
    "from normal to subnormal": (2.0**-126, -TINY),
    "largest": (3.4028235e38, 3.4028235e38, -3.4028235e38),
    "one term": (0.1,),
}


@pytest.mark.parametrize("terms", SUMS.values(), ids=SUMS)
def test_hard_sums(terms):
    """CANON-02: ties, near ties, cancellation, subnormals and zeros come out as the exact sum, rounded once."""
    for order in (terms, terms[::-1]):
        expected = exact(f32(*order)) + np.float32(0)
        assert same_bits(rounding.total(f32(*order)), f32(expected))
        ones = np.ones((len(terms), 1), np.float32)
        assert same_bits(rounding.matmul(f32(*order)[None], rounding.widen(ones)), f32(expected)[None])


@given(st.lists(FLOATS | MODERATE, min_size=1, max_size=40), st.randoms())
def test_sums_are_exact_sums_rounded_once(terms, random):
    """CANON-02: a sum of any float32 in any order equals the sum of fractions; beyond the largest it is infinite."""
    terms = [*terms, *(-term for term in terms[: len(terms) // 2])]  # cancellation
    random.shuffle(terms)
    whole = exact_twin.nearest(sum(map(Fraction, terms)))
    expected = np.float32(math.copysign(math.inf, whole)) if abs(whole) >= 2**128 else np.float32(whole)
    assert same_bits(rounding.total(f32(*terms)), f32(expected + np.float32(0)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans())
def test_dot_products_are_exact_ones_rounded_once(seed, K, close_to_ties):
    """CANON-02: every element of a matrix product equals the fraction, also where many products tie or cancel."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3, K)).astype(np.float32), rng.normal(size=(2, K, 4)).astype(np.float32)
    if close_to_ties:  # few bits and one large term: sums fall on the middle between two float32, or next to it
        x, y = np.round(x * 2), np.round(y * 2)
        x[..., 0], y[..., 0, :] = 2**12, 2**12
        x[..., -1] *= np.float32(2.0**-70)
    got = rounding.matmul(x, rounding.widen(y))
    for b, m, n in np.ndindex(2, 3, 4):
        products = [Fraction(float(p)) * Fraction(float(q)) for p, q in zip(x[b, m], y[b, :, n], strict=True)]
        assert got[b, m, n] == np.float32(exact_twin.nearest(sum(products)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_the_bound_holds(seed, K):
    """CANON-02: the float64 sum errs by less than `slack` says; the proof's bound is smaller still."""
    terms = np.random.default_rng(seed).normal(size=K)
    error = abs(Fraction(float(terms.sum())) - sum(map(Fraction, terms.tolist())))
    assert error <= Fraction(rounding.slack(K)) * Fraction(float(np.abs(terms).sum()))
    n = K - 1
    proved = n * Fraction(2) ** -53 / (1 - n * Fraction(2) ** -53) + 2 * Fraction(2) ** -53
    assert proved < Fraction(rounding.slack(K))


def test_a_wrong_float64_sum_is_mended():
    """CANON-02: whatever float64 says within the bound, the answer is the exact one: the doubtful are redone."""
    rng = np.random.default_rng(5)
    terms = rng.normal(size=(500, 9))
    expected = rounding.exact_sums(terms)
    near = terms.sum(axis=1) + rng.uniform(-1e-8, 1e-8, 500)
    redone = []

    def exactly(at):
        redone.extend(at[0])
        return rounding.exact_sums(terms[at])

    assert same_bits(rounding.settle(near, np.full(500, 2e-8), exactly), expected)
    assert 20 < len(redone) < 480


@pytest.mark.parametrize("left", [-1, 0, 1])
@pytest.mark.parametrize("nearest", [2.0**24 + 1, 2.0**24 + 3, 1.0, 1.0 + 2**-24, 1.0 + 2**-24 + 2**-52, TINY / 2])
def test_nothing_is_rounded_twice(nearest, left):
    """CANON-02: a float64 in the middle of two float32 is rounded to where the exact value lies."""
    rest = left * Fraction(math.ulp(nearest)) / 3
    expected = np.float32(exact_twin.nearest(Fraction(nearest) + rest))
    assert rounding.round_once(nearest, lambda: float(rest)) == expected


FUNCTIONS = {"exp": rounding.exp, "tanh": rounding.tanh, "erf": rounding.erf, "log1p": rounding.log1p}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_rounded_once(name):
    """CANON-03: random and extreme arguments give what 90 digits give."""

    @given(st.floats(-9, 9, width=32) | st.floats(-(2.0**-10), 2.0**-10, width=32))
    def law(z):
        z = abs(z) if name == "log1p" else z
        expected = np.float32(exact_twin.function(name, Fraction(z)))
        assert FUNCTIONS[name](f32(z))[0] == expected

    law()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_slow_way_is_right_alone(name, monkeypatch):
    """CANON-03: with no trust in the float64 library at all, 60 digits give the same."""
    rng = np.random.default_rng(7)
    z = np.abs(rng.normal(size=60)).astype(np.float32) + np.float32(1e-3)
    expected = FUNCTIONS[name](z)
    monkeypatch.setattr(rounding, "LIBRARY", 1e-6)
    assert same_bits(FUNCTIONS[name](z), expected)
    assert [exact_twin.function(name, Fraction(float(each))) for each in z] == expected.tolist()


@pytest.mark.parametrize(
    ("name", "library"), [("exp", np.exp), ("tanh", np.tanh), ("log1p", np.log1p), ("erf", np.vectorize(math.erf))]
)
def test_the_library_is_as_good_as_asked(name, library, monkeypatch):
    """CANON-03: this machine's float64 functions err a hundred times less than they may."""
    monkeypatch.setattr(exact_twin, "nearest", lambda exact: exact)  # unrounded
    z = np.random.default_rng(13).normal(0, 2, 200).astype(np.float32)
    z = np.abs(np.concatenate([z, z[:100] * np.float32(1e-4), np.linspace(10, 80, 30, dtype=np.float32)]))
    z = z[z < 6] if name == "erf" else z
    for each, value in zip(z.tolist(), library(z.astype(np.float64)).tolist(), strict=True):
        exact = exact_twin.function(name, Fraction(each))
        assert abs(Fraction(value) - exact) <= abs(exact) * Fraction(rounding.LIBRARY) / 200


def hard_arguments(function, count, pool=400_000):
    """The arguments whose values lie closest to the middle between two float32."""
    z = np.random.default_rng(11).uniform(0.01, 3, pool).astype(np.float32)
    value = function(z.astype(np.float64))
    spacing = np.spacing(value.astype(np.float32)).astype(np.float64)
    return z[np.argsort(np.abs(np.abs(value - value.astype(np.float32)) / spacing - 0.5))[:count]]


@pytest.mark.parametrize(("name", "function"), [("exp", np.exp), ("tanh", np.tanh), ("log1p", np.log1p)])
def test_hard_arguments(name, function):
    """CANON-03: the values nearest to a tie among 400,000 are decided rightly."""
    z = hard_arguments(function, 12)
    assert FUNCTIONS[name](z).tolist() == [exact_twin.function(name, Fraction(float(each))) for each in z]


def test_functions_at_the_ends():
    """CANON-03: overflow, underflow, infinity, zero and NaN, without a warning."""
    assert rounding.exp(f32(-np.inf, -104, -103.97208, 0, 88.72283, 88.72284, np.inf)).tolist() == [
        0, 0, TINY, 1, float.fromhex("0x1.ffff08p127"), np.inf, np.inf
    ]  # fmt: skip
    assert rounding.tanh(f32(-np.inf, -20, -TINY, TINY, 20)).tolist() == [-1, -1, -TINY, TINY, 1]
    assert rounding.erf(f32(-9, 0, 9)).tolist() == [-1, 0, 1]
    assert rounding.log1p(f32(0, np.inf)).tolist() == [0, np.inf]
    with np.errstate(invalid="ignore"):
        nothing = rounding.total(f32(np.inf, -np.inf))
    assert np.isnan([rounding.exp(f32(np.nan)), rounding.tanh(f32(np.nan)), nothing]).all()


def test_digits_that_cannot_tell_are_an_error():
    """CANON-03: a value in the middle of two float32, which no function has, raises instead of guessing."""
    middle = Decimal(1) + Decimal(2) ** -24
    with pytest.raises(ValueError, match="too many values"):
        rounding.evaluate(f32(1), lambda z: z + 2.0**-24, lambda z: middle)


def test_kept_weights_stay_true():
    """CANON-04: the float64 copy is made once, of a head of its transpose, and cannot go stale."""
    weight = np.ones((2, 3), np.float32)
    assert kept(weight).wide.numbers.shape == (2, 3)
    assert kept(weight, is_head=True).T.wide.numbers.shape == (3, 2)
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 2
