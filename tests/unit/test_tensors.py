"""The tensors that a configuration calls for: each once, under its name, and no others."""

import re
from dataclasses import replace

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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ln_f.gamma", "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file."),
        ("h.0.attn.biases", "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file."),
        ("h.2.ln_1.weight", "The file has 3 layers and config.json n_layer=2: correct n_layer."),
        ("score.weight", "score: of another head than GPT-2's. refgen convert FROM TO --leave-out 'score.*' writes the model without."),
        ("lm_head.bias", "GPT-2's head has no bias."),
    ],
)  # fmt: skip
def test_a_tensor_too_many_is_refused(tmp_path, name, remedy):
    """CKPT-07. What the configuration does not call for may not be in the file; the remedy knows the usual causes."""
    folder = write(tmp_path, numbers() | {name: np.zeros(4, "f4")})
    expected = f"{folder}: 1 tensor that a GPT-2 of this config.json does not have: {name} [CKPT-07]. {remedy}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(folder)


@given(
    wrappers=st.lists(st.sampled_from(("_orig_mod.", "module.", "_module.")), max_size=3).map("".join),
    prefix=st.sampled_from(("", "transformer.")),
    seed=SEEDS,
)
def test_prefixes_of_wrappers_are_taken_off(fresh, wrappers, prefix, seed):
    """CKPT-07. What torch.compile and data parallel put before every name, the head's too, changes nothing."""
    tensors = numbers(UNTIED, seed=seed)
    named = {wrappers + (name if name == "lm_head.weight" else prefix + name): t for name, t in tensors.items()}
    assert_same_bits(load(write(fresh(), named, UNTIED)), tensors)


def test_a_weight_under_two_wrappers_is_refused(tmp_path):
    """CKPT-02. Neither of the two is taken for the right one."""
    with pytest.raises(CheckpointError, match=r"tensor module\.wte\.weight: stands beside wte\.weight \[CKPT-02\]"):
        load(write(tmp_path, numbers() | {"module.wte.weight": np.zeros((7, 4), "f4")}))


def test_another_prefix_is_named(tmp_path):
    """CKPT-05. A prefix of all names that nobody knows is in the remedy, with the way to take it off."""
    folder = write(tmp_path, numbers(), prefix="gpt.")
    remedy = r"The names begin with 'gpt\.': refgen convert FROM TO --prefix gpt\. takes it off\.$"
    with pytest.raises(CheckpointError, match=rf"28 tensors missing: .* \[CKPT-05\]\. {remedy}"):
        load(folder)


@given(seed=SEEDS)
def test_a_tied_head_alone_is_the_embedding(fresh, seed):
    """CKPT-04. A file with the head and without the embedding, as safetensors.torch.save_model writes it, is whole if they are tied."""
    tensors = numbers(seed=seed)
    head = {"lm_head.weight": tensors.pop("wte.weight")}
    assert_same_bits(load(write(fresh(), tensors | head)), with_head({"wte.weight": head["lm_head.weight"], **tensors}))
    with pytest.raises(CheckpointError, match=r"1 tensor missing: wte\.weight \[CKPT-05\]"):
        load(write(fresh(), tensors | head, UNTIED))


def no_biases(tensors):
    """The tensors of a network that has none."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}


@given(seed=SEEDS, dtype=DTYPES)
def test_biases_that_are_declared_absent_are_zero(fresh, seed, dtype):
    """CKPT-05. With `"bias": false` in the configuration the file has none, each is 0, and the model saves them all."""
    tensors = numbers(seed=seed)
    folder = write(fresh(), no_biases(tensors), replace(SMALL, other={"bias": False}))
    zeros = {name: np.zeros_like(tensor) for name, tensor in tensors.items() if name.endswith(".bias")}
    expected = with_head(tensors) | zeros
    assert_same_bits(load(folder, dtype), {name: tensor.astype(dtype) for name, tensor in expected.items()})
    saved = fresh()
    GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).save_pretrained(saved)
    assert_same_bits(load(saved, dtype), {name: tensor.astype(dtype) for name, tensor in expected.items()})


def test_biases_that_are_absent_and_not_declared_are_refused(tmp_path):
    """CKPT-05. Nothing says that they are 0; the remedy says how to say so. Declared and there is a contradiction."""
    with pytest.raises(
        CheckpointError, match=r'13 tensors missing: .* \[CKPT-05\]\. .*set "bias": false in config\.json\.$'
    ):
        load(write(tmp_path / "silent", no_biases(numbers())))
    with pytest.raises(CheckpointError, match=r"has 13 biases although .* bias=false: .* \[CKPT-05\]"):
        load(write(tmp_path / "both", numbers(), replace(SMALL, other={"bias": False})))


@pytest.mark.parametrize(
    ("entry", "number", "message"),
    [
        ("vocab_size", 9, r"tensor wte\.weight: .* \[CKPT-06\]\. The configuration says vocab_size=9, the file 7\."),
        ("n_positions", 4, r"tensor wpe\.weight: .* \[CKPT-06\]\. The configuration says n_positions=4, the file 5\."),
        ("n_embd", 8, r"tensor wte\.weight: .* \[CKPT-06\]\. The configuration says n_embd=8, the file 4\."),
        ("n_inner", 8, r"tensor h\.0\.mlp\.c_fc\.weight: .* \[CKPT-06\]\. The configuration says n_inner=8, the file 16\."),
        ("n_layer", 3, r"12 tensors missing: .* \[CKPT-05\]\. The file has 2 layers and config\.json n_layer=3: correct n_layer\."),
        ("n_layer", 10**9, r"has 2 layers, n_layer=1000000000 in its configuration \[CKPT-05\]"),
        ("tie_word_embeddings", False, r"1 tensor missing: lm_head\.weight \[CKPT-05\]\. If the head is the embedding, set tie"),
    ],
)  # fmt: skip
def test_the_entry_at_odds_is_named(tmp_path, entry, number, message):
    """CKPT-05, CKPT-06. A configuration that another file belongs to: the error says which entry, and both numbers."""
    with pytest.raises(CheckpointError, match=message):
        load(write(tmp_path, numbers(), replace(SMALL, **{entry: number})))
