"""Stopping: when a row is finished, and why. Rules STOP-01 to STOP-09, LEN-01 to LEN-09 and SSTR-01 to SSTR-04.

Each condition looks at the rows after a token was appended. The first that holds names the finish:

    eos           the new token is an end token; it stays in the output
    stop_string   a stop string ends in the new token, which stays whole
    criterion     a function of the caller returns True
    length        the row has reached the requested length
    context       the row fills the model's positions, so no further token could be computed
    time          the time is over

Axes    B rows, S columns so far.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError
from refgen.generation.config import GenerationConfig
from refgen.generation.prompt import Prompt, contexts
from refgen.tokenizer import Tokenizer

Stop = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], mask [B S]) -> [B]
Criterion = Callable[[ndarray, None], Any]  # (ids [B S], None) -> bool or [B]


def stopping(
    config: GenerationConfig,
    max_length: int,
    n_positions: int,
    tokenizer: Tokenizer | None = None,
    stopping_criteria: Iterable[Criterion] = (),
) -> dict[str, Stop]:
    """STOP-01. The conditions by the finish they name, in the order they are asked."""
    conditions: dict[str, Stop] = {"eos": partial(eos, eos_ids=config.eos_ids)}
    if config.stop_strings:
        if tokenizer is None:
            raise GenerationError(
                f"stop_strings={list(config.stop_strings)}",
                "need a tokenizer to be found",
                "SSTR-01",
                "Pass tokenizer=.",
            )
        conditions["stop_string"] = partial(stop_string, strings=config.stop_strings, tokenizer=tokenizer)
    if functions := list(stopping_criteria):
        conditions["criterion"] = partial(criterion, functions=functions)
    conditions["length"] = partial(length, max_length=max_length)
    conditions["context"] = partial(context, n_positions=n_positions)
    if config.max_time is not None:
        conditions["time"] = partial(out_of_time, deadline=time.monotonic() + config.max_time)
    return conditions


def eos(ids: ndarray, mask: ndarray, *, eos_ids: tuple[int, ...]) -> ndarray:
    """STOP-02, STOP-03. Only the newest token counts: an end token in the prompt stops nothing."""
    return np.isin(ids[:, -1], eos_ids)


def stop_string(ids: ndarray, mask: ndarray, *, strings: tuple[str, ...], tokenizer: Tokenizer) -> ndarray:
    """SSTR-01 to SSTR-03. A string that ends within the newest token, in bytes; it may begin in any token before."""
    stops = [text.encode() for text in strings]
    longest = max(map(len, stops))
    hits = []
    for _, context in contexts(ids, mask):
        newest, text = tokenizer.token_bytes(context[-1]), last_bytes(tokenizer, context[:-1], longest)
        hits.append(any(stop in text[max(0, len(text) - len(stop) + 1) :] + newest for stop in stops))
    return np.array(hits)


def last_bytes(tokenizer: Tokenizer, ids: Sequence[int], count: int) -> bytes:
    """The end of a text: its last tokens, as many as make `count` bytes. An id that no token has makes none (TOK-14)."""
    text = b""
    for token_id in reversed(ids):
        if len(text) >= count:
            break
        text = tokenizer.token_bytes(token_id) + text
    return text


def criterion(ids: ndarray, mask: ndarray, *, functions: Iterable[Criterion]) -> ndarray:
    """STOP-09. Functions of the ids so far that say True or False, for all rows or for each."""
    hits = np.zeros(len(ids), dtype=bool)
    for function in functions:
        said = np.asarray(function(ids.copy(), None))
        if said.dtype != bool or said.shape not in ((), (len(ids),)):
            raise GenerationError(
                f"a stopping_criteria gave {said.dtype} of shape {list(said.shape)}",
                f"must give True or False, one or {len(ids)}",
                "STOP-09",
            )
        hits |= said
    return hits


def length(ids: ndarray, mask: ndarray, *, max_length: int) -> ndarray:
    """LEN-02. Columns count, so padding counts; the whole batch reaches the limit at once."""
    return np.full(len(ids), ids.shape[1] >= max_length)


def context(ids: ndarray, mask: ndarray, *, n_positions: int) -> ndarray:
    """LEN-04, LEN-05. Tokens count, padding does not. The last token is never fed back, so n_positions + 1 fit."""
    return mask.sum(axis=1) > n_positions


def out_of_time(ids: ndarray, mask: ndarray, *, deadline: float) -> ndarray:
    """LEN-09. Asked after each token, so there is always one."""
    return np.full(len(ids), time.monotonic() > deadline)


# --- How long at most, how long at least ---------------------------------------------------------------------


def max_length(config: GenerationConfig, prompt: Prompt, n_positions: int) -> int:
    """LEN-01 to LEN-03. The number of columns at the requested length, by default 20 new ones."""
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


# --- What fills finished rows ---------------------------------------------------------------------------------


def filling(
    config: GenerationConfig, prompt: Prompt, limit: int, n_positions: int, stopping_criteria: Sequence[Criterion]
) -> int | None:
    """STOP-05, STOP-07. The pad id, else the first end token; None where all rows finish together."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    if config.eos_ids:
        return config.eos_ids[0]
    tokens = prompt.mask.sum(axis=1)
    at_the_context = tokens.min() != tokens.max() and tokens.max() + limit - prompt.width > n_positions + 1
    if len(tokens) > 1 and (at_the_context or config.stop_strings or stopping_criteria):
        raise GenerationError(
            "pad_token_id=None", "rows can end at different steps and need filling", "STOP-07", "Set pad_token_id."
        )
    return None
