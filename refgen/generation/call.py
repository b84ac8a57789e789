"""The call: settings and prompt in, sequences out. Everything `generate()` does before and after the loop.

Axes    B prompts, n sequences a prompt, P prompt columns, V tokens.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.errors import GenerationError, IgnoredSettingWarning
from refgen.generation.beam import BeamResult, BeamSettings, beam_search
from refgen.generation.chance import Seed, make_choose, make_pick
from refgen.generation.config import ID_FIELDS, GenerationConfig, ids_of, settle
from refgen.generation.loop import Step, by_forward, decode
from refgen.generation.processors import AllowedTokens, Processor, processors
from refgen.generation.prompt import Prompt, prepare
from refgen.generation.stopping import Criterion, stopping
from refgen.model import GPT2, check_ids, check_positions, positions
from refgen.tokenizer import Tokenizer


class Streamer(Protocol):
    """STREAM-01. Told the prompt `[B*n P]`, then each step's tokens `[B*n]`, then the end."""

    def put(self, ids: ndarray) -> None:
        """Takes the prompt, the first time, or the new tokens."""

    def end(self) -> None:
        """Told when the last token has been put."""


@dataclass(frozen=True)
class GenerateOutput:
    """OUT-01, OUT-02. What `generate(..., return_dict_in_generate=True)` returns.

    `scores` and `logits` are None unless asked for; else one float32 `[B*n V]` a step: after and before the
    processors.
    """

    sequences: ndarray  # [B*n, P + new] int64
    finish: tuple[str, ...]  # why each row ended: eos, length, context, stop_string, time or criterion
    seed: int | tuple[int, ...] | None  # what chance was seeded with; None if nothing was drawn from a seed
    scores: tuple[ndarray, ...] | None = None
    logits: tuple[ndarray, ...] | None = None
    sequences_scores: ndarray | None = None  # [B*n] float32, of beam search
    beam_indices: ndarray | None = None  # [B*n new]: the row of scores each token was chosen in, -1 after the end


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one `generate()`; `settings` are the fields of `GenerationConfig` among them."""

    input_ids: Any = None
    attention_mask: Any = None
    seed: Seed = None
    uniforms: Any = None
    generation_config: GenerationConfig | None = None
    tokenizer: Tokenizer | None = None
    prefix_allowed_tokens_fn: AllowedTokens | None = None
    logits_processor: Sequence[Processor] = ()
    stopping_criteria: Sequence[Criterion] = ()
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, rule in (("logits_processor", "PROC-03"), ("stopping_criteria", "STOP-09")):
            functions = getattr(self, name)
            if callable(functions) or not all(map(callable, functions := tuple(functions or ()))):
                raise GenerationError(f"{name}={functions!r}", "must be a list of functions", rule)
            object.__setattr__(self, name, functions)


CALL_ARGUMENTS = {field.name for field in fields(Call)} - {"settings"}


@dataclass(frozen=True)
class Run:
    """A call made ready: its prompt, its settings, the seed it uses and the steps it will take."""

    prompt: Prompt
    config: GenerationConfig
    seed: int | tuple[int, ...] | None
    steps: Iterator[Step]  # of beam search none
    search: Callable[[], BeamResult] | None = None


def prepare_run(gpt2: GPT2, model_config: GenerationConfig, call: Call) -> Run:
    """All that can be seen to be wrong without running the network is refused here, before the first step."""
    vocab_size, n_positions = gpt2.config.vocab_size, gpt2.config.n_positions
    if call.generation_config is not None and not isinstance(call.generation_config, GenerationConfig):
        raise GenerationError(
            f"generation_config of type {type(call.generation_config).__name__}",
            "must be a refgen.GenerationConfig",
            "CFG-04",
            "Make one with GenerationConfig.from_dict(settings).",
        )
    config = settle(without_foreign_ids(model_config, vocab_size), call.generation_config, call.settings)
    refuse_foreign_ids(config, vocab_size)
    n = config.num_return_sequences or 1
    prompt = prepare(call.input_ids, call.attention_mask, config).repeated(config.beams if config.beams > 1 else n)
    check_ids(prompt.ids, gpt2.config)
    check_positions(positions(prompt.mask, prompt.width), len(prompt.ids), prompt.width, gpt2.config)
    limit = max_length(config, prompt, n_positions)
    refuse_unreachable_minimum(config, prompt, limit)
    cache = Cache()
    next_logits = by_forward(gpt2, config.use_cache is not False, cache)
    processing = list(processors(config, prompt, limit, call.prefix_allowed_tokens_fn, call.logits_processor))
    conditions = stopping(config, limit, n_positions, call.tokenizer, call.stopping_criteria)
    if config.beams > 1:
        choose, seed_used = make_choose(config, len(prompt.ids) // config.beams, call.seed, call.uniforms)
        settings = BeamSettings(
            num_beams=config.beams,
            length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
            early_stopping=config.early_stopping or False,
            max_length=min(limit, prompt.width + n_positions),
            n_ends=len(config.eos_ids),
            pad=config.pad_token_id if config.pad_token_id is not None else next(iter(config.eos_ids), 0),
        )
        search = partial(beam_search, next_logits, cache, prompt, processing, choose, conditions, settings)
        return Run(prompt, config, seed_used, iter(()), search)
    steps = min(limit - prompt.width, n_positions + 1 - int(prompt.mask.sum(axis=1).min()))
    pick, seed_used = make_pick(config, len(prompt.ids), steps, call.seed, call.uniforms)
    pad = fill_id(config, prompt, limit, n_positions, call)
    return Run(prompt, config, seed_used, decode(next_logits, prompt, processing, pick, conditions, pad))


def refuse_foreign_ids(config: GenerationConfig, vocab_size: int) -> None:
    """STOP-08. Every id in a setting is one of the model's tokens."""
    for name in ID_FIELDS:
        for token_id in ids_of(config, name):
            if token_id >= vocab_size:
                raise GenerationError(
                    f"{name}={token_id}",
                    f"token ids of this model run from 0 to {vocab_size - 1}",
                    "STOP-08",
                    f"Pass {name}=None to do without.",
                )


