"""The call: settings and prompt in, sequences out. Everything `generate()` does before and after the loop.

Axes    B prompts, n sequences a prompt (K beams, if there are beams), P prompt columns, V tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine
from refgen.errors import GenerationError, InputError
from refgen.generation.assisted import by_draft, check_assistance, draft_model, prompt_lookup
from refgen.generation.beam import BeamResult, BeamSettings, beam_search
from refgen.generation.chance import Seed, make_choose, make_pick
from refgen.generation.config import GenerationConfig, refuse_foreign_ids, settle, without_foreign_ids
from refgen.generation.fields import DEFAULTS
from refgen.generation.guidance import after_negative_prompt, fitting
from refgen.generation.loop import Step, decode
from refgen.generation.next_logits import NextLogits, by_forward
from refgen.generation.output import GenerateOutput, Stages, attentions, hidden_states
from refgen.generation.processors import AllowedTokens, Processor, Unguided, processors
from refgen.generation.prompt import Prompt, prepare
from refgen.generation.stopping import Criterion, max_length, refuse_unreachable_minimum, stopping
from refgen.inputs import check_ids, check_positions
from refgen.model import positions, silent
from refgen.tokenizer import Tokenizer


class Streamer(Protocol):
    """STREAM-01. Told the prompt `[B*n P]`, then each step's tokens `[B*n]`, then the end."""

    def put(self, ids: ndarray) -> None:
        """Takes the prompt, the first time, or the new tokens."""

    def end(self) -> None:
        """Told when the last token has been put."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one `generate()`; `settings` are the fields of `GenerationConfig` among them."""

    input_ids: Any = None
    attention_mask: Any = None
    seed: Seed = None
    uniforms: Any = None
    generation_config: GenerationConfig | None = None
    tokenizer: Tokenizer | None = None
    past_key_values: Cache | None = None
    assistant_model: Any = None
    negative_prompt_ids: Any = None
    negative_prompt_attention_mask: Any = None
    prefix_allowed_tokens_fn: AllowedTokens | None = None
    logits_processor: Sequence[Processor] = ()
    stopping_criteria: Sequence[Criterion] = ()
    next_logits: NextLogits | None = None  # LOOP-01. Somebody else's logits instead of the network's
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, rule in (("logits_processor", "PROC-03"), ("stopping_criteria", "STOP-09")):
            functions = getattr(self, name)
            if callable(functions) or not all(map(callable, functions := tuple(functions or ()))):
                raise GenerationError(f"{name}={functions!r}", "must be a list of functions", rule)
            object.__setattr__(self, name, functions)

    @property
    def assistant(self) -> Engine | None:
        """ASSIST-05. The network of the draft model."""
        network = getattr(self.assistant_model, "engine", None)
        if self.assistant_model is not None and not isinstance(network, Engine):
            kind = type(self.assistant_model).__name__
            raise GenerationError(f"assistant_model of type {kind}", "must be a refgen.GPT2LMHeadModel", "ASSIST-05")
        return network


CALL_ARGUMENTS = {field.name for field in fields(Call)} - {"settings", "next_logits"}  # of generate()


@dataclass(frozen=True)
class Run:
    """A call made ready: its prompt and settings, the seed it uses, the steps it will take, what it looks at."""

    prompt: Prompt
    config: GenerationConfig
    seed: int | tuple[int, ...] | None
    steps: Iterator[Step]  # of beam search none
    search: Callable[[], BeamResult] | None
    cache: Cache | None
    stages: Stages


# --- Before the loop --------------------------------------------------------------------------------------


def prepare_run(engine: Engine, model_config: GenerationConfig, call: Call) -> Run:
    """All that can be seen to be wrong without running the network is refused here, before the first step."""
    config = settled(engine, model_config, call)
    n_positions, n = engine.config.n_positions, config.beams if config.beams > 1 else config.num_return_sequences or 1
    prompts = fitted(engine, prepare(call.input_ids, call.attention_mask, config))
    prompt = prompts.repeated(n)
    limit = max_length(config, prompt, n_positions)
    refuse_unreachable_minimum(config, prompt, limit)
    steps = min(limit - prompt.width, n_positions + 1 - int(prompt.mask.sum(axis=1).min()))

    cache = ready_cache(config, call.past_key_values, prompts, n, limit)
    unguided, unguided_cache = guide(engine, config, call, prompts, n, steps)
    processing = list(processors(config, prompt, limit, call.prefix_allowed_tokens_fn, call.logits_processor, unguided))
    conditions = stopping(config, limit, n_positions, call.tokenizer, call.stopping_criteria)
    stages = Stages(watched(config, engine.config.n_layer))
    next_logits = reader(engine, config, call, prompt, cache, processing, stages, limit)
    if config.beams == 1:
        pick, seed_used = make_pick(config, len(prompt.ids), steps, call.seed, call.uniforms)
        pad = fill_id(config, prompt, limit, n_positions, call)
        taken = decode(next_logits, prompt, processing, pick, conditions, pad)
        return Run(prompt, config, seed_used, taken, None, cache, stages)
    choose, seed_used = make_choose(config, len(prompts.ids), call.seed, call.uniforms)
    caches = [each for each in (cache, unguided_cache) if each is not None]
    settings = beam_settings(config, min(limit, prompt.width + n_positions))
    search = partial(beam_search, next_logits, caches, prompt, processing, choose, conditions, settings)
    return Run(prompt, config, seed_used, iter(()), search, cache, stages)


