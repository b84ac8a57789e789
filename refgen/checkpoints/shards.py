"""A model in several files, with an index that lists each tensor's file. Rule CKPT-09 of SPEC.md."""

from collections.abc import Callable, Iterable
from pathlib import Path

from refgen.checkpoints.stored import Stored
from refgen.errors import CheckpointError
from refgen.json_files import read_object

INDEX_END = ".index.json"


def read_shards(index: Path, read_file: Callable[[Path], Iterable[Stored]]) -> list[Stored]:
    """CKPT-09. Every tensor of several files. Raises `CheckpointError` unless the index lists each in its file."""
    shard_of = read_object(index, CheckpointError, "CKPT-09").get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(str(index), "has no weight_map from tensor names to files", "CKPT-09")
    for shard in set(shard_of.values()):
        if not shard.isprintable() or Path(shard).name != shard:
            raise CheckpointError(
                str(index), f"names {shard[:100]!r}, which is not a file in the same folder", "CKPT-09"
            )
    tensors = [tensor for shard in sorted(set(shard_of.values())) for tensor in read_file(index.parent / shard)]
    for tensor in tensors:
        if shard_of.pop(tensor.name, None) != tensor.file.name:
            raise CheckpointError(tensor.where, f"is not listed there, or twice, in {index.name}", "CKPT-09")
    for name, shard in shard_of.items():
        raise CheckpointError(f"{shard}: tensor {name}", f"is missing although {index.name} lists it", "CKPT-09")
    return tensors
