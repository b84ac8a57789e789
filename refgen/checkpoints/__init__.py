"""Checkpoints: a folder with a configuration and weights ↔ `GPT2`. Rules CKPT-01 to CKPT-09, CKPT-12 and CKPT-14 of SPEC.md.

Loading is strict for every format. Each tensor that the configuration needs appears once, in its shape, with finite
numbers. There are no other tensors, and nothing is filled in, cut off or rounded.

    format.py       what a format is
    safetensors.py  one format a file
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
from refgen.checkpoints.format import CONFIG, Format
from refgen.checkpoints.replacing import replacing
from refgen.checkpoints.stored import Stored, computing_dtype, widened
from refgen.checkpoints.tensors import (
    PREFIX,
    assemble,
    check_names,
    check_tied_head,
    disassemble,
    tensor_shapes,
    without_prefix_and_buffers,
)
from refgen.config import GPT2Config
from refgen.errors import CheckpointError
from refgen.model import GPT2

__all__ = ["FORMATS", "Format", "LayOut", "as_stored", "assemble", "disassemble", "load", "save", "tensor_shapes"]

FORMATS: tuple[Format, ...] = (  # of a folder with files of several formats, the first in this list is read
    safetensors.FORMAT,
)

LayOut = Callable[[str, ndarray], ndarray]


def as_stored(name: str, weight: ndarray) -> ndarray:  # noqa: ARG001 - the signature of every LayOut
    """The `lay_out` that keeps each weight in the memory order of its file."""
    return weight


def load(folder: Path, dtype: DTypeLike = "float32", lay_out: LayOut = as_stored) -> GPT2:
    """The network in `folder`, in float32 or float64.

    `lay_out(name, weight)` is called once for every tensor as it is read, named as in `tensor_shapes`. It returns the
    same numbers in the same shape, in the memory order that the caller computes with. Raises `CheckpointError`, `ConfigError`.
    """
    wanted = computing_dtype(dtype)
    found = find_format(folder)
    config = GPT2Config.from_dict(found.configuration(folder))
    activation(config.activation_function)  # a wrong one is an error before any weight is read
    stored = without_prefix_and_buffers(found.read(folder), config)
    head = stored.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    shapes = tensor_shapes(config)
    check_names(stored, shapes, folder)
    tensors = {name: in_memory(name, stored[name], shape, wanted, lay_out) for name, shape in shapes.items()}
    if head is not None:
        check_tied_head(head, tensors["wte.weight"])
    return assemble(config, tensors)


def find_format(folder: Path) -> Format:
    """The first of `FORMATS` that recognises `folder`; otherwise one that refuses to read, after the configuration is checked."""
    return next((each for each in FORMATS if each.recognises(folder)), Format(files=(), read=refuse))


def refuse(folder: Path) -> list[Stored]:
    """CKPT-09. Raises `CheckpointError` that names every file that was looked for."""
    looked_for = " nor ".join(name for each in FORMATS for name in each.files)
    pickles = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
    remedy = f"Convert {pickles} to safetensors with save_pretrained of transformers." if pickles else ""
    raise CheckpointError(str(folder), f"holds neither {looked_for}", "CKPT-09", remedy)


def in_memory(name: str, tensor: Stored, shape: tuple[int, ...], dtype: np.dtype[Any], lay_out: LayOut) -> ndarray:
    """CKPT-14. The weight as the caller wants it; of a copy, the file's pages are let go, so no number is in memory twice."""
    weight = lay_out(name, widened(tensor, shape, dtype))
    if not np.shares_memory(weight, tensor.data):
        tensor.let_go()
    return weight


def save(gpt2: GPT2, folder: Path) -> None:
    """CKPT-01. Writes `config.json` and `model.safetensors` as transformers does, bit for bit what is computed with."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = gpt2.config.to_dict() | {"dtype": gpt2.wte.dtype.name}
    entries.pop("torch_dtype", None)  # the older name of dtype
    with replacing(folder / CONFIG) as path:
        path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name if name == "lm_head.weight" else PREFIX + name: tensor for name, tensor in disassemble(gpt2).items()
    }
    safetensors.write_file(folder / safetensors.WEIGHTS, tensors, {"format": "pt"})
