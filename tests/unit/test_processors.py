"""Processors one by one: the boundary cases that are exact in floating point, and a second definition of each."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GenerationError
from refgen.generation.config import settle
from refgen.generation.processors import min_length, min_p, processors, repetition_penalty, temperature, top_k, top_p
from refgen.generation.prompt import Prompt
from tests.strategies import scores

NONE = np.zeros((1, 1), int)  # for processors that do not look at the ids
NEAR = 1e-6  # float32 probabilities: closer to a boundary than this, either answer is right


def row(*values):
    """One row of float32 scores."""
    return np.array([values], dtype=np.float32)


def kept(scores):
    """The ids of a row that are not removed."""
    return np.flatnonzero(scores[0] > -np.inf).tolist()


def probabilities(values):
    """The row's probabilities in float64, by the book."""
    exact = np.exp(values.astype(np.float64) - values.max())
    return exact / exact.sum()


def best_first(values):
    """Ids by falling score, ties by rising id."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


# --- top-k ---


def test_top_k_keeps_ties_with_the_kth():
    """TOPK-01: three tokens tie for second place, so top_k=2 keeps four."""
    assert kept(top_k(NONE, row(5, 1, 3, 3, 0, 3), k=2)) == [0, 2, 3, 5]


def test_top_k_larger_than_the_vocabulary_keeps_all():
    """TOPK-01: k above V is no limit."""
    assert kept(top_k(NONE, row(5, 1, 3), k=99)) == [0, 1, 2]


@given(scores(), st.integers(1, 14))
def test_top_k_by_sorting(values, k):
    """TOPK-01: a token stays if fewer than k tokens score higher."""
    result = top_k(NONE, values, k=k)
    for before, after in zip(values, result, strict=True):
        for i, value in enumerate(before):
            stays = (before > value).sum() < k
            assert after[i] == (value if stays else -np.inf)


# --- top-p ---


@pytest.mark.parametrize(("equal", "p", "count"), [
    (2, 0.5, 1), (2, 0.51, 2), (4, 0.25, 1), (4, 0.5, 2), (4, 0.75, 3), (4, 0.76, 4), (8, 0.125, 1), (4, 0.0, 1), (4, 1e-9, 1),
])  # fmt: skip
def test_top_p_at_exact_boundaries(equal, p, count):
    """TOPP-01: mass that reaches top_p exactly is enough; of equal tokens the lowest ids stay (TOPP-03)."""
    assert kept(top_p(NONE, row(*[1.5] * equal), p=p)) == list(range(count))


def test_top_p_keeps_the_crossing_token():
    """TOPP-01: 0.6 of (0.5, 0.3, 0.2) is crossed by the second token, which stays."""
    assert kept(top_p(NONE, row(*np.log([0.2, 0.5, 0.3])), p=0.6)) == [1, 2]


@given(scores(), st.floats(0, 0.999))
def test_top_p_by_adding_up(values, p):
    """TOPP-01: best first, a token stays while the mass before it is below p; undecided within float32 rounding."""
    result = top_p(NONE, values, p=p)
    for before, after in zip(values, result, strict=True):
        mass = 0.0
        for place, i in enumerate(best_first(before)):
            if abs(mass - p) > NEAR or place == 0:
                assert (after[i] > -np.inf) == (mass < p or place == 0)
            assert after[i] in (before[i], -np.inf)
            mass += probabilities(before)[i]


# --- min-p ---


def test_min_p_keeps_equality():
    """MINP-01: min_p=1 keeps exactly the tokens as likely as the best."""
    assert kept(min_p(NONE, row(2, 0, 2, 1), p=1.0)) == [0, 2]


@given(scores(), st.floats(0.001, 1))
def test_min_p_by_ratio(values, p):
    """MINP-01: a token stays if it is at least p times as likely as the best."""
    result = min_p(NONE, values, p=p)
    for before, after in zip(values, result, strict=True):
        for i, value in enumerate(before):
            ratio = math.exp(float(value) - float(before.max()))
            if abs(ratio - p) > NEAR or ratio == 1:
                assert (after[i] > -np.inf) == (ratio >= p)


# --- temperature, repetition, minimum ---


@given(scores(), st.sampled_from((0.25, 0.5, 2.0, 4.0)))
def test_temperature_divides(values, t):
    """TEMP-01: exact for powers of two; the order of tokens never changes."""
    np.testing.assert_array_equal(temperature(NONE, values, value=t), values * np.float32(1 / t))


@pytest.mark.parametrize("t", [1e-38, 1e-45, 1e-300])
def test_temperature_that_overflows_is_an_error(t):
    """TEMP-03: scores beyond float32 are refused, with the way to say greedy."""
    with pytest.raises(GenerationError, match=rf"temperature={t}: makes scores overflow.*TEMP-03.*temperature=0"):
        temperature(NONE, row(30, -20), value=t)


def test_temperature_leaves_removed_tokens_removed():
    """WARP-02: -inf stays -inf and is no overflow."""
    assert kept(temperature(NONE, row(1, -np.inf), value=0.5)) == [0]


def test_repetition_penalty_by_sign():
    """REP-01: positive scores are divided, negative ones multiplied, zero stays; each id once, however often seen."""
    ids = np.array([[0, 1, 1, 2]])
    out = repetition_penalty(ids, row(4, -4, 0, 4), penalty=2.0, prompt_mask=np.ones((1, 2), int))
    np.testing.assert_array_equal(out, row(2, -8, 0, 4))


def test_repetition_penalty_ignores_left_padding():
    """REP-02: columns before the row's first token are not context; a hole inside it is."""
    ids = np.array([[3, 0, 1, 2]])
    out = repetition_penalty(ids, row(4, 4, 4, 4), penalty=2.0, prompt_mask=np.array([[0, 1, 0, 1]]))
    np.testing.assert_array_equal(out, row(2, 2, 2, 4))


