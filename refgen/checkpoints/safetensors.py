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
from refgen.checkpoints.shards import INDEX_END, read_shards
from refgen.checkpoints.stored import Stored, mapped
from refgen.errors import CheckpointError

HEADER = 2**19, 16  # bytes that a header may have in any file, and beyond that its share of the file
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(file: Path) -> list[Stored]:
    """CKPT-09. Every tensor of a file, or of the shards that an index names."""
    return read_shards(file, read_file) if file.name.endswith(INDEX_END) else list(read_file(file))


def is_one(file: Path) -> bool:
    """By its name, for the format begins with a length, which may be any."""
    return file.name.endswith((".safetensors", ".safetensors" + INDEX_END))


def read_file(path: Path) -> Iterator[Stored]:
    """CKPT-09. The tensors of one file. Raises `CheckpointError` unless safetensors finds header and length right."""
    try:
        check_header(path)
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


def check_header(path: Path) -> None:
    """CKPT-09. Raises `CheckpointError` for a header that is most of the file, which takes many times its size in memory."""
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
    size = path.stat().st_size
    if max(HEADER[0], size // HEADER[1]) < length <= size:
        problem = f"is not a whole safetensors file (a header of {length} of its {size} bytes)"
        raise CheckpointError(str(path), problem, "CKPT-09", "Fetch it again.")


def write_file(path: Path, tensors: Mapping[str, ndarray], metadata: Mapping[str, str]) -> None:
    """One file of these tensors. A file with this name that is there stays until the new one is whole."""
    with replacing(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary, metadata=dict(metadata)
        )


FORMAT = Format(files=(WEIGHTS, INDEX), is_one=is_one, read=read)
