"""The tensors that a configuration calls for: each once, under its name, and no others."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from refgen import CheckpointError, GPT2LMHeadModel
from refgen.checkpoints import disassemble, tensor_shapes
from tests.model_folders import DTYPES, SEEDS, SMALL, UNTIED, assert_same_bits, load, numbers, with_head, write
from tests.strategies import gpt2_configs, random_model

# --- Prefixes and buffers ---------------------------------------------------------------------------------


@given(config=gpt2_configs(), seed=SEEDS, dtype=DTYPES, prefix=st.sampled_from(("", "transformer.")))
def test_names_load_with_and_without_prefix(fresh, config, seed, dtype, prefix):
    """The base model's names, without `transformer.`, mean the same as the language model's, with it."""
    tensors = numbers(config, dtype, seed)
    assert_same_bits(load(write(fresh(), tensors, config, prefix), dtype), with_head(tensors))


@given(name=st.sampled_from(sorted(tensor_shapes(SMALL))))
def test_a_name_with_and_without_prefix_is_refused(fresh, name):
    """CKPT-02. Two tensors that mean the same weight are an error even when they are equal."""
    tensors = numbers()
    write(folder := fresh(), tensors | {f"transformer.{name}": tensors[name]})
    with pytest.raises(
        CheckpointError,
        match=rf"^model\.safetensors: tensor transformer\.{re.escape(name)}: stands beside {re.escape(name)} \[CKPT-02\]",
    ):
        load(folder)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("stored", ["f4", "u1", "f2"])
def test_mask_buffers_are_left_out(tmp_path, prefix, stored):
    """CKPT-03. The causal masks that old versions saved as tensors are no weights, whatever their dtype."""
    tensors = numbers()
    buffers: dict[str, ndarray] = {}
    for i in range(SMALL.n_layer):
        buffers[f"{prefix}h.{i}.attn.bias"] = np.tri(SMALL.n_positions).astype(stored)[None, None]
        buffers[f"{prefix}h.{i}.attn.masked_bias"] = np.array(-1e4, "f4")
    assert_same_bits(load(write(tmp_path, buffers | tensors)), with_head(tensors))


def test_a_mask_buffer_of_a_layer_that_is_not_there_is_refused(tmp_path):
    """CKPT-07. A buffer of layer 2 says that the file is not of this two-layer model."""
    write(tmp_path, numbers() | {"h.2.attn.bias": np.ones((1, 1, 5, 5), "f4")})
    with pytest.raises(CheckpointError, match=r"1 tensor that a GPT-2 .* does not have: h\.2\.attn\.bias \[CKPT-07\]"):
        load(tmp_path)


# --- A tied head ------------------------------------------------------------------------------------------


@given(config=gpt2_configs(), seed=SEEDS, dtype=DTYPES)
def test_the_tied_head_is_the_embedding(fresh, config, seed, dtype):
    """FWD-17: a tied head is no tensor of its own, in memory or in the file; an untied one is."""
    model, folder = random_model(config, seed, dtype), fresh()
    model.save_pretrained(folder)
    loaded = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).gpt2
    assert (loaded.lm_head is loaded.wte) == config.tie_word_embeddings
    written = (folder / "model.safetensors").read_bytes()
    assert (b'"lm_head.weight"' in written) == (not config.tie_word_embeddings)


def test_a_tied_head_may_stand_in_the_file(tmp_path):
    """CKPT-04. An `lm_head.weight` equal to the embedding is the embedding."""
    tensors = numbers()
    write(tmp_path, with_head(tensors), prefix="transformer.")
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path).gpt2
    assert loaded.lm_head is loaded.wte
    assert_same_bits(disassemble(loaded), tensors)


@given(data=st.data())
def test_a_tied_head_that_differs_is_refused(fresh, data):
    """CKPT-04. One bit is enough to differ: transformers would leave the two untied."""
    tensors = numbers()
    head = tensors["wte.weight"].copy()
    place = data.draw(st.integers(0, head.size - 1))
    head.flat[place] = np.nextafter(head.flat[place], np.float32(np.inf))
    write(fresh_folder := fresh(), tensors | {"lm_head.weight": head})
    expected = (
        "model.safetensors: tensor lm_head.weight: differs from wte.weight although the configuration ties them "
        "[CKPT-04]. If the head is its own, set tie_word_embeddings to false in config.json."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(fresh_folder)


def test_a_tied_head_of_another_shape_is_refused(tmp_path):
    """CKPT-06. The head is checked even where it is not used."""
    write(tmp_path, numbers() | {"lm_head.weight": np.zeros((4, 7), "f4")})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: has shape \[4, 7\], must have \[7, 4\] \[CKPT-06\]"):
        load(tmp_path)


# --- Nothing missing, nothing left over -------------------------------------------------------------------


@given(data=st.data(), untied=st.booleans(), prefix=st.sampled_from(("", "transformer.")))
def test_a_missing_tensor_is_refused(fresh, data, untied, prefix):
    """CKPT-05. Whichever tensor is missing, an untied head too, it is named and not made up."""
    config = UNTIED if untied else SMALL
    tensors = numbers(config)
    gone = data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=4, unique=True))
    folder = write(fresh(), {name: array for name, array in tensors.items() if name not in gone}, config, prefix)
    count = "1 tensor" if len(gone) == 1 else f"{len(gone)} tensors"
    expected = (
        f"{folder}: {count} missing: {', '.join(sorted(gone))} [CKPT-05]. "
        "refgen never fills weights in; compare n_layer and tie_word_embeddings in config.json with the file."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(folder)


def test_many_missing_tensors_are_counted(tmp_path):
    """A long list of names is cut after four."""
    write(tmp_path, {})
    expected = "28 tensors missing: h.0.attn.c_attn.bias, h.0.attn.c_attn.weight, h.0.attn.c_proj.bias, h.0.attn.c_proj.weight, … ["
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load(tmp_path)


@given(
    name=st.sampled_from(("h.2.ln_1.weight", "ln_f.gamma", "module.wte.weight", "a.transformer.b", "h.0.attn.biases"))
)
def test_a_tensor_too_many_is_refused(fresh, name):
    """CKPT-07. What the configuration does not call for may not be in the file."""
    folder = write(fresh(), numbers() | {name: np.zeros(4, "f4")})
    expected = (
        f"{folder}: 1 tensor that a GPT-2 of this config.json does not have: {name} [CKPT-07]. "
        "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(folder)
