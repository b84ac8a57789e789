"""Processors one by one: the boundary cases that are exact in floating point, and a second definition of each."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GenerationError
from refgen.generation.processors.cuts import epsilon_cutoff, eta_cutoff, top_h, typical_p
from refgen.generation.processors.order import processors
from refgen.generation.processors.penalties import min_length, no_repeat_ngram, repetition_penalty, sequence_bias
from refgen.generation.processors.places import (
    custom,
    exponential_decay,
    forced,
    prefix_allowed_tokens,
    remove_invalid_values,
    renormalize,
    suppress,
)
from refgen.generation.processors.sampling import min_p, temperature, top_k, top_p
from refgen.generation.prompt import Prompt
from refgen.generation.settle import settle
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


# --- bans and biases ---

CONTEXTS = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(CONTEXTS, st.integers(1, 4))
def test_no_ngram_is_repeated(context, n):
    """NGRAM-01: a token is removed if and only if appending it makes an n-gram that is already there."""
    mask = np.ones((1, len(context)), int)
    out = no_repeat_ngram(np.array([context]), np.zeros((1, 5), np.float32), n=n, prompt_mask=mask)
    there = {tuple(context[i : i + n]) for i in range(len(context) - n + 1)}
    for token in range(5):
        assert (out[0, token] == -np.inf) == (len(context) >= n - 1 and tuple([*context, token][-n:]) in there)


@given(CONTEXTS, st.integers(0, 3), st.integers(1, 3))
def test_padding_is_no_context(context, pads, n):
    """NGRAM-02: n-grams, biases and bans see a left-padded row as they see it alone."""
    alone, padded = np.array([context]), np.array([[0] * pads + context])
    mask = np.array([[0] * pads + [1] * len(context)])
    zeros = np.zeros((1, 5), np.float32)
    np.testing.assert_array_equal(
        no_repeat_ngram(padded, zeros, n=n, prompt_mask=mask),
        no_repeat_ngram(alone, zeros, n=n, prompt_mask=mask[:, pads:]),
    )
    biases = [((0, 1), 2.0), ((0, 0, 2), -np.inf)]
    np.testing.assert_array_equal(
        sequence_bias(padded, zeros, biases=biases, prompt_mask=mask),
        sequence_bias(alone, zeros, biases=biases, prompt_mask=mask[:, pads:]),
    )


def test_biases_add_up():
    """BIAS-01: single ids always, longer sequences where the row ends in what precedes their last id; they add up."""
    biases = [((2,), 1.0), ((1, 2), 10.0), ((0, 1, 2), 100.0), ((2, 2), 1000.0)]
    for context, expected in (([0, 1], 111.0), ([1], 11.0), ([2], 1001.0), ([0], 1.0)):
        ids = np.array([context])
        out = sequence_bias(ids, row(0, 0, 0), biases=biases, prompt_mask=np.ones_like(ids))
        np.testing.assert_array_equal(out, row(0, 0, expected))


# --- by place and by id ---


def test_prefix_allowed_tokens_names_what_may_come():
    """PREF-01: only named ids stay; if all are removed already they come back; none, or a foreign one, is an error."""
    calls = []

    def allowed(number, ids):
        calls.append((number, ids.tolist()))
        return [1, 2]

    ids, gone = np.array([[7, 8]]), -np.inf
    np.testing.assert_array_equal(prefix_allowed_tokens(ids, row(5, 6, gone), allowed=allowed), row(gone, 6, gone))
    np.testing.assert_array_equal(prefix_allowed_tokens(ids, row(5, gone, gone), allowed=allowed), row(gone, 0, 0))
    assert calls[0] == (0, [7, 8])
    for wrong in ([], [3], [-1], [0.5]):
        with pytest.raises(
            GenerationError, match=r"prefix_allowed_tokens_fn gave .* for row 0: must give ids from 0 to 2"
        ):
            prefix_allowed_tokens(ids, row(5, 6, 7), allowed=lambda number, ids, wrong=wrong: wrong)


@pytest.mark.parametrize(("width", "expected"), [(3, [0, 1, 2]), (4, [1, 2]), (5, [0, 1, 2])])
def test_forced_tokens_at_one_column(width, expected):
    """FORCE-01, FORCE-02: for that column nothing but the forced ids, which score 0."""
    out = forced(np.zeros((1, width), int), row(3, 4, 5), column=4, forced_ids=(1, 2))
    assert kept(out) == expected
    assert width != 4 or out[0, 1] == out[0, 2] == 0


def test_remove_invalid_values():
    """INV-01: NaN is 0, infinities are the ends of float32."""
    largest = np.finfo(np.float32).max
    out = remove_invalid_values(NONE, row(np.nan, np.inf, -np.inf, 1))
    np.testing.assert_array_equal(out, row(0, largest, -largest, 1))


@pytest.mark.parametrize(("width", "gain"), [(4, 0.0), (5, 0.0), (6, 0.5), (7, 1.25)])
def test_exponential_decay_grows_with_every_column(width, gain):
    """EXPD-01: after `start` columns an end token gains |score| (factor^excess - 1); what is removed stays so."""
    out = exponential_decay(np.zeros((1, width), int), row(-2, 2, -np.inf), start=5, factor=1.5, eos_ids=(0, 2))
    np.testing.assert_array_equal(out, row(-2 + 2 * gain, 2, -np.inf))


def test_suppressed_tokens():
    """SUP-01, SUP-02: removed everywhere, or only for the first new token."""
    assert kept(suppress(np.zeros((1, 3), int), row(1, 2, 3), suppressed=(0, 2))) == [1]
    assert kept(suppress(np.zeros((1, 3), int), row(1, 2, 3), suppressed=(0, 2), column=3)) == [1]
    assert kept(suppress(np.zeros((1, 4), int), row(1, 2, 3), suppressed=(0, 2), column=3)) == [0, 1, 2]


def test_custom_processors_work_on_copies():
    """PROC-03: a function of the caller's own may edit what it is given; a wrong shape or type is an error."""

    def edit(ids, scores):
        ids[:] = 0
        scores[:] += 1
        return scores.astype(np.float64)

    ids, scores = np.array([[5]]), row(1, 2)
    out = custom(ids, scores, function=edit)
    np.testing.assert_array_equal(out, row(2, 3))
    assert (out.dtype, ids.tolist(), scores.tolist()) == (np.float32, [[5]], [[1, 2]])
    for wrong in (None, np.zeros(2), np.zeros((1, 2), bool)):
        with pytest.raises(GenerationError, match=r"a logits_processor gave .*numbers of shape \[1, 2\] \[PROC-03\]"):
            custom(ids, scores, function=lambda ids, scores, wrong=wrong: wrong)


