"""Comparisons: where a difference begins, which layer makes it, whether it is rounding, what it looks like."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import refgen
from refgen.activations import gelu
from refgen.bench.weights import random_tensors, shape_config
from refgen.checkpoints import assemble
from refgen.cli import main
from refgen.conformance.questions.models import WRITERS
from refgen.engines import find_engine
from refgen.errors import OracleError
from refgen.oracle import trace
from refgen.oracle.compare import as_json, compare, report
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import FAULTS
from refgen.oracle.formats import cast
from tests.rounded import rounded_network

IDS = np.array([[813, 25, 198, 40, 457, 731, 418, 11], [0, 0, 0, 40, 457, 731, 418, 11]])
MASK = (np.arange(8) >= np.array([[0], [3]])).astype(np.int64)


@pytest.fixture(scope="module")
def gpt2(shakespeare):
    """The built-in network."""
    return shakespeare[0].gpt2


def traced(gpt2, stages=("*",), engine="plain", **fields):
    """What a run of `gpt2` records, as plain arrays; `fields` of the trace replaced."""
    found = trace.record(find_engine(engine)(gpt2), IDS, MASK, stages)
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
    with pytest.raises(OracleError, match="refgen's own float64 is the reference"):
        compare(gpt2, run, "float64")
    with pytest.raises(OracleError, match="the trace: holds no stages"):
        compare(gpt2, replace(run, stages={}))


# --- Two traces -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A network of three narrow layers."""
    config = shape_config("3,2,32,1024,64")
    return assemble(config, random_tensors(config))


def in_bfloat16(gpt2, name=None):
    """The trace of a run in bfloat16, with a fault or without."""
    p = Pass(cast(gpt2, "bfloat16"), IDS, MASK)
    if name is not None:
        p = planted(name).change(p)
    stages = {}
    replace(p, gpt2=rounded_network(p.gpt2, "bfloat16")).run(note=stages.__setitem__)
    stages = {stage: np.asarray(array.view(np.ndarray)) for stage, array in stages.items()}
    return replace(traced(p.gpt2), stages=stages, dtype="bfloat16")