def settled(engine: Engine, model_config: GenerationConfig, call: Call) -> GenerationConfig:
    """CFG-04, STOP-08. The settings that the call means for this model."""
    if call.generation_config is not None and not isinstance(call.generation_config, GenerationConfig):
        raise GenerationError(
            f"generation_config of type {type(call.generation_config).__name__}",
            "must be a refgen.GenerationConfig",
            "CFG-04",
            "Make one with GenerationConfig.from_dict(settings).",
        )
    vocab_size = engine.config.vocab_size
    config = settle(without_foreign_ids(model_config, vocab_size), call.generation_config, call.settings)
    refuse_foreign_ids(config, vocab_size)
    return config


def fitted(engine: Engine, prompt: Prompt, name: str = "input_ids") -> Prompt:
    """FWD-23. The prompt, if its ids and positions are the model's."""
    check_ids(prompt.ids, engine.config, name)
    check_positions(positions(prompt.mask, prompt.width), len(prompt.ids), prompt.width, engine.config)
    return prompt


def ready_cache(config: GenerationConfig, given: Cache | None, prompts: Prompt, n: int, limit: int) -> Cache | None:
    """CACHE-04, CACHE-05. The cache of the run, with n rows a prompt: a new one, or the caller's, which grows."""
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
    if n > 1:
        given.select(np.arange(len(prompts.ids)).repeat(n))
    return given


def guide(
    engine: Engine, config: GenerationConfig, call: Call, prompts: Prompt, n: int, steps: int
) -> tuple[Unguided | None, Cache | None]:
    """CFGG-01. The model behind the negative prompt, by default each prompt's last token; and its cache."""
    if config.guidance_scale in (None, 1.0):
        if call.negative_prompt_ids is not None or call.negative_prompt_attention_mask is not None:
            raise GenerationError("negative_prompt_ids", "need a guidance_scale", "CFGG-01", "For instance 1.5.")
        return None, None
    ids = prompts.ids[:, -1:] if call.negative_prompt_ids is None else call.negative_prompt_ids
    mask = np.ones_like(ids) if call.negative_prompt_ids is None else call.negative_prompt_attention_mask
    names = ("negative_prompt_ids", "negative_prompt_attention_mask")
    named = prepare(ids, mask, config, names)
    negative = fitting(fitted(engine, named, names[0]), len(prompts.ids), n, steps, engine.config.n_positions)
    cache = None if config.use_cache is False else Cache()
    return after_negative_prompt(by_forward(engine, cache), negative, prompts.width), cache


def watched(config: GenerationConfig, n_layer: int) -> dict[str, list[str]]:
    """OUT-04. What the result will hold of every pass, and which stages that is."""
    wanted = {
        "hidden_states": (config.output_hidden_states, hidden_states(n_layer)),
        "attentions": (config.output_attentions, attentions(n_layer)),
    }
    return {name: stages for name, (asked, stages) in wanted.items() if asked and config.return_dict_in_generate}


def reader(
    engine: Engine,
    config: GenerationConfig,
    call: Call,
    prompt: Prompt,
    cache: Cache | None,
    processing: list[Processor],
    stages: Stages,
    limit: int,
) -> NextLogits:
    """ASSIST-01. How the run reads its logits: one pass a token, or one for several that a draft foresees."""
    if call.next_logits is not None:
        return call.next_logits
    assistant = call.assistant
    if assistant is None and config.prompt_lookup_num_tokens is None:
        note = stages.note if stages.names else silent
        # Rows may leave a cache that nobody sees, and that no beams are sorted in.
        leave = config.beams == 1 and call.past_key_values is None and not config.return_dict_in_generate
        return by_forward(engine, cache, note, config.prefill_chunk_size, leave)
    check_assistance(config, len(prompt.ids), engine, assistant)
    if cache is None:
        raise GenerationError(
            "use_cache=False", "leaves a draft nothing to be checked in", "ASSIST-05", "Leave it out."
        )
    draft = (
        partial(prompt_lookup, longest=config.max_matching_ngram_size or DEFAULTS["max_matching_ngram_size"])
        if assistant is None
        else draft_model(assistant, processing, config.assistant_confidence_threshold or 0.0)
    )
    return by_draft(engine, cache, draft, config, limit)


