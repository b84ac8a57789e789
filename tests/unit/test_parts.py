"""Prompts in parts: where they are cut, who waits for whom, and what happens when a part fails."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import Cache
from refgen.engines.numpy import parts
from refgen.engines.numpy.parts import LEAST, MOST, in_parts
from refgen.engines.numpy.threads import get_num_threads

LAYERS, B, H, D = 3, 2, 2, 4


def passing(seen, failing=None):
    """A pass that leaves its positions as keys in every layer, looks at all keys up to its own, and says its positions."""

    def run(start, end, cache):
        seen.append((start, end, get_num_threads()))
        own = np.broadcast_to(np.arange(start, end, dtype=float)[:, None], (B, H, end - start, D))
        for layer in range(LAYERS):
            k, v = cache.append(layer, own + 1000 * layer, -own)
            np.testing.assert_array_equal(k[0, 0, :, 0], np.arange(end) + 1000 * layer)
            np.testing.assert_array_equal(v[1, 1, :, 3], -np.arange(end))
            if failing is not None and start <= failing < end and layer == 1:
                raise ValueError("it fails")
        return np.arange(start, end)[None].repeat(B, axis=0)

    return run


def cut(T, threads, run, cache=None, dtype="float64"):
    """`in_parts` of a prompt of T positions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "get_num_threads", lambda: threads)
        return in_parts(run, Cache() if cache is None else cache, LAYERS, (B, H, T, D), dtype, T)


@given(st.integers(1, 700), st.integers(1, 4))
def test_every_position_is_in_one_part(T, threads):
    """FWD-09: parts follow each other, nearly as long as one another, and each sees all keys up to its own, none left out."""
    seen, before = [], get_num_threads()
    logits = cut(T, threads, passing(seen))
    np.testing.assert_array_equal(logits, np.arange(T)[None].repeat(B, axis=0))
    parts = sorted(seen)
    assert [start for start, _, _ in parts] == [0, *(end for _, end, _ in parts[:-1])]
    lengths = [end - start for start, end, _ in parts]
    assert max(lengths) - min(lengths) <= 1
    if len(parts) > 1:
        assert B * min(lengths) >= LEAST // 2
        assert B * max(lengths) <= MOST + B
    assert len(parts) > 1 or B * T <= MOST
    assert get_num_threads() == before


@pytest.mark.parametrize("failing", [0, 150, 299])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_part_that_fails_leaves_nobody_waiting(failing, threads):
    """CACHE-01: the failure comes out, all threads are done, and the cache is as long as it was."""
    cache, raised = Cache(), []

    def call():
        try:
            cut(300, threads, passing([], failing), cache)
        except (ValueError, AssertionError) as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert raised
    assert len(cache) == 0
    np.testing.assert_array_equal(cut(300, threads, passing([]), cache)[0], np.arange(300))


def test_many_rows_are_cut_too():
    """FWD-09: no table of attention is as long as the prompt, however many rows there are; one position is left whole."""
    for T, count in ((30, 30), (1, 1)):
        begun = []

        def run(start, end, cache, begun=begun):
            begun.append((start, end))
            return np.zeros((2 * MOST, end - start))

        in_parts(run, Cache(), LAYERS, (2 * MOST, H, T, D), "float32", T)
        assert len(begun) == count


def test_behind_a_part_that_fails_none_begins():
    """Who interrupts a long prompt need not wait for the rest of it."""
    seen = []
    with pytest.raises(ValueError, match="it fails"):
        cut(600, 1, passing(seen, failing=0))
    assert len(seen) == 1


def test_prompts_read_at_once_do_not_wait_for_each_other():
    """Several callers share the threads there are, none of them for ever, and the BLAS has as many threads as before."""
    before, results = get_num_threads(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "get_num_threads", lambda: 3)
        callers = [
            threading.Thread(
                target=lambda: results.append(in_parts(passing([]), Cache(), LAYERS, (B, H, 600, D), "float64", 600)),
                daemon=True,
            )
            for _ in range(6)
        ]
        for each in callers:
            each.start()
        for each in callers:
            each.join(60)
    assert len(results) == 6
    assert get_num_threads() == before


def test_threads_of_ours_have_no_threads():
    """While parts are read, the BLAS of each has one thread; a prompt of one part leaves it all it has."""
    many, one, before = [], [], get_num_threads()
    cut(600, 2, passing(many))
    cut(10, 2, passing(one))
    assert {threads for _, _, threads in many} == {1}
    assert {threads for _, _, threads in one} == {before}
