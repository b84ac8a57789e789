"""Model folders: what is loaded is what the file holds, bit for bit; everything doubtful is refused by name.

The files are written by `write`, which knows the safetensors format on its own, so that they can be wrong.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from refgen import CheckpointError, ConfigError, GPT2Config, GPT2LMHeadModel, RefgenError
from refgen.checkpoints import disassemble, tensor_shapes
from tests.strategies import gpt2_configs, random_model, random_tensors

SMALL = GPT2Config(
    vocab_size=7, n_positions=5, n_embd=4, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
)  # fmt: skip
UNTIED = replace(SMALL, tie_word_embeddings=False)
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from(("float32", "float64"))
CODES = {"f2": "F16", "f4": "F32", "f8": "F64", "i8": "I64", "u1": "U8"}


@dataclass(frozen=True)
class Raw:
    """A tensor of a dtype that NumPy lacks, as bytes."""

    code: str
    shape: tuple[int, ...]
    data: bytes


Tensors = Mapping[str, ndarray | Raw]


def raw(array: ndarray | Raw) -> Raw:
    """What of a tensor goes into a file."""
    if isinstance(array, Raw):
        return array
    return Raw(CODES[array.dtype.str[1:]], array.shape, array.tobytes())


def write_safetensors(path: Path, tensors: Tensors, shift: int = 0) -> None:
    """A safetensors file: eight bytes of header length, the header, the numbers; `shift` spaces end the header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        entry = raw(tensor)
        offsets = [len(data), len(data) + len(entry.data)]
        header[name] = {"dtype": entry.code, "shape": list(entry.shape), "data_offsets": offsets}
        data += entry.data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + shift)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(folder: Path, tensors: Tensors, config: GPT2Config = SMALL, prefix: str = "", shift: int = 0) -> Path:
    """A model folder of one file, every name but the head's behind `prefix`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    named = {name if name == "lm_head.weight" else prefix + name: tensor for name, tensor in tensors.items()}
    write_safetensors(folder / "model.safetensors", named, shift)
    return folder


def write_shards(folder: Path, shards: Mapping[str, Tensors], listed: Mapping[str, str] | None = None) -> Path:
    """A model folder of several files and their index, which says `listed`, by default the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMALL.to_dict()))
    for shard, tensors in shards.items():
        write_safetensors(folder / shard, tensors)
    truth = {name: shard for shard, tensors in shards.items() for name in tensors}
    index = {"metadata": {"total_size": 0}, "weight_map": truth if listed is None else listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def load(folder: Path, dtype: Any = "float32") -> dict[str, ndarray]:
    """The tensors of a loaded model by name, the head always among them."""
    gpt2 = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).gpt2
    return disassemble(gpt2) | {"lm_head.weight": gpt2.lm_head}


