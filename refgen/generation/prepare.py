"""Prepares a call: its settings, prompt and parts. Everything that can be refused before the first step is refused
here.

Axes    B prompts, n sequences a prompt (K beams, if there are beams), P prompt columns, V tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from refgen.cache import Cache
from refgen.engines.engine import Engine
from refgen.errors import GenerationError, InputError
from refgen.generation.assisted import assisted
from refgen.generation.beam import BeamResult, BeamSettings, beam_search
from refgen.generation.call import Call
from refgen.generation.chance import make_choose, make_pick
from refgen.generation.config import GenerationConfig
from refgen.generation.guidance import guide
from refgen.generation.loop import Step, decode
from refgen.generation.next_logits import NextLogits, by_forward
from refgen.generation.output import Stages, watched
from refgen.generation.processors import Processor
from refgen.generation.processors.order import processors
from refgen.generation.prompt import Prompt, fitted, read_prompt
from refgen.generation.settle import settle_for_model
from refgen.generation.stopping import filling, max_length, refuse_unreachable_minimum, stopping
from refgen.memory import Need
from refgen.model import silent


@dataclass(frozen=True)
class Run:
    """A call made ready."""

    prompt: Prompt
    config: GenerationConfig
    seed: int | tuple[int, ...] | None  # the one it uses
    steps: Iterator[Step]  # empty for beam search
    search: Callable[[], BeamResult] | None
    cache: Cache | None
    stages: Stages
    need: Need


def prepare(engine: Engine, own: GenerationConfig, call: Call) -> Run:
    """The run that a call to a model means; `own` are the model's settings."""
    # Settings, prompt, length
    config = settle_for_model(engine.config.vocab_size, own, call.generation_config, call.settings)
    prompts = fitted(read_prompt(call.input_ids, call.attention_mask, config), engine.config)
    prompt = prompts.repeated(config.rows_per_prompt)
    n_positions = engine.config.n_positions
    limit = max_length(config, prompt, n_positions)
    refuse_unreachable_minimum(config, prompt, limit)
    steps = min(limit - prompt.width, n_positions + 1 - int(prompt.mask.sum(axis=1).min()))

    need = room(engine, config, call, prompt, limit, steps).check()

    # What the loop works with
    cache = ready_cache(config, call.past_key_values, prompts, limit)
    unguided, unguided_cache = guide(
        engine, config, call.negative_prompt_ids, call.negative_prompt_attention_mask, prompts, steps
    )
    processing = list(processors(config, prompt, limit, call.prefix_allowed_tokens_fn, call.logits_processor, unguided))
    conditions = stopping(config, limit, n_positions, call.tokenizer, call.stopping_criteria)
    stages = Stages(watched(config, engine.config.n_layer))
    next_logits = ready_logits(engine, config, call, prompt, cache, processing, stages, limit)

    # The loop, or the search
    if config.beams == 1:
        pick, seed_used = make_pick(config, len(prompt.ids), steps, call.seed, call.uniforms)
        pad = filling(config, prompt, limit, n_positions, call.stopping_criteria)
        taken = decode(next_logits, prompt, processing, pick, conditions, pad)
        return Run(prompt, config, seed_used, taken, None, cache, stages, need)
    choose, seed_used = make_choose(config, len(prompts.ids), call.seed, call.uniforms)
    caches = [each for each in (cache, unguided_cache) if each is not None]
    settings = BeamSettings.of(config, min(limit, prompt.width + n_positions))
    search = partial(beam_search, next_logits, caches, prompt, processing, choose, conditions, settings)
    return Run(prompt, config, seed_used, iter(()), search, cache, stages, need)


def room(engine: Engine, config: GenerationConfig, call: Call, prompt: Prompt, limit: int, steps: int) -> Need:
    """ROOM-01. The memory of a call that becomes as long as its settings allow."""
    rows, V, width = len(prompt.ids), engine.config.vocab_size, engine.gpt2.wte.dtype.itemsize
    kept = sum(bool(asked) for asked in (config.output_scores, config.output_logits))
    new = call.past_key_values is None and call.next_logits is None and config.use_cache is not False
    positions = min(limit, engine.config.n_positions) if new else 0
    needs = {
        "cache": 2 * engine.config.n_layer * rows * positions * engine.config.n_embd * width,
        "scores and logits that are kept": kept * steps * rows * V * width,
        "scores of a step": 3 * rows * V * width,
    }
    remedies = ("a smaller max_new_tokens", "output_scores=False and output_logits=False", "fewer prompts at once")
    most = max(range(len(needs)), key=list(needs.values()).__getitem__)
    fewer = "Fewer rows at once need less (prompts, num_return_sequences, num_beams)"
    return Need(f"{rows} x {limit} tokens", needs, GenerationError, f"{fewer}; here above all {remedies[most]}.")


def ready_cache(config: GenerationConfig, given: Cache | None, prompts: Prompt, limit: int) -> Cache | None:
    """CACHE-04, CACHE-05. The cache of the run, a row for each of its rows: a new one, or the caller's, which grows."""
    if given is None:
        return None if config.use_cache is False else Cache(limit)
    if not isinstance(given, Cache):
        raise InputError(f"past_key_values of type {type(given).__name__}", "must be a refgen.Cache", "CACHE-04")
    if config.use_cache is False:
        raise GenerationError("past_key_values", "is not used with use_cache=False", "CACHE-04", "Pass one of them.")
    if len(given) >= prompts.width:
        raise InputError(
            f"past_key_values of {len(given)} positions",
            f"must leave at least one of the prompt's {prompts.width} columns to compute",
            "CACHE-05",
            f"Pass all ids so far, or call crop({prompts.width - 1}) on it.",
        )
    if len(given) and given.rows != len(prompts.ids):
        raise InputError(
            f"past_key_values of {given.rows} rows",
            f"input_ids have {len(prompts.ids)}",
            "CACHE-04",
            "Use the same rows.",
        )
    if config.rows_per_prompt > 1:
        given.select(np.arange(len(prompts.ids)).repeat(config.rows_per_prompt))
    return given


def ready_logits(
    engine: Engine,
    config: GenerationConfig,
    call: Call,
    prompt: Prompt,
    cache: Cache | None,
    processing: list[Processor],
    stages: Stages,
    limit: int,
) -> NextLogits:
    """Where the run's logits come from: the caller, a draft that the engine checks, or the engine alone."""
    if call.next_logits is not None:
        return call.next_logits
    assistant = call.assistant
    if assistant is not None or config.prompt_lookup_num_tokens is not None:
        return assisted(engine, assistant, config, cache, processing, len(prompt.ids), limit)
    note = stages.note if stages.names else silent
    # Rows may leave a cache that the caller does not see and that no beams are sorted in.
    leave = config.beams == 1 and call.past_key_values is None and not config.return_dict_in_generate
    return by_forward(engine, cache, note, config.prefill_chunk_size, leave)
