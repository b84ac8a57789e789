"""Stopping conditions one by one."""

import numpy as np
import pytest

from refgen.generation.stopping import FINISHES, context, eos, length, stopping

IDS = np.array([[9, 1, 2, 3], [9, 9, 9, 9], [0, 0, 5, 9]])
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
    assert tuple(stopping((1,), 4, 4)) == FINISHES == ("eos", "length", "context")
