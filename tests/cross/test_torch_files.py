"""What torch.save writes, read without torch: equal to torch's own reading, bit for bit, and to the networks it came from."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel as TorchGPT2

from refgen import CheckpointError, GPT2LMHeadModel, checkpoints
from refgen.checkpoints import disassemble, torch_files
from refgen.checkpoints.stored import numbers as read_numbers
from tests.cross.minimal_gpt import MinGPT, NanoGPT, sizes_of
from tests.cross.torch_twin import torch_twin
from tests.model_folders import SEEDS, SMALL, assert_same_bits
from tests.strategies import gpt2_configs, models, random_model

FEWER = settings(max_examples=max(15, settings().max_examples // 4))
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
CONTAINERS = st.booleans()  # whether the zip archive of today


def config_beside(folder, config):
    """A folder with that configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


# --- The same as torch ------------------------------------------------------------------------------------


def views(draw):
    """A tensor that may be any view of a larger storage: a part, turned, every other, of one number, empty."""
    dtype = draw(st.sampled_from([*DTYPES.values(), torch.int64, torch.uint8, torch.bool]))
    whole = torch.from_numpy(np.random.default_rng(draw(SEEDS)).integers(0, 2, (4, 5, 3))).to(dtype)
    return draw(
        st.sampled_from((
            whole, whole[1:], whole[:, 2], whole.transpose(0, 2), whole[..., 0].t(), whole[::2, 1::2], whole[0, 0, 0],
            whole[:0], whole.contiguous().view(-1)[3:17], whole.permute(1, 2, 0),
        ))
    )  # fmt: skip


@FEWER
@given(st.data(), CONTAINERS)
def test_every_view_is_read_as_torch_reads_it(tmp_path_factory, data, zipped):
    """CKPT-16. Names, dtypes, shapes and bits of whatever a state dict holds are those of `torch.load(weights_only=True)`."""
    state = {f"t{i}": views(data.draw) for i in range(data.draw(st.integers(1, 5)))}
    state["again"] = state["t0"]
    file = tmp_path_factory.mktemp("views") / "pytorch_model.bin"
    torch.save(
        data.draw(st.sampled_from((state, {"model": state, "step": 3, "rate": 1e-3, "list": [1, (2, None)]}))),
        file,
        _use_new_zipfile_serialization=zipped,
    )
    theirs = torch.load(file, weights_only=True)
    theirs = theirs.get("model", theirs)
    ours = {tensor.name: tensor for tensor in torch_files.read(file)}
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        wide = {torch.bfloat16: torch.float32, torch.bool: torch.uint8}.get(tensor.dtype, tensor.dtype)
        expected = tensor.to(wide).numpy()
        assert ours[name].shape == tuple(tensor.shape)
        if ours[name].dtype in ("U8", "BOOL"):
            found = ours[name].data.reshape(ours[name].shape, order=ours[name].order)
        else:
            found = read_numbers(ours[name])
        assert found.dtype == expected.dtype
        assert np.ascontiguousarray(found).tobytes() == expected.tobytes()


@FEWER
@given(gpt2_configs(), SEEDS, st.sampled_from(sorted(DTYPES)), CONTAINERS)
def test_a_model_loads_as_transformers_loads_it(tmp_path_factory, config, seed, kind, zipped):
    """CKPT-16. `pytorch_model.bin` of transformers, in every dtype and container: the same weights as its safetensors."""
    twin = torch_twin(random_model(config, seed, "float64")).to(DTYPES[kind])
    folder, plain = tmp_path_factory.mktemp("bin"), tmp_path_factory.mktemp("safetensors")
    torch.save(
        twin.state_dict(), config_beside(folder, config) / "pytorch_model.bin", _use_new_zipfile_serialization=zipped
    )
    twin.save_pretrained(plain)
    dtype = "float64" if kind == "F64" else "float32"
    ours = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype)
    assert_same_bits(disassemble(ours.gpt2), disassemble(GPT2LMHeadModel.from_pretrained(plain, dtype=dtype).gpt2))
    if zipped:
        theirs = TorchGPT2.from_pretrained(folder)
        assert torch.equal(theirs.transformer.wte.weight.double(), torch.from_numpy(np.array(ours.gpt2.wte)).double())


@FEWER
@given(models("float32"), st.integers(2, 4))
def test_shards_load_as_one(tmp_path_factory, model, parts):
    """CKPT-09. Several `.bin` files and their index."""
    folder, state = tmp_path_factory.mktemp("shards"), torch_twin(model).state_dict()
    weight_map = {}
    for i in range(parts):
        part = {name: state[name] for name in list(state)[i::parts]}
        torch.save(part, folder / f"pytorch_model-{i}.bin")
        weight_map |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
    (config_beside(folder, model.config) / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )
    assert_same_bits(disassemble(GPT2LMHeadModel.from_pretrained(folder).gpt2), disassemble(model.gpt2))


def test_a_file_lies_in_memory_once(tmp_path):
    """CKPT-14. Weights of a zip archive are used where they lie, as those of safetensors are."""
    torch.save(
        torch_twin(random_model(SMALL, 0, "float32")).state_dict(), config_beside(tmp_path, SMALL) / "pytorch_model.bin"
    )
    assert not checkpoints.load(tmp_path).wte.flags.owndata


# --- nanoGPT and minGPT -----------------------------------------------------------------------------------

