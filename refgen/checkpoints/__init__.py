"""Checkpoints: a folder with a configuration and weights ↔ `GPT2`. Rules CKPT-01 to CKPT-09, CKPT-12, CKPT-14, CKPT-16, CKPT-17.

Loading is strict for every format. Each tensor that the configuration needs appears once, in its shape, with finite
numbers. There are no other tensors, and nothing is filled in, cut off or rounded.

    format.py       what a format is
    safetensors.py  one format a file, which is also the one that is written
    torch_files.py  what torch.save writes, transformers', nanoGPT's and minGPT's; with pickles.py and minimal.py
    gguf.py         llama.cpp's
    llmc.py         llm.c's
    shards.py       a model in several files
    stored.py       one tensor as it lies in a file, and its numbers
    tensors.py      the names and shapes that are called for; the network made of them
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from refgen.activations import activation
from refgen.checkpoints import safetensors
from refgen.checkpoints.format import CONFIG, Format, config_json, elsewhere
from refgen.checkpoints.replacing import replacing
from refgen.checkpoints.stored import Stored, computing_dtype, widened
from refgen.checkpoints.tensors import (
    PREFIX,
    assemble,
    check_layers,
    check_names,
    check_shapes,
    check_tied_head,
    disassemble,
    tensor_shapes,
    with_shared,
    with_zero_biases,
    without_prefix_and_buffers,
)
from refgen.config import GPT2Config
from refgen.errors import CheckpointError, listed
from refgen.model import GPT2

__all__ = ["FORMATS", "Format", "LayOut", "as_stored", "assemble", "disassemble", "load", "save", "tensor_shapes"]

ZIP, PICKLE, LLMC = b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", (20240326).to_bytes(4, "little")
FORMATS: tuple[Format, ...] = (  # of a folder with files of several formats, the first in this list is read
    safetensors.FORMAT,
    elsewhere("torch_files", "pytorch_model.bin", "pytorch_model.bin.index.json", "ckpt.pt", starts=(ZIP, PICKLE)),
    elsewhere("gguf", "*.gguf", starts=(b"GGUF",)),
    elsewhere("llmc", starts=(LLMC,)),
)
READ = "refgen reads safetensors, what torch.save writes, GGUF and llm.c's .bin."

LayOut = Callable[[str, ndarray], ndarray]
Edit = Callable[[list[Stored]], list[Stored]]


def as_stored(name: str, weight: ndarray) -> ndarray:  # noqa: ARG001 - the signature of every LayOut
    """The `lay_out` that keeps each weight in the memory order of its file."""
    return weight


def as_they_are(tensors: list[Stored]) -> list[Stored]:
    """The `edit` that changes nothing."""
    return tensors


def load(path: Path, dtype: DTypeLike = "float32", lay_out: LayOut = as_stored, edit: Edit = as_they_are) -> GPT2:
    """The network in a folder, or in a file with its configuration beside it, in float32 or float64.

    `lay_out(name, weight)` is called once for every tensor as it is read, named as in `tensor_shapes`. It returns the
    same numbers in the same shape, in the memory order that the caller computes with. `edit` may leave tensors out, or rename
    them, before anything is asked of them. Raises `CheckpointError`, `ConfigError`.
    """
    wanted = computing_dtype(dtype)
    found, file = find_format(path)
    config = GPT2Config.from_dict(found.configuration(file))
    activation(config.activation_function)  # a wrong one is an error before any weight is read
    stored = without_prefix_and_buffers(edit(found.read(file)))
    check_layers(stored, config, path)
    head, shapes = with_shared(stored, config), tensor_shapes(config)
    with_zero_biases(stored, shapes, config, path)
    check_names(stored, shapes, config, path)
    check_shapes(stored, shapes, config)
    tensors = {name: in_memory(name, stored[name], wanted, lay_out) for name in shapes}
    if head is not None:
        check_tied_head(head, tensors["wte.weight"])
    return assemble(config, tensors)


def find_format(path: Path) -> tuple[Format, Path]:
    """CKPT-09. The file with the weights, and the first of `FORMATS` that has it. Raises `CheckpointError`."""
    if not path.is_dir():
        check_file(path)
        found = next((each for each in FORMATS if each.is_one(path)), None)
        if found is None:
            raise CheckpointError(str(path), "is not a file of weights that refgen can read", "CKPT-09", READ)
        return found, path
    for each in FORMATS:
        for pattern in each.files:
            files = sorted(path.glob(pattern))
            if len(files) > 1:
                problem = f"holds {len(files)} files of weights: {listed([file.name for file in files])}"
                raise CheckpointError(str(path), problem, "CKPT-09", f"Give one of them, such as {files[0]}.")
            if files:
                check_file(files[0])
                return each, files[0]
    raise nothing(path)


def check_file(file: Path) -> None:
    """CKPT-09. Raises `CheckpointError` for a pipe or a device, because reading it could wait forever."""
    try:
        regular = file.is_file()
    except OSError as error:
        raise CheckpointError(str(file), f"cannot be looked at: {error.strerror}", "CKPT-09") from None
    if not regular:
        raise CheckpointError(str(file), "is not a file", "CKPT-09")


def nothing(folder: Path) -> CheckpointError:
    """CKPT-09. The error for a folder without weights; it names a file there that can be passed directly."""
    config_json(folder / "weights")  # a folder without a configuration says that first
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    weights = [path for path in files if any(each.is_one(path) for each in FORMATS)]
    remedy = f"Give the file itself: {weights[0]}." if weights else READ
    looked_for = " nor ".join(name for each in FORMATS for name in each.files)
    return CheckpointError(str(folder), f"holds neither {looked_for}", "CKPT-09", remedy)


def in_memory(name: str, tensor: Stored, dtype: np.dtype[Any], lay_out: LayOut) -> ndarray:
    """CKPT-14. The weight as the caller wants it; if that is a copy, the file's pages are released, so no number is in memory twice."""
    weight = lay_out(name, widened(tensor, dtype))
    if not np.shares_memory(weight, tensor.data):
        tensor.let_go()
    return weight


def save(gpt2: GPT2, folder: Path) -> None:
    """CKPT-01. Writes `config.json` and `model.safetensors` as transformers does, bit for bit what is computed with."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = gpt2.config.to_dict() | {"dtype": gpt2.wte.dtype.name}
    entries.pop("torch_dtype", None)  # the older name of dtype
    entries.pop("bias", None)  # the biases are in the file, those that are 0 too (CKPT-05)
    with replacing(folder / CONFIG) as path:
        path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name if name == "lm_head.weight" else PREFIX + name: tensor for name, tensor in disassemble(gpt2).items()
    }
    safetensors.write_file(folder / safetensors.WEIGHTS, tensors, {"format": "pt"})
