"""Comparisons: where a difference begins, which layer makes it, whether it is rounding, what it looks like."""

import json
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from refgen.activations import gelu
from refgen.cli import main
from refgen.errors import OracleError
from refgen.oracle import trace
from refgen.oracle.compare import as_json, compare, report
from refgen.oracle.faults import FAULTS, Pass
from refgen.oracle.formats import cast
from tests.rounded import rounded_network

IDS = np.array([[813, 25, 198, 40, 457, 731, 418, 11], [0, 0, 0, 40, 457, 731, 418, 11]])
MASK = (np.arange(8) >= np.array([[0], [3]])).astype(np.int64)


@pytest.fixture(scope="module")
def gpt2(shakespeare):
    """The built-in network."""
    return shakespeare[0].gpt2


def traced(gpt2, stages=("*",), **fields):
    """What a run of `gpt2` records, as plain arrays; `fields` of the trace replaced."""
    found = trace.record(gpt2, IDS, MASK, stages)
    plain = {name: array.view(np.ndarray) for name, array in found.stages.items()}
    return replace(found, stages=plain, **fields)


def with_block(gpt2, layer, **mlp):
    """Another MLP in one layer."""
    block = gpt2.h[layer]
    changed = replace(block, mlp=replace(block.mlp, **mlp))
    return replace(gpt2, h=(*gpt2.h[:layer], changed, *gpt2.h[layer + 1 :]))


def test_a_right_run_passes(gpt2):
    """refgen's own float32 is within rounding in every stage, also by itself, and no fault shows."""
    found = compare(gpt2, traced(gpt2))
    assert found.passes, found.sentence
    assert found.first is None
    assert found.faulty == ()
    assert len(found.stages) == len(found.local) == len(trace.stage_names(gpt2.config))
    assert found.diagnosis.named is None
    assert found.sentence.startswith("PASS: rounding in float32 explains it.")
    assert found.largest < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_pass_as_what_they_are(gpt2, dtype):
    """A run in 16 bits passes as one, and does not as float32: then its weights show."""
    run = traced(rounded_network(cast(gpt2, dtype), dtype), dtype=dtype)
    found = compare(gpt2, run, diagnosing=False)
    assert found.passes, found.sentence
    assert not compare(gpt2, run, "float32", diagnosing=False).passes


def test_one_layer_is_at_fault(gpt2):
    """The erf GELU in layer 2 alone: the first stage is its activation, layer 3 only passes it on, and it is named."""
    found = compare(gpt2, traced(with_block(gpt2, 2, act=gelu)))
    assert not found.passes
    assert found.first.name == "h.2.mlp.act"
    assert found.first.at == (0, 0)
    assert found.faulty == ("h.2",)
    assert not {stage.name: stage for stage in found.stages}["h.3"].passes
    assert found.diagnosis.named.name == "gelu-erf"
    assert "At fault by itself: h.2; the others pass it on. It looks like gelu-erf" in found.sentence


@pytest.mark.parametrize(("name", "first", "faulty"), [
    ("position-plus-one", "drop", ("drop",)),
    ("scale-by-width", "h.0.attn.scores", ("h.0", "h.1", "h.2", "h.3")),
    ("no-fc-bias", "h.0.mlp.c_fc", ("h.0", "h.1", "h.2", "h.3")),
    ("heads-swapped", "h.3.attn.c_proj", ("h.3",)),
    ("no-final-norm-bias", "ln_f", ("head",)),
    ("padding-visible", "h.0.attn.z", ("h.0", "h.1", "h.2", "h.3")),
])  # fmt: skip
def test_where_faults_begin(gpt2, name, first, faulty):
    """The first stage off, the parts at fault by themselves, and the name are those of the planted fault."""
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    p = fault.change(Pass(gpt2, IDS, MASK))
    stages = {}
    p.run(note=stages.__setitem__)
    if name == "padding-visible":  # the patterns as others show them: without what hidden scores say
        stages = {key: each for key, each in stages.items() if not key.endswith(("scores", "pattern"))}
    found = compare(gpt2, replace(traced(gpt2), stages=stages))
    assert (found.first.name, found.faulty, found.diagnosis.named) == (first, faulty, fault)
    assert not found.passes


def test_logits_alone(gpt2):
    """With nothing but logits there is no part to look at, but a verdict and a name."""
    (fault,) = (fault for fault in FAULTS if fault.name == "epsilon-1e-12")
    right = traced(gpt2, stages=["lm_head"])
    wrong = replace(right, stages={"lm_head": fault.change(Pass(gpt2, IDS, MASK)).run()})
    assert compare(gpt2, right).passes
    found = compare(gpt2, wrong)
    assert not found.passes
    assert found.local == ()
    assert found.diagnosis.named is fault
    assert found.largest == np.abs(wrong.stages["lm_head"] - cast_run(gpt2))[MASK == 1].max()


