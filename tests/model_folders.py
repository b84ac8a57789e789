"""Model folders for tests. The files are written without refgen, from the definition of safetensors, so that they can be wrong."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from numpy import ndarray

from refgen import GPT2Config, GPT2LMHeadModel
from refgen.checkpoints import disassemble
from tests.strategies import random_tensors

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
