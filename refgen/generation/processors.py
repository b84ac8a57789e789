"""Processors: logits in, scores out, one function a rule, in the measured order PROC-01.

Every function takes and returns float32 `[B V]` and changes nothing in place. A removed token scores -inf and
stays removed (WARP-02). A processor at its neutral value is left out (PROC-05). A row's context is its tokens
without the padding before them, so that padding counts for nothing (REP-02, NGRAM-02).

Axes    B rows, V tokens, S columns so far.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError
from refgen.generation.config import GenerationConfig
from refgen.generation.prompt import Prompt, contexts
from refgen.generation.watermark import green_list, synthid
from refgen.model import softmax

Unguided = Callable[[ndarray], ndarray]  # ids [B S] -> logits [B V] behind the negative prompt
Processor = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], scores [B V]) -> scores [B V]
AllowedTokens = Callable[[int, ndarray], Sequence[int]]  # (row, its ids [S]) -> the ids that may come next


def processors(
    config: GenerationConfig,
    prompt: Prompt,
    limit: int,
    prefix_allowed_tokens_fn: AllowedTokens | None = None,
    logits_processor: Iterable[Processor] = (),
    unguided: Unguided | None = None,
) -> Iterator[Processor]:
    """PROC-01, PROC-06. The processors that `config` asks for, in order; those that shape chance only when sampling (GREEDY-05).

    `limit` is the number of columns at which the batch is full; the next two are functions of the caller's own;
    `unguided` is the model behind the negative prompt.
    """
    if unguided is not None and config.guidance_scale is not None:
        yield partial(guidance, scale=config.guidance_scale, unguided=unguided)
    yield from penalties_and_bans(config, prompt)
    yield from first_and_last(config, prompt, limit, prefix_allowed_tokens_fn)
    for function in logits_processor:
        yield partial(custom, function=function)
    if config.samples:
        yield from shapes_of_chance(config)
    if config.watermarking_config is not None:
        yield watermark(config.watermarking_config, prompt)
    if config.renormalize_logits:
        yield renormalize


def penalties_and_bans(config: GenerationConfig, prompt: Prompt) -> Iterator[Processor]:
    """What looks at the tokens so far."""
    if config.sequence_bias:
        yield partial(sequence_bias, biases=config.sequence_bias, prompt_mask=prompt.mask)
    if config.repetition_penalty not in (None, 1.0):
        yield partial(repetition_penalty, penalty=config.repetition_penalty, prompt_mask=prompt.mask)
    if config.no_repeat_ngram_size:
        yield partial(no_repeat_ngram, n=config.no_repeat_ngram_size, prompt_mask=prompt.mask)
    if config.bad_words_ids:
        bans = [(sequence, -np.inf) for sequence in config.bad_words_ids]
        yield partial(sequence_bias, biases=bans, prompt_mask=prompt.mask)
    if config.eos_ids and config.min_length:
        yield partial(min_length, least=config.min_length, eos_ids=config.eos_ids)
    if config.eos_ids and config.min_new_tokens:
        yield partial(min_length, least=prompt.width + config.min_new_tokens, eos_ids=config.eos_ids)


def first_and_last(
    config: GenerationConfig, prompt: Prompt, limit: int, prefix_allowed_tokens_fn: AllowedTokens | None
) -> Iterator[Processor]:
    """What looks at where in the text the new token stands, and repairs or removes by id."""
    if prefix_allowed_tokens_fn is not None:
        yield partial(prefix_allowed_tokens, allowed=prefix_allowed_tokens_fn, beams=config.beams)
    if config.forced_bos_token_id is not None:
        yield partial(forced, column=1, forced_ids=(config.forced_bos_token_id,))
    if config.forced_eos_token_id is not None:
        yield partial(forced, column=limit - 1, forced_ids=config.forced_eos_token_id)
    if config.remove_invalid_values:
        yield remove_invalid_values
    if config.exponential_decay_length_penalty is not None:
        start, factor = config.exponential_decay_length_penalty
        yield partial(exponential_decay, start=prompt.width + start, factor=factor, eos_ids=config.eos_ids)
    if config.suppress_tokens:
        yield partial(suppress, suppressed=config.suppress_tokens)
    if config.begin_suppress_tokens:
        begin = prompt.width + (prompt.width == 1 and config.forced_bos_token_id is not None)
        yield partial(suppress, suppressed=config.begin_suppress_tokens, column=begin)


def shapes_of_chance(config: GenerationConfig) -> Iterator[Processor]:
    """What makes sampling narrower or wider. Beams need a token that goes on: one more is kept for each end (WARP-01)."""
    keep = 1 if config.beams == 1 else 1 + max(1, len(config.eos_ids))
    if config.temperature not in (None, 1.0):
        yield partial(temperature, value=config.temperature)
    if config.top_h is not None:
        yield partial(top_h, share=config.top_h)
    if config.top_k:
        yield partial(top_k, k=max(config.top_k, keep))
    if config.top_p is not None and config.top_p < 1.0:
        yield partial(top_p, p=config.top_p, keep=keep)
    if config.min_p:
        yield partial(min_p, p=config.min_p, keep=keep)
    if config.typical_p is not None and config.typical_p < 1.0:
        yield partial(typical_p, mass=config.typical_p, keep=keep)
    if config.epsilon_cutoff:
        yield partial(epsilon_cutoff, epsilon=config.epsilon_cutoff, keep=keep)
    if config.eta_cutoff:
        yield partial(eta_cutoff, epsilon=config.eta_cutoff, keep=keep)


def watermark(settings: Mapping[str, Any], prompt: Prompt) -> Processor:
    """WMARK-01 to WMARK-03. One of the two kinds, by the names of its settings."""
    if "keys" in settings:
        return partial(synthid, settings=settings, width=prompt.width)
    return partial(green_list, settings=settings, prompt_mask=prompt.mask)


# --- Guidance ---------------------------------------------------------------------------------------------


def guidance(ids: ndarray, scores: ndarray, *, scale: float, unguided: Unguided) -> ndarray:
    """CFGG-01. Log-probabilities, moved away from those behind the negative prompt: n + scale (p - n)."""
    with_prompt, with_negative = log_softmax(scores), log_softmax(unguided(ids).astype(np.float32))
    return np.float32(scale) * (with_prompt - with_negative) + with_negative


# --- Penalties and bans -----------------------------------------------------------------------------------


def sequence_bias(
    ids: ndarray, scores: ndarray, *, biases: Iterable[tuple[tuple[int, ...], float]], prompt_mask: ndarray
) -> ndarray:
    """BIAS-01, BAD-01. Adds a bias to the token that would complete a sequence; biases of one token add up."""
    added = np.zeros_like(scores)
    for row, context in contexts(ids, prompt_mask):
        for (*prefix, last), bias in biases:
            if not prefix or context[-len(prefix) :] == prefix:
                added[row, last] += np.float32(bias)
    return scores + added


def repetition_penalty(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """REP-01, REP-02. Each id the row holds: a positive score is divided, a negative one multiplied, once.

    Columns before the row's first unmasked one are padding and do not count.
    """
    scores = scores.copy()
    for row, context in contexts(ids, prompt_mask):
        seen = np.unique(context)
        values = scores[row, seen]
        scores[row, seen] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return scores


def no_repeat_ngram(ids: ndarray, scores: ndarray, *, n: int, prompt_mask: ndarray) -> ndarray:
    """NGRAM-01. Removes every token that would complete n tokens in a row which the row already holds."""
    scores = scores.copy()
    for row, context in contexts(ids, prompt_mask):
        tail = context[len(context) + 1 - n :] if len(context) >= n else None
        for start in range(len(context) - n + 1):
            *beginning, last = context[start : start + n]
            if beginning == tail:
                scores[row, last] = -np.inf
    return scores


def min_length(ids: ndarray, scores: ndarray, *, least: int, eos_ids: tuple[int, ...]) -> ndarray:
    """LEN-07, LEN-08. No end token while there are fewer than `least` columns, prompt and padding counted."""
    if ids.shape[1] >= least:
        return scores
    scores = scores.copy()
    scores[:, list(eos_ids)] = -np.inf
    return scores


# --- By place and by id -----------------------------------------------------------------------------------


def prefix_allowed_tokens(ids: ndarray, scores: ndarray, *, allowed: AllowedTokens, beams: int = 1) -> ndarray:
    """PREF-01. Only the ids a function names for the row so far; if all of those are removed, they all score 0.

    The beams of a prompt share its number, and count as one in this.
    """
    only = np.full_like(scores, -np.inf)
    for row in range(len(ids)):
        named = np.asarray(allowed(row // beams, ids[row].copy()))
        if named.size == 0 or named.dtype.kind not in "iu" or named.min() < 0 or named.max() >= scores.shape[1]:
            raise GenerationError(
                f"prefix_allowed_tokens_fn gave {named.tolist()} for row {row // beams}",
                f"must give ids from 0 to {scores.shape[1] - 1}, at least one",
                "PREF-01",
            )
        only[row, named] = 0
    within = scores + only
    nothing = np.isneginf(within.max(axis=1)).reshape(-1, beams).all(axis=1).repeat(beams)
    return np.where(nothing[:, None], only, within)


def forced(ids: ndarray, scores: ndarray, *, column: int, forced_ids: tuple[int, ...]) -> ndarray:
    """FORCE-01, FORCE-02. For the token in this column nothing but the forced ids, which score 0."""
    if ids.shape[1] != column:
        return scores
    scores = np.full_like(scores, -np.inf)
    scores[:, list(forced_ids)] = 0
    return scores


def remove_invalid_values(ids: ndarray, scores: ndarray) -> ndarray:
    """INV-01. NaN becomes 0, infinities the largest and smallest finite numbers."""
    return np.nan_to_num(scores)


def exponential_decay(ids: ndarray, scores: ndarray, *, start: int, factor: float, eos_ids: tuple[int, ...]) -> ndarray:
    """EXPD-01. From `start` columns on, an end token gains |score| (factor^excess - 1); a removed one stays removed."""
    excess = ids.shape[1] - start
    if excess <= 0:
        return scores
    scores, ends = scores.copy(), list(eos_ids)
    gain = np.abs(scores[:, ends]) * np.float32(factor**excess - 1)
    scores[:, ends] += np.where(np.isfinite(scores[:, ends]), gain, 0)
    return scores


def suppress(ids: ndarray, scores: ndarray, *, suppressed: tuple[int, ...], column: int | None = None) -> ndarray:
    """SUP-01, SUP-02. Removes these ids, everywhere or for the token in one column."""
    if column is not None and ids.shape[1] != column:
        return scores
    scores = scores.copy()
    scores[:, list(suppressed)] = -np.inf
    return scores


def custom(ids: ndarray, scores: ndarray, *, function: Processor) -> ndarray:
    """PROC-03. A function of the caller's own, on copies; it must give numbers of the same shape."""
    result: Any = np.asarray(function(ids.copy(), scores.copy()))
    if result.shape != scores.shape or result.dtype.kind not in "fiu":
        raise GenerationError(
            f"a logits_processor gave {result.dtype} of shape {list(result.shape)}",
            f"must give numbers of shape {list(scores.shape)}",
            "PROC-03",
        )
    return result.astype(np.float32)


