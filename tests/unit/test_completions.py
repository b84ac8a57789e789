"""What the answer of a server must say: completions.py, rules SERVE-01 to SERVE-10."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refgen.conformance.judging.completions import (
    changed,
    cut,
    finish_reason,
    releasable,
    usage,
    visible_text,
    wrong_in_choices,
    wrong_in_echo,
    wrong_in_logprobs,
    wrong_in_stream,
    wrong_in_tokens,
)
from refgen.conformance.subjects.wire import meaning

TEXT = st.text("ab", max_size=20)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def test_usage_counts_all_choices():
    """SERVE-01. The prompt once, every choice's tokens."""
    assert usage([1, 2, 3], [[1], [2, 3]]) == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_finish_words():
    """SERVE-02. What ends by itself stops; a limit is a length."""
    assert finish_reason("eos") == finish_reason("stop_string") == "stop"
    assert finish_reason("length") == finish_reason("context") == "length"


@given(TEXT, STOPS)
def test_cut_text_holds_no_stop_string(text, stops):
    """SERVE-03. What is left is a beginning without any of them, and longer than no more than needed."""
    said = cut(text, stops)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    assert (said == text) == (not any(stop in text for stop in stops))
    if said != text:
        assert any(text[len(said) :].startswith(stop) for stop in stops)


def test_the_stop_string_that_is_complete_first_counts():
    """SERVE-03. One token after the other, abcd is found before anybody knows of bcde, and b before abc."""
    assert cut("xabcde", ["bcde", "abcd"]) == "x"
    assert cut("xabcde", ["abc", "b"]) == "xa"


@given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=2, max_size=8), STOPS)
@example(["tw", "o, ", "th", "ree"], [", three"])
def test_released_pieces_are_the_cut_text(pieces, stops):
    """SERVE-04. Released as `releasable` allows, pieces never go beyond the text, and all of it comes in the end."""
    text, deltas, sent = "", [], 0
    for piece in pieces:
        text += piece
        if cut(text, stops) != text:
            break
        upto = releasable(text, stops)
        deltas.append(text[sent:upto])
        sent = max(sent, upto)
    said = cut(text, stops)
    deltas.append(said[sent:])
    assert wrong_in_stream(deltas, said) == ("", "")


@pytest.mark.parametrize(
    ("deltas", "text", "rule", "words"),
    [
        (["a\ufffd", "\ufffd"], "aé", "STREAM-03", "half a character"),
        (["a"], "a\ufffd", "STREAM-03", "never came"),
        (["tw", "o"], "two, th", "SERVE-04", "never came"),
        (["two", ", th"], "two", "SERVE-04", "after the end"),
        (["world"], " world", "SERVE-04", "piece 0"),
        (["a", "b", "b"], "abc", "SERVE-04", "piece 2"),
    ],
)
def test_what_is_wrong_in_a_stream(deltas, text, rule, words):
    """SERVE-04, STREAM-03. Each kind of wrong stream is told by its rule."""
    problem, named = wrong_in_stream(deltas, text)
    assert (named, words in problem) == (rule, True)


def test_what_is_wrong_in_logprobs():
    """SERVE-05. None, lists of different length, positive numbers and better alternatives; else nothing."""
    right = {"tokens": ["a", "b"], "logprobs": [-1.0, 0.0], "top_logprobs": [[[5, -1.0]], None]}
    assert wrong_in_logprobs(right, greedy=True) == ("", "")
    for change, words in [
        ({"logprobs": None}, "no logprobs"),
        ({"logprobs": [-1.0]}, "1 logprobs, 2 tokens"),
        ({"logprobs": [-1.0, 0.5]}, "token 1 is 0.5"),
        ({"logprobs": [-1.0, None]}, "token 1 is None"),
        ({"top_logprobs": [[[5, -0.5]], None]}, "below the -0.5"),
        ({"ids": [5], "ids_from": "token_ids"}, "1 ids"),
    ]:
        problem, rule = wrong_in_logprobs(right | change, greedy=True)
        assert words in problem
        assert rule == "SERVE-05"
    assert wrong_in_logprobs(right | {"top_logprobs": [[[5, -0.5]], None]}) == ("", "")
    assert wrong_in_logprobs(right | {"ids": [5], "ids_from": "text"}) == ("", "")


def test_tokens_hold_the_text(shakespeare):
    """SERVE-05. Beside a cut text, tokens may go on behind it, and must not end before."""
    _, tokenizer = shakespeare
    ids = tokenizer.encode("Farewell, my lord")
    assert wrong_in_tokens(tokenizer, ids, "Farewell, my") == ""
    assert "the text ends with" in wrong_in_tokens(tokenizer, ids[:-1], "Farewell, my lord")
    assert wrong_in_tokens(tokenizer, None, "anything") == ""


def test_what_is_wrong_in_an_echo():
    """SERVE-06. The prompt comes first, its first token without a number."""
    right = {"text": "ab", "logprobs": [None, -1.0]}
    assert wrong_in_echo(right, "a", 1) == ("", "")
    assert wrong_in_echo({"text": "ab", "logprobs": None}, "a", 1) == ("", "")
    for change in ({"text": "b"}, {"logprobs": [0.0, -1.0]}, {"logprobs": [None, 1.0]}, {"logprobs": []}):
        assert wrong_in_echo(right | change, "a", 1)[1] == "SERVE-06"


def test_choices_are_numbered():
    """SERVE-07. In any order; none twice, none missing."""
    assert wrong_in_choices([{"index": 1}, {"index": 0}], 2) == ""
    for indices in ([0], [0, 0], [1, 2], [None, 0]):
        assert wrong_in_choices([{"index": index} for index in indices], 2)


def test_the_first_changed_answer():
    """SERVE-08. A prompt has one answer."""
    assert changed([([1], "a"), ([1, 2], "b"), ([1], "a")]) is None
    assert changed([([1], "a"), ([1, 2], "b"), ([1], "c"), ([1, 2], "d")]) == 2


def test_special_tokens_are_hidden(shakespeare):
    """SERVE-09. The end token is in the ids, not in the text; a stop string cuts what is left."""
    _, tokenizer = shakespeare
    ids = [*tokenizer.encode("Farewell."), tokenizer.eos_token_id]
    assert visible_text(tokenizer, ids) == "Farewell."
    assert visible_text(tokenizer, ids, ["well"]) == "Fare"


def test_what_status_codes_mean():
    """SERVE-10. The client's mistakes are 400 to 499."""
    assert [meaning(code) for code in (200, 400, 404, 422, 499)] == ["answer"] + ["refusal"] * 4
    assert [meaning(code) for code in (500, 501, 503, 302)] == ["failure", "cannot", "failure", "failure"]
