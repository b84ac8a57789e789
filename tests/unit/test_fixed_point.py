"""Fixed-point functions against python-flint's balls, and bounds of norms against singular values."""

import random
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st

from refgen.oracle.fixed_point import (
    LEAST_BITS,
    SCALE,
    fixed_point,
    ln2,
    norm_up,
    operator_norm,
    pi,
    root,
    root_up,
    row_norms,
    up,
)


@pytest.fixture(autouse=True)
def precision():
    """Far more bits than any number here has."""
    old, ctx.prec = ctx.prec, 6000
    yield
    ctx.prec = old


def off(number, exact, bits):
    """By how many units a fixed-point number errs, at most."""
    return float(abs(exact * arb(2) ** bits - number).upper())


@pytest.mark.parametrize("bits", [LEAST_BITS, 176, 333, 1024, 4096])
def test_exp_errs_by_a_unit_at_most(bits, figures):
    """exp is within 1 unit, and in fact hardly more than the half unit that rounding takes; exp(0) is 1."""
    unit, draw = fixed_point(bits), random.Random(bits)
    edges = [
        0,
        -1,
        -2,
        -unit.one,
        -(bits + 1) * unit.one,
        -(bits + 3) * unit.one,
        *(-k * ln2(bits) for k in (1, 2, 5, bits)),
    ]
    edges += [edge + step for edge in edges[4:] for step in (-1, 1)]
    some = [-draw.randrange(1 << draw.randrange(1, bits + 9)) for _ in range(400 if bits < 1000 else 40)]
    worst = max(off(unit.exp(t), (arb(t) / arb(2) ** bits).exp(), bits) for t in edges + some)
    assert unit.exp(0) == unit.one
    assert worst <= 0.5 + 2.0**-15
    figures.append(f"exp at {bits} bits: largest error {worst:.6f} units, proved 1")


@pytest.mark.parametrize("bits", [150, 200, 1000, 4200])
def test_constants(bits):
    """ln 2 and π are within 2 units; a root is the floor of the exact one."""
    assert off(ln2(bits), arb(2).log(), bits) <= 2
    assert off(pi(bits), arb.pi(), bits) <= 2
    for square in (Fraction(1, 3), Fraction(2), Fraction(49, 4)):
        exact = arb(fmpq(square.numerator, square.denominator)).sqrt() * arb(2) ** bits
        assert -1e-9 < float((exact - root(square, bits)).mid()) < 1


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from((160, 208)))
def test_every_float32_is_a_whole_number_of_units(numbers, bits):
    """Conversion is exact, subnormal numbers included."""
    found = fixed_point(bits).of(np.array(numbers, np.float32))
    assert [Fraction(n, 1 << bits) for n in found] == [Fraction(x) for x in numbers]


@given(st.integers(-(2**80), 2**80), st.integers(0, 40))
def test_bounds_are_rounded_up(number, bits):
    """`up` and `root_up` are the least whole numbers that are not below."""
    assert up(number, bits) - 1 < Fraction(number, 2**bits) <= up(number, bits)
    number = abs(number)
    assert root_up(number) ** 2 >= number
    assert number == 0 or (root_up(number) - 1) ** 2 < number
    assert norm_up(np.array([number, 3], object)) ** 2 >= number**2 + 9


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
    st.sampled_from((1e-30, 1e-3, 1.0, 1e30)),
    st.booleans(),
)
def test_norms_are_bounds_and_near(inner, outer, seed, size, flat):
    """The bound of an operator norm is above the largest singular value, by less than the 32nd root of the smaller side."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(inner, outer))
    if flat:  # all singular values equal: the hardest for the bound
        u, _, v = np.linalg.svd(weight, full_matrices=False)
        weight = u @ v
    weight = (weight * size).astype(np.float32)
    exact, bound = np.linalg.norm(weight.astype(np.float64), 2), operator_norm(weight) / 2**SCALE
    slack = 2**-63  # a bound is a whole number of 2**-64
    assert exact * (1 - 1e-12) <= bound <= exact * min(inner, outer) ** (1 / 32) * (1 + 1e-5) + slack
    exact, bound = np.linalg.norm(weight.astype(np.float64), axis=1), row_norms(weight).astype(float) / 2**SCALE
    assert (exact * (1 - 1e-12) <= bound).all()
    assert (bound <= exact * (1 + 1e-5) + slack).all()


def test_nothing_has_no_norm():
    """Zeros have norm 0, exactly."""
    assert operator_norm(np.zeros((3, 5), np.float32)) == 0
    assert row_norms(np.array([[0, 0], [0, 1e-45]], np.float32)).tolist() == [0, 1]