def beam_settings(config: GenerationConfig, max_columns: int) -> BeamSettings:
    """BEAM-06, BEAM-07, BEAM-10. What a search is told."""
    return BeamSettings(
        num_beams=config.beams,
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        early_stopping=config.early_stopping or False,
        max_length=max_columns,
        n_ends=len(config.eos_ids),
        pad=config.pad_token_id if config.pad_token_id is not None else next(iter(config.eos_ids), 0),
    )


def fill_id(config: GenerationConfig, prompt: Prompt, limit: int, n_positions: int, call: Call) -> int | None:
    """STOP-05, STOP-07. What finished rows are filled with: the pad id, else the first end token."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    if config.eos_ids:
        return config.eos_ids[0]
    tokens = prompt.mask.sum(axis=1)
    fill_context = tokens.min() != tokens.max() and tokens.max() + limit - prompt.width > n_positions + 1
    if len(tokens) > 1 and (fill_context or config.stop_strings or call.stopping_criteria):
        raise GenerationError(
            "pad_token_id=None", "rows can end at different steps and need filling", "STOP-07", "Set pad_token_id."
        )
    return None


# --- After it ---------------------------------------------------------------------------------------------


def generate(run: Run, streamer: Streamer | None = None) -> ndarray | GenerateOutput:
    """STREAM-01, OUT-01. Takes all steps of a run; the ids `[B*n, P + new]`, or a `GenerateOutput` if the settings ask for it."""
    check_streamer(streamer, run)
    if run.search is not None:
        return best_of(run.search(), run)
    if streamer is not None:
        streamer.put(run.prompt.ids.copy())
    columns, scores, logits = [run.prompt.ids], [], []
    lengths, running = np.full(len(run.prompt.ids), run.prompt.width), np.ones(len(run.prompt.ids), dtype=bool)
    for step in run.steps:
        columns.append(step.tokens[:, None])
        lengths += running
        running = np.array([reason is None for reason in step.finish])
        if run.config.output_scores:
            scores.append(step.scores)
        if run.config.output_logits:
            logits.append(step.logits)
        if streamer is not None:
            streamer.put(step.tokens)
    if streamer is not None:
        streamer.end()
    sequences = np.concatenate(columns, axis=1)
    if run.cache is not None:
        run.cache.crop(min(len(run.cache), sequences.shape[1] - 1))  # a draft may have looked further (CACHE-01)
    if not run.config.return_dict_in_generate:
        return sequences
    finish = tuple(reason or "" for reason in step.finish)
    return GenerateOutput(
        sequences=sequences, lengths=lengths, finish=finish, seed=run.seed, **collected(run, scores, logits)
    )


def check_streamer(streamer: Any, run: Run) -> None:
    """STREAM-01, BEAM-12. A streamer has two methods, and a run that knows its tokens one by one."""
    if streamer is None:
        return
    if not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise GenerationError(f"streamer={streamer!r}", "must have put(ids) and end()", "STREAM-01")
    if run.search is not None:
        raise GenerationError("streamer", "beam search knows its text only at the end", "BEAM-12", "Use num_beams=1.")


def best_of(result: BeamResult, run: Run) -> ndarray | GenerateOutput:
    """BEAM-09. The n best of every prompt, as wide as the longest of them."""
    n = run.config.num_return_sequences or 1
    width = int(result.lengths[:, :n].max())
    sequences = result.sequences[:, :n, :width].reshape(-1, width)
    if not run.config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        lengths=result.lengths[:, :n].ravel(),
        finish=tuple(reason for reasons in result.finish for reason in reasons[:n]),
        seed=run.seed,
        sequences_scores=result.sequences_scores[:, :n].ravel(),
        beam_indices=result.beam_indices[:, :n, : width - run.prompt.width].reshape(len(sequences), -1),
        **collected(run, result.scores, result.logits),
    )


def collected(run: Run, scores: list[ndarray], logits: list[ndarray]) -> dict[str, Any]:
    """OUT-02, OUT-04. What the settings ask to be kept of every step, by the names of the result."""
    return {
        "scores": tuple(scores) if run.config.output_scores else None,
        "logits": tuple(logits) if run.config.output_logits else None,
        "past_key_values": run.cache,
        **run.stages.collected(),
    }
