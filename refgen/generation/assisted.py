"""Assisted generation: a draft guesses what comes, one forward pass checks all of it. Rules ASSIST-01 to ASSIST-07.

The loop does not know about drafts. Only the function that gives it logits looks ahead: it computes the logits of a
whole draft in one pass. It hands them out as long as the loop's own choices follow the draft. Processors, chance,
stopping and streaming are the same, and so are the tokens. Only the number of passes changes.

Axes    one row, S columns so far, V tokens.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine
from refgen.errors import GenerationError, InputError
from refgen.generation.config import DEFAULTS, GenerationConfig
from refgen.generation.next_logits import NextLogits
from refgen.generation.processors import Processor
from refgen.model import softmax

Draft = Callable[[ndarray, ndarray, int], list[int]]  # (ids [1 S], mask [1 S], n) -> at most n ids to come


def prompt_lookup(ids: ndarray, mask: ndarray, count: int, *, longest: int) -> list[int]:
    """ASSIST-07. What followed the row's last tokens where they stood first: the most of them, at most `longest`."""
    context = ids[0, mask[0].argmax() :]
    for n in range(min(longest, len(context) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(context[:-1], n)
        matches = np.flatnonzero((windows == context[-n:]).all(axis=1))
        if len(matches):
            following = context[matches[0] + n :]
            return [int(each) for each in following[:count]]
    return []


def shared(one: ndarray, other: ndarray) -> int:
    """How many tokens two sequences begin with together."""
    n = min(len(one), len(other))
    return int(np.cumprod(one[:n] == other[:n]).sum())


def draft_model(assistant: Engine, processors: Iterable[Processor], threshold: float) -> Draft:
    """ASSIST-03. What a smaller model would say, the best token each time, up to one it is less than `threshold` sure of."""
    processors, cache, held = list(processors), Cache(), np.zeros(0, np.int64)

    def draft(ids: ndarray, mask: ndarray, count: int) -> list[int]:
        nonlocal held
        S = ids.shape[1]
        cache.crop(min(len(cache), shared(held, ids[0]), S - 1))
        for _ in range(min(count, assistant.config.n_positions - int(mask.sum()) + 1)):
            logits = assistant.forward(ids[:, len(cache) :], mask, cache=cache, logits_to_keep=1)
            scores = logits[:, -1].astype(np.float32)
            for processor in processors:
                scores = processor(ids, scores)
            best = scores.argmax(axis=1)
            ids, mask = np.column_stack([ids, best]), np.column_stack([mask, [1]])
            if softmax(scores)[0, best[0]] < threshold:
                break
        held = ids[0]
        return [int(token) for token in held[S:]]

    return draft


def by_draft(engine: Engine, cache: Cache, draft: Draft, config: GenerationConfig, limit: int) -> NextLogits:
    """ASSIST-01, ASSIST-02, ASSIST-04. The next token's logits as `by_forward` gives them, several computed at once.

    A draft ends where the row does: at `limit` columns or at the end of the context.
    """
    n_drafted = config.prompt_lookup_num_tokens or config.num_assistant_tokens or DEFAULTS["num_assistant_tokens"]
    adapts = config.prompt_lookup_num_tokens is None and config.num_assistant_tokens_schedule != "constant"
    ahead: ndarray | None = None  # [n + 1, V], the logits after the first `start` columns and after each guess
    guess: list[int] = []
    start = 0

    def next_logits(ids: ndarray, mask: ndarray) -> ndarray:
        nonlocal ahead, guess, start, n_drafted
        S, new = ids.shape[1], ids[0, start:].tolist()
        if ahead is not None and new == guess[: len(new)]:
            return ahead[[len(new)]]
        if ahead is not None and adapts:
            n_drafted = n_drafted + 2 if len(new) > len(guess) else max(1, n_drafted - 1)
        cache.crop(min(len(cache), S - 1))
        room = min(n_drafted, limit - S - 1, engine.config.n_positions - int(mask.sum()))
        guess, start = draft(ids, mask, room) if room > 0 else [], S
        drafted = np.column_stack([ids, np.array([guess], dtype=ids.dtype)])
        seen = np.column_stack([mask, np.ones((1, len(guess)), mask.dtype)])
        ahead = engine.forward(drafted[:, len(cache) :], seen, cache=cache, logits_to_keep=len(guess) + 1)[0]
        return ahead[[0]]

    return next_logits


def assisted(
    engine: Engine,
    assistant: Engine | None,
    config: GenerationConfig,
    cache: Cache | None,
    processors: Iterable[Processor],
    rows: int,
    limit: int,
) -> NextLogits:
    """ASSIST-01. The logits of a call with a draft: from the draft model, or without one from the row itself."""
    check_assistance(config, rows, engine, assistant)
    if cache is None:
        raise GenerationError(
            "use_cache=False", "leaves a draft nothing to be checked in", "ASSIST-05", "Leave it out."
        )
    draft = (
        partial(prompt_lookup, longest=config.max_matching_ngram_size or DEFAULTS["max_matching_ngram_size"])
        if assistant is None
        else draft_model(assistant, processors, config.assistant_confidence_threshold or 0.0)
    )
    return by_draft(engine, cache, draft, config, limit)


def check_assistance(config: GenerationConfig, rows: int, engine: Engine, assistant: Engine | None) -> None:
    """ASSIST-05. Drafts are for one sequence, with a cache, from one source that speaks the model's ids."""
    asked = (
        "assistant_model" if assistant is not None else f"prompt_lookup_num_tokens={config.prompt_lookup_num_tokens}"
    )
    if assistant is not None and config.prompt_lookup_num_tokens is not None:
        raise GenerationError(
            "assistant_model and prompt_lookup_num_tokens", "are two drafts", "ASSIST-05", "Pass one."
        )
    if rows > 1 or config.beams > 1:
        raise GenerationError(
            asked, f"is for one sequence, here are {rows} rows", "ASSIST-05", "Generate them one by one."
        )
    if config.output_hidden_states or config.output_attentions:
        raise GenerationError(
            asked, "checks several tokens in a pass, so there is no state a step", "OUT-07", "Ask without a draft."
        )
    if assistant is not None and assistant.config.vocab_size != engine.config.vocab_size:
        raise InputError(
            f"assistant_model with a vocabulary of {assistant.config.vocab_size}",
            f"must share the model's, which has {engine.config.vocab_size}",
            "ASSIST-05",
        )
