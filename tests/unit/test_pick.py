"""Picking a token: greedy ties, torch's random stream, inverse CDF."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.generation.pick import draw, greedy, inverse_cdf, multinomial
from refgen.generation.torch_stream import TorchStream, exponentials_per_row, shared_exponentials
from tests.strategies import scores


@given(scores(rows=3))
def test_greedy_takes_the_lowest_of_the_best(values):
    """GREEDY-01: the highest score, and among equals the lowest id."""
    assert greedy(values).tolist() == [row.tolist().index(max(row)) for row in values]


def test_the_stream_is_mt19937():
    """SAMP-03: after seed 5489, MT19937's first words are the published ones; two make a 53-bit uniform."""
    words = [3499211612, 581869302, 3890346734, 3586334585]  # the reference implementation's first outputs
    uniforms = [((high << 32 | low) & (2**53 - 1)) / 2**53 for high, low in (words[:2], words[2:])]
    np.testing.assert_array_equal(
        TorchStream(5489).exponentials(2), (-np.log1p(-np.array(uniforms))).astype(np.float32)
    )


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(1, 9), max_size=4))
def test_the_stream_continues(seed, pieces):
    """SAMP-03: draws taken in pieces are the draws taken at once; seeds count modulo 2**32."""
    stream = TorchStream(seed)
    parts = [stream.exponentials(piece) for piece in pieces]
    whole = TorchStream(seed % 2**32).exponentials(sum(pieces))
    np.testing.assert_array_equal(np.concatenate([*parts, np.empty(0, np.float32)]), whole)


@given(scores(rows=3), st.integers(0, 2**32 - 1))
def test_sharing_a_stream_is_row_after_row(values, seed):
    """SAMP-04: the batch takes V draws for the first row, then V for the second."""
    stream = TorchStream(seed)
    expected = [int(multinomial(row[None], stream.exponentials(len(row))[None])[0]) for row in values]
    assert draw(shared_exponentials(seed))(values).tolist() == expected


@given(scores(rows=3), st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3))
def test_a_stream_a_row_is_the_row_alone(values, seeds):
    """SAMP-09: with one seed a row, each row picks what it would pick alone."""
    alone = [int(draw(shared_exponentials(seed))(values[i : i + 1])[0]) for i, seed in enumerate(seeds)]
    assert draw(exponentials_per_row(seeds))(values).tolist() == alone


def test_multinomial_law():
    """SAMP-01: over 200,000 draws the frequencies are the probabilities, within five standard errors."""
    p, n = np.array([0.5, 0.25, 0.125, 0.1, 0.025]), 200_000
    values = np.tile(np.log(p).astype(np.float32), (n, 1))
    frequency = np.bincount(draw(shared_exponentials(1))(values), minlength=5) / n
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()


@given(scores(rows=2), st.integers(0, 2**32))
def test_multinomial_is_a_race(values, seed):
    """SAMP-02: the token drawn has the largest probability divided by its own exponential, and never probability 0."""
    exponentials = np.random.default_rng(seed).exponential(size=values.shape).astype(np.float32)
    for row, own, token in zip(values, exponentials, multinomial(values, exponentials), strict=True):
        chances = [math.exp(score - row.max()) for score in row.tolist()]
        race = [chance / time for chance, time in zip(chances, own.tolist(), strict=True)]
        assert race[token] >= max(race) * (1 - 1e-5)  # float32 here, float64 there


@pytest.mark.parametrize(("u", "token"), [
    (0.0, 1), (0.25 - 2**-54, 1), (0.25, 2), (0.5, 4), (0.75 - 2**-53, 4), (0.75, 5), (1 - 2**-53, 5),
])  # fmt: skip
def test_inverse_cdf_by_hand(u, token):
    """SAMP-10: in id order the first token whose cumulative probability exceeds u; removed tokens are never it."""
    quarters = np.array([[-np.inf, 3, 3, -np.inf, 3, 3, -np.inf]], np.float32)
    assert inverse_cdf(np.array([[u]]))(quarters).tolist() == [token]


@given(scores(rows=3), st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_inverse_cdf_by_adding_up(values, uniforms):
    """SAMP-10: the mass before the token is at most u, the mass up to and with it exceeds u."""
    tokens = inverse_cdf(np.array(uniforms)[:, None])(values)
    for row, u, token in zip(values.astype(np.float64), uniforms, tokens, strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert p[:token].sum() <= u + 1e-12
        assert p[: token + 1].sum() > u - 1e-12
        assert p[token] > 0


@given(scores(rows=2), st.integers(0, 2**32 - 1))
def test_only_kept_tokens_are_drawn(values, seed):
    """SAMP-01: a removed token, of probability 0, is never drawn."""
    values = np.where(values < np.median(values, axis=1, keepdims=True), -np.inf, values)
    for pick in (
        draw(shared_exponentials(seed)),
        draw(exponentials_per_row([seed, seed + 1])),
        inverse_cdf(np.full((2, 1), 1 - 2**-53)),
    ):
        assert np.isfinite(values[np.arange(2), pick(values)]).all()
