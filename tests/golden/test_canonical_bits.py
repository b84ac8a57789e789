"""CANON-09: the bits of the built-in model's logits, which are the same wherever this test runs.

`canonical_bits.json` was written once by `python -m tests.golden.test_canonical_bits`. A run whose bits differ has
found a fault: in refgen, or in a machine, BLAS or library that does not do what `refgen/engines/canonical/rounding.py` asks of them.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refgen import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("canonical_bits.json")
TEXTS = {  # ids of the built-in tokenizer
    "one token": [0],
    "ROMEO:": [813, 25],
    "random ids": np.random.RandomState(0).randint(0, 1024, 90).tolist(),
    "one id again and again": [198] * 64,
}


def sha256(logits: np.ndarray) -> str:
    """Of the float32 numbers, smallest byte first."""
    assert logits.dtype == np.float32
    return hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest()


def bits() -> list[dict]:
    """What canonical_bits.json holds."""
    model = AutoModelForCausalLM.from_pretrained("shakespeare", engine="canonical")
    entries = []
    for name, ids in TEXTS.items():
        logits = model([ids]).logits[0]
        greedy = model.generate([ids], max_new_tokens=12, eos_token_id=None)[0, len(ids) :].tolist()
        first = [float(logit).hex() for logit in logits[-1, :4]]
        entries.append(
            {"text": name, "ids": ids, "sha256": sha256(logits), "last_row_first_four": first, "greedy": greedy}
        )
    return entries


def test_bits_are_the_golden_ones(figures):
    """CANON-09: logits have the recorded hashes, and some of them the recorded digits; greedy tokens follow."""
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == bits()
    figures.append(f"canonical logits: {len(TEXTS)} golden hashes of {sum(map(len, TEXTS.values())) * 1024:,} float32")


def dispatched() -> str:
    """The groups of instructions that NumPy chose for this processor and that can be switched off."""
    from numpy._core import _multiarray_umath as core

    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))


CHANGES = {
    "one thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "two threads": {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "kernels of 2004": {"OPENBLAS_CORETYPE": "Prescott"},
    "kernels of 2008": {"OPENBLAS_CORETYPE": "Nehalem"},
    "kernels of 2011": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "kernels of 2013": {"OPENBLAS_CORETYPE": "Haswell"},
    "kernels of 2017": {"OPENBLAS_CORETYPE": "Zen"},
    "NumPy without SIMD": {"NPY_DISABLE_CPU_FEATURES": dispatched()},
}
SCRIPT = """
import json, sys
from refgen import AutoModelForCausalLM
from tests.golden.test_canonical_bits import TEXTS, sha256
answer = {}
for engine in ("numpy", "canonical"):
    model = AutoModelForCausalLM.from_pretrained("shakespeare", engine=engine)
    answer[engine] = [sha256(model([ids]).logits[0]) for ids in TEXTS.values()]
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def native() -> set[str]:
    """The native results seen so far."""
    return set()


@pytest.mark.parametrize("change", CHANGES)
def test_other_kernels_and_threads_give_the_same_bits(change, native, figures):
    """CANON-09: neither the number of threads nor the kernels of OpenBLAS and NumPy change a bit."""
    if not all(CHANGES[change].values()):
        pytest.skip("NumPy was built for this very processor")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | CHANGES[change],
    )  # fmt: skip
    answer = json.loads(done.stdout)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert answer["canonical"] == [entry["sha256"] for entry in golden]
    native.add(json.dumps(answer["numpy"]))
    if change == list(CHANGES)[-1]:
        figures.append(
            f"{len(CHANGES)} kernels and threads: {len(native)} results of the default engine, 1 canonical result"
        )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(bits(), indent=1) + "\n", encoding="utf-8")
