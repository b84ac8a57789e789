"""The drop-in names: `AutoTokenizer`, `AutoModelForCausalLM` and the model they stand for.

What users of transformers type works here with NumPy arrays; `docs/differences.md` lists what differs.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from refgen import checkpoints
from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.engines import DEFAULT, find_engine
from refgen.engines.engine import Watcher
from refgen.errors import InputError
from refgen.generation.call import Call, takes_call
from refgen.generation.config import GenerationConfig
from refgen.generation.generate import generate, steps
from refgen.generation.loop import Step
from refgen.generation.output import transition_scores
from refgen.inputs import whole_numbers
from refgen.model import GPT2, silent
from refgen.names import beside, find_model
from refgen.tokenizer import Tokenizer


@dataclass(frozen=True)
class CausalLMOutput:
    """FWD-27. `logits` `[B T V]` and the cache, which now holds these positions too."""

    logits: ndarray
    past_key_values: Cache


class GPT2LMHeadModel:
    """A GPT-2 that can be called and can generate. It has no training mode and no dropout.

    `engine` computes the network, `gpt2` is the network as data, `config` its sizes, `generation_config` the settings
    that `generate` starts from.
    """

    def __init__(self, gpt2: GPT2, generation_config: GenerationConfig | None = None, engine: str = DEFAULT) -> None:
        self.engine = find_engine(engine)(gpt2)
        self.generation_config = generation_config or GenerationConfig.from_model_config(gpt2.config.to_dict())

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        dtype: DTypeLike = "float32",
        engine: str = DEFAULT,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """The model of that folder or name, computing in float32 or float64.

        A name such as "gpt2" is looked for in the local cache of the Hugging Face Hub, then downloaded (CKPT-15): `revision`,
        `cache_dir` and `local_files_only` are as in transformers. `engine="canonical"` gives the same float32 bits on every
        machine, at a price (CANON-01). Raises `CheckpointError`, `ConfigError` or `GenerationError`, never fills anything in.
        """
        folder = find_model(
            path_or_name, "model", revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        gpt2 = checkpoints.load(folder, dtype, find_engine(engine).lay_out)
        return cls(gpt2, GenerationConfig.of_model(beside(folder)), engine)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json`, `generation_config.json` and `model.safetensors`, which transformers reads too."""
        checkpoints.save(self.gpt2, Path(folder))
        self.generation_config.save_pretrained(folder)

    @property
    def gpt2(self) -> GPT2:
        """The network, as data."""
        return self.engine.gpt2

    @property
    def config(self) -> GPT2Config:
        """The sizes and switches of the network."""
        return self.engine.config

    def eval(self) -> Self:
        """The model itself: it has no other mode (FWD-22)."""
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the network computes in."""
        return self.gpt2.wte.dtype

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Cache | None = None,
        note: Watcher = silent,
        logits_to_keep: int = 0,
    ) -> CausalLMOutput:
        """The logits after each of `input_ids` `[B T]`, in the model's dtype.

        `attention_mask` `[B S]` covers cached and new positions; positions follow from it (PAD-04). The cache
        passed in grows. Raises `InputError`.
        """
        if past_key_values is not None and not isinstance(past_key_values, Cache):
            raise InputError(
                f"past_key_values of type {type(past_key_values).__name__}", "must be a refgen.Cache", "CACHE-04"
            )
        cache = Cache() if past_key_values is None else past_key_values
        ids = whole_numbers("input_ids", input_ids)
        mask = None if attention_mask is None else whole_numbers("attention_mask", attention_mask)
        places = None if position_ids is None else whole_numbers("position_ids", position_ids)
        logits = self.engine.forward(ids, mask, places, cache, note, logits_to_keep)
        return CausalLMOutput(logits, cache)

    @takes_call
    def generate(self, input_ids: Any = None, attention_mask: Any = None, **arguments: Any) -> Any:
        """Continues each row of `input_ids` `[B P]`; returns int64 ids `[B*n, P + new]`, prompt included.

        With `return_dict_in_generate=True` it returns a `GenerateOutput`. Raises `GenerationError` for a setting,
        `InputError` for an array.
        """
        return generate(self.engine, self.generation_config, Call.of(input_ids, attention_mask, arguments))

    def steps(self, input_ids: Any = None, attention_mask: Any = None, **arguments: Any) -> Iterator[Step]:
        """Takes the arguments of `generate`, except a streamer. Yields one `Step` at a time: tokens, logits, scores,
        finishes.
        """
        return steps(self.engine, self.generation_config, Call.of(input_ids, attention_mask, arguments))

    def compute_transition_scores(
        self,
        sequences: ndarray,
        scores: Sequence[ndarray],
        beam_indices: ndarray | None = None,
        normalize_logits: bool = False,
    ) -> ndarray:
        """OUT-06. The score of every new token, float32 `[B*n new]`; `GenerateOutput.logprobs` says it shorter."""
        return transition_scores(sequences, scores, beam_indices, normalize_logits=normalize_logits)


class AutoModelForCausalLM:
    """`AutoModelForCausalLM.from_pretrained(path_or_name, dtype="float32")` loads a `GPT2LMHeadModel`."""

    from_pretrained = GPT2LMHeadModel.from_pretrained


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path_or_name)` loads a `Tokenizer`."""

    @staticmethod
    def from_pretrained(
        path_or_name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Tokenizer:
        """The tokenizer of that folder or name (CKPT-15).

        Raises `CheckpointError` if the model or its tokenizer is not found, `TokenizerError` if its files are wrong.
        """
        folder = find_model(
            path_or_name, "tokenizer", revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return Tokenizer.from_pretrained(beside(folder))