def without_foreign_ids(model_config: GenerationConfig, vocab_size: int) -> GenerationConfig:
    """STOP-08. Small models often carry GPT-2's end id, 50256, which they cannot say: left out, with a warning."""
    eos_ids = tuple(token_id for token_id in model_config.eos_ids if token_id < vocab_size)
    pad = model_config.pad_token_id
    kept_pad = pad if pad is None or pad < vocab_size else None
    if eos_ids == model_config.eos_ids and kept_pad == pad:
        return model_config
    warnings.warn(
        f"the model's own eos_token_id={list(model_config.eos_ids)} or pad_token_id={pad} is outside its vocabulary of "
        f"{vocab_size} and is left out [STOP-08]",
        IgnoredSettingWarning,
        stacklevel=4,
    )
    return replace(model_config, eos_token_id=eos_ids or None, pad_token_id=kept_pad)


def generate(run: Run, streamer: Streamer | None = None) -> ndarray | GenerateOutput:
    """STREAM-01, OUT-01. Takes all steps of a run; the ids `[B*n, P + new]`, or a `GenerateOutput` if the settings ask for it."""
    check_streamer(streamer, run)
    if run.search is not None:
        return best_of(run.search(), run)
    if streamer is not None:
        streamer.put(run.prompt.ids.copy())
    columns, scores, logits = [run.prompt.ids], [], []
    for step in run.steps:
        columns.append(step.tokens[:, None])
        if run.config.output_scores:
            scores.append(step.scores)
        if run.config.output_logits:
            logits.append(step.logits)
        if streamer is not None:
            streamer.put(step.tokens)
    if streamer is not None:
        streamer.end()
    sequences = np.concatenate(columns, axis=1)
    if not run.config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        finish=tuple(reason or "" for reason in step.finish),
        seed=run.seed,
        scores=tuple(scores) if run.config.output_scores else None,
        logits=tuple(logits) if run.config.output_logits else None,
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
        finish=tuple(reason for reasons in result.finish for reason in reasons[:n]),
        seed=run.seed,
        scores=tuple(result.scores) if run.config.output_scores else None,
        logits=tuple(result.logits) if run.config.output_logits else None,
        sequences_scores=result.sequences_scores[:, :n].ravel(),
        beam_indices=result.beam_indices[:, :n, : width - run.prompt.width].reshape(len(sequences), -1),
    )


def max_length(config: GenerationConfig, prompt: Prompt, n_positions: int) -> int:
    """LEN-01 to LEN-03. The number of columns at which the batch is as long as asked for; 20 new ones by default."""
    if config.max_new_tokens is not None:
        return prompt.width + config.max_new_tokens
    limit = min(prompt.width + 20, n_positions) if config.max_length is None else config.max_length
    if prompt.width >= limit:
        asked = "the default length" if config.max_length is None else f"max_length={limit}"
        raise GenerationError(
            asked,
            f"ends at {limit} columns, and the prompt already has {prompt.width}",
            "LEN-02",
            "Set max_new_tokens, which does not count the prompt.",
        )
    return limit


def refuse_unreachable_minimum(config: GenerationConfig, prompt: Prompt, limit: int) -> None:
    """LEN-07, LEN-08. A minimum beyond the limit cannot be kept."""
    for name, least, rule in (
        ("min_new_tokens", prompt.width + (config.min_new_tokens or 0), "LEN-07"),
        ("min_length", config.min_length or 0, "LEN-08"),
    ):
        if least > limit:
            raise GenerationError(
                f"{name}={getattr(config, name)}",
                f"cannot be reached: the limit is {limit - prompt.width} new tokens",
                rule,
                "Raise max_new_tokens.",
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
