"""The demo has one mistake, the one that README.md shows."""

import numpy as np
import pytest

from refgen import AutoModelForCausalLM, demo
from refgen.activations import gelu_new
from refgen.conformance import check
from refgen.names import find_model

PLAIN = ["forward.net-plain.padded.row*", "probe.gelu.*", "probe.gelu-tanh.*"]


def test_the_demo_is_wrong_by_its_gelu():
    """Its logits fail, and the report names the fault and the first stage that is off."""
    run = check(demo.WrongGelu, only=PLAIN)
    assert run.overall.verdict == "wrong"
    (first, *_) = [result.finding for result in run.results if result.finding.facts.get("first_stage")]
    assert "gelu-erf" in first.message
    assert first.facts["first_stage"] == "h.0.mlp.act"


def test_with_the_right_gelu_the_demo_is_right(monkeypatch):
    """There is no second mistake."""
    monkeypatch.setattr(demo, "gelu", gelu_new)
    run = check(demo.WrongGelu, only=PLAIN)
    assert run.overall.verdict == "right"
    ids = [[5, 6, 7, 8]]
    model = AutoModelForCausalLM.from_pretrained("shakespeare")
    subject = demo.WrongGelu(find_model("shakespeare"))
    assert subject.forward(ids) == pytest.approx(model(ids).logits, abs=1e-4)
    assert subject.generate(ids, 5) == model.generate(np.array(ids), max_new_tokens=5)[:, 4:].tolist()


def test_other_configurations_are_not_supported(tmp_path):
    """The kit then skips the question."""
    model = AutoModelForCausalLM.from_pretrained("shakespeare")
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"gelu_new"', '"relu"'))
    with pytest.raises(NotImplementedError, match="GPT-2's own configuration"):
        demo.WrongGelu(tmp_path).forward([[1]])
