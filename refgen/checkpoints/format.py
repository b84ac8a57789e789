"""The contract of a checkpoint format. A new format is a file in this folder that ends in `FORMAT = Format(...)`, and a
line in `FORMATS`.

A format finds the tensors of a folder and says where each of them lies. It converts no number and checks no name or
shape: that is common to all formats and stands in `stored.py` and `tensors.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refgen.checkpoints.stored import Stored
from refgen.errors import CheckpointError
from refgen.json_files import read_object

CONFIG = "config.json"


def config_json(folder: Path) -> dict[str, Any]:
    """The entries of `config.json`. Raises `CheckpointError` if it is missing or not a JSON object (CKPT-09)."""
    return read_object(folder / CONFIG, CheckpointError, "CKPT-09")


@dataclass(frozen=True)
class Format:
    """One way in which a model folder holds weights.

    `files`          names, or patterns such as `*.gguf`, of the files with weights; a folder with any of them has this format
    `read`           every tensor of a folder, under the names of `tensor_shapes`, with or without `transformer.`;
                     raises `CheckpointError` for a file that is damaged
    `configuration`  the entries of `config.json`, for formats that keep them elsewhere
    """

    files: tuple[str, ...]
    read: Callable[[Path], list[Stored]]
    configuration: Callable[[Path], dict[str, Any]] = config_json

    def recognises(self, folder: Path) -> bool:
        """Whether a file of this format is in `folder`. Names decide, so no file is opened."""
        return any(True for pattern in self.files for _ in folder.glob(pattern))
