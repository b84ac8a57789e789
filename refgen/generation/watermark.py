"""Watermarks: scores moved by what only the holder of a key can repeat. Rules WMARK-01 to WMARK-04 of SPEC.md.

The green list of Kirchenbauer et al. (arXiv 2301.10226) and SynthID-Text (Nature 634, 818), each as transformers
has it, so that its detectors find the mark. Both depend on ids alone; a row's padding does not count.

Axes    B rows, S columns so far, V tokens, n tokens an n-gram, d keys.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.generation.processors import Processor
from refgen.generation.prompt import Prompt, contexts
from refgen.generation.torch_stream import TorchStream
from refgen.model import softmax

TABLE_SIZE = 1_000_003
CANDIDATES = 40  # of selfhash: how many of the best tokens are looked at


def watermark(settings: Mapping[str, Any], prompt: Prompt) -> Processor:
    """WMARK-01 to WMARK-03. One of the two kinds, by the names of its settings."""
    if "keys" in settings:
        return partial(synthid, settings=settings, width=prompt.width)
    return partial(green_list, settings=settings, prompt_mask=prompt.mask)


def green_list(ids: ndarray, scores: ndarray, *, settings: Mapping[str, Any], prompt_mask: ndarray) -> ndarray:
    """WMARK-01, WMARK-02. Adds a bias to a part of the vocabulary that a key and the tokens before decide.

    "lefthash": the last token draws the green list. "selfhash": each of the 40 best tokens draws one with itself at the
    end, and is biased if it is in it.
    """
    scores = scores.copy()
    V, width, key = scores.shape[1], settings["context_width"], settings["hashing_key"]
    size = int(V * settings["greenlist_ratio"])
    for row, context in contexts(ids, prompt_mask):
        if len(context) < width:
            continue
        if settings["seeding_scheme"] == "lefthash":
            green = greens(key * context[-1], V, size)
        else:
            best = np.argsort(-scores[row], kind="stable")[:CANDIDATES].tolist()
            green = [token for token in best if token in greens(self_seed([*context, token][-width:], key), V, size)]
        scores[row, green] += np.float32(settings["bias"])
    return scores


def greens(seed: int, V: int, size: int) -> list[int]:
    """The first of a permutation of the vocabulary."""
    return permutation(seed % (2**64 - 1), V, size)


def self_seed(window: Sequence[int], key: int) -> int:
    """WMARK-02. The least of key times two entries of a fixed table, each token's and the last one's; 64 bits that wrap."""
    entries = hash_table(key)[np.array(window) % TABLE_SIZE] + 1
    return int((np.int64(key) * entries * entries[-1]).min())


@lru_cache(maxsize=4)
def hash_table(key: int) -> ndarray:
    """The table that a key fixes, int64."""
    return np.array(permutation(key, TABLE_SIZE, TABLE_SIZE))


def permutation(seed: int, n: int, size: int) -> list[int]:
    """WMARK-04. The first `size` of `torch.randperm(n)` after `manual_seed(seed)`: each swaps with a drawn one after
    it.
    """
    places = list(range(n))
    for i, word in enumerate(TorchStream(seed).words(min(size, n - 1)).tolist()):
        j = i + word % (n - i)
        places[i], places[j] = places[j], places[i]
    return places[:size]


def synthid(ids: ndarray, scores: ndarray, *, settings: Mapping[str, Any], width: int) -> ndarray:
    """WMARK-03. Probabilities pass a tournament for each key, whose coins the last n - 1 new tokens and the key decide.

    The prompt of `width` columns counts as zeros. A row whose last tokens were there before in this run is left alone.
    """
    n, new = settings["ngram_len"], ids.shape[1] - width
    first = n - 1 if settings["skip_first_ngram_calls"] else 0
    if new < first:
        return scores
    text = np.column_stack([np.zeros((len(ids), n - 1), np.int64), ids[:, width:]])
    *past, now = (hashed(np.ones(len(ids), np.int64), text[:, t : t + n - 1]) for t in range(first, new + 1))
    nothing = [np.zeros_like(now)] * settings["context_history_size"]  # so the history begins
    repeated = (np.stack([*nothing, *past])[-len(nothing) :] == now).any(axis=0)
    return np.where(repeated[:, None], scores, tournament(scores, coins(now, scores.shape[1], settings)))


def hashed(state: ndarray, data: ndarray) -> ndarray:
    """A linear congruential hash of `data` `[... k]` on top of `state` `[...]`, in 64 bits that wrap."""
    for column in np.moveaxis(data, -1, 0):
        state = (state + column) * np.int64(6364136223846793005) + np.int64(1)
    return state


def coins(context: ndarray, V: int, settings: Mapping[str, Any]) -> ndarray:
    """`[B V d]` zeros and ones: for each token and key, an entry of a fixed table of coins."""
    with_token = hashed(context[:, None], np.arange(V)[:, None])  # [B V]
    with_key = hashed(with_token[..., None], np.array(settings["keys"])[:, None])  # [B V d]
    size = settings["sampling_table_size"]
    return coin_table(settings["sampling_table_seed"], size)[with_key % size]


@lru_cache(maxsize=4)
def coin_table(seed: int, size: int) -> ndarray:
    """`torch.randint(0, 2, (size,))` after `manual_seed(seed)`."""
    return (TorchStream(seed).words(size) % 2).astype(np.float32)


def tournament(scores: ndarray, coins_of: ndarray) -> ndarray:
    """Each key doubles the chance of tokens with a one, as far as the others allow; as logarithms."""
    p = softmax(scores)
    for coin in np.moveaxis(coins_of, -1, 0):
        p = p * (1 + coin - (coin * p).sum(axis=1, keepdims=True))
    log_p = np.log(p)
    return np.where(np.isfinite(log_p), log_p, np.finfo(np.float32).min)
