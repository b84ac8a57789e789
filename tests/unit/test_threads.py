"""Threads: as many as said, work shared without a trace in the result."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import InputError
from refgen.engines.numpy import threads
from refgen.engines.numpy.threads import by_rows, get_num_threads, openblas, set_num_threads, share
from refgen.model import gelu_new, softmax


@pytest.mark.parametrize(("environment", "count"), [
    ({"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3), ({"OMP_NUM_THREADS": "5"}, 5), ({"OMP_NUM_THREADS": "x"}, None),
])  # fmt: skip
def test_threads_without_openblas(monkeypatch, environment, count):
    """A BLAS that cannot be asked: the variables, in OpenBLAS's order; else the cores this process may use."""
    monkeypatch.setattr(threads, "openblas", lambda verb: None)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert get_num_threads() == count if count else get_num_threads() >= 1
    with pytest.raises(InputError, match="cannot be told how many threads"):
        set_num_threads(1)


@pytest.mark.parametrize(("environment", "count"), [
    ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, 2), ({"OMP_NUM_THREADS": "1"}, 1),
])  # fmt: skip
def test_threads_are_those_of_openblas(environment, count):
    """Where NumPy has its usual BLAS, the number is the BLAS's own, which goes by the variables."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    others = {name: value for name, value in os.environ.items() if name not in names}
    code = "import refgen, refgen.engines.numpy.threads as p; print(refgen.get_num_threads(), p.openblas('get_num_threads') is not None)"
    said = subprocess.run(
        [sys.executable, "-c", code], env=others | environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[0] == str(min(count, os.cpu_count() or 1))


def test_threads_can_be_set():
    """One number for both: what is set, the BLAS has, and work is shared among as many."""
    if openblas("set_num_threads") is None:
        pytest.skip("this NumPy's BLAS cannot be told")
    before = get_num_threads()
    try:
        for count in (1, 2):
            set_num_threads(count)
            assert get_num_threads() == openblas("get_num_threads")() == count
            assert len(threads_at_work()) == count
    finally:
        set_num_threads(before)


def threads_at_work():
    """Which threads do the rows of one array."""
    seen = set()

    def slow(x):
        seen.add(threading.get_ident())
        time.sleep(0.01)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "BLOCK", 1)
        by_rows(slow, np.zeros((8, 1)))
    return seen


@pytest.mark.parametrize("count", [0, -1, 1.0, True, None])
def test_numbers_of_threads_that_are_refused(count):
    """Whole numbers from 1."""
    with pytest.raises(InputError, match="must be a whole number of threads, at least 1"):
        set_num_threads(count)


@given(
    st.integers(1, 5), st.integers(1, 64), st.integers(1, 9), st.integers(1, 40), st.sampled_from([softmax, gelu_new])
)
def test_by_rows_is_the_whole(workers, block, width, rows, function):
    """FWD-13, FWD-14: whatever the blocks and threads, each row is what it is by itself, bit for bit."""
    x = np.random.default_rng(rows).normal(size=(rows, 2, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "BLOCK", block)
        patch.setattr(threads, "get_num_threads", lambda: workers)
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


def test_a_task_that_shares_waits_for_nobody():
    """A task of ours that shares its own work, as it does where the BLAS cannot be told, does all of it itself."""
    done = []

    def outer(part):
        share(lambda inner: done.append((part, inner)), 3)

    thread = threading.Thread(target=share, args=(outer, 3), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert sorted(done) == [(part, inner) for part in range(3) for inner in range(3)]


def test_threads_inherit_what_numpy_is_told():
    """`np.errstate` holds in the other threads too: an overflow that is expected warns nowhere."""
    huge = np.full((4, 4), 1e30, np.float32)
    with warnings.catch_warnings(), np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(threads, "BLOCK", 1)
        patch.setattr(threads, "get_num_threads", lambda: 3)
        assert np.isinf(by_rows(lambda x: x * x, huge)).all()