# --- shapes of chance by their definitions ---


def surprise(values):
    """Every token's probability and -log p, and their mean, the entropy, in float64."""
    p = probabilities(values)
    information = -np.log(np.maximum(p, 1e-300))
    return p, information, float((p * information).sum())


@given(scores(rows=1), st.floats(0.01, 1))
def test_top_h_by_adding_up(values, share):
    """TOPH-01: best first, a token stays while the -p log p up to and with it are at most the share of the entropy."""
    result, total = top_h(NONE, values, share=share), 0.0
    p, information, entropy = surprise(values[0])
    for place, i in enumerate(best_first(values[0])):
        total += p[i] * information[i]
        if abs(total - share * entropy) > 10 * NEAR or place == 0:
            assert (result[0, i] > -np.inf) == (total <= share * entropy or place == 0)


def test_top_h_looks_at_a_hundred_tokens():
    """TOPH-01: beyond the 100 best nothing is kept, whatever the share."""
    assert len(kept(top_h(NONE, np.zeros((1, 150), np.float32), share=1.0))) in (99, 100)  # the last is on the boundary


@given(scores(rows=1), st.floats(0.01, 0.99))
def test_typical_p_by_sorting(values, mass):
    """TYP-01: closest to the entropy first, until the mass is reached; equally close ones stay together."""
    result = typical_p(NONE, values, mass=mass)
    p, information, entropy = surprise(values[0])
    deviation = np.abs(information - entropy)
    for i in range(len(p)):
        nearer = p[deviation < deviation[i] - 10 * NEAR].sum()
        if nearer < mass - NEAR:
            assert result[0, i] > -np.inf
        elif nearer > mass + NEAR:
            assert result[0, i] == -np.inf


@given(scores(rows=1), st.floats(0.001, 0.999))
def test_cutoffs_by_comparing(values, epsilon):
    """EPS-01, ETA-01: less likely than the threshold is removed, except what scores highest."""
    p, _, entropy = surprise(values[0])
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy))
    for processor, least in ((epsilon_cutoff, epsilon), (eta_cutoff, eta)):
        result = processor(NONE, values, epsilon=epsilon)
        for i, value in enumerate(values[0]):
            if abs(p[i] - least) > NEAR or value == values.max():
                assert (result[0, i] > -np.inf) == (p[i] >= least or value == values.max())


@given(scores())
def test_renormalised_scores_are_log_probabilities(values):
    """PROC-04: they are logarithms that sum to 1, in the same order."""
    out = renormalize(NONE, values)
    np.testing.assert_allclose(np.exp(out.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)
    assert (out.argmax(axis=1) == values.argmax(axis=1)).all()


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
    return [processor.func.__name__ for processor in processors(config, Prompt(NONE, NONE + 1), limit=9)]


def test_processor_order():
    """PROC-01: biases and bans, minima, places, repairs, one's own; then, only when sampling, the shapes of chance."""
    every = {
        "sequence_bias": {(3,): 1.0}, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words_ids": [[3]],
        "min_new_tokens": 2, "forced_bos_token_id": 1, "forced_eos_token_id": 2, "remove_invalid_values": True,
        "exponential_decay_length_penalty": (2, 1.5), "suppress_tokens": [5], "begin_suppress_tokens": [6],
        "temperature": 0.5, "top_h": 0.9, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5,
        "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "renormalize_logits": True,
    }  # fmt: skip
    config = settle(GenerationConfig(eos_token_id=1), None, every | {"do_sample": True})
    own = [lambda ids, scores: scores]
    built = list(processors(config, Prompt(NONE, NONE + 1), 9, lambda row, ids: [0], own))
    functions = [getattr(processor, "func", processor) for processor in built]
    assert [function.__name__ for function in functions] == [
        "sequence_bias", "repetition_penalty", "no_repeat_ngram", "sequence_bias", "min_length", "prefix_allowed_tokens",
        "forced", "forced", "remove_invalid_values", "exponential_decay", "suppress", "suppress", "custom",
        "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "renormalize",
    ]  # fmt: skip
    columns = [
        processor.keywords.get("column")
        for processor, function in zip(built, functions, strict=True)
        if function in (forced, suppress)
    ]
    assert columns == [1, 8, None, 2]  # a prompt of one token whose first new one is forced begins a column later


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
