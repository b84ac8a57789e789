"""The drop-in names: `AutoTokenizer`, `AutoModelForCausalLM` and the model they stand for.

What users of transformers type works here with NumPy arrays; `docs/differences.md` lists what differs.
"""

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
from refgen.errors import GenerationError, InputError
from refgen.generation.call import CALL_ARGUMENTS, Call, Streamer, generate, prepare_run
from refgen.generation.chance import Seed
from refgen.generation.config import GenerationConfig
from refgen.generation.loop import Step
from refgen.generation.output import GenerateOutput, transition_scores
from refgen.generation.processors import AllowedTokens, Processor
from refgen.generation.stopping import Criterion
from refgen.inputs import whole_numbers
from refgen.model import GPT2, silent
from refgen.shipped import find_model
from refgen.tokenizer import Tokenizer


@dataclass(frozen=True)
class CausalLMOutput:
    """FWD-27. `logits` `[B T V]` and the cache, which now holds these positions too."""

    logits: ndarray
    past_key_values: Cache


class GPT2LMHeadModel:
    """A GPT-2 that can be called and can generate. It has no training mode and no dropout.

    `gpt2` is the network as data, `config` its sizes, `generation_config` the settings `generate` starts from.
    """

    def __init__(self, gpt2: GPT2, generation_config: GenerationConfig | None = None, engine: str = DEFAULT) -> None:
        self.engine = find_engine(engine)(gpt2)
        self.generation_config = generation_config or GenerationConfig.from_model_config(gpt2.config.to_dict())

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, dtype: DTypeLike = "float32", engine: str = DEFAULT) -> Self:
        """A model folder, or "shakespeare", computing in float32 or float64.

        `engine="canonical"` gives the same float32 bits on every machine, at a price (CANON-01).
        Raises `CheckpointError`, `ConfigError` or `GenerationError`, never fills anything in.
        """
        folder = find_model(path_or_name)
        gpt2 = checkpoints.load(folder, dtype, find_engine(engine).lay_out)
        has_own = (folder / "generation_config.json").exists()
        return cls(gpt2, GenerationConfig.from_pretrained(folder) if has_own else None, engine)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json`, `generation_config.json` and `model.safetensors`, which transformers reads too."""
        checkpoints.save(self.gpt2, Path(folder))
        self.generation_config.save_pretrained(folder)

    @property
    def config(self) -> GPT2Config:
        """The sizes and switches of the network."""
        return self.gpt2.config

    def eval(self) -> Self:
        """The model itself: it has no other mode (FWD-22)."""
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the network computes in."""
        return self.gpt2.wte.dtype

    @property
    def gpt2(self) -> GPT2:
        """The network as data, laid out as its engine reads it."""
        return self.engine.gpt2

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

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        seed: Seed = None,
        uniforms: Any = None,
        streamer: Streamer | None = None,
        generation_config: GenerationConfig | None = None,
        tokenizer: Tokenizer | None = None,
        past_key_values: Cache | None = None,
        assistant_model: "GPT2LMHeadModel | None" = None,
        negative_prompt_ids: Any = None,
        negative_prompt_attention_mask: Any = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        logits_processor: Sequence[Processor] = (),
        stopping_criteria: Sequence[Criterion] = (),
        **settings: Any,
    ) -> Any:
        """Continues each row of `input_ids` `[B P]`; returns int64 ids `[B*n, P + new]`, prompt included.

        `settings` are the fields of `GenerationConfig` (max_new_tokens, do_sample, temperature, top_k, …).
        `seed` makes sampling repeat what torch on a CPU draws, one for the batch or one a row; `uniforms`
        `[B*n, steps]` replaces it by numbers of your own. `tokenizer` is for `stop_strings`.
        `past_key_values` holds the beginning of the prompt and grows (CACHE-04); `assistant_model` drafts what this
        model checks (ASSIST-01); `negative_prompt_ids` is what `guidance_scale` moves away from (CFGG-01). Functions of your
        own: `prefix_allowed_tokens_fn(row, ids)` names the ids that may come next (PREF-01), each of
        `logits_processor(ids, scores)` gives new scores (PROC-03), each of `stopping_criteria(ids, None)` says
        whether to stop (STOP-09). `return_dict_in_generate=True` returns a `GenerateOutput`.
        Raises `GenerationError` for a setting, `InputError` for an array.
        """
        call = Call(
            input_ids=input_ids,
            attention_mask=attention_mask,
            seed=seed,
            uniforms=uniforms,
            generation_config=generation_config,
            tokenizer=tokenizer,
            past_key_values=past_key_values,
            assistant_model=assistant_model,
            negative_prompt_ids=negative_prompt_ids,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            settings=settings,
        )
        try:
            result: ndarray | GenerateOutput = generate(
                prepare_run(self.engine, self.generation_config, call), streamer
            )
        except BaseException:
            if streamer is not None and hasattr(streamer, "end"):
                streamer.end()  # whoever waits for text need not wait longer (STREAM-05)
            raise
        return result

    def compute_transition_scores(
        self,
        sequences: ndarray,
        scores: Sequence[ndarray],
        beam_indices: ndarray | None = None,
        normalize_logits: bool = False,
    ) -> ndarray:
        """OUT-06. The score of every new token, float32 `[B*n new]`; `GenerateOutput.logprobs` says it shorter."""
        return transition_scores(sequences, scores, beam_indices, normalize_logits=normalize_logits)

    def steps(self, input_ids: Any = None, attention_mask: Any = None, **arguments: Any) -> Iterator[Step]:
        """Takes what `generate` takes, a streamer apart; gives one `Step` at a time: tokens, logits, scores, finishes."""
        own = {name: arguments.pop(name) for name in CALL_ARGUMENTS & arguments.keys()}
        all_rows = {"return_dict_in_generate": True}  # steps show every row, so none may leave (BATCH-03)
        call = Call(input_ids=input_ids, attention_mask=attention_mask, **own, settings=arguments | all_rows)
        run = prepare_run(self.engine, self.generation_config, call)
        if run.search is not None:
            raise GenerationError(
                f"num_beams={run.config.beams}", "beam search has no steps to give", "BEAM-12", "Use generate()."
            )
        return run.steps


class AutoModelForCausalLM:
    """`AutoModelForCausalLM.from_pretrained(path_or_name, dtype="float32")` loads a `GPT2LMHeadModel`."""

    from_pretrained = GPT2LMHeadModel.from_pretrained


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path_or_name)` loads a `Tokenizer`."""

    @staticmethod
    def from_pretrained(path_or_name: str | Path) -> Tokenizer:
        """A model folder, or "shakespeare"; raises `CheckpointError` if there is none, else `TokenizerError`."""
        return Tokenizer.from_pretrained(find_model(path_or_name))
