"""Guidance: the same model with another prompt, for the processor that moves away from what it says. Rule CFGG-01.

Axes    B rows, P prompt columns, S columns so far, V tokens.
"""

import numpy as np
from numpy import ndarray

from refgen.errors import InputError
from refgen.generation.next_logits import NextLogits
from refgen.generation.processors import Unguided
from refgen.generation.prompt import Prompt


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
