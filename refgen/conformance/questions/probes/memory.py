"""Probes that remember: attention copies what stands somewhere else. They show positions, masks, caches and padding.

The stream has fields for the token, for the place (where in the text), for what attention brings, and ballast. A head looks
at one place by a query that holds the wanted place and keys that hold their own.

Axes    V tokens, N positions, C = n_embd.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy import ndarray

from refgen.conformance.questions.cases import Case
from refgen.conformance.questions.probes.probe import (
    LETTERS,
    Probe,
    balance,
    biases_of,
    blank,
    configured,
    ids,
    parts_of,
    says,
    special,
    words,
)

SHARP = 8.0  # queries and keys: a match scores 4 * SHARP^2 / sqrt(32) = 45
LOUD = 4.0  # what attention brings, against 1 of the token itself
GAIN = 8.0

FUTURE = ("sees-next", "not-causal")


def finished(tensors: dict[str, ndarray], token: ndarray) -> None:
    """The head reads the token's field only."""
    tensors["ln_f.weight"][:] = 0
    tensors["ln_f.weight"][token] = GAIN


def looking(tensors: dict[str, ndarray], layer: int, place: ndarray, back: int, lower: float = 0.0) -> None:
    """Queries at position p want the key of position p - back; all scores are lower by `lower` * 5.7 or so."""
    q, k, _, _ = parts_of(tensors, layer)
    N = len(place)
    for p in range(back, N):
        q[place[p], p - back] = SHARP
    k[place, np.arange(N)] = SHARP
    of_queries, of_keys, _ = biases_of(tensors, layer)
    of_queries[-1], of_keys[-1] = lower, -lower


# --- Copies -----------------------------------------------------------------------------------------------


def copy(back: int) -> Probe:
    """The next token is the one `back` before it: at position p attention looks at p - back + 1 and brings its token.

    Scores of what is looked at are -45, of all else -90, so a softmax that adds one to its sum brings nothing.
    """
    V, N, C = 12, 14, 32
    config = configured(V, N, C)
    tensors = blank(config)
    token, place, ballast = np.split(np.arange(C), [V, V + N])
    tensors["wte.weight"][:, token] = np.eye(V)
    tensors["wpe.weight"][:, place] = np.eye(N)
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    looking(tensors, 0, place, back - 1, lower=22.5)
    _, _, v, proj = parts_of(tensors, 0)
    v[token, token] = 1
    proj[token, token] = LOUD / 2
    finished(tensors, token)
    sentence = f"The token {back} back."
    letters = words(LETTERS[: V - 1])
    rules = ("FWD-02", "FWD-07", "FWD-09", "CACHE-02")
    probe = Probe(f"copy-{back}", sentence, rules, config, tensors, letters, special(config))
    return probe.asked(*copies(back, N))


def copies(back: int, N: int) -> list[Case]:
    """The questions to a probe that copies from `back` before."""

    def again(prompt: str, count: int) -> list[int]:
        """The last `back` letters over and over."""
        return [ids(prompt)[len(prompt) - back + i % back] for i in range(count)]

    exact = "BJCHDIEKFG"[:back]
    longer, longest = "HE" + exact, "FKC" + exact[::-1]
    always = ("no-positions", "query-key-swapped", "key-value-swapped", "softmax-plus-one", "last-layer-missing")
    cached = ("cached-position-zero", "cached-mask-top-left")
    beyond = ("cache-loses-last",) if back > 1 else ()
    return [
        says("alone", ["FWD-09", "CACHE-02"], "attention looks elsewhere, or the cache is off by one", [ids(exact)],
             [again(exact, N - back)], kills=(*always, *cached, *beyond)),
        says("longer", ["FWD-02"], "attention looks elsewhere", [ids(longest)], [again(longest, 6)], kills=always),
        says("padded", ["PAD-04", "PAD-05"], "padding is seen, or moves positions", [ids(exact), ids(longest)],
             [again(exact, 5), again(longest, 5)], kills=("padding-visible",)),
        says("batch", ["BATCH-01", "PAD-05"], "a row copies from another one", [ids(longest), ids(longer), ids(exact)],
             [again(each, 6) for each in (longest, longer, exact)], kills=("no-positions",)),
    ]  # fmt: skip


def copy_3() -> Probe:
    """The token 3 back."""
    return copy(3)


def copy_5() -> Probe:
    """The token 5 back."""
    return copy(5)


def first() -> Probe:
    """The first token of all, however long ago: a window of attention that slides loses it."""
    V, N, C = 20, 256, 32
    config = configured(V, N, C)
    tensors = blank(config)
    token, others = np.arange(V), np.arange(V, C)
    start, ballast = others[0], others[1:]
    tensors["wte.weight"][:, token] = np.eye(V)
    tensors["wpe.weight"][:, start] = -1
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    tensors["wpe.weight"][0, start] = 1  # this one's mean is not 0; it is looked at by the sign
    _, k, v, proj = parts_of(tensors, 0)
    biases_of(tensors, 0)[0][0] = 2 * SHARP
    k[start, 0] = SHARP
    v[token, token] = 1
    proj[token, token] = LOUD / 2
    finished(tensors, token)
    letters = words(LETTERS[: V - 1])
    probe = Probe("first", "The first token, however long ago.", ("FWD-09", "CACHE-01"), config, tensors, letters,
                  special(config))  # fmt: skip
    long = [ids("F") + ids("BCDEGH" * 33), ids("D") + ids("BCEGH" * 7)]
    return probe.asked(
        says("short", ["FWD-09"], "the first key is out of sight", [ids("CAB")], [ids("CCCCCCCC")],
             kills=("misses-first", "no-query-bias")),
        says("long", ["FWD-09"], "attention has a window", long[:1], [ids("FFFFFFFFFF")], kills=("misses-first",)),
        says("long-and-short", ["FWD-09", "PAD-05"], "attention has a window, or sees padding", [*long, ids("GB")],
             [ids("FFFF"), ids("DDDD"), ids("GGGG")], kills=("misses-first", "padding-visible", "cached-padding-visible")),
    )  # fmt: skip


