"""ONNX Runtime on a graph with a cache, and the shortest loop around it that does not copy the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def prepare(folder: Path) -> Path:
    """The graph."""
    from refgen.bench.to_onnx import convert  # noqa: PLC0415 - in a process of its own

    return convert(folder)


def version() -> str:
    """Of onnxruntime."""
    return str(onnxruntime.__version__)


class Model:
    """`arguments` are attributes of SessionOptions."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        for name, value in arguments.items():
            setattr(options, name, value)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._past = [each for each in self._session.get_inputs() if each.name.startswith("past.")]
        self._outs = [each.name for each in self._session.get_outputs()]

    def generate(
        self, ids: list[list[int]], count: int, tick: Callable[[], None] | None = None, **settings: Any
    ) -> list[list[int]]:
        """Greedy tokens."""
        if settings:
            raise ValueError(f"no such settings here: {', '.join(settings)}")
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        new = np.array(ids)
        empty = [(each.name, (len(new), each.shape[1], 0, each.shape[3])) for each in self._past]
        cache = {name: value(np.zeros(shape, np.float32)) for name, shape in empty}
        keep = value(np.array([1]))
        columns = []
        for _ in range(count):
            feeds = {"input_ids": value(new), "keep": keep, **cache}
            logits, *present = self._session.run_with_ort_values(self._outs, feeds)
            cache = {each.name: made for each, made in zip(self._past, present, strict=True)}
            new = logits.numpy()[:, -1].argmax(axis=-1)[:, None]
            columns.append(new)
            if tick is not None:
                tick()
        tokens: list[list[int]] = np.concatenate(columns, axis=1).tolist()
        return tokens
