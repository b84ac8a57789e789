"""Watermarks, by a second way: plain integers, one token at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GenerationError
from refgen.generation.prompt import Prompt
from refgen.generation.torch_stream import TorchStream
from refgen.generation.watermark import coin_table, greens, hash_table, permutation, self_seed, watermark

WORD = 2**64


def signed(number):
    """The 64-bit signed integer that `number` wraps to."""
    return (number + WORD // 2) % WORD - WORD // 2


def marked(settings, ids, scores, mask=None, prompt_width=None):
    """Scores after the watermark of a checked configuration."""
    ids = np.array(ids)
    mask = np.ones_like(ids) if mask is None else np.array(mask)
    prompt = Prompt(ids[:, :prompt_width], mask[:, :prompt_width])
    checked = GenerationConfig(watermarking_config=settings).watermarking_config
    return watermark(checked, prompt)(ids, scores)


@given(st.integers(0, 2**64), st.integers(1, 60), st.data())
def test_permutations(seed, n, data):
    """WMARK-04: every number once; the beginning of it is the same when only that is asked for."""
    whole = permutation(seed, n, n)
    size = data.draw(st.integers(0, n))
    assert sorted(whole) == list(range(n))
    assert permutation(seed, n, size) == whole[:size]


def test_left_hash_by_hand():
    """WMARK-01: the bias goes to the greens of the last token times the key, in each row."""
    scores = np.zeros((2, 20), np.float32)
    result = marked({"bias": 1.5, "greenlist_ratio": 0.3, "hashing_key": 17}, [[4, 5], [5, 9]], scores)
    for row, last in enumerate((5, 9)):
        green = permutation(17 * last, 20, 20)[:6]
        assert sorted(np.flatnonzero(result[row] == 1.5).tolist()) == sorted(green)
        assert (np.delete(result[row], green) == 0).all()


def test_short_rows_are_left_alone():
    """WMARK-01: fewer tokens than context_width, padding not counted, and nothing is marked."""
    scores = np.zeros((2, 20), np.float32)
    result = marked({"context_width": 2}, [[4, 5], [0, 5]], scores, mask=[[1, 1], [0, 1]])
    assert result[0].any()
    assert not result[1].any()


def test_self_hash_by_hand():
    """WMARK-02: a token is biased if it is in the green list that it draws itself, the best 40 alone."""
    scores = np.random.default_rng(0).normal(size=(1, 60)).astype(np.float32)
    result = marked({"seeding_scheme": "selfhash", "context_width": 3, "bias": 1.0}, [[7, 8, 9]], scores)
    key, table = 15485863, hash_table(15485863)
    for rank, token in enumerate(np.argsort(-scores[0]).tolist()):
        entries = [int(table[each]) + 1 for each in (8, 9, token)]
        seed = min(signed(signed(key * entry) * entries[-1]) for entry in entries)
        assert seed == self_seed([8, 9, token], key)
        green = rank < 40 and token in greens(seed, 60, 15)
        assert result[0, token] == scores[0, token] + np.float32(green)


def slow_synthid(settings, new_tokens, scores):
    """WMARK-03, of one row: sums over integers that wrap, one token and one key at a time."""

    def hashed(state, data):
        for each in data:
            state = signed(signed(signed(state + each) * 6364136223846793005) + 1)
        return state

    n, size = settings["ngram_len"], settings["sampling_table_size"]
    table = TorchStream(settings["sampling_table_seed"]).words(size) % 2
    contexts = [([0] * (n - 1) + new_tokens)[t : t + n - 1] for t in range(len(new_tokens) + 1)]
    if contexts[-1] in contexts[:-1]:
        return scores
    p = np.exp(scores - scores.max())
    p = p / p.sum()
    for key in settings["keys"]:
        coins = np.array([table[hashed(hashed(1, contexts[-1]), [token, key]) % size] for token in range(len(p))])
        p = p * (1 + coins - (p * coins).sum())
    return np.array([math.log(each) if each > 0 else float(np.finfo(np.float32).min) for each in p])


SYNTHID = {"ngram_len": 3, "keys": [654, 400, 836], "sampling_table_size": 997, "sampling_table_seed": 3}


@given(st.lists(st.integers(0, 2), max_size=9), st.integers(0, 99))
def test_synthid_by_hand(new_tokens, seed):
    """WMARK-03: the tournament of every key, unless the context was there before."""
    scores = np.random.default_rng(seed).normal(0, 1, (1, 8)).astype(np.float32)
    result = marked(SYNTHID, [[5, 6, *new_tokens]], scores, prompt_width=2)
    expected = slow_synthid(SYNTHID, new_tokens, scores[0].astype(np.float64))
    np.testing.assert_allclose(np.exp(result[0]), np.exp(expected), rtol=0, atol=1e-6)


def test_synthid_may_wait():
    """WMARK-03: with skip_first_ngram_calls the first ngram_len - 1 tokens are not marked."""
    scores = np.zeros((1, 8), np.float32)
    for new, waits in ((0, True), (1, True), (2, False)):
        result = marked(SYNTHID | {"skip_first_ngram_calls": True}, [[5] + [1] * new], scores, prompt_width=1)
        assert (result == 0).all() == waits


def test_synthid_forgets():
    """WMARK-03: a context that left the history is marked again."""
    scores, text = np.zeros((1, 8), np.float32), [[5, 1, 1, 2, 1, 1]]
    assert (marked(SYNTHID, text, scores, prompt_width=1) == 0).all()
    assert (marked(SYNTHID | {"context_history_size": 2}, text, scores, prompt_width=1) != 0).any()


def test_coins_are_fair():
    """WMARK-03: half of the table is ones, within four standard deviations."""
    table = coin_table(0, 2**16)
    assert abs(table.mean() - 0.5) < 4 * 0.5 / 2**8


@pytest.mark.parametrize(("settings", "message"), [
    ([1], r"must be \{name: value\} \[WMARK-01\]"),
    ({"greenlist_ratio": 1.0}, r"holds greenlist_ratio=1\.0, which must be a number above 0, below 1"),
    ({"seeding_scheme": "x"}, r"holds seeding_scheme='x', which must be one of lefthash, selfhash"),
    ({"biass": 1.0}, r"holds 'biass', which is not one of greenlist_ratio, bias"),
    ({"keys": [1]}, r"must hold ngram_len"),
    ({"keys": [1], "ngram_len": 1}, r"holds ngram_len=1, which must be a whole number of at least 2"),
    ({"keys": [1], "ngram_len": 2, "debug_mode": True}, r"holds 'debug_mode'"),
])  # fmt: skip
def test_settings_that_are_refused(settings, message):
    """WMARK-01, WMARK-03: every entry is checked, by name."""
    with pytest.raises(GenerationError, match=message):
        GenerationConfig(watermarking_config=settings)