def cast_run(gpt2):
    """The exact logits."""
    return Pass(cast(gpt2, "float32"), IDS, MASK).run()


def test_numbers_that_are_none(gpt2):
    """NaN is infinitely far off, at its place, and nothing is diagnosed from it."""
    run = traced(gpt2)
    run.stages["h.1.mlp.act"][0, 4, 3] = np.nan
    run.stages["lm_head"][0, 5, 7] = np.inf
    found = compare(gpt2, run)
    assert (found.first.name, found.first.at) == ("h.1.mlp.act", (0, 4))
    assert found.first.worst == np.inf
    assert found.diagnosis is None
    assert found.largest == np.inf
    assert json.loads(json.dumps(as_json(found)))["first"]["worst"] is None


def test_padding_does_not_count(gpt2):
    """Whatever stands where padding is."""
    run = traced(gpt2)
    for name, array in run.stages.items():
        np.moveaxis(array, -2, 0)[:3, 1] = -1e9 if name.endswith("scores") else 7
    assert compare(gpt2, run, diagnosing=False).passes


def test_what_is_refused(gpt2):
    """Another network, an unknown dtype, float64, nothing at all."""
    run = traced(gpt2, stages=["lm_head"])
    with pytest.raises(OracleError, match="the trace: is of a network with n_layer=3, not 4"):
        compare(gpt2, replace(run, config=replace(gpt2.config, n_layer=3)))
    with pytest.raises(OracleError, match="dtype='float8': must be one of float32, float16, bfloat16"):
        compare(gpt2, run, "float8")
    with pytest.raises(OracleError, match="refgen's own float64 is what others are compared with"):
        compare(gpt2, run, "float64")
    with pytest.raises(OracleError, match="the trace: holds no stages"):
        compare(gpt2, replace(run, stages={}))


# --- The command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(gpt2, tmp_path_factory):
    """A right trace and a wrong one."""
    folder = tmp_path_factory.mktemp("traces")
    for name, network in (("right", gpt2), ("wrong", with_block(gpt2, 1, act=gelu))):
        trace.save(traced(network, ["drop", "h.?", "h.1.mlp.*", "lm_head"]), folder / f"{name}.safetensors")
    return folder


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command(capsys, gpt2, files):
    """`refgen compare` prints the report; its exit code is the verdict."""
    code, out, err = run(capsys, files / "right.safetensors")
    assert (code, err) == (0, "")
    assert out.startswith("PASS: ")
    code, out, err = run(capsys, files / "wrong.safetensors")
    assert (code, err) == (1, "")
    found = compare(gpt2, trace.load(files / "wrong.safetensors", gpt2.config))
    assert out.splitlines() == list(report(found))
    marked = [line.split()[0] for line in out.splitlines() if line.endswith("<- at fault")]
    assert marked == ["h.1.mlp.act", "h.1.mlp.c_proj", "h.1"]


def test_json(capsys, files):
    """--json says the same to programs."""
    code, out, _ = run(capsys, files / "wrong.safetensors", "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["first"]["name"], told["at_fault"]) == (1, "FAIL", "h.1.mlp.act", ["h.1"])
    assert told["diagnosis"]["named"] == "gelu-erf"
    assert told["diagnosis"]["rules"] == ["FWD-15", "FWD-16"]
    assert told["diagnosis"]["matches"][0]["fault"] == "gelu-erf"


def test_a_picture(gpt2, tmp_path, monkeypatch, capsys, files):
    """--plot writes one, if matplotlib is there."""
    pytest.importorskip("matplotlib")
    found = compare(gpt2, trace.load(files / "wrong.safetensors", gpt2.config), diagnosing=False)
    monkeypatch.setattr("refgen.oracle.compare.compare", lambda *arguments, **options: found)
    code, _, _ = run(capsys, files / "wrong.safetensors", "--plot", tmp_path / "p.png")
    assert code == 1
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib(capsys, files, tmp_path, monkeypatch):
    """Without it, what to install is said before anything is computed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(capsys, files / "right.safetensors", "--plot", tmp_path / "p.png")
    assert (code, out) == (1, "")
    assert err == "refgen: error: --plot: needs matplotlib. pip install matplotlib\n"


def test_the_command_refuses(capsys, files, monkeypatch):
    """A file that is not there, and a folder for the picture that is not there, are one line."""
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))  # be it there or not
    for arguments, message in (
        (["nowhere.safetensors"], "nowhere.safetensors: is not a whole safetensors file"),
        ([files / "right.safetensors", "--plot", "nowhere/p.png"], "nowhere/p.png: lies in no folder that exists"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        assert message in err
        assert err.count("\n") == 1
