"""Correct implementations that are not refgen pass the kit: transformers in its formats, a GPT-2 in JavaScript."""

import shutil
from functools import partial

import pytest
import torch

from refgen.conformance import check
from refgen.conformance.subjects.process import ProcessSubject
from refgen.conformance.subjects.transformers import TransformersSubject
from tests.docs.test_documents import ROOT

VARIANTS = [("float32", "sdpa"), ("bfloat16", "sdpa"), ("float16", "eager")]
SAMPLE = [
    "tokenizer.*",
    "forward.net-*.padded",
    "forward.net-deep.*",
    "loop.*",
    "probe.clock*",
    "probe.beam*",
    "probe.leak*",
    "probe.dice-d*",
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("dtype", "attention"), VARIANTS)
def test_transformers_is_right(dtype, attention, figures):
    """Nothing fails; what is not the best token is a tie that rounding explains."""
    run = check(partial(TransformersSubject, dtype=dtype, attention=attention), only=SAMPLE)
    assert run.overall.verdict == "right", run.overall.sentence
    figures.append(f"transformers, {attention}: {run.overall.sentence}")


def test_a_gpt2_in_javascript_is_right(figures):
    """The example of docs/subjects.md, through the pipe."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    subject = ProcessSubject(["node", str(ROOT / "docs" / "adapters" / "adapter.mjs")])
    try:
        run = check(subject, only=["forward.net-*", "loop.greedy.*", "loop.rejects.*", "probe.clock.*"])
    finally:
        subject.close()
    assert run.overall.verdict == "right", run.overall.sentence
    assert len((ROOT / "docs" / "adapters" / "adapter.mjs").read_text().splitlines()) < 60
    figures.append(f"{subject.about.name}: {run.overall.sentence}")


def test_a_wrong_one_in_javascript_is_named(tmp_path):
    """The same with an epsilon that the configuration does not say."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    for name in ("adapter.mjs", "gpt2.mjs"):
        source = (ROOT / "docs" / "adapters" / name).read_text()
        changed = source.replace("variance + this.config.layer_norm_epsilon", "variance + 1e-5")
        (tmp_path / name).write_text(changed)
    subject = ProcessSubject(["node", str(tmp_path / "adapter.mjs")])
    try:
        run = check(subject, only=["forward.net-epsilon.*"])
    finally:
        subject.close()
    assert run.overall.code == 1
    assert (run.suspects[0].rule, run.suspects[0].faults) == ("FWD-05", ("epsilon-1e-5",))
