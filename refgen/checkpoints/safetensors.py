"""safetensors, the format that refgen reads and writes: one file, or shards and their index. Rule CKPT-09 of SPEC.md.

A file is eight bytes with the length of a JSON header, the header, and the numbers, which are mapped and not read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from refgen.checkpoints.format import Format
from refgen.checkpoints.replacing import replacing
from refgen.checkpoints.stored import Stored, mapped
from refgen.errors import CheckpointError
from refgen.json_files import read_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(folder: Path) -> list[Stored]:
    """CKPT-09. Every tensor of `model.safetensors`; without that file, of the shards that its index names."""
    return list(read_file(folder / WEIGHTS)) if (folder / WEIGHTS).exists() else read_shards(folder)


def read_shards(folder: Path) -> list[Stored]:
    """CKPT-09. Every tensor of several files. Raises `CheckpointError` unless the index lists each in its file."""
    shard_of = read_object(folder / INDEX, CheckpointError, "CKPT-09").get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(str(folder / INDEX), "has no weight_map from tensor names to files", "CKPT-09")
    tensors = [tensor for shard in sorted(set(shard_of.values())) for tensor in read_file(folder / shard)]
    for tensor in tensors:
        if shard_of.pop(tensor.name, None) != tensor.file.name:
            raise CheckpointError(tensor.where, f"is not listed there, or twice, in {INDEX}", "CKPT-09")
    for name, shard in shard_of.items():
        raise CheckpointError(f"{shard}: tensor {name}", f"is missing although {INDEX} lists it", "CKPT-09")
    return tensors


def read_file(path: Path) -> Iterator[Stored]:
    """CKPT-09. The tensors of one file. Raises `CheckpointError` unless safetensors finds header and length right."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        problem = f"is not a whole safetensors file ({error})"
        raise CheckpointError(str(path), problem, "CKPT-09", "Fetch it again.") from None
    pages = mapped(path)
    data = np.frombuffer(pages, np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            place = data[start + begin : start + end]
            yield Stored(path, name, entry["dtype"], tuple(entry["shape"]), place, pages=pages)


def write_file(path: Path, tensors: Mapping[str, ndarray], metadata: Mapping[str, str]) -> None:
    """One file of these tensors. A file with this name that is there stays until the new one is whole."""
    with replacing(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary, metadata=dict(metadata)
        )


FORMAT = Format(files=(WEIGHTS, INDEX), read=read)