# --- Shapes of chance -------------------------------------------------------------------------------------


def temperature(ids: ndarray, scores: ndarray, *, value: float) -> ndarray:
    """TEMP-01. Divided by the temperature; what overflows is found by the loop (TEMP-03)."""
    return scores / np.float32(value)


def top_k(ids: ndarray, scores: ndarray, *, k: int) -> ndarray:
    """TOPK-01. Scores below the k-th largest are removed, so ties with the k-th all stay, also for k = 1 (TOPK-03)."""
    k = min(k, scores.shape[1])
    kth = np.partition(scores, -k, axis=1)[:, -k, None]
    return np.where(scores < kth, -np.inf, scores)


def top_p(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """TOPP-01, TOPP-02. A token stays if the mass strictly before it, best first, is below p; one always stays.

    Seen from the other end: removed while the mass up to and with it, worst first, is at most 1 - p. That is
    how transformers sums, so it is how we sum: in float64, rounded to float32. Of equal scores the lowest ids
    stay (TOPP-03). Probabilities are those of the scores that are left, already tempered and cut (TOPP-05).
    """
    order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")  # worst first, ties by high id
    mass = softmax(np.take_along_axis(scores, order, axis=1)).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    removed = mass <= np.float32(1 - p)
    removed[:, -keep:] = False
    scores = scores.copy()
    np.put_along_axis(scores, order, np.where(removed, -np.inf, np.take_along_axis(scores, order, axis=1)), axis=1)
    return scores


def min_p(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """MINP-01. A token is removed if its probability is strictly below p times the largest."""
    probabilities = softmax(scores)
    low = probabilities < np.float32(p) * probabilities.max(axis=1, keepdims=True)
    low[np.arange(len(scores))[:, None], np.argsort(-probabilities, axis=1, kind="stable")[:, :keep]] = False
    return np.where(low, -np.inf, scores)


def top_h(ids: ndarray, scores: ndarray, *, share: float) -> ndarray:
    """TOPH-01. Of the 100 best, renormalised, the first whose -p log p add up to at most a share of their entropy."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    top = np.take_along_axis(scores, best, axis=1)
    p = softmax(top)
    information = -p * np.log(np.where(p > 0, p, 1))
    within = information.cumsum(axis=1, dtype=np.float64).astype(np.float32) <= entropy(top) * np.float32(share)
    within &= p > 0
    within[:, 0] = True
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, best, within, axis=1)
    return np.where(kept, scores, -np.inf)


def entropy(scores: ndarray) -> ndarray:
    """The sum of -p log p, `[B 1]`, in which a removed token has no part. Takes log p as it is, not of a rounded p."""
    logp = log_softmax(scores)
    return -(np.exp(logp) * np.where(np.isfinite(logp), logp, 0)).sum(axis=1, keepdims=True)


def typical_p(ids: ndarray, scores: ndarray, *, mass: float, keep: int = 1) -> ndarray:
    """TYP-01. The tokens whose surprise is closest to the entropy, until they hold `mass`; ties with the last stay."""
    logp = log_softmax(scores)
    deviation = np.abs(-logp - entropy(scores))
    order = np.argsort(deviation, axis=1, kind="stable")
    held = softmax(np.take_along_axis(scores, order, axis=1)).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    last = np.minimum((held < np.float32(mass)).sum(axis=1, keepdims=True), scores.shape[1] - 1)
    furthest = np.take_along_axis(deviation, np.take_along_axis(order, last, axis=1), axis=1)
    far = deviation > furthest
    np.put_along_axis(far, order[:, :keep], False, axis=1)
    return np.where(far, -np.inf, scores)


def epsilon_cutoff(ids: ndarray, scores: ndarray, *, epsilon: float, keep: int = 1) -> ndarray:
    """EPS-01. Tokens less likely than epsilon are removed, but not the best."""
    return cut(scores, np.float32(epsilon), keep)


def eta_cutoff(ids: ndarray, scores: ndarray, *, epsilon: float, keep: int = 1) -> ndarray:
    """ETA-01. The same, with the smaller of epsilon and sqrt(epsilon) exp(-entropy)."""
    least = np.minimum(np.float32(epsilon), np.sqrt(np.float32(epsilon)) * np.exp(-entropy(scores)))
    return cut(scores, least, keep)


def cut(scores: ndarray, least: Any, keep: int) -> ndarray:
    """Removes tokens of a probability below `least`, except those that score as high as the `keep`-th best."""
    keep = min(keep, scores.shape[1])
    low = (softmax(scores) < least) & (scores < np.partition(scores, -keep, axis=1)[:, -keep, None])
    return np.where(low, -np.inf, scores)


# --- At the very end --------------------------------------------------------------------------------------


def log_softmax(scores: ndarray) -> ndarray:
    """Logarithms of the probabilities; -inf for a removed token."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def renormalize(ids: ndarray, scores: ndarray) -> ndarray:
    """PROC-04. Scores become log-probabilities; the choice does not change."""
    return log_softmax(scores)
