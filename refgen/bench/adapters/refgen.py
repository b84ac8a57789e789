"""refgen itself. Its threads are those of NumPy's BLAS, which the worker's environment sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

import refgen


def prepare(folder: Path) -> Path:
    """Nothing to make."""
    return folder


def version() -> str:
    """Of refgen."""
    return refgen.__version__


class Ticker:
    """A streamer that only tells that a step is done; the first thing it is given is the prompt."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick, self._seen = tick, False

    def put(self, ids: ndarray) -> None:  # noqa: ARG002
        """One more step."""
        if self._seen:
            self._tick()
        self._seen = True

    def end(self) -> None:
        """Nothing to do."""


class Model:
    """`arguments` are those of from_pretrained, `settings` those of generate()."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:  # noqa: ARG002
        self._model = refgen.AutoModelForCausalLM.from_pretrained(path, **arguments)

    def generate(
        self, ids: list[list[int]], count: int, tick: Callable[[], None] | None = None, **settings: Any
    ) -> list[list[int]]:
        """Greedy tokens."""
        streamer = None if tick is None else Ticker(tick)
        rows = np.array(ids)
        made = self._model.generate(rows, max_new_tokens=count, streamer=streamer, **settings)
        new: list[list[int]] = made[:, rows.shape[1] :].tolist()
        return new
