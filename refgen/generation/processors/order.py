"""The order of processors (PROC-01): which of them a call has, with which numbers.

A new processor is a function in this package, a line here and a setting in `config.py`.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from refgen.generation.config import GenerationConfig
from refgen.generation.guidance import Unguided, guidance
from refgen.generation.processors import AllowedTokens, Processor, cuts, penalties, places, sampling
from refgen.generation.prompt import Prompt
from refgen.generation.watermark import watermark


def processors(
    config: GenerationConfig,
    prompt: Prompt,
    limit: int,
    prefix_allowed_tokens_fn: AllowedTokens | None = None,
    logits_processor: Iterable[Processor] = (),
    unguided: Unguided | None = None,
) -> Iterator[Processor]:
    """PROC-01, PROC-06. The processors that `config` asks for, in order; those that shape chance only when sampling (GREEDY-05).

    limit                     the number of columns at which the batch is full
    prefix_allowed_tokens_fn  and
    logits_processor          functions of the caller's own
    unguided                  the model after the negative prompt
    """
    if unguided is not None and config.guidance_scale is not None:
        yield partial(guidance, scale=config.guidance_scale, unguided=unguided)
    yield from penalties_and_bans(config, prompt)
    yield from first_and_last(config, prompt, limit, prefix_allowed_tokens_fn)
    for function in logits_processor:
        yield partial(places.custom, function=function)
    if config.samples:
        yield from shapes_of_chance(config)
    if config.watermarking_config is not None:
        yield watermark(config.watermarking_config, prompt)
    if config.renormalize_logits:
        yield places.renormalize


def penalties_and_bans(config: GenerationConfig, prompt: Prompt) -> Iterator[Processor]:
    """Those that look at the tokens so far."""
    if config.sequence_bias:
        yield partial(penalties.sequence_bias, biases=config.sequence_bias, prompt_mask=prompt.mask)
    if config.repetition_penalty not in (None, 1.0):
        yield partial(penalties.repetition_penalty, penalty=config.repetition_penalty, prompt_mask=prompt.mask)
    if config.no_repeat_ngram_size:
        yield partial(penalties.no_repeat_ngram, n=config.no_repeat_ngram_size, prompt_mask=prompt.mask)
    if config.bad_words_ids:
        bans = [(sequence, -np.inf) for sequence in config.bad_words_ids]
        yield partial(penalties.sequence_bias, biases=bans, prompt_mask=prompt.mask)
    if config.eos_ids and config.min_length:
        yield partial(penalties.min_length, least=config.min_length, eos_ids=config.eos_ids)
    if config.eos_ids and config.min_new_tokens:
        yield partial(penalties.min_length, least=prompt.width + config.min_new_tokens, eos_ids=config.eos_ids)


def first_and_last(
    config: GenerationConfig, prompt: Prompt, limit: int, prefix_allowed_tokens_fn: AllowedTokens | None
) -> Iterator[Processor]:
    """Those that look at where in the text the new token stands, and repair or remove by id."""
    if prefix_allowed_tokens_fn is not None:
        yield partial(places.prefix_allowed_tokens, allowed=prefix_allowed_tokens_fn, beams=config.beams)
    if config.forced_bos_token_id is not None:
        yield partial(places.forced, column=1, forced_ids=(config.forced_bos_token_id,))
    if config.forced_eos_token_id is not None:
        yield partial(places.forced, column=limit - 1, forced_ids=config.forced_eos_token_id)
    if config.remove_invalid_values:
        yield places.remove_invalid_values
    if config.exponential_decay_length_penalty is not None:
        start, factor = config.exponential_decay_length_penalty
        yield partial(places.exponential_decay, start=prompt.width + start, factor=factor, eos_ids=config.eos_ids)
    if config.suppress_tokens:
        yield partial(places.suppress, suppressed=config.suppress_tokens)
    if config.begin_suppress_tokens:
        begin = prompt.width + (prompt.width == 1 and config.forced_bos_token_id is not None)
        yield partial(places.suppress, suppressed=config.begin_suppress_tokens, column=begin)


def shapes_of_chance(config: GenerationConfig) -> Iterator[Processor]:
    """Those that make sampling narrower or wider. Beams need a token that goes on: one more is kept for each end (WARP-01)."""
    keep = 1 if config.beams == 1 else 1 + max(1, len(config.eos_ids))
    if config.temperature not in (None, 1.0):
        yield partial(sampling.temperature, value=config.temperature)
    if config.top_h is not None:
        yield partial(cuts.top_h, share=config.top_h)
    if config.top_k:
        yield partial(sampling.top_k, k=max(config.top_k, keep))
    if config.top_p is not None and config.top_p < 1.0:
        yield partial(sampling.top_p, p=config.top_p, keep=keep)
    if config.min_p:
        yield partial(sampling.min_p, p=config.min_p, keep=keep)
    if config.typical_p is not None and config.typical_p < 1.0:
        yield partial(cuts.typical_p, mass=config.typical_p, keep=keep)
    if config.epsilon_cutoff:
        yield partial(cuts.epsilon_cutoff, epsilon=config.epsilon_cutoff, keep=keep)
    if config.eta_cutoff:
        yield partial(cuts.eta_cutoff, epsilon=config.eta_cutoff, keep=keep)
