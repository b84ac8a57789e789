"""Numbers that err: as much as the derivation says, everywhere in a forward pass, and nowhere where nothing is rounded."""

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen.model import forward, softmax
from refgen.oracle.formats import FORMATS, cast
from refgen.oracle.noise import noisy_runs
from refgen.oracle.noisy import EXACT, SUM_UNIT, Noisy, noisy
from tests.strategies import models, prompts

FORM = FORMATS["bfloat16"]


def made_noisy(x, seed=0, form=FORM):
    """`x`, with errors of its own."""
    return noisy(np.asarray(x, np.float64).copy(), form, np.random.default_rng(seed))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=6))
def test_the_variance_of_a_sum_is_that_over_all_orders(terms):
    """The closed form is the mean over all permutations, in fractions."""
    n, y, Q = len(terms), sum(terms), sum(t * t for t in terms)
    orders = list(permutations(terms))
    total = sum(sum(sum(order[:k]) ** 2 for k in range(1, n + 1)) for order in orders)
    assert Fraction(total, len(orders)) == (n + 1) * (Fraction(y * y, 3) + Fraction(Q, 6))


def test_errors_are_as_large_as_derived():
    """Over 200,000 draws: never more than the bound, and the variance within 1 % of the formula (its own spread is 0.2 %)."""
    x = made_noisy(np.full(200_000, 3.0))
    error = np.asarray(x * 1.0) / 3.0 - 1
    assert np.abs(error).max() <= FORM.unit
    assert (error**2).mean() == pytest.approx(FORM.unit**2 / 3, rel=0.01, abs=0)
    assert abs(error.mean()) < 5 * FORM.unit / math.sqrt(3 * len(error))
    exact = FORMATS["float32"].unit  # so that storing errs as little as adding
    terms = np.array([5.0, -3.0, 0.0, 1.0, 0.5])
    y, Q = terms.sum(), (terms**2).sum()
    expected = SUM_UNIT**2 / 3 * 5 * (y * y / 3 + Q / 6) + exact**2 / 3 * y * y  # four terms, for one is zero
    for total in (
        made_noisy(np.tile(terms, (200_000, 1)), form=FORMATS["float32"]).sum(axis=-1),
        (made_noisy(np.tile(terms, (200_000, 1)), form=FORMATS["float32"]) @ np.ones((5, 1)))[:, 0],
    ):
        assert ((np.asarray(total) - y) ** 2).mean() == pytest.approx(expected, rel=0.01, abs=0)


@settings(max_examples=30)
@given(st.data())
def test_every_stage_of_every_network_errs(data):
    """From the embeddings to the logits, all stages are noisy, whatever the activation and the switches."""
    model = data.draw(
        models(activation_function=data.draw(st.sampled_from(["gelu", "gelu_new", "mish", "relu", "silu"])))
    )
    ids, mask = data.draw(prompts(model.config.vocab_size))
    noted = {}
    network = cast(model.gpt2, "float32")
    forward(network, ids, mask, note=noted.setdefault)
    (run,) = noisy_runs(network, ids, mask, "float32", 1, 0, list(noted))
    for stage, exact in noted.items():
        visible = np.isfinite(exact)
        assert np.array_equal(visible, np.isfinite(run[stage])), stage
        np.testing.assert_array_equal(run[stage][~visible], exact[~visible])
        rounded = visible & (exact != 0)  # hidden keys weigh exactly 0, padding that sees nothing answers it
        assert not rounded.any() or (run[stage] != exact)[rounded].mean() > 0.9, stage
        if stage.endswith("pattern"):
            np.testing.assert_array_equal(run[stage][exact == 0], 0)


def test_what_is_not_rounded_does_not_err():
    """Maxima, signs, comparisons and moving numbers about are exact; their results err from then on."""
    x = made_noisy([[1.0, -2.0], [3.0, 4.0]])
    plain = np.asarray(x)
    for kept in (
        x.max(axis=1),
        abs(x),
        -x,
        np.where(x > 0, x, 7.0),
        np.concatenate([x, x]),
        x[:, ::-1].T,
        np.clip(x, 0, 2),
    ):
        assert isinstance(kept, Noisy)
    np.testing.assert_array_equal(np.asarray(np.where(x > 0, x, 7.0)), np.where(plain > 0, plain, 7.0))
    np.testing.assert_array_equal(np.asarray(x.max(axis=1)), [1.0, 4.0])
    assert type(x > 0) is np.ndarray
    assert np.add not in EXACT
    assert not np.array_equal(np.asarray(np.where(x > 0, x, 7.0) * 1.0), np.where(plain > 0, plain, 7.0))


def test_in_place_errs_too():
    """`y += b` changes y itself, with an error."""
    y = made_noisy(np.ones(50))
    same = y
    y += np.ones(50)
    assert y is same
    assert not np.array_equal(np.asarray(y), np.full(50, 2.0))
    np.testing.assert_allclose(np.asarray(y), 2.0, rtol=FORM.unit)


def test_what_nobody_derived_is_refused():
    """A running sum, say, is an error and not a silent exception from the noise."""
    for operation in (np.cumsum, np.add.accumulate, np.multiply.reduce, np.frexp):
        with pytest.raises(TypeError):
            operation(made_noisy([1.0, 2.0]))


def test_softmax_of_noisy_scores_nearly_adds_up():
    """The functions of model.py take noisy numbers as they are."""
    pattern = softmax(made_noisy([[1.0, 2.0, -np.inf]], form=FORMATS["float32"]))
    assert pattern[0, 2] == 0
    assert np.asarray(pattern).sum() == pytest.approx(1, abs=1e-6)
