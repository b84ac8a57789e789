"""The contract of a checkpoint format. A new format is a file in this folder with `read` and `configuration`, and a line in
`FORMATS`.

A format finds the tensors of a file and says where each of them lies. It converts no number and checks no name or
shape: that is common to all formats and stands in `stored.py` and `tensors.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

from refgen.checkpoints.stored import Stored
from refgen.errors import CheckpointError
from refgen.json_files import read_object

CONFIG = "config.json"


def config_json(file: Path) -> dict[str, Any]:
    """The entries of the `config.json` beside `file`. Raises `CheckpointError` if it is missing or not a JSON object (CKPT-09)."""
    return read_object(file.parent / CONFIG, CheckpointError, "CKPT-09")


@dataclass(frozen=True)
class Format:
    """One way in which a file holds weights.

    `files`          the names such files have in a model folder, or patterns such as `*.gguf`
    `is_one`         whether a file that is given by itself has this format
    `read`           every tensor of a file, under the names of `tensor_shapes`, with or without a prefix that `tensors.py`
                     knows; raises `CheckpointError` for a file that is damaged
    `configuration`  the entries of `config.json`, for formats that keep them elsewhere
    """

    files: tuple[str, ...]
    is_one: Callable[[Path], bool]
    read: Callable[[Path], list[Stored]]
    configuration: Callable[[Path], dict[str, Any]] = config_json


def begins(file: Path, *starts: bytes) -> bool:
    """Whether the first bytes of a file are one of these."""
    with file.open("rb") as opened:
        return opened.read(max(map(len, starts))).startswith(starts)


def elsewhere(module: str, *files: str, starts: tuple[bytes, ...]) -> Format:
    """The format of a file in this folder, which is imported when it reads one. Its files begin with any of `starts`."""

    def later(name: str) -> Callable[[Path], Any]:
        def call(file: Path) -> Any:
            return getattr(import_module(f"refgen.checkpoints.{module}"), name)(file)

        return call

    def is_one(file: Path) -> bool:
        return any(fnmatchcase(file.name, pattern) for pattern in files) or begins(file, *starts)

    return Format(files, is_one, later("read"), later("configuration"))
