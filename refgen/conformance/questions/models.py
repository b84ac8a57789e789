"""The models of the kit, by name: the shipped one, the designed networks, the probes. Folders are written at their
first use.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from refgen import checkpoints
from refgen.conformance.questions.designed import DESIGNED, designed
from refgen.conformance.questions.probes import PROBES, Probe, write
from refgen.names import find_model, short_name
from refgen.shipped import BUILT_IN


def write_designed(name: str) -> Callable[[Path], None]:
    """Writes that designed network."""
    return lambda folder: checkpoints.save(designed(name), folder)


def write_probe(build: Callable[[], Probe]) -> Callable[[Path], None]:
    """Writes that probe."""
    return lambda folder: write(build(), folder)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    **{name: write_designed(name) for name in DESIGNED},
    **{name: write_probe(build) for name, build in PROBES.items()},
}


def only(path_or_name: str | Path) -> dict[str, Path]:
    """The one model of a subject that is examined on its own, by the name of its folder.

    A folder that is called like a model of the kit and holds another one gets another name, so that it is not asked what
    only that model answers. Raises `CheckpointError`.
    """
    folder = find_model(path_or_name).resolve()
    models, name = Models(), short_name(folder)
    other = name in models and not same(folder, models[name])
    return {f"{name}-own" if other else name: folder}


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same network."""
    mine, other = checkpoints.load(a), checkpoints.load(b)
    if replace(mine.config, other={}) != replace(other.config, other={}):
        return False
    pairs = zip(checkpoints.disassemble(mine).values(), checkpoints.disassemble(other).values(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


class Models(Mapping[str, Path]):
    """Folders by name; those that do not lie somewhere already are written to `folder`, or to one that goes away with this."""

    def __init__(self, folder: Path | None = None, own: Mapping[str, Path] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="refgen-")) if folder is None else folder
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._own = dict(own or {})

    def __getitem__(self, name: str) -> Path:
        if name in self._own:
            return self._own[name]
        if name in BUILT_IN:
            return find_model(name)
        target = self._folder / name
        if not target.exists():
            WRITERS[name](target)
        return target

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(BUILT_IN), **WRITERS, **self._own})

    def __len__(self) -> int:
        return len(list(iter(self)))