@given(scores(rows=1), st.sampled_from((0.5, 2.0, 4.0)), st.data())
def test_repetition_penalty_undoes_its_inverse(values, penalty, data):
    """REP-01: penalty r after penalty 1/r is the identity; ids not in context are untouched."""
    ids = np.array([data.draw(st.lists(st.integers(0, values.shape[1] - 1), min_size=1, max_size=6))])
    mask = np.ones_like(ids)
    there = repetition_penalty(ids, values, penalty=penalty, prompt_mask=mask)
    back = repetition_penalty(ids, there, penalty=1 / penalty, prompt_mask=mask)
    np.testing.assert_array_equal(back, values)
    unseen = np.setdiff1d(np.arange(values.shape[1]), ids)
    np.testing.assert_array_equal(there[:, unseen], values[:, unseen])


@pytest.mark.parametrize(("width", "removed"), [(3, True), (4, False), (5, False)])
def test_min_length_counts_columns(width, removed):
    """LEN-08: the end is impossible while there are fewer columns than the minimum."""
    out = min_length(np.zeros((1, width), int), row(1, 2, 3), least=4, eos_ids=(0, 2))
    assert kept(out) == ([1] if removed else [0, 1, 2])


# --- all together ---


@given(scores(), st.data())
def test_processors_change_nothing_in_place(values, data):
    """Every processor returns new scores of the same shape and dtype and leaves its arguments alone."""
    ids = np.zeros((2, 3), int)
    calls = [
        (top_k, {"k": data.draw(st.integers(1, 9))}),
        (top_p, {"p": data.draw(st.floats(0, 0.99))}),
        (min_p, {"p": data.draw(st.floats(0, 1))}),
        (temperature, {"value": data.draw(st.floats(0.1, 9))}),
        (repetition_penalty, {"penalty": data.draw(st.floats(0.1, 9)), "prompt_mask": np.ones_like(ids)}),
        (min_length, {"least": data.draw(st.integers(0, 6)), "eos_ids": (0,)}),
    ]
    before = values.copy()
    for processor, settings in calls:
        out = processor(ids, values, **settings)
        assert out.shape == values.shape
        assert out.dtype == np.float32, processor.__name__
        np.testing.assert_array_equal(values, before)
        assert (out > -np.inf).any(axis=1).all() or processor is min_length


def names(**settings):
    """The processors that a call builds, in order."""
    config = settle(GenerationConfig(eos_token_id=1), None, settings)
    return [processor.func.__name__ for processor in processors(config, Prompt(NONE, NONE + 1))]


def test_processor_order():
    """PROC-01: penalties and minima, then temperature, top-k, top-p, min-p."""
    every = {"repetition_penalty": 1.2, "min_new_tokens": 2, "temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.1}
    assert names(do_sample=True, **every) == [
        "repetition_penalty", "min_length", "temperature", "top_k", "top_p", "min_p"
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::refgen.IgnoredSettingWarning")
def test_greedy_has_no_processors_that_shape_chance():
    """GREEDY-05: without sampling only penalties and minima act; at temperature 0 likewise."""
    every = {"repetition_penalty": 1.2, "top_k": 5, "top_p": 0.5, "min_p": 0.1}
    assert names(**every, temperature=0.5) == ["repetition_penalty"]
    assert names(do_sample=True, **every, temperature=0) == ["repetition_penalty"]


def test_neutral_values_build_nothing():
    """PROC-05: a plain sampling call is top-k 50; neutral values leave a processor out."""
    assert names() == []
    assert names(do_sample=True) == ["top_k"]
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "min_length": 0}
    assert names(do_sample=True, **neutral) == []
    assert names(do_sample=True, **dict.fromkeys(neutral)) == []
