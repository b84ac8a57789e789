"""proved_logits.json: logits with proof, in a file that other implementations can be held to."""

import json

import numpy as np
import pytest

from refgen import AutoModelForCausalLM
from refgen.checkpoints import assemble, disassemble
from refgen.conformance.questions.designed import DESIGNED, designed
from refgen.model import forward
from scripts import make_vectors

CASES = json.loads(make_vectors.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["net-plain", "net-own-head", "net-no-scale"])
def test_a_sample_is_made_again(name):
    """What the script makes today is in the file, bit for bit."""
    assert list(make_vectors.cases([name])) == [case for case in CASES if case["model"] == name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["model"])
def test_float64_comes_near(case):
    """FWD-30: float64 arithmetic gives these logits to some units in the last place of the largest, and these tokens."""
    if case["model"] == "shakespeare":
        gpt2 = AutoModelForCausalLM.from_pretrained("shakespeare", dtype="float64").gpt2
    else:
        small = designed(case["model"])
        gpt2 = assemble(small.config, {name: tensor.astype(np.float64) for name, tensor in disassemble(small).items()})
    ids = np.array(case["ids"] + case["tokens"])
    logits = forward(gpt2, ids[None])[0, len(case["ids"]) - 1 : -1]
    exact = np.array([float.fromhex(logit) for logit in case["logits"]])
    assert np.abs(logits[0] - exact).max() <= 100 * np.spacing(np.abs(exact).max())
    assert logits.argmax(axis=1).tolist() == case["tokens"]


def test_the_file_is_whole():
    """Every case stands there once, its logits finite and its margins far above rounding."""
    assert [case["model"] for case in CASES] == ["shakespeare"] * len(make_vectors.PROMPTS) + list(DESIGNED)
    assert all(case["least_margin"] > 1e-6 for case in CASES)
    assert make_vectors.FILE.stat().st_size < 200_000
