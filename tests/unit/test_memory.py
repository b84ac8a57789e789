"""Calls that cannot fit are refused before they start, with the bytes they need; long prompts' logits are in memory once."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refgen
from refgen import Cache, GenerationError, InputError, memory
from tests.model_folders import SMALL
from tests.strategies import random_model

WIDE = replace(SMALL, vocab_size=20_000, n_positions=600)


def files(root: Path, written: dict[str, str]) -> Path:
    """Files of a system that is not there."""
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   50 kB\n"}
GROUP_2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
    "sys/fs/cgroup/a/b/memory.current": "9\n",
}
PARENT_2 = {
    "sys/fs/cgroup/a/memory.max": "30000\n", "sys/fs/cgroup/a/memory.current": "20000\n",
    "sys/fs/cgroup/a/memory.stat": "anon 12000\ninactive_file 5000\n",
}  # fmt: skip
GROUP_1 = {
    "proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "30000\n",
    "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "20000\n", "sys/fs/cgroup/memory/x/memory.stat": "total_inactive_file 1000\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "free"),
    [
        ({}, None),
        (MEMINFO, 51200),
        (MEMINFO | GROUP_2, 51200),
        (MEMINFO | GROUP_2 | PARENT_2, 15000),
        (GROUP_2 | PARENT_2, 15000),
        (MEMINFO | GROUP_1, 11000),
        (MEMINFO | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "90\n", "sys/fs/cgroup/memory.current": "99\n"}, 0),
    ],
)  # fmt: skip
def test_the_tightest_limit_counts(tmp_path, written, free):
    """ROOM-01. Of the control group, of those above it, in both versions, and of the machine; files that are mapped count as free."""
    assert memory.available(files(tmp_path, written)) == free


def test_this_machine_says_something_sensible():
    """ROOM-01. On Linux there is a number, and it is no more than there is."""
    free = memory.available()
    if Path("/proc/meminfo").exists():
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        assert 0 < free <= total


@pytest.fixture
def little(monkeypatch):
    """A machine with 1,000,000 bytes, on which nothing is too small to ask about."""
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    monkeypatch.setattr(memory, "SMALL", 0)


def test_logits_that_cannot_fit_are_refused(little):
    """ROOM-01. The error has the bytes, what they are for, and the setting that lowers them; that setting works."""
    model = random_model(WIDE, 0, "float32")
    ids = np.ones((2, 300), np.int64)
    logits, cache = 2 * 300 * 20_000 * 4, 2 * 2 * 2 * 2 * 600 * 2 * 4
    expected = f"^a pass over 2 x 300 tokens: needs {logits + cache:,} bytes .logits {logits:,} bytes, cache {cache:,} bytes., and 1,000,000 bytes are free .ROOM-01.. Pass fewer rows at once, or logits_to_keep=1"
    with pytest.raises(InputError, match=expected):
        model(ids)
    assert model(ids, logits_to_keep=1).logits.shape == (2, 1, 20_000)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"max_new_tokens": 590, "num_return_sequences": 2, "output_logits": True, "return_dict_in_generate": True}, "and output_logits=False"),
        ({"max_new_tokens": 20, "output_scores": True, "return_dict_in_generate": True}, "output_scores=False"),
        ({"max_new_tokens": 1, "num_return_sequences": 40}, "fewer prompts at once"),
    ],
)  # fmt: skip
def test_a_generation_that_cannot_fit_is_refused(little, settings, remedy):
    """ROOM-01. Before the first step, by what it takes if it is as long as it may be."""
    model = random_model(WIDE, 0, "float32")
    with pytest.raises(
        GenerationError, match=rf"needs [\d,]+ bytes \(.*\), and 1,000,000 bytes are free \[ROOM-01\]\. .*{remedy}"
    ):
        model.generate([[1]], do_sample=True, seed=1, **settings)
    assert model.generate([[1]], max_new_tokens=3).shape == (1, 4)


def test_a_cache_that_cannot_fit_is_refused(little):
    """ROOM-01. Where the cache takes most, a shorter text is the remedy."""
    model = random_model(replace(WIDE, vocab_size=7), 0, "float32")
    with pytest.raises(GenerationError, match=r"cache 7,564,800 bytes, .* \[ROOM-01\]\. .*a smaller max_new_tokens\."):
        model.generate([[1]], do_sample=True, seed=1, max_new_tokens=590, num_return_sequences=200)


def test_what_is_not_a_pass_is_refused_too(monkeypatch):
    """ROOM-01. Processors and what is kept of each step may be what finds no room."""
    model = random_model(SMALL, 0, "float32")

    def full(ids, scores):
        raise MemoryError

    with pytest.raises(GenerationError, match=r"needs [\d,]+ bytes .*, and NumPy could not have them \[ROOM-01\]"):
        model.generate([[1]], max_new_tokens=2, logits_processor=[full])


def test_a_full_memory_is_an_error_of_refgen(monkeypatch):
    """ROOM-01. Where nobody says how much there is, what NumPy cannot have is refused with the same words."""
    model, cache = random_model(WIDE, 0, "float32"), Cache()
    model([[1, 2]], past_key_values=cache)
    monkeypatch.setattr(memory, "available", lambda: None)

    def full(work):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(model.engine, "run", full)
    with pytest.raises(
        InputError,
        match=r"needs [\d,]+ bytes .*, and NumPy could not have them \(Unable to allocate 9 GiB\) \[ROOM-01\]",
    ):
        model([[1, 2]], past_key_values=cache)
    assert len(cache) == 2


def test_a_process_with_a_limit_ends_in_one_error():
    """ROOM-01. The same in a process whose memory is limited, where nothing is made up."""
    code = (
        "import resource, refgen, numpy as np\n"
        "from refgen import memory\n"
        "from tests.unit.test_memory import WIDE, random_model\n"
        "model = random_model(WIDE, 0, 'float32')\n"
        "memory.available = lambda: None\n"
        "ids = np.ones((8, 600), int)\n"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 2**28,) * 2)\n"
        "try: model(ids)\n"
        "except refgen.RefgenError as error: print(error.rule)\n"
    )
    root = Path(refgen.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == "ROOM-01\n", done.stderr[-500:]


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from((None, 12)))
def test_the_cache_grows_by_what_was_said(rows, first, second, expected):
    """ROOM-01, CACHE-01. `growth` is what the next positions take: nothing where there is room."""
    config = replace(SMALL, n_positions=40)
    model, cache = random_model(config, 0, "float32"), Cache(expected)
    for T in (first, second):
        said = cache.growth(2, (rows, 2, T, 2), "float32")
        before = [id(each) for each in cache._layers]
        model(np.ones((rows, T), int), past_key_values=cache)
        made = sum(each.nbytes for each in cache._layers if id(each) not in before)
        assert said == made


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_of_a_long_prompt_are_there_once(monkeypatch, threads):
    """FWD-27. At its peak a pass holds its logits, and of each thread a part."""
    monkeypatch.setattr("refgen.engines.numpy.parts.get_num_threads", lambda: threads)
    model = random_model(replace(WIDE, n_positions=1024), 0, "float32")
    ids = np.ones((1, 1024), np.int64)
    model(ids[:, :300])
    tracemalloc.start()
    logits = model(ids).logits
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < logits.nbytes * (1 + 0.3 * threads)