def with_head(tensors: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """The tensors a model computes with: a tied head is the embedding."""
    return {"lm_head.weight": tensors["wte.weight"], **tensors}


def assert_same_bits(observed: Mapping[str, ndarray], expected: Mapping[str, ndarray]) -> None:
    """Same names, dtypes, shapes and bits."""
    assert observed.keys() == expected.keys()
    for name, array in expected.items():
        assert observed[name].dtype == array.dtype, name
        assert observed[name].shape == array.shape, name
        assert observed[name].tobytes() == array.tobytes(), name


def numbers(config: GPT2Config = SMALL, dtype: str = "float32", seed: int = 0) -> dict[str, ndarray]:
    """Random tensors that a test may change."""
    return random_tensors(config, seed, dtype)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes a new folder at every call, for every example of a property has its own."""
    count: Iterator[int] = iter(range(10**9))
    return lambda: tmp_path / str(next(count))


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


@given(config=gpt2_configs(), seed=SEEDS, dtype=DTYPES)
def test_the_tied_head_is_the_embedding(fresh, config, seed, dtype):
    """FWD-17: a tied head is no tensor of its own, in memory or in the file; an untied one is."""
    model, folder = random_model(config, seed, dtype), fresh()
    model.save_pretrained(folder)
    loaded = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).gpt2
    assert (loaded.lm_head is loaded.wte) == config.tie_word_embeddings
    written = (folder / "model.safetensors").read_bytes()
    assert (b'"lm_head.weight"' in written) == (not config.tie_word_embeddings)


@given(config=gpt2_configs(), seed=SEEDS, dtype=DTYPES, prefix=st.sampled_from(("", "transformer.")))
def test_names_load_with_and_without_prefix(fresh, config, seed, dtype, prefix):
    """The base model's names, without `transformer.`, mean the same as the language model's, with it."""
    tensors = numbers(config, dtype, seed)
    assert_same_bits(load(write(fresh(), tensors, config, prefix), dtype), with_head(tensors))


@given(seed=SEEDS, shift=st.integers(0, 8), stored=st.sampled_from(("f2", "f4", "f8")))
def test_numbers_load_from_any_place_in_the_file(fresh, seed, shift, stored):
    """A header of any length, so that no number lies at a multiple of its size, changes nothing."""
    tensors = numbers(SMALL, stored, seed)
    loaded = load(write(fresh(), tensors, shift=shift), "float64")
    assert_same_bits(loaded, {name: array.astype("float64") for name, array in with_head(tensors).items()})
    assert all(array.flags.aligned for array in loaded.values())


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


@given(seed=SEEDS)
def test_float32_loads_exactly_into_float64(fresh, seed):
    """Widening keeps every value, and the model then computes in float64."""
    tensors = numbers(seed=seed)
    folder = write(fresh(), tensors)
    assert_same_bits(load(folder, np.float64), {k: v.astype("float64") for k, v in with_head(tensors).items()})
    assert GPT2LMHeadModel.from_pretrained(folder, dtype="float64").dtype == np.float64


@given(data=st.data(), seed=SEEDS)
def test_shards_load_like_one_file(fresh, data, seed):
    """Tensors spread over files in any way load as if they lay in one."""
    tensors = numbers(seed=seed)
    names = st.sampled_from(
        ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "rest.safetensors")
    )
    shards: dict[str, dict[str, ndarray]] = {}
    for name, array in tensors.items():
        shards.setdefault(data.draw(names), {})[f"transformer.{name}"] = array
    assert_same_bits(load(write_shards(fresh(), shards)), with_head(tensors))


def test_one_file_goes_before_shards(tmp_path):
    """Where `model.safetensors` stands beside an index, it is the model."""
    old, new = numbers(seed=1), numbers(seed=2)
    write_shards(tmp_path, {"a.safetensors": old})
    assert_same_bits(load(write(tmp_path, new)), with_head(new))


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


# --- Sixteen-bit files ------------------------------------------------------------------------------------

PATTERNS = np.arange(2**16, dtype="<u2")


def value_of(patterns: ndarray, exponent_bits: int) -> ndarray:
    """The float64 values of 16-bit patterns, from the definition: sign, exponent, fraction."""
    fraction_bits = 15 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    bits = patterns.astype(np.int64)
    exponent, fraction = bits >> fraction_bits & (2**exponent_bits - 1), bits & (2**fraction_bits - 1)
    normal = np.ldexp(1 + fraction / 2**fraction_bits, exponent - bias)
    subnormal = np.ldexp(fraction / 2**fraction_bits, 1 - bias)
    return np.where(bits >> 15 == 1, -1.0, 1.0) * np.where(exponent > 0, normal, subnormal)


def is_finite(patterns: ndarray, exponent_bits: int) -> ndarray:
    """Whether the exponent is not all ones."""
    return (patterns >> (15 - exponent_bits) & (2**exponent_bits - 1)) != 2**exponent_bits - 1


@pytest.mark.parametrize(("code", "exponent_bits", "count"), [("F16", 5, 63488), ("BF16", 8, 65280)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_sixteen_bit_number_is_widened_exactly(tmp_path, code, exponent_bits, count, dtype):
    """CKPT-08. All finite patterns, subnormals and both zeros among them, become the very value they stand for."""
    patterns = PATTERNS[is_finite(PATTERNS, exponent_bits)]
    assert len(patterns) == count
    config = replace(SMALL, vocab_size=count // 4)
    tensors: dict[str, Any] = dict(numbers(config))
    tensors["wte.weight"] = Raw(code, (count // 4, 4), patterns.tobytes())
    loaded = load(write(tmp_path, tensors, config), dtype)["wte.weight"]
    assert loaded.dtype == dtype
    assert loaded.astype("float64").tobytes() == value_of(patterns, exponent_bits).tobytes()


@given(
    kind=st.sampled_from((("F16", "<u2", 5, 10), ("BF16", "<u2", 8, 7), ("F32", "<u4", 8, 23), ("F64", "<u8", 11, 52))),
    negative=st.booleans(),
    data=st.data(),
)
def test_nan_and_infinity_are_refused(fresh, kind, negative, data):
    """CKPT-12. A number whose exponent is all ones, in any place of any tensor, is an error that names the tensor."""
    code, dtype, exponent_bits, fraction_bits = kind
    pattern = (int(negative) << exponent_bits | (2**exponent_bits - 1)) << fraction_bits
    pattern |= data.draw(st.integers(0, 2**fraction_bits - 1))  # infinity, signalling NaN, quiet NaN
    tensors: dict[str, Any] = dict(numbers())
    name = data.draw(st.sampled_from(sorted(tensors)))
    bits = np.zeros(tensors[name].shape, dtype)
    bits.flat[data.draw(st.integers(0, bits.size - 1))] = pattern
    tensors[name] = Raw(code, bits.shape, bits.tobytes())
    with pytest.raises(
        CheckpointError, match=rf"tensor {re.escape(name)}: holds NaN or infinity \[CKPT-12\]\. The file is damaged"
    ):
        load(write(fresh(), tensors), "float64")


@pytest.mark.parametrize("values", [(np.inf, -np.inf), (3e38, 3e38), (1e38, -3e38)])
def test_large_numbers_are_not_taken_for_infinite_ones(tmp_path, values):
    """Numbers whose sum overflows load; infinities whose sum is NaN do not."""
    tensors = numbers()
    tensors["wte.weight"][3] = [*values, *values]
    write(tmp_path, tensors)
    if np.isinf(values[0]):
        with pytest.raises(CheckpointError, match=r"wte\.weight: holds NaN or infinity"):
            load(tmp_path)
    else:
        assert_same_bits(load(tmp_path), with_head(tensors))


# --- What is computed in ----------------------------------------------------------------------------------


def test_float64_files_are_not_rounded(tmp_path):
    """CKPT-08. An F64 tensor loads for float64 and is refused for float32."""
    tensors = numbers(dtype="float64")
    write(tmp_path, tensors)
    assert_same_bits(load(tmp_path, "float64"), with_head(tensors))
    expected = r"is F64, which float32 would round \[CKPT-08\]\. Load with dtype='float64'\.$"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor wte\.weight: {expected}"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "auto", ">f4", "", "f4,f4", None, object(), 3])
def test_other_computing_dtypes_are_refused(tmp_path, dtype):
    """CKPT-08. refgen computes in float32 and float64 only, and guesses neither."""
    write(tmp_path, numbers())
    expected = r": must be 'float32' or 'float64' \[CKPT-08\]\. 16-bit files load exactly into float32\.$"
    with pytest.raises(CheckpointError, match=f"^dtype={re.escape(repr(dtype))}{expected}"):
        load(tmp_path, dtype)


@pytest.mark.parametrize("dtype", ["float32", "f4", np.float32, np.dtype("float32"), "float64", float, np.double])
def test_computing_dtypes_have_many_names(tmp_path, dtype):
    """Whatever NumPy calls float32 or float64 is accepted."""
    write(tmp_path, numbers())
    assert GPT2LMHeadModel.from_pretrained(tmp_path, dtype=dtype).dtype == np.dtype(dtype)


# --- Tensors that do not fit the configuration ------------------------------------------------------------


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


@given(data=st.data())
def test_a_wrong_shape_is_refused(fresh, data):
    """CKPT-06. A tensor with a transposed, longer or flattened shape is named with both shapes."""
    tensors: dict[str, ndarray] = numbers()
    name = data.draw(st.sampled_from([name for name, shape in tensor_shapes(SMALL).items() if shape != shape[::-1]]))
    shape = tensors[name].shape
    tensors[name] = data.draw(st.sampled_from((tensors[name].T, tensors[name].ravel(), tensors[name][None])))
    folder = write(fresh(), tensors)
    expected = f"has shape {list(tensors[name].shape)}, must have {list(shape)} [CKPT-06]. Linear weights are stored [in, out]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'model.safetensors: tensor {name}: {expected}')}$"):
        load(folder)


@given(data=st.data(), code=st.sampled_from((("I64", 8), ("U8", 1), ("F8_E4M3", 1), ("BOOL", 1))))
def test_a_dtype_that_is_no_float_is_refused(fresh, data, code):
    """CKPT-08. Integers and 8-bit floats are not weights that refgen reads."""
    tensors: dict[str, Any] = dict(numbers())
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensors[name] = Raw(code[0], tensors[name].shape, bytes(tensors[name].size * code[1]))
    expected = f"model.safetensors: tensor {name}: is {code[0]}, must be one of F32, F16, BF16, F64 [CKPT-08]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write(fresh(), tensors))


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


def test_an_activation_refgen_does_not_know_is_refused(tmp_path):
    """FWD-15. The activation is checked before the weights are read."""
    write(tmp_path, {}, replace(SMALL, activation_function="gelu_old"))
    with pytest.raises(ConfigError, match=r"^activation_function='gelu_old': is not an activation function \[FWD-15\]"):
        load(tmp_path)


# --- Files that are broken --------------------------------------------------------------------------------


@given(data=st.data())
def test_a_truncated_file_is_refused(fresh, data):
    """CKPT-09. A file cut off anywhere, in the header or in the numbers, is not whole; nor is one with more behind."""
    folder = write(fresh(), numbers())
    whole = (folder / "model.safetensors").read_bytes()
    end = data.draw(st.integers(0, len(whole) - 1))
    (folder / "model.safetensors").write_bytes(data.draw(st.sampled_from((whole[:end], whole + b"\0"))))
    path = re.escape(str(folder / "model.safetensors"))
    with pytest.raises(CheckpointError, match=rf"^{path}: is not a whole safetensors file \(.*\) \[CKPT-09\]\. Fetch"):
        load(folder)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_refused(fresh, garbage):
    """CKPT-09. Whatever bytes stand in the weights file, the answer is a `CheckpointError`."""
    folder = write(fresh(), {})
    (folder / "model.safetensors").write_bytes(garbage)
    with pytest.raises(CheckpointError, match=r"is not a whole safetensors file"):
        load(folder)


@given(data=st.data(), byte=st.sampled_from(b'0129 "[]{}:,FhtT\0\xff'))
def test_a_damaged_header_never_changes_the_model(fresh, data, byte):
    """One wrong byte in a header is refused, or it stands where it means nothing."""
    tensors = numbers()
    folder = write(fresh(), tensors)
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[data.draw(st.integers(0, 7 + int.from_bytes(whole[:8], "little")))] = byte
    (folder / "model.safetensors").write_bytes(whole)
    try:
        loaded = load(folder)
    except RefgenError:
        return
    assert_same_bits(loaded, with_head(tensors))


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


# --- Shards and their index -------------------------------------------------------------------------------

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def halves() -> dict[str, dict[str, ndarray]]:
    """The small model in two files."""
    tensors = list(numbers().items())
    return {FIRST: dict(tensors[:10]), SECOND: dict(tensors[10:])}


def test_a_missing_shard_is_refused(tmp_path):
    """CKPT-09. The file that the index names and the folder lacks is in the error."""
    write_shards(tmp_path, halves())
    (tmp_path / SECOND).unlink()
    path = re.escape(str(tmp_path / SECOND))
    with pytest.raises(
        CheckpointError, match=rf"^{path}: is not a whole safetensors file \(.*No such file.*\) \[CKPT-09\]"
    ):
        load(tmp_path)


@given(name=st.sampled_from(sorted(tensor_shapes(SMALL))))
def test_a_tensor_that_only_the_index_has_is_refused(fresh, name):
    """CKPT-09. The index promises a tensor that its file does not hold."""
    shards = halves()
    listed = {name: shard for shard, tensors in shards.items() for name in tensors}
    del shards[listed[name]][name]
    expected = f"{listed[name]}: tensor {name}: is missing although model.safetensors.index.json lists it [CKPT-09]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write_shards(fresh(), shards, listed))


@given(name=st.sampled_from(sorted(tensor_shapes(SMALL))), elsewhere=st.booleans())
def test_a_tensor_that_the_index_lacks_is_refused(fresh, name, elsewhere):
    """CKPT-09. A tensor in a file where the index does not put it is an error, in the wrong file too."""
    shards = halves()
    listed = {name: shard for shard, tensors in shards.items() for name in tensors}
    holder = listed.pop(name)
    if elsewhere:
        listed[name] = SECOND if holder == FIRST else FIRST
    expected = f"{holder}: tensor {name}: is not listed there, or twice, in model.safetensors.index.json [CKPT-09]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write_shards(fresh(), shards, listed))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    """CKPT-09. Neither copy is taken for the right one."""
    shards = halves()
    shards[SECOND]["wte.weight"] = shards[FIRST]["wte.weight"]
    with pytest.raises(CheckpointError, match=r"tensor wte\.weight: is not listed there, or twice, in"):
        load(write_shards(tmp_path, shards))


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"wte.weight": 1}}])
def test_an_index_without_a_weight_map_is_refused(tmp_path, index):
    """CKPT-09. The index must say where each tensor lies."""
    write_shards(tmp_path, halves())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json: has no weight_map from tensor names to files \[CKPT-09\]"):
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
        patch.setattr("refgen.checkpoints.save_file", write_in_place)
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

    monkeypatch.setattr("refgen.checkpoints.save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        random_model(SMALL, 1).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert_same_bits(load(tmp_path), with_head(tensors))


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
