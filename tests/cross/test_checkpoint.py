"""Model folders against transformers: each side loads what the other saved, bit for bit, nothing missing or made up."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import GenerationConfig as TorchGenerationConfig
from transformers import GPT2Config as TorchConfig
from transformers import GPT2LMHeadModel as TorchGPT2
from transformers import GPT2Model as TorchBase

from refgen import GenerationConfig, GPT2LMHeadModel
from refgen.checkpoints import disassemble
from tests.cross.torch_twin import torch_twin
from tests.strategies import gpt2_configs, models, random_model

FEWER = settings(max_examples=max(20, settings().max_examples // 3))
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from(("float32", "float64"))
PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def their_tensors(network):
    """transformers' weights under refgen's names; a tied head is none of its own."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in network.state_dict().items()}
    if network.config.tie_word_embeddings:
        assert torch.equal(tensors.pop("lm_head.weight"), tensors["wte.weight"])
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def assert_same_bits(observed, expected):
    """Same names, dtypes, shapes and bits."""
    assert observed.keys() == expected.keys()
    for name, array in expected.items():
        assert (observed[name].dtype, observed[name].shape) == (array.dtype, array.shape), name
        assert observed[name].tobytes() == array.tobytes(), name


def assert_same_configuration(ours, theirs):
    """Every field that refgen knows has the same value on both sides, and the same type."""
    for name, value in ours.to_dict().items():
        if name not in ours.other and name != "architectures":
            assert getattr(theirs, name) == value, name
            assert type(getattr(theirs, name)) is type(value), name


def their_network(config, seed, dtype):
    """A network that transformers made, every weight of it random, without refgen's hand in where they go."""
    switches = {name: value for name, value in config.to_dict().items() if name != "architectures"}
    network = TorchGPT2(TorchConfig(**switches)).to(getattr(torch, dtype)).eval()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.normal_(0, 0.5, generator=chance)
    return network


@FEWER
@given(gpt2_configs(), SEEDS, DTYPES)
def test_refgen_loads_what_transformers_saves(config, seed, dtype):
    """Their `save_pretrained`, our `from_pretrained`: the same bits in the same places, the same configuration."""
    network = their_network(config, seed, dtype)
    with TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        loaded = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype)
        assert_same_bits(disassemble(loaded.gpt2), their_tensors(network))
        assert_same_configuration(loaded.config, network.config)
        written = {"use_cache": True, "output_hidden_states": False, "output_attentions": False}
        assert loaded.generation_config == GenerationConfig(**written)
        # That each tensor is also used where it belongs shows in the logits; the bounds are those of test_forward.
        ids = np.arange(8).reshape(2, 4) % config.vocab_size
        with torch.no_grad():
            theirs = network(torch.from_numpy(ids)).logits.numpy()
        bound = (1e-12 if dtype == "float64" else 2e-5) * max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(loaded(ids).logits, theirs, rtol=0, atol=bound)


@FEWER
@given(gpt2_configs(), SEEDS, DTYPES)
def test_both_write_the_same_file(config, seed, dtype):
    """CKPT-01. Names, dtypes, shapes, numbers and metadata of `model.safetensors` are those transformers writes."""
    network = their_network(config, seed, dtype)
    with TemporaryDirectory() as there, TemporaryDirectory() as here:
        network.save_pretrained(there)
        GPT2LMHeadModel.from_pretrained(there, dtype=dtype).save_pretrained(here)
        theirs, ours = (Path(folder) / "model.safetensors" for folder in (there, here))
        assert_same_bits(load_file(ours), load_file(theirs))
        with safe_open(ours, "numpy") as one, safe_open(theirs, "numpy") as other:
            assert one.metadata() == other.metadata()


