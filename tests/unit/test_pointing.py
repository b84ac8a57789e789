"""judging/judge.py: the rules that the shape of a wrong answer points at."""

from types import SimpleNamespace

from hypothesis import assume, given
from hypothesis import strategies as st

from refgen.conformance.judging.judge import end_rule, goes_on_with, judge_ids, of_the_batch
from refgen.conformance.judging.verdicts import Verdict

IDS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(IDS, st.lists(st.integers(10, 19), min_size=1, max_size=2), st.booleans())
def test_ids_before_or_after_a_text(expected, more, before):
    """TOK-07. Right ids with others before or after them."""
    found = judge_ids(more + expected if before else expected + more, expected)
    assert (found.verdict, found.rules) == (Verdict.FAIL, ("TOK-07",))


@given(IDS, st.data())
def test_wrong_ids_point_at_nothing(expected, data):
    """TOK-07. One wrong id is another mistake, and right ids are none."""
    assert judge_ids(expected, expected).verdict is Verdict.PASS
    at = data.draw(st.integers(0, len(expected) - 1))
    wrong = [*expected[:at], expected[at] + 10, *expected[at + 1 :]]
    assert judge_ids(wrong, expected).rules == ()


def rows(lists, finish="eos"):
    """Rows of an answer."""
    return [{"new_ids": each, "finish": finish} for each in lists]


@given(
    st.lists(IDS, min_size=2, max_size=4, unique_by=tuple), st.randoms(use_true_random=False), st.sampled_from((1, 2))
)
def test_rows_in_another_order(right, chance, n):
    """BATCH-01, SAMP-07. Right rows in another order; in their own order they point at nothing."""
    mixed = [*right]
    chance.shuffle(mixed)
    assume(mixed != right)
    assert of_the_batch(rows(mixed), rows(right), n) == ("BATCH-01" if n == 1 else "SAMP-07",)
    assert of_the_batch(rows(right), rows(right), n) == ()


@given(st.lists(IDS, min_size=2, max_size=4, unique_by=tuple), st.data())
def test_one_row_for_all(right, data):
    """BATCH-01. One of the right rows for all of them; a wrong row for all is another mistake."""
    one = data.draw(st.sampled_from(right))
    assert of_the_batch(rows([one] * len(right)), rows(right), 1) == ("BATCH-01",)
    assert of_the_batch(rows([[*one, 10]] * len(right)), rows(right), 1) == ()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_row_that_goes_on_with_its_batch(mine, right, other):
    """STOP-06. A row that is longer than it should be, and no longer than its batch."""
    expected = rows([[1] * right, [2] * other])
    assert goes_on_with({"new_ids": [1] * mine}, expected[0], expected) is (right < mine <= max(right, other))


def test_a_stop_string_of_the_prompt():
    """SSTR-03. A row that ends early where a stop string stands in the prompt."""
    lab = SimpleNamespace(
        reference=lambda _: SimpleNamespace(text_of=lambda ids: "a stop, long ago" if ids == [1] else "x")
    )
    early, right = {"new_ids": [5], "finish": "stop_string"}, {"new_ids": [5, 6], "finish": "length"}
    for stops, prompt, rule in (("stop", 1, "SSTR-03"), (["other", "stop"], 1, "SSTR-03"), ("stop", 2, "SSTR-01")):
        request = {"input_ids": [[prompt]], "stop_strings": stops}
        assert end_rule(lab, "model", request, 0, early, right) == rule
