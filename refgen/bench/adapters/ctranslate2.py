"""CTranslate2, float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2


def prepare(folder: Path) -> Path:
    """The folder in its own format."""
    from refgen.bench.to_ctranslate2 import convert  # noqa: PLC0415 - in a process of its own

    return convert(folder)


def version() -> str:
    """Of ctranslate2."""
    return str(ctranslate2.__version__)


class Model:
    """`arguments` are those of Generator, `settings` those of generate_batch."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:
        arguments = {"compute_type": "float32", "intra_threads": threads} | arguments
        self._generator = ctranslate2.Generator(str(path), device="cpu", **arguments)

    def generate(
        self, ids: list[list[int]], count: int, tick: Callable[[], None] | None = None, **settings: Any
    ) -> list[list[int]]:
        """Greedy tokens. With `tick` it takes one row."""
        if tick is not None:
            settings["callback"] = lambda _: bool(tick())
        results = self._generator.generate_batch(
            [[str(token) for token in row] for row in ids],
            max_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
            **settings,
        )
        return [result.sequences_ids[0] for result in results]
