"""Stopping conditions one by one."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GenerationError, Tokenizer
from refgen.generation.stopping import context, criterion, eos, length, out_of_time, stop_string, stopping
from refgen.names import find_model

IDS = np.array([[9, 1, 2, 3], [9, 9, 9, 9], [0, 0, 5, 9]])
TOKENIZER = Tokenizer.from_pretrained(find_model("shakespeare"))
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize(("eos_ids", "expected"), [
    ((9,), [False, True, True]), ((3, 9), [True, True, True]), ((5,), [False, False, False]), ((), [False, False, False]),
])  # fmt: skip
def test_only_the_newest_token_ends_a_row(eos_ids, expected):
    """STOP-02, STOP-03: any of the end tokens, and only in the last column."""
    assert eos(IDS, MASK, eos_ids=eos_ids).tolist() == expected


def test_length_counts_columns():
    """LEN-02: padding counts."""
    assert length(IDS, MASK, max_length=4).tolist() == [True] * 3
    assert length(IDS, MASK, max_length=5).tolist() == [False] * 3


def test_context_counts_tokens():
    """LEN-04, LEN-05: the row is full when it holds one token more than there are positions; padding is free."""
    assert context(IDS, MASK, n_positions=3).tolist() == [True, True, False]
    assert context(IDS, MASK, n_positions=4).tolist() == [False] * 3


def test_the_order_of_reasons():
    """STOP-01: the end token is named before the limit it coincides with."""
    config = GenerationConfig(eos_token_id=1, stop_strings="a", max_time=1)
    conditions = stopping(config, 4, 4, TOKENIZER, [lambda ids, _: False])
    assert tuple(conditions) == ("eos", "stop_string", "criterion", "length", "context", "time")
    assert tuple(stopping(GenerationConfig(), 4, 4)) == ("eos", "length", "context")


def ends(text, stop, prompt=""):
    """The number of tokens of `text` at which a stop string fires first, None if never."""
    ids = TOKENIZER.encode(prompt) + TOKENIZER.encode(text)
    width = len(TOKENIZER.encode(prompt))
    for end in range(max(width, 0) + 1, len(ids) + 1):
        row = np.array([ids[:end]])
        if stop_string(row, np.ones_like(row), strings=(stop,), tokenizer=TOKENIZER)[0]:
            return end - width
    return None


@given(st.text("abc é😀", min_size=1, max_size=12), st.text("abc é😀", min_size=1, max_size=4))
def test_a_stop_string_fires_at_the_token_that_completes_it(text, stop):
    """SSTR-01, SSTR-02: at the first token with which the bytes so far contain it, across token borders."""
    ids = TOKENIZER.encode(text)
    pieces = [b"".join(map(TOKENIZER.token_bytes, ids[:end])) for end in range(1, len(ids) + 1)]
    expected = next((end for end, piece in enumerate(pieces, start=1) if stop.encode() in piece), None)
    assert ends(text, stop) == expected


def test_a_stop_string_may_begin_in_the_prompt():
    """SSTR-03: spanning prompt and first token it fires, wholly inside the prompt it does not; padding is no text."""
    assert ends("b", "ab", prompt="xa") == 1
    assert ends("xyz", "ab", prompt="ab") is None
    row = np.array([[TOKENIZER.encode("a")[0], TOKENIZER.encode("b")[0]]])
    settings = {"strings": ("ab",), "tokenizer": TOKENIZER}
    assert stop_string(row, np.array([[1, 1]]), **settings).tolist() == [True]
    assert stop_string(row, np.array([[0, 1]]), **settings).tolist() == [False]


@given(
    st.lists(st.sampled_from([*TOKENIZER.encode("abc é"), 1024, 1061]), min_size=1),
    st.text("abc é", min_size=1, max_size=4),
)
def test_ids_without_a_token_are_no_text_for_stop_strings(ids, stop):
    """SSTR-01, TOK-14: a stop string is found in the text, however many ids without a token stand in it."""
    text, before = (b"".join(map(TOKENIZER.token_bytes, some)) for some in (ids, ids[:-1]))
    last = text.rfind(stop.encode())
    row = np.array([ids])
    hit = stop_string(row, np.ones_like(row), strings=(stop,), tokenizer=TOKENIZER)[0]
    assert hit == (last >= 0 and last + len(stop.encode()) > len(before))


def test_criteria_of_ones_own():
    """STOP-09: one answer for all rows or one for each; any of several functions; anything else is refused."""
    assert criterion(IDS, MASK, functions=[lambda ids, _: ids[:, -1] == 9]).tolist() == [False, True, True]
    assert criterion(IDS, MASK, functions=[lambda ids, _: True, lambda ids, _: False]).tolist() == [True] * 3
    for wrong in (1, np.ones(2, bool), None):
        with pytest.raises(
            GenerationError, match=r"a stopping_criteria gave .*must give True or False, one or 3 \[STOP-09\]"
        ):
            criterion(IDS, MASK, functions=[lambda ids, _, wrong=wrong: wrong])


def test_time_is_over_after_the_deadline():
    """LEN-09: asked after a token, so there is always one."""
    assert out_of_time(IDS, MASK, deadline=time.monotonic() - 1).all()
    assert not out_of_time(IDS, MASK, deadline=time.monotonic() + 60).any()
