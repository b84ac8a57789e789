"""Guidance: a processor that moves away from the same model's logits after a negative prompt. Rule CFGG-01 of SPEC.md.

Axes    B rows, P prompt columns, S columns so far, V tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine
from refgen.errors import GenerationError, InputError
from refgen.generation.config import GenerationConfig
from refgen.generation.next_logits import NextLogits, by_forward
from refgen.generation.prompt import Prompt, fitted, read_prompt
from refgen.generation.scores import log_softmax

Unguided = Callable[[ndarray], ndarray]  # ids [B S] -> logits [B V] after the negative prompt


def guidance(ids: ndarray, scores: ndarray, *, scale: float, unguided: Unguided) -> ndarray:
    """CFGG-01. Log-probabilities, moved away from those after the negative prompt: n + scale (p - n)."""
    with_prompt, with_negative = log_softmax(scores), log_softmax(unguided(ids).astype(np.float32))
    return np.float32(scale) * (with_prompt - with_negative) + with_negative


def guide(
    engine: Engine, config: GenerationConfig, negative_ids: Any, negative_mask: Any, prompts: Prompt, steps: int
) -> tuple[Unguided | None, Cache | None]:
    """CFGG-01. The model after the negative prompt, by default each prompt's last token; and its cache."""
    if config.guidance_scale in (None, 1.0):
        if negative_ids is not None or negative_mask is not None:
            raise GenerationError("negative_prompt_ids", "need a guidance_scale", "CFGG-01", "For instance 1.5.")
        return None, None
    ids = prompts.ids[:, -1:] if negative_ids is None else negative_ids
    mask = np.ones_like(ids) if negative_ids is None else negative_mask
    names = ("negative_prompt_ids", "negative_prompt_attention_mask")
    named = fitted(read_prompt(ids, mask, config, names), engine.config, names[0])
    negative = fitting(named, len(prompts.ids), config.rows_per_prompt, steps, engine.config.n_positions)
    cache = None if config.use_cache is False else Cache()
    return after_negative_prompt(by_forward(engine, cache), negative, prompts.width), cache


def after_negative_prompt(next_logits: NextLogits, negative: Prompt, width: int) -> Unguided:
    """The logits of the next token if the first `width` columns had been the negative prompt."""

    def unguided(ids: ndarray) -> ndarray:
        new = ids[:, width:]
        seen = np.ones_like(new)
        return next_logits(np.column_stack([negative.ids, new]), np.column_stack([negative.mask, seen]))

    return unguided


def fitting(negative: Prompt, prompts: int, n: int, steps: int, n_positions: int) -> Prompt:
    """CFGG-01. The negative prompt of n rows a prompt: one for all prompts or one each, with room for `steps` tokens."""
    if len(negative.ids) not in (1, prompts):
        raise InputError(
            f"negative_prompt_ids of {len(negative.ids)} rows", f"must have 1 or {prompts}, like input_ids", "CFGG-01"
        )
    if negative.mask.sum(axis=1).max() + steps - 1 > n_positions:
        raise InputError(
            f"negative_prompt_ids of {negative.width} tokens",
            f"and {steps} new ones are more than n_positions={n_positions}",
            "CFGG-01",
            "Shorten it, or set a smaller max_new_tokens.",
        )
    return negative.repeated(n * prompts // len(negative.ids))
