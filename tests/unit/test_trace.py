"""Traces: recorded, joined, saved, loaded, listed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from refgen.cli import main
from refgen.engines.plain import PlainEngine
from refgen.errors import InputError, OracleError
from refgen.model import forward
from refgen.oracle import trace
from tests.strategies import models, prompts


@given(st.data())
def test_names_and_shapes_are_those_of_the_forward_pass(data):
    """`stage_names` lists what the network notes, in that order, and `stage_shape` the shapes."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    noted = {}
    forward(model.gpt2, ids, mask, note=noted.setdefault)
    assert tuple(noted) == trace.stage_names(model.config)
    for name, array in noted.items():
        assert array.shape == trace.stage_shape(name, model.config, *ids.shape)
    recorded = trace.record(PlainEngine(model.gpt2), ids, mask)
    assert all(np.array_equal(recorded.stages[name], array) for name, array in noted.items())


@given(st.data())
def test_steps_are_the_whole(data):
    """Recorded one position at a time through a cache, every stage is that of the whole text but for rounding."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    whole = trace.record(model.engine, ids, mask)
    steps = trace.record(model.engine, ids, mask, prefill=data.draw(st.integers(1, ids.shape[1])))
    assert list(steps.stages) == list(whole.stages)
    for name, array in whole.stages.items():
        theirs = steps.stages[name]
        finite = np.isfinite(array)
        assert np.array_equal(finite, np.isfinite(theirs))
        # float64: a rounding is 1e-16 relative, sums have tens of terms, and ill-conditioned norms enlarge it
        size = max(1.0, np.abs(array[finite]).max(initial=0))
        assert np.abs(array[finite] - theirs[finite]).max(initial=0) <= 1e-9 * size


@pytest.fixture(scope="module")
def short(shakespeare):
    """The built-in model, ids of two rows, and their trace."""
    model, _ = shakespeare
    ids = np.array([[813, 25, 198, 40], [457, 731, 418, 11]])
    return model, ids, trace.record(model.engine, ids)


def test_a_long_text_is_traced_whole(shakespeare):
    """Scores and patterns of more queries than are computed at a time come in one piece."""
    model, _ = shakespeare
    ids = np.arange(150)[None]
    found = trace.record(model.engine, ids, stages=["h.0.attn.pattern"], prefill=140)
    (pattern,) = found.stages.values()
    assert pattern.shape == (1, 4, 150, 150)
    assert np.allclose(pattern.sum(axis=-1), 1, atol=1e-5)
    assert not np.triu(pattern, 1).any()


def test_stages_are_copies(short):
    """What a trace holds is its own: no view keeps a larger array alive."""
    assert all(array.base is None for array in short[2].stages.values())


def test_a_file_holds_all(short, tmp_path):
    """Saved and loaded, a trace is the same, bit for bit, and knows its model, dtype and steps."""
    model, ids, found = short
    for each in (found, trace.record(model.engine, ids, stages=["lm_head", "h.*.attn.scores"], prefill=2)):
        trace.save(each, tmp_path / "t.safetensors")
        loaded = trace.load(tmp_path / "t.safetensors", model.config)
        assert list(loaded.stages) == list(each.stages)
        assert all(np.array_equal(loaded.stages[name], array) for name, array in each.stages.items())
        assert np.array_equal(loaded.input_ids, ids)
        assert loaded.attention_mask.all()
        assert (loaded.dtype, loaded.prefill, loaded.config) == ("float32", each.prefill, model.config)


def test_foreign_files(short, tmp_path):
    """Prefixes are taken off, a missing axis of one row is added, 16 bits are widened and say what computed."""
    model, ids, found = short
    one = {f"transformer.{name}": array[:1] for name, array in found.stages.items() if name != "lm_head"}
    path = tmp_path / "t.safetensors"
    save_file({name: np.ascontiguousarray(array[0]) for name, array in one.items()} | {"input_ids": ids[0]}, path)
    loaded = trace.load(path, model.config)
    assert tuple(loaded.stages) == trace.stage_names(model.config)[:-1]
    assert all(np.array_equal(array, one[f"transformer.{name}"]) for name, array in loaded.stages.items())
    assert (loaded.dtype, loaded.config) == ("float32", None)
    save_file({"lm_head": found.stages["lm_head"].astype(np.float16), "input_ids": ids.astype(np.int32)}, path)
    loaded = trace.load(path, model.config)
    assert loaded.dtype == "float16"
    assert loaded.input_ids.dtype == np.int64
    assert np.array_equal(loaded.stages["lm_head"], found.stages["lm_head"].astype(np.float16))


def test_bfloat16_is_widened(short, tmp_path):
    """A BF16 stage, which NumPy has no type for, comes as the float32 numbers it stands for."""
    import torch
    from safetensors.torch import save_file as save_torch

    model, ids, found = short
    theirs = torch.tensor(found.stages["lm_head"]).to(torch.bfloat16)
    save_torch({"lm_head": theirs, "input_ids": torch.tensor(ids)}, tmp_path / "t.safetensors")
    loaded = trace.load(tmp_path / "t.safetensors", model.config)
    assert loaded.dtype == "bfloat16"
    assert np.array_equal(loaded.stages["lm_head"], theirs.float().numpy())


@pytest.mark.parametrize(("change", "message"), [
    ({"input_ids": None}, "has no input_ids. Save the token ids beside the stages"),
    ({"h.0.attn.dropout": np.zeros(3)}, "names stages that refgen does not know: h.0.attn.dropout."),
    ({"h.4": np.zeros(3)}, "does not know: h.4."),
    ({"ln_f": np.zeros((2, 3, 128))}, r"ln_f: has shape \[2, 3, 128\], must have \[2, 4, 128\]"),
    ({"ln_f": np.zeros((4, 128))}, r"ln_f: has shape \[4, 128\], must have \[2, 4, 128\]"),  # which of the rows?
])  # fmt: skip
def test_files_that_are_refused(short, tmp_path, change, message):
    """A file that is not such a trace is refused by name of what is wrong."""
    model, ids, found = short
    arrays = {"input_ids": ids, "lm_head": found.stages["lm_head"]} | change
    path = tmp_path / "t.safetensors"
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    with pytest.raises(OracleError, match=message):
        trace.load(path, model.config)


def test_what_is_refused(short):
    """A pattern without a stage, more positions at first than there are, ids of another model."""
    model, ids, _ = short
    with pytest.raises(OracleError, match=r"stage 'h\.9': matches no stage of this model, which has 4 layers"):
        trace.record(model.engine, ids, stages=["h.9"])
    with pytest.raises(OracleError, match="prefill=5: must be from 1 to 4"):
        trace.record(model.engine, ids, prefill=5)
    with pytest.raises(InputError, match="input_ids contain 5000"):
        trace.record(model.engine, np.array([[5000]]))


def test_a_listing_has_a_line_a_stage(short):
    """Name, shape, three figures, hidden scores left out, and a few numbers."""
    _, _, found = short
    heading, *lines = trace.listing(found)
    assert heading.startswith("stage")
    assert [line.split()[0] for line in lines] == list(found.stages)
    scores = next(line for line in lines if line.startswith("h.1.attn.scores"))
    seen = found.stages["h.1.attn.scores"]
    seen = seen[np.isfinite(seen)]
    assert [f"{f(seen.astype(float)):.4g}" for f in (np.min, np.mean, np.max)] == scores.split("]")[1].split()[:3]


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command(capsys, shakespeare, tmp_path):
    """`refgen explain` lists what it records and saves what it lists; --max-new-tokens goes on as `generate` does."""
    model, tokenizer = shakespeare
    path = tmp_path / "t.safetensors"
    code, out, err = run(capsys, "explain", "ROMEO:", "--max-new-tokens", "3", "--stages", "lm_head", "-o", str(path))
    ids = model.generate([tokenizer.encode("ROMEO:")], max_new_tokens=3)
    loaded = trace.load(path, model.config)
    assert (code, err) == (0, "")
    assert np.array_equal(loaded.input_ids, ids)
    assert loaded.prefill == ids.shape[1] - 3
    assert out.splitlines() == list(trace.listing(loaded))
    given = ",".join(map(str, ids[0]))
    assert run(capsys, "explain", "--ids", given, "--dtype", "float64", "-fo", str(path))[0] == 0
    loaded = trace.load(path, model.config)
    assert loaded.dtype == "float64"
    assert tuple(loaded.stages) == trace.stage_names(model.config)


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "PROMPT and --ids: give one of them"),
    (["A", "--ids", "3"], "PROMPT and --ids: give one of them"),
    (["--ids", "a"], "--ids a: must be whole numbers"),
    (["A", "--stages", "nope"], "stage 'nope': matches no stage"),
    (["A", "-o", "nowhere/t.safetensors"], "--output nowhere/t.safetensors: folder nowhere does not exist"),
])  # fmt: skip
def test_the_command_refuses(capsys, arguments, message):
    """What is wrong is one line on stderr, exit code 2."""
    code, out, err = run(capsys, "explain", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_of_another_format(short, tmp_path):
    """What is no safetensors file is said to be none; integers that are no ids are no stage."""
    (tmp_path / "t.safetensors").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        trace.load(tmp_path / "t.safetensors", short[0].config)
