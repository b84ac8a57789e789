"""Model folders: what is loaded is what the file holds, bit for bit, in every format; a folder that is no model is refused."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from refgen import CheckpointError, ConfigError, GPT2Config, GPT2LMHeadModel, checkpoints
from refgen.checkpoints import Format, disassemble
from refgen.checkpoints.stored import Stored
from tests.model_folders import (
    CODES,
    DTYPES,
    SEEDS,
    SMALL,
    UNTIED,
    assert_same_bits,
    load,
    numbers,
    with_head,
    write,
)
from tests.strategies import gpt2_configs, random_model

# --- What is loaded is what was saved ---------------------------------------------------------------------

OTHER = st.dictionaries(
    st.sampled_from(("n_ctx", "attn_pdrop", "summary_type", "task_specific_params", "torch_dtype", "_name_or_path")),
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.lists(st.floats(-1, 1), max_size=2),
)


@given(config=gpt2_configs(), other=OTHER, seed=SEEDS, dtype=DTYPES)
def test_saving_and_loading_gives_the_same_bits(fresh, config, other, seed, dtype):
    """Every tensor and every entry of the configuration survives saving and loading unchanged."""
    config = replace(config, other=other)
    model, folder = random_model(config, seed, dtype), fresh()
    model.save_pretrained(folder)
    loaded = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype)
    assert_same_bits(disassemble(loaded.gpt2), disassemble(model.gpt2))
    kept = {name: value for name, value in other.items() if name != "torch_dtype"}
    added = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "dtype": dtype}
    assert loaded.config == replace(config, other=kept | added)
    assert loaded.generation_config == model.generation_config
    assert [block.mlp.act for block in loaded.gpt2.h] == [block.mlp.act for block in model.gpt2.h]


@given(seed=SEEDS)
def test_float32_loads_exactly_into_float64(fresh, seed):
    """Widening keeps every value, and the model then computes in float64."""
    tensors = numbers(seed=seed)
    folder = write(fresh(), tensors)
    assert_same_bits(load(folder, np.float64), {k: v.astype("float64") for k, v in with_head(tensors).items()})
    assert GPT2LMHeadModel.from_pretrained(folder, dtype="float64").dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "f4", np.float32, np.dtype("float32"), "float64", float, np.double])
def test_computing_dtypes_have_many_names(tmp_path, dtype):
    """Whatever NumPy calls float32 or float64 is accepted."""
    write(tmp_path, numbers())
    assert GPT2LMHeadModel.from_pretrained(tmp_path, dtype=dtype).dtype == np.dtype(dtype)


# --- In memory --------------------------------------------------------------------------------------------


def test_no_number_is_in_memory_twice(tmp_path):
    """CKPT-14: embeddings and wide weights are read-only views of the mapped file, other weights copies, output by output."""
    gpt2 = GPT2LMHeadModel.from_pretrained(write(tmp_path, numbers())).gpt2
    for name, array in disassemble(gpt2).items():
        if name.startswith("h.") and array.ndim == 2 and array.shape[1] <= array.shape[0]:
            assert array.flags.f_contiguous
            assert array.flags.writeable
        else:
            assert not array.flags.owndata
            assert not array.flags.writeable


def turned(name, weight):
    """A `lay_out` that copies the weights of layers, as an engine may."""
    return np.asfortranarray(weight) if weight.ndim == 2 and name.startswith("h.") else weight


@given(prefix=st.sampled_from(("", "transformer.")), untied=st.booleans(), stored=st.sampled_from(("f2", "f4")))
def test_every_tensor_is_laid_out_once(fresh, prefix, untied, stored):
    """CKPT-14. `lay_out` gets each tensor in the computing dtype under its name, and what it returns is what the network has."""
    config = UNTIED if untied else SMALL
    tensors, seen, returned = numbers(config, stored), [], {}

    def lay_out(name, weight):
        assert weight.dtype == np.float32
        seen.append(name)
        returned[name] = turned(name, weight)
        return returned[name]

    gpt2 = checkpoints.load(write(fresh(), tensors, config, prefix), lay_out=lay_out)
    assert sorted(seen) == sorted(tensors)
    loaded = disassemble(gpt2)
    assert all(loaded[name] is weight for name, weight in returned.items())
    assert_same_bits(loaded, {name: tensor.astype("f4") for name, tensor in tensors.items()})


def test_without_a_layout_all_weights_lie_in_the_file(tmp_path):
    """CKPT-14. By default nothing is copied, and the network is made of the very arrays that were read."""
    for array in disassemble(checkpoints.load(write(tmp_path, numbers()))).values():
        assert not array.flags.owndata
        assert not array.flags.writeable


def resident(file: Path) -> int:
    """How many bytes of a mapped file are in the memory of this process, by /proc/self/smaps."""
    lines, here, total = Path("/proc/self/smaps").read_text().splitlines(), False, 0
    for line in lines:
        if "-" in line.split(maxsplit=1)[0]:  # addresses: a new mapping begins
            here = line.endswith(str(file))
        elif here and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux shows which pages are in memory")
def test_what_is_copied_is_let_go(tmp_path):
    """CKPT-14. Of a file whose layers are copied as they are read, hardly more than the embeddings stays in memory."""
    config = replace(SMALL, vocab_size=64, n_embd=512)
    folder = write(tmp_path, numbers(config), config)
    whole = (folder / "model.safetensors").stat().st_size
    as_stored = checkpoints.load(folder)
    assert resident(folder / "model.safetensors") > 0.9 * whole
    del as_stored
    copied = checkpoints.load(folder, lay_out=turned)
    assert resident(folder / "model.safetensors") < 0.1 * whole  # the system maps some pages around each that is read
    assert_same_bits(disassemble(copied), numbers(config))


# --- Folders that are no model ----------------------------------------------------------------------------


def test_an_empty_folder_says_what_belongs_there(tmp_path):
    """CKPT-09. Without `config.json` there is no model."""
    expected = (
        f"{tmp_path / 'config.json'}: does not exist [CKPT-09]. "
        "A model folder holds config.json, model.safetensors and the tokenizer's files."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"\xff\xfe", b'{"n_embd": 4,}'])
def test_a_configuration_that_is_not_json_is_refused(tmp_path, text):
    """CKPT-09. The error names the file and what JSON said of it."""
    (tmp_path / "config.json").write_bytes(text)
    path = re.escape(str(tmp_path / "config.json"))
    with pytest.raises(CheckpointError, match=rf"^{path}: cannot be read as JSON: .* \[CKPT-09\]"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"gpt2"'])
def test_a_configuration_that_is_no_object_is_refused(tmp_path, text):
    """CKPT-09. `config.json` holds an object."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: must hold a JSON object \[CKPT-09\]"):
        load(tmp_path)