def planted(name):
    """The fault of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


@pytest.fixture(scope="module")
def right(small):
    """Correct runs of different formats and orders of operations."""
    found = trace.record(find_engine("numpy")(small), IDS, MASK, prefill=3)
    by_steps = {name: array.view(np.ndarray) for name, array in found.stages.items()}
    return {
        "float32": traced(small),
        "by steps": replace(found, stages=by_steps),
        "canonical": traced(small, engine="canonical"),
        "bfloat16": in_bfloat16(small),
    }


@pytest.mark.parametrize("pair", [("float32", "float32"), ("by steps", "canonical"), ("float32", "bfloat16")])
def test_two_right_runs_pass(small, right, pair):
    """Whatever they are computed in, and the same from both sides; the weights of bfloat16 are no difference."""
    mine, other = (right[name] for name in pair)
    found, turned = compare(small, mine, other=other), compare(small, other, other=mine, diagnosing=False)
    assert found.passes, found.sentence
    assert turned.passes
    assert found.diagnosis.named is None
    dtypes = list(dict.fromkeys([mine.dtype, other.dtype]))
    assert found.sentence.startswith(f"PASS: rounding in {' and '.join(dtypes)} explains how far the two are apart.")
    assert found.largest == turned.largest
    assert found.largest == np.abs(mine.stages["lm_head"] - other.stages["lm_head"].astype(float))[MASK == 1].max()
    assert found.largest <= 2 * found.expected
    for one, two in zip(found.stages, turned.stages, strict=True):
        assert one.overall < 1
        assert one.overall == pytest.approx(two.overall, rel=0.3, abs=1e-9)  # the same error, another chance
    if mine is other:
        assert {stage.worst for stage in (*found.stages, *found.local)} == {0}


def test_a_difference_is_found_where_it_is(small, right):
    """A fault of one of the two shows in its stage, by itself, and by name, in whichever of the two it is."""
    wrong = traced(with_block(small, 2, act=gelu))
    for mine, other, opening in (
        (wrong, right["by steps"], "MINE looks like OTHER with gelu-erf: "),
        (right["by steps"], wrong, "OTHER looks like MINE with gelu-erf: "),
    ):
        found = compare(small, mine, other=other)
        assert not found.passes
        assert (found.first.name, found.first.at, found.faulty) == ("h.2.mlp.act", (0, 0), ("h.2",))
        assert f"Different by itself: h.2; the others pass it on. {opening}" in found.sentence
        marked = [line.split()[0] for line in report(found) if line.endswith("<- different")]
        assert marked == ["h.2.mlp.act", "h.2.mlp.c_proj", "h.2"]


def test_a_fault_of_both_is_no_difference(small):
    """What they share does not show, what one has more than the other does."""
    both = with_block(small, 2, act=gelu)
    shared, more = traced(both), traced(with_block(both, 1, act=gelu))
    found = compare(small, more, other=shared)
    assert compare(small, shared, other=shared).passes
    assert (found.first.name, found.faulty, found.diagnosis.named.name) == ("h.1.mlp.act", ("h.1",), "gelu-erf")


def test_sixteen_bits_hide_no_gross_difference(small, right):
    """float32 beside bfloat16 with a fault, either way."""
    wrong = in_bfloat16(small, "scale-twice")
    for mine, other, suspect in ((wrong, right["float32"], "MINE"), (right["float32"], wrong, "OTHER")):
        found = compare(small, mine, other=other)
        assert not found.passes
        assert found.first.name == "h.0.attn.scores"
        assert (found.diagnosis.named, found.suspect) == (planted("scale-twice"), suspect)


def test_numbers_that_neither_has(small, right):
    """NaN in the other one is infinitely far off as well, and so is NaN in both."""
    stages = {name: array.copy() for name, array in right["float32"].stages.items()}
    stages["h.1.mlp.act"][0, 4, 3] = np.nan
    broken = replace(right["float32"], stages=stages)
    for mine, other in ((right["float32"], broken), (broken, broken)):
        found = compare(small, mine, other=other, diagnosing=False)
        assert (found.first.name, found.first.at, found.first.worst) == ("h.1.mlp.act", (0, 4), np.inf)


def test_common_stages_are_compared(small, right):
    """Those that only one has are left out; ids at padding may be any."""
    few = replace(traced(small, ["h.1", "lm_head"]), input_ids=np.where(MASK == 1, IDS, 9))
    found = compare(small, few, other=right["by steps"], diagnosing=False)
    assert [stage.name for stage in found.stages] == ["h.1", "lm_head"]
    assert found.passes


def test_pairs_that_are_refused(small, right):
    """Other tokens, another mask, other shapes, nothing in common, a dtype that is none of the three."""
    run, logits = right["float32"], traced(small, ["lm_head"])
    ids, mask = IDS.copy(), MASK.copy()
    ids[1, 5], mask[1, 3] = 7, 0
    for other, message in (
        (replace(run, input_ids=ids), "has other input_ids, first at row 1, position 5: 7, not 731. Record both over the same tokens."),
        (replace(run, attention_mask=mask), "has other attention_mask, first at row 1, position 3: 0, not 1. Record"),
        (replace(run, input_ids=IDS[:1]), "has input_ids of shape [1, 8], not [2, 8]. Record"),
        (traced(small, ["h.?"]), "has no stage in common with the first: h.0, h.1, h.2. The first has lm_head."),
        (replace(run, config=replace(small.config, n_layer=2)), "is of a network with n_layer=2, not 3."),
        (replace(run, stages={}), "holds no stages."),
    ):  # fmt: skip
        with pytest.raises(OracleError, match=re.escape(f"the other trace: {message}")):
            compare(small, logits, other=other)
    with pytest.raises(OracleError, match="dtype='float64': must be one of"):
        compare(small, run, other=replace(run, dtype="float64"))
    assert compare(small, run, other=replace(run, dtype="float64"), other_dtype="float32", diagnosing=False).passes


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


def test_the_command_with_two(capsys, files):
    """Two files are compared with each other."""
    code, out, _ = run(capsys, files / "right.safetensors", files / "wrong.safetensors", "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["first"]["name"], told["at_fault"]) == (1, "FAIL", "h.1.mlp.act", ["h.1"])
    assert (told["dtype"], told["other_dtype"]) == ("float32", "float32")
    assert (told["diagnosis"]["named"], told["diagnosis"]["suspect"]) == ("gelu-erf", "OTHER")
    assert "OTHER looks like MINE with gelu-erf: " in told["sentence"]
    code, out, err = run(capsys, files / "right.safetensors", "--other-dtype", "bfloat16")
    assert (code, out) == (2, "")
    assert err == "refgen: error: --other-dtype: speaks of OTHER, which is not given.\n"


SUBJECTS = """
import numpy as np
from refgen.conformance.subjects.reference import ReferenceSubject

