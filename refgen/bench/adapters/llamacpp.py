"""llama.cpp through xllamacpp: its server in this process, asked by function call, without HTTP.

float32 weights and cache, no flash attention. A batch is as many requests at once as it has rows, each in its slot.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import xllamacpp

GREEDY = {"temperature": 0, "samplers": ["temperature"], "cache_prompt": False, "ignore_eos": True}


def prepare(folder: Path) -> Path:
    """The GGUF file."""
    from refgen.bench.to_gguf import convert  # noqa: PLC0415 - in a process of its own

    return convert(folder)


def version() -> str:
    """Of xllamacpp."""
    return f"xllamacpp {installed('xllamacpp')}"


class Model:
    """`arguments` are attributes of CommonParams, `settings` those of a completion."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:
        self._path, self._threads, self._arguments = path, threads, arguments
        self._room = (0, 0)
        self._server: Any = None

    def _serve(self, rows: int, positions: int) -> None:
        """A server with a slot for every row. A larger batch than before starts a new server."""
        if rows <= self._room[0] and positions <= self._room[1]:
            return
        self._room = rows, max(positions, 256)
        self._server = None  # ends the old one
        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.n_parallel, params.n_ctx = rows, rows * self._room[1]
        params.warmup = params.fit_params = False
        params.verbosity = 0
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        for name, value in self._arguments.items():
            setattr(params, name, value)
        self._server = xllamacpp.Server(params)

    def generate(
        self, ids: list[list[int]], count: int, tick: Callable[[], None] | None = None, **settings: Any
    ) -> list[list[int]]:
        """Greedy tokens. With `tick` it takes one row."""
        self._serve(len(ids), len(ids[0]) + count)
        asked = GREEDY | {"n_predict": count} | settings
        if tick is not None:
            return [self._streamed({"prompt": ids[0], "stream": True} | asked, tick)]
        if len(ids) == 1:
            return [self._completed({"prompt": ids[0]} | asked)]
        with ThreadPoolExecutor(len(ids)) as pool:
            return list(pool.map(self._completed, [{"prompt": row} | asked for row in ids]))

    def _completed(self, request: dict[str, Any]) -> list[int]:
        """One answer; the text is the ids as words."""
        answer = self._server.handle_completions(request)
        if "choices" not in answer:
            raise RuntimeError(str(answer))
        return [int(word) for word in answer["choices"][0]["text"].split()]

    def _streamed(self, request: dict[str, Any], tick: Callable[[], None]) -> list[int]:
        """The same, as it comes."""
        texts: list[str] = []

        def take(chunk: dict[str, Any]) -> None:
            text = chunk["choices"][0]["text"]
            if text:
                texts.append(text)
                tick()

        self._server.handle_completions(request, take)
        return [int(word) for word in "".join(texts).split()]