# --- Two layers -------------------------------------------------------------------------------------------


def induction() -> Probe:
    """What followed the last occurrence of the token before: two layers, the second built on the first.

    Layer 0 brings every place the token before it. In layer 1 the query is the token, the keys are the tokens before: they match
    where the same token was followed by something, which is brought. Later places score higher, 6 a place, so the last one wins.
    """
    V, N, C = 13, 24, 64
    config = configured(V, N, C, n_layer=2)
    tensors = blank(config)
    token, place, before, ballast = np.split(np.arange(C), [V, V + N, 2 * V + N])
    tensors["wte.weight"][:, token] = np.eye(V)
    tensors["wpe.weight"][:, place] = np.eye(N)
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    looking(tensors, 0, place, 1)
    _, _, v, proj = parts_of(tensors, 0)
    v[token, np.arange(V)] = 1
    proj[np.arange(V), before] = 1 / 2
    q, k, v, proj = parts_of(tensors, 1)
    q[token, np.arange(V)] = 4 * SHARP
    k[before, np.arange(V)] = 2 * SHARP
    biases_of(tensors, 1)[0][V] = 6 * SHARP
    k[place, V] = np.arange(N) / 2
    v[token, np.arange(V)] = 2
    proj[np.arange(V), token] = LOUD
    finished(tensors, token)
    letters = words(LETTERS[: V - 1])
    probe = Probe("induction", "What followed the last occurrence.", ("FWD-03", "FWD-09", "CACHE-02"), config, tensors,
                  letters, special(config))  # fmt: skip
    return probe.asked(
        says("repeat", ["FWD-09", "CACHE-02"], "earlier text is not found again", [ids("LABCDEA")], [ids("BCDEAB")],
             kills=("cached-mask-top-left",)),
        says("last-of-two", ["FWD-08"], "not the last occurrence is found", [ids("LABGAEFA")], [ids("EFAEF")]),
        says("padded", ["PAD-05", "BATCH-01"], "padding is seen", [ids("LABCDEFGHC"), ids("LAKBA")],
             [ids("DEFGHC"), ids("KBAKBA")]),
    )  # fmt: skip


def leak(name: str, H: int, strong: float, sentence: str) -> Probe:
    """Says o as long as nobody sees the X it must not see, and ! from then on.

    In layer 0 every query looks for X, with a score of `strong`, and a place that sees one is marked. In layer 1 the
    query looks for marked places of ordinary letters. X comes last in a text, or fills the padding, so no ordinary
    letter may ever see it. o, ! and X itself are not ordinary letters.
    """
    V, N, C = 16, 32, 32
    config = configured(V, N, C, n_layer=2, n_head=H)
    tensors = blank(config)
    token, others = np.arange(V), np.arange(V, C)
    mark, ballast = others[0], others[1:]
    X, fine, seen = 12, 13, 14
    tensors["wte.weight"][:, token] = np.eye(V)
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    root = (C // H) ** 0.5
    _, k, v, proj = parts_of(tensors, 0)
    biases_of(tensors, 0)[0][0] = strong
    k[X, 0] = strong / 2  # 2 of it is read
    v[X, 0] = 1
    proj[0, mark] = 2
    _, k, v, proj = parts_of(tensors, 1)
    biases_of(tensors, 1)[0][0] = 2 * SHARP
    k[mark, 0] = 2 * SHARP
    k[[X, fine, seen], 0] = -32 * SHARP
    v[mark, 0] = 1
    proj[0, seen] = 4
    tensors["h.1.attn.c_proj.bias"][fine] = LOUD
    finished(tensors, token)
    letters = "ABCDEFGHIJKLXo!"
    probe = Probe(name, sentence, ("FWD-09", "FWD-10", "PAD-05"), config, tensors, words(letters), special(config),
                  facts={"score": strong * strong / root})  # fmt: skip

    def padded(rows: Sequence[str]) -> Case:
        """Padding that consists of X."""
        case = says("padding", ["PAD-05", "FWD-09"], "padding is seen", [ids(row, letters) for row in rows],
                    [[fine] * 5 for _ in rows], kills=("padding-visible",))  # fmt: skip
        masks = case.request["attention_mask"]
        filled = [
            [each if real else X for each, real in zip(row, mask, strict=True)]
            for row, mask in zip(case.request["input_ids"], masks, strict=True)
        ]
        return replace(case, request={**case.request, "input_ids": filled})

    return probe.asked(
        says("future", ["FWD-09"], "a token sees the one after it", [ids("ABCDEX", letters)], [[fine] * 6], kills=FUTURE),
        says("nothing-to-see", ["FWD-09"], "the probe is not computed rightly", [ids("ABCDE", letters)], [[fine] * 3]),
        says("something-to-see", ["FWD-09"], "the probe is not computed rightly", [ids("AXCDE", letters)], [[seen] * 3]),
        padded(["ABCDEFG", "ABC", "D"]),
    )  # fmt: skip


def leak_plain() -> Probe:
    """With ordinary scores."""
    return leak("leak", 1, 16.0, "o, or ! if a letter sees an X after it or in the padding.")


def leak_large() -> Probe:
    """With scores of 20,000, which a mask that adds -10,000 does not hide. Heads of 4 keep the products within float16."""
    return leak("leak-large", 8, 200.0, "The same against scores of 20,000: a mask of -10,000 does not hide them.")