class Right(ReferenceSubject): ...
class Off(ReferenceSubject):
    def forward(self, **request):
        return np.asarray(super().forward(**request)) + 0.01
class Mute:
    def __init__(self, folder): ...
    def encode(self, text): return [1]
class Staged(ReferenceSubject):
    def stages(self, input_ids):
        from refgen.oracle import trace
        return dict(trace.record(self.model.engine, np.array(input_ids)).stages)
"""


def test_implementations(capsys, tmp_path, monkeypatch):
    """An implementation is asked for its stages, or its logits: of ids that are given, of a file's, or of the same ones each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(refgen.__file__).parents[1]))
    (tmp_path / "mine.py").write_text(SUBJECTS)
    WRITERS["net-plain"](tmp_path / "net")
    network = refgen.AutoModelForCausalLM.from_pretrained("net").gpt2
    rows = np.array([[3, 1, 4, 1], [0, 0, 5, 9]])
    right = trace.record(find_engine("plain")(network), rows, np.minimum(rows, 1), ("lm_head",))
    trace.save(right, tmp_path / "right.safetensors")

    def told(*arguments):
        code, out, err = run(capsys, *arguments, "--model", "net", "--json")
        assert err == ""
        return code, json.loads(out)

    code, found = told("mine:Right")
    assert (code, [each["name"] for each in found["stages"]]) == (0, ["lm_head"])
    assert told("mine:Right") == (code, found)
    assert told("mine:Right", "--ids", "1,2")[1] != found
    assert len(told("mine:Staged", "--ids", "1,2")[1]["stages"]) > 20
    code, found = told("mine:Off", "mine:Right")
    assert (code, found["other_dtype"]) == (1, "float32")
    assert told("right.safetensors", "mine:Right")[0] == told("mine:Right", "right.safetensors")[0] == 0
    for arguments, message in (
        (["mine:Mute"], "mine:Mute: answers neither stages nor forward"),
        (["mine:Rihgt"], "mine:Rihgt: cannot be found: module 'mine' has no attribute 'Rihgt'. Did you mean Right?"),
        (["mine.py"], "mine.py: is a Python file. Write mine:Off (Mute, Right, Staged too)"),
        (["mine:Right", "--ids", "1,x"], "--ids 1,x: must be whole numbers"),
        (["right.safetensors", "--ids", "1"], "--ids: a file of stages has its own ids. Leave it out."),
    ):
        code, out, err = run(capsys, *arguments, "--model", "net")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"refgen: error: {message}")


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
    assert (code, out) == (2, "")
    assert err == "refgen: error: --plot: needs matplotlib. pip install matplotlib\n"


def test_the_command_refuses(capsys, files, monkeypatch):
    """A file that is not there, and a folder for the picture that is not there, are one line."""
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))  # be it there or not
    for arguments, message in (
        (["nowhere.safetensors"], "nowhere.safetensors: is not a whole safetensors file"),
        (
            [files / "right.safetensors", "--plot", "nowhere/p.png"],
            "--plot nowhere/p.png: folder nowhere does not exist",
        ),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
