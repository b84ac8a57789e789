"""Model folders: what is loaded is what the file holds, bit for bit, in every format; a folder that is no model is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from refgen import CheckpointError, ConfigError, GPT2LMHeadModel
from refgen.checkpoints import disassemble
from tests.model_folders import (
    DTYPES,
    SEEDS,
    SMALL,
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
    """CKPT-09. Both names that weights may have are in the error."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict()))
    expected = f"{tmp_path}: holds neither model.safetensors nor model.safetensors.index.json [CKPT-09]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


def test_pickled_weights_are_named_but_not_read(tmp_path):
    """CKPT-09. A `.bin` file can run code when it is read; the error says how to convert it."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    expected = "[CKPT-09]. Convert pytorch_model.bin to safetensors with save_pretrained of transformers."
    with pytest.raises(CheckpointError, match=f"{re.escape(expected)}$"):
        load(tmp_path)


def test_an_unknown_model_name_is_refused(tmp_path):
    """CKPT-09. refgen downloads nothing: a name that is no folder is an error that says so."""
    expected = (
        "openai-community/gpt2: is neither a folder nor a built-in model [CKPT-09]. "
        "refgen works offline: give the folder with config.json, or one of shakespeare."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        GPT2LMHeadModel.from_pretrained("openai-community/gpt2")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is a file, not a folder \[CKPT-09\]"):
        GPT2LMHeadModel.from_pretrained(tmp_path / "model.safetensors")


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