@FEWER
@given(models("float32") | models("float64"))
def test_transformers_loads_what_refgen_saves(model):
    """Our `save_pretrained`, their `from_pretrained`: the same bits and dtype, no key missing, none unexpected."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        theirs, report = TorchGPT2.from_pretrained(folder, output_loading_info=True)
        assert {name: list(report[name]) for name in PROBLEMS} == {name: [] for name in PROBLEMS}
        assert_same_bits(their_tensors(theirs), disassemble(model.gpt2))
        assert_same_configuration(model.config, theirs.config)
        assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == model.config.tie_word_embeddings


@FEWER
@given(gpt2_configs(), SEEDS, DTYPES)
def test_a_model_survives_the_journey_there_and_back(config, seed, dtype):
    """Saved here, loaded and saved there, loaded here: bits and configuration, what refgen does not use included."""
    config = replace(config, other={"n_ctx": 7, "attn_pdrop": 0.25, "summary_type": "mean", "made_up": [1, None]})
    model = random_model(config, seed, dtype)
    with TemporaryDirectory() as here, TemporaryDirectory() as there:
        model.save_pretrained(here)
        TorchGPT2.from_pretrained(here).save_pretrained(there)
        loaded = GPT2LMHeadModel.from_pretrained(there, dtype=dtype)
        assert_same_bits(disassemble(loaded.gpt2), disassemble(model.gpt2))
        assert replace(loaded.config, other={}) == replace(config, other={})
        assert config.other.items() <= loaded.config.other.items()
        assert loaded.config.other["dtype"] == dtype


@FEWER
@given(models("float32"))
def test_the_base_model_loads_too(model):
    """CKPT-02. `GPT2Model` saves names without `transformer.` and no head, as the published gpt2 has them."""
    model = random_model(replace(model.config, tie_word_embeddings=True), 0, "float32")
    base = torch_twin(model).transformer
    assert type(base) is TorchBase
    with TemporaryDirectory() as folder:
        base.save_pretrained(folder)
        loaded = GPT2LMHeadModel.from_pretrained(folder)
        assert_same_bits(disassemble(loaded.gpt2), disassemble(model.gpt2))


@FEWER
@given(models("float32"), st.integers(100, 350))
def test_refgen_loads_the_shards_of_transformers(model, size):
    """CKPT-09. Several files of any small size, with their index, load as one."""
    with TemporaryDirectory() as folder:
        torch_twin(model).save_pretrained(folder, max_shard_size=size)
        assert len(list(Path(folder).glob("model-*-of-*.safetensors"))) > 1
        assert not (Path(folder) / "model.safetensors").exists()
        loaded = GPT2LMHeadModel.from_pretrained(folder)
        assert_same_bits(disassemble(loaded.gpt2), disassemble(model.gpt2))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_sixteen_bit_checkpoints_are_widened_as_torch_does(tmp_path, half):
    """CKPT-08. What transformers saved in 16 bits loads equal to torch's `.float()` and `.double()`."""
    folders = count()

    @FEWER
    @given(models("float32"))
    def law(model):
        folder = tmp_path / str(next(folders))
        twin = torch_twin(model).to(half)
        twin.save_pretrained(folder)
        assert json.loads((folder / "config.json").read_text())["dtype"] == str(half).removeprefix("torch.")
        assert_same_bits(disassemble(GPT2LMHeadModel.from_pretrained(folder).gpt2), their_tensors(twin.float()))
        in_float64 = GPT2LMHeadModel.from_pretrained(folder, dtype="float64")
        assert_same_bits(disassemble(in_float64.gpt2), their_tensors(twin.double()))

    law()


IDS = st.none() | st.integers(0, 3)
ENDS = IDS | st.lists(st.integers(0, 3), min_size=2, max_size=3, unique=True)


@FEWER
@given(models("float32"), IDS, ENDS, IDS)
def test_special_ids_come_through_both_ways(model, bos, eos, pad):
    """CKPT-11. `generation_config.json` carries the begin, end and padding ids, one end or several."""
    special = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    twin = torch_twin(model)
    twin.generation_config = TorchGenerationConfig(**special)
    with TemporaryDirectory() as there, TemporaryDirectory() as here:
        twin.save_pretrained(there)
        loaded = GPT2LMHeadModel.from_pretrained(there)
        ends = (eos,) if isinstance(eos, int) else tuple(eos or ())
        assert loaded.generation_config.eos_ids == ends
        assert loaded.generation_config.bos_token_id == bos
        assert loaded.generation_config.pad_token_id == pad
        loaded.save_pretrained(here)
        again = TorchGPT2.from_pretrained(here).generation_config
        assert {name: getattr(again, name) for name in special} == special


@FEWER
@given(models("float32"), IDS, ENDS, IDS)
def test_special_ids_of_the_configuration_count_without_the_file(model, bos, eos, pad):
    """CKPT-11. A folder without `generation_config.json` starts from the ids in `config.json`, as in transformers."""
    config = replace(model.config, bos_token_id=bos, eos_token_id=eos, pad_token_id=pad)
    with TemporaryDirectory() as folder:
        random_model(config, 0, "float32").save_pretrained(folder)
        (Path(folder) / "generation_config.json").unlink()
        ours = GPT2LMHeadModel.from_pretrained(folder).generation_config
        theirs = TorchGPT2.from_pretrained(folder).generation_config
    assert ours.eos_ids == ((eos,) if isinstance(eos, int) else tuple(eos or ()))
    assert (ours.bos_token_id, ours.pad_token_id) == (bos, pad)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (bos, eos, pad)