def test_an_activation_refgen_does_not_know_is_refused(tmp_path):
    """FWD-15. The activation is checked before the weights are read."""
    write(tmp_path, {}, replace(SMALL, activation_function="gelu_old"))
    with pytest.raises(ConfigError, match=r"^activation_function='gelu_old': is not an activation function \[FWD-15\]"):
        load(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    """CKPT-09. All names that weights may have are in the error."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict()))
    names = " nor ".join(name for each in checkpoints.FORMATS for name in each.files)
    expected = f"{tmp_path}: holds neither {names} [CKPT-09]. {checkpoints.READ}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["other.safetensors", "model.fp16.safetensors", "weights.pt", "step_100.bin", "x.unknown"]
)
def test_a_file_may_be_given_by_itself(tmp_path, name):
    """CKPT-09. A variant, or any other name: the folder says which file to give, and that file is read with its configuration."""
    tensors = numbers()
    write(tmp_path, tensors)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    if not name.endswith(".safetensors"):
        with pytest.raises(CheckpointError, match=r"is not a file of weights that refgen can read \[CKPT-09\]"):
            load(tmp_path / name)
        return
    with pytest.raises(
        CheckpointError,
        match=rf"holds neither .* \[CKPT-09\]\. Give the file itself: {re.escape(str(tmp_path / name))}\.$",
    ):
        load(tmp_path)
    assert_same_bits(load(tmp_path / name), with_head(tensors))


def test_a_pipe_is_refused(tmp_path):
    """CKPT-09. What nobody may ever write to is not waited for."""
    for name in ("model.safetensors", "config.json"):
        folder = write(tmp_path / name.partition(".")[0], numbers())
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(CheckpointError, match=rf"{name}: is not a file \[CKPT-09\]"):
            load(folder)


# --- Another format ---------------------------------------------------------------------------------------


def read_npz(path: Path) -> list[Stored]:
    """The arrays of `weights.dummy.npz`, which holds linear weights as torch's Linear has them, `[out, in]`."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "config"}
    return [
        Stored(path, name, CODES[array.dtype.str[1:]], array.T.shape, np.frombuffer(array.tobytes(), np.uint8), "F")
        if ".c_" in name and array.ndim == 2
        else Stored(path, name, CODES[array.dtype.str[1:]], array.shape, np.frombuffer(array.tobytes(), np.uint8))
        for name, array in arrays.items()
    ]


def config_of_npz(path: Path) -> dict[str, Any]:
    """The configuration, which is in the same file."""
    with np.load(path) as archive:
        return json.loads(str(archive["config"]))


@pytest.fixture
def npz(monkeypatch):
    """A second format in the registry."""
    new = Format(("weights.dummy.npz",), lambda file: file.suffix == ".npz", read_npz, config_of_npz)
    both = (*checkpoints.FORMATS, new)
    monkeypatch.setattr("refgen.checkpoints.FORMATS", both)


def write_npz(folder: Path, tensors: dict[str, ndarray], config: GPT2Config = SMALL) -> Path:
    """A model folder in that format."""
    folder.mkdir(parents=True, exist_ok=True)
    turned = {name: array.T if ".c_" in name else array for name, array in tensors.items()}
    np.savez(folder / "weights.dummy.npz", config=json.dumps(config.to_dict()), **turned)
    return folder


@given(seed=SEEDS, untied=st.booleans(), stored=st.sampled_from(("f2", "f4", "f8")), laid_out=st.booleans())
def test_another_format_is_a_line_in_the_registry(fresh, npz, seed, untied, stored, laid_out):
    """A format has names of files, a way to read tensors and one to read a configuration; all else is common."""
    config = UNTIED if untied else SMALL
    tensors = numbers(config, stored, seed)
    lay_out = turned if laid_out else checkpoints.as_stored
    gpt2 = checkpoints.load(write_npz(fresh(), tensors, config), "float64", lay_out)
    assert gpt2.config == GPT2Config.from_dict(config.to_dict())
    assert_same_bits(disassemble(gpt2), {name: tensor.astype("f8") for name, tensor in tensors.items()})


NAN = np.full(4, np.nan, "f4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer.ln_f.bias": NAN}, r"tensor transformer\.ln_f\.bias: stands beside ln_f\.bias \[CKPT-02\]"),
        ({"lm_head.weight": np.zeros((7, 4), "f4")}, r"tensor lm_head\.weight: differs from wte\.weight .* \[CKPT-04\]"),
        ({"ln_f.bias": None}, r"1 tensor missing: ln_f\.bias \[CKPT-05\]"),
        ({"ln_f.bias": NAN[:3]}, r"tensor ln_f\.bias: has shape \[3\], must have \[4\] \[CKPT-06\]"),
        ({"ln_f.gamma": NAN}, r"1 tensor that a GPT-2 .* does not have: ln_f\.gamma \[CKPT-07\]"),
        ({"ln_f.bias": np.zeros(4)}, r"tensor ln_f\.bias: is F64, which float32 would round \[CKPT-08\]"),
        ({"ln_f.bias": np.zeros(4, "i8")}, r"tensor ln_f\.bias: is I64, must be one of .* \[CKPT-08\]"),
        ({"ln_f.bias": NAN}, r"weights\.dummy\.npz: tensor ln_f\.bias: holds NaN or infinity \[CKPT-12\]"),
    ],
)  # fmt: skip
def test_the_checks_are_those_of_every_format(tmp_path, npz, change, message):
    """CKPT-02 to CKPT-08, CKPT-12. A new format brings no check of its own and escapes none."""
    tensors = {name: array for name, array in (numbers() | change).items() if array is not None}
    write_npz(tmp_path, tensors | {"h.0.attn.bias": np.ones((1, 1, 5, 5), "u1")})
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(tmp_path)