SIZES = st.fixed_dictionaries(
    {
        "n_layer": st.integers(1, 3),
        "n_head": st.integers(1, 3),
        "vocab_size": st.integers(2, 70),
        "block_size": st.integers(4, 9),
    }
)
PREFIXES = st.sampled_from(("", "_orig_mod.", "module.", "module._orig_mod."))
# Sums of at most 100 terms through three layers: some hundred float32 roundings of 6e-8, of logits near 1.
BOUND = 2e-5


def logits_of(network, ids):
    """All logits, in float32."""
    with torch.no_grad():
        return network.eval()(torch.from_numpy(ids)).numpy()


@FEWER
@given(SIZES, st.booleans(), PREFIXES, SEEDS)
def test_a_nanogpt_checkpoint_gives_nanogpts_logits(tmp_path_factory, sizes, bias, prefix, seed):
    """CKPT-17. `ckpt.pt` as nanoGPT's train.py writes it, compiled or parallel, with biases and without."""
    sizes = sizes | {"n_embd": 4 * sizes["n_head"]}
    torch.manual_seed(seed % 2**31)
    network = NanoGPT(**sizes, bias=bias)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), fused=False)
    checkpoint = {
        "model": state, "optimizer": optimizer.state_dict(), "model_args": sizes | {"bias": bias, "dropout": 0.0},
        "iter_num": 5, "best_val_loss": torch.tensor(1e9), "config": {"out_dir": "out", "compile": True, "lr": 6e-4},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("nano")
    torch.save(checkpoint, folder / "ckpt.pt")
    ids = np.random.default_rng(seed).integers(0, sizes["vocab_size"], (2, sizes["block_size"]))
    for path in (folder, folder / "ckpt.pt"):
        model = GPT2LMHeadModel.from_pretrained(path)
        assert model.config.activation_function == "gelu"
        assert model.generation_config.eos_token_id is None
        np.testing.assert_allclose(model(ids).logits, logits_of(network, ids), rtol=0, atol=BOUND)


@FEWER
@given(SIZES, PREFIXES, SEEDS, st.sampled_from(("hugging face", "n_head", "model_type")))
def test_a_mingpt_state_dict_gives_mingpts_logits(tmp_path_factory, sizes, prefix, seed, settled_by):
    """CKPT-17. `model.pt` with minGPT's own `config.json`, or with one of Hugging Face's."""
    if settled_by == "model_type":
        sizes = sizes | {"n_head": 3}
    sizes = sizes | {"n_embd": 4 * sizes["n_head"]}
    torch.manual_seed(seed % 2**31)
    network = MinGPT(**sizes)
    folder = tmp_path_factory.mktemp("min")
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, folder / "model.pt")
    own = {
        "model_type": "gpt-nano",
        "n_layer": None,
        "n_head": None,
        "n_embd": None,
        "vocab_size": None,
        "block_size": None,
    }
    if settled_by == "n_head":
        own |= {"model_type": None, "n_head": sizes["n_head"]}
    entries = {"system": {}, "model": own} if settled_by != "hugging face" else sizes_of(sizes, "gelu_new")
    (folder / "config.json").write_text(json.dumps(entries))
    ids = np.random.default_rng(seed).integers(0, sizes["vocab_size"], (2, sizes["block_size"]))
    model = GPT2LMHeadModel.from_pretrained(folder / "model.pt")
    np.testing.assert_allclose(model(ids).logits, logits_of(network, ids), rtol=0, atol=BOUND)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rmsnorm": True}, r"its model_args have use_rmsnorm, which nanoGPT does not \[CKPT-17\]"),
        ({"bias": None}, r"its model_args lack bias \[CKPT-17\]"),
        ({"vocab_size": 8}, r"tensor .*wte\.weight: has shape \[7, 4\], must have \[8, 4\] \[CKPT-06\]"),
        ({"n_layer": 1}, r"12 tensors that .* \[CKPT-07\]\. The file has 2 layers and config\.json n_layer=1"),
    ],
)  # fmt: skip
def test_other_settings_than_nanogpts_are_refused(tmp_path, change, message):
    """CKPT-17. What would compute something else is named."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 4, "vocab_size": 7, "block_size": 5}
    arguments = sizes | {"bias": True, "dropout": 0.0} | change
    arguments = {name: value for name, value in arguments.items() if value is not None}
    torch.save({"model": NanoGPT(**sizes, bias=True).state_dict(), "model_args": arguments}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=message):
        GPT2LMHeadModel.from_pretrained(tmp_path)


# --- What torch refuses too -------------------------------------------------------------------------------


def test_what_weights_only_refuses_is_refused(tmp_path):
    """CKPT-16. Objects, functions, modules and arrays of NumPy: torch's `weights_only` and refgen both say no, and nothing runs."""
    things = {
        "module": torch.nn.Linear(2, 2),
        "array": {"x": np.zeros(3)},
        "path": {"x": tmp_path},
        "config": {"x": SMALL},
        "function": {"x": json.dumps},
        "count": {"x": count()},
    }
    for name, thing in things.items():
        file = config_beside(tmp_path / name, replace(SMALL, other={})) / "pytorch_model.bin"
        torch.save(thing, file)
        with pytest.raises(Exception, match=r"weights_only|Unsupported|Weights only"):
            torch.load(file, weights_only=True)
        with pytest.raises(CheckpointError, match=r"\[CKPT-16\]"):
            GPT2LMHeadModel.from_pretrained(file.parent)
