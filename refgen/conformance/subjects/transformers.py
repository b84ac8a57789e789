"""transformers with PyTorch as a subject: `refgen check refgen.conformance.subjects.transformers:float32`.

The names of factories here are those of dtypes; `subject("bfloat16", attention="eager")` makes others, and `of(model)` adapts a model
that is loaded already. Needs torch and transformers, which refgen itself does not.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging
from numpy import ndarray

transformers.utils.logging.disable_progress_bar()  # of loading networks that load at once

CHOICES = {  # SPEC.md's names
    "temperature_zero": "error",
    "context_end": "error",
    "top_p_ties": "any",
    "pad_id_in_text": "masked",
    "random_numbers": "torch_mt19937",
}


class TransformersSubject:
    """One model folder, or a model that is loaded already."""

    version = transformers.__version__
    choices = CHOICES

    def __init__(self, folder: Path, dtype: str = "float32", attention: str = "sdpa", model: Any = None) -> None:
        self.dtype = dtype
        self.name = f"transformers, {attention}"
        self._folder = folder
        self._model: Any = model or transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention
        )
        self._model.eval()
        self._tokenizer: Any = None

    @property
    def tokenizer(self) -> Any:
        """The folder's; a network may come without."""
        if self._tokenizer is None:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder)
        return self._tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    @torch.no_grad()
    def forward(self, input_ids: Any, attention_mask: Any = None, prefill: int | None = None) -> ndarray:
        """Logits `[B T V]`; positions follow from the mask, which transformers' plain forward pass leaves to the caller."""
        ids = torch.tensor(input_ids)
        mask = torch.ones_like(ids) if attention_mask is None else torch.tensor(attention_mask)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        T = ids.shape[1]
        parts, cache, start = [], None, 0
        for end in range(T if prefill is None else prefill, T + 1):
            new = slice(start, end)
            out = self._model(
                ids[:, new],
                attention_mask=mask[:, :end],
                position_ids=places[:, new],
                past_key_values=cache,
                use_cache=True,
            )
            parts.append(out.logits)
            cache, start = out.past_key_values, end
        logits: ndarray = torch.cat(parts, dim=1).float().numpy()
        return logits

    @torch.no_grad()
    def generate(
        self, input_ids: Any, attention_mask: Any = None, seed: int | None = None, **settings: Any
    ) -> list[dict[str, Any]]:
        """New tokens of every row, why it ended, and the log-probabilities of the logits."""
        for name in ("uniforms", "stream"):
            if settings.get(name) is not None:
                raise NotImplementedError(f"has no {name}")
        if isinstance(seed, list):
            raise NotImplementedError("has one seed for all rows")
        ids = torch.tensor(input_ids, dtype=torch.int64)
        mask = torch.ones_like(ids) if attention_mask is None else torch.tensor(attention_mask)
        ends = ids_of(settings.get("eos_token_id", self._model.generation_config.eos_token_id))
        if "stop_strings" in settings:
            settings["tokenizer"] = self.tokenizer
        if seed is not None:
            torch.manual_seed(seed)
        settings.setdefault("pad_token_id", 0)
        out: Any = self._model.generate(
            ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **settings
        )
        rows = out.sequences[:, ids.shape[1] :].tolist()
        scores = None if "num_beams" in settings else torch.stack(out.logits).float().log_softmax(dim=-1)
        return [self.row(number, new, ends, settings, scores) for number, new in enumerate(rows)]

    def row(
        self, number: int, new: list[int], ends: list[int], settings: dict[str, Any], scores: Any
    ) -> dict[str, Any]:
        """One row without its filling."""
        end = next((place for place, token in enumerate(new) if token in ends), None)
        finish = "length" if end is None else "eos"
        new = new if end is None else new[: end + 1]
        strings = settings.get("stop_strings")
        if end is None and strings:
            several = [strings] if isinstance(strings, str) else strings
            lengths = (n for n in range(1, len(new) + 1) if any(text in self.decode(new[:n]) for text in several))
            count = next(lengths, None)
            if count is not None:
                new, finish = new[:count], "stop_string"
            elif len(new) < settings["max_new_tokens"]:
                finish = "stop_string"  # it began in the prompt
        chosen = [float(scores[step, number, token]) for step, token in enumerate(new)] if scores is not None else None
        return {"new_ids": new, "finish": finish, "logprobs": chosen}


def ids_of(value: Any) -> list[int]:
    """One id, several or none."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def subject(dtype: str, attention: str = "sdpa") -> Callable[[Path], TransformersSubject]:
    """A factory."""
    return partial(TransformersSubject, dtype=dtype, attention=attention)


def of(model: Any, folder: Path) -> TransformersSubject:
    """A model that is loaded already; `folder` has its tokenizer."""
    return TransformersSubject(folder, str(model.dtype).removeprefix("torch."), "as loaded", model)


class Float32(TransformersSubject):
    """A model folder in float32."""

    name, dtype = "transformers", "float32"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, self.dtype)


class Float16(Float32):
    """In float16."""

    dtype = "float16"


class BFloat16(Float32):
    """In bfloat16."""

    dtype = "bfloat16"


float32, float16, bfloat16 = Float32, Float16, BFloat16