def test_of_two_formats_the_first_is_read(tmp_path, npz):
    """CKPT-09. The order of the registry decides; a folder with neither is told all names that were looked for."""
    first, second = numbers(seed=1), numbers(seed=2)
    write_npz(write(tmp_path, first), second)
    assert_same_bits(load(tmp_path), with_head(first))
    (tmp_path / "model.safetensors").unlink()
    assert_same_bits(load(tmp_path), with_head(second))
    (tmp_path / "weights.dummy.npz").unlink()
    names = " nor ".join(name for each in checkpoints.FORMATS for name in each.files)
    expected = f"{tmp_path}: holds neither {names} [CKPT-09]. {checkpoints.READ}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


# --- Saving -----------------------------------------------------------------------------------------------


def write_in_place(tensors, path, metadata):
    """What older versions of safetensors do: the file that is there is emptied and filled again."""
    Path(path).write_bytes(safetensors.numpy.save(tensors, metadata))


@given(config=gpt2_configs(), seed=SEEDS, dtype=DTYPES)
def test_saving_over_the_folder_in_use_harms_nobody(fresh, config, seed, dtype):
    """A loaded model reads its file as it goes; another saved in its place, or itself, leaves it what it was."""
    folder = fresh()
    random_model(config, seed, dtype).save_pretrained(folder)
    first = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype)
    before = {name: array.copy() for name, array in disassemble(first.gpt2).items()}
    second = random_model(config, seed + 1, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refgen.checkpoints.safetensors.save_file", write_in_place)
        first.save_pretrained(folder)
        assert_same_bits(disassemble(first.gpt2), before)
        second.save_pretrained(folder)
    assert_same_bits(disassemble(first.gpt2), before)
    assert_same_bits(disassemble(GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).gpt2), disassemble(second.gpt2))


def test_saving_leaves_nothing_else_behind(tmp_path):
    """The folder holds the three files, no temporary ones."""
    random_model(SMALL, 0).save_pretrained(tmp_path / "new" / "folder")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["config.json", "generation_config.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    """When writing the weights fails, the weights before are still there and no temporary file is."""
    tensors = numbers()
    write(tmp_path, tensors)

    def fails(tensors, path, metadata):
        Path(path).write_bytes(b"half a file")
        raise OSError("no space left")

    monkeypatch.setattr("refgen.checkpoints.safetensors.save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        random_model(SMALL, 1).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert_same_bits(load(tmp_path), with_head(tensors))
