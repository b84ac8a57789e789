"""Threads: as many as said, work shared without a trace in the result."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import parallel
from refgen.model import gelu_new, softmax
from refgen.parallel import by_rows, share, threads


@pytest.mark.parametrize(("environment", "count"), [
    ({"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3), ({"OMP_NUM_THREADS": "5"}, 5), ({"OMP_NUM_THREADS": "x"}, None),
])  # fmt: skip
def test_threads_are_those_of_openblas(monkeypatch, environment, count):
    """The same variables that OpenBLAS reads, in its order; else the cores this process may use."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    threads.cache_clear()
    try:
        assert threads() == count if count else threads() >= 1
    finally:
        threads.cache_clear()


@given(
    st.integers(1, 5), st.integers(1, 64), st.integers(1, 9), st.integers(1, 40), st.sampled_from([softmax, gelu_new])
)
def test_by_rows_is_the_whole(workers, block, width, rows, function):
    """FWD-13, FWD-14: whatever the blocks and threads, each row is what it is by itself, bit for bit."""
    x = np.random.default_rng(rows).normal(size=(rows, 2, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "BLOCK", block)
        patch.setattr(parallel, "threads", lambda: workers)
        result = by_rows(function, x)
    expected = np.stack([np.concatenate([function(row[None]) for row in pair]) for pair in x])
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == x.dtype


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_in_a_thread_is_raised(failing):
    """What goes wrong in any part, the caller's own too, comes out, and only when no part is running any more."""
    done = []

    def task(part):
        if part == failing:
            raise ValueError("it fails")
        time.sleep(0.01)
        done.append(part)

    with pytest.raises(ValueError, match="it fails"):
        share(task, 3)
    assert sorted(done) == [part for part in range(3) if part != failing]


def test_threads_inherit_what_numpy_is_told():
    """`np.errstate` holds in the other threads too: an overflow that is expected warns nowhere."""
    huge = np.full((4, 4), 1e30, np.float32)
    with warnings.catch_warnings(), np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(parallel, "BLOCK", 1)
        patch.setattr(parallel, "threads", lambda: 3)
        assert np.isinf(by_rows(lambda x: x * x, huge)).all()
