"""transformers on torch: scaled dot product attention, no gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer


def prepare(folder: Path) -> Path:
    """Nothing to make."""
    return folder


def version() -> str:
    """Of both."""
    return f"{transformers.__version__}, torch {torch.__version__}"


class Ticker(BaseStreamer):
    """A streamer that only tells that a step is done; the first thing it is given is the prompt."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick, self._seen = tick, False

    def put(self, value: Any) -> None:  # noqa: ARG002
        """One more step."""
        if self._seen:
            self._tick()
        self._seen = True

    def end(self) -> None:
        """Nothing to do."""


class Model:
    """`arguments` are those of from_pretrained, `settings` those of generate()."""

    def __init__(self, path: Path, threads: int, **arguments: Any) -> None:
        torch.set_num_threads(threads)
        arguments = {"dtype": torch.float32, "attn_implementation": "sdpa"} | arguments
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, **arguments)  # in eval mode

    def generate(
        self, ids: list[list[int]], count: int, tick: Callable[[], None] | None = None, **settings: Any
    ) -> list[list[int]]:
        """Greedy tokens."""
        rows = torch.tensor(ids)
        streamer = None if tick is None else Ticker(tick)
        with torch.inference_mode():
            made = self._model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                do_sample=False,
                max_new_tokens=count,
                pad_token_id=0,
                streamer=streamer,
                **settings,
            )
        new: list[list[int]] = made[:, rows.shape[1] :].tolist()
        return new
