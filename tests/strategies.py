"""Random GPT-2s, prompts, settings, texts, merges and records of the kit, for every test that states a law."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refgen import GPT2Config, GPT2LMHeadModel, bpe
from refgen.activations import ACTIVATIONS
from refgen.checkpoints import assemble, tensor_shapes
from refgen.conformance.judging.claims import CLAIMS
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.subjects.protocol import DTYPES, OPERATIONS, About


@st.composite
def gpt2_configs(draw: Any, **fixed: Any) -> GPT2Config:
    """Tiny configurations over all switches that the forward pass knows."""
    n_head = draw(st.sampled_from((1, 2, 3, 4)))
    config = GPT2Config(
        vocab_size=draw(st.integers(4, 60)),
        n_positions=draw(st.integers(24, 40)),
        n_embd=n_head * draw(st.integers(2, 8)),
        n_layer=draw(st.integers(1, 3)),
        n_head=n_head,
        n_inner=draw(st.one_of(st.none(), st.integers(1, 40))),
        activation_function=draw(st.sampled_from(sorted(ACTIVATIONS))),
        layer_norm_epsilon=draw(st.sampled_from((1e-5, 1e-6, 1e-12, 1e-3))),
        scale_attn_weights=draw(st.booleans()),
        scale_attn_by_inverse_layer_idx=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        bos_token_id=None,
        eos_token_id=None,
    )
    return replace(config, **fixed)


def random_tensors(config: GPT2Config, seed: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Weights large enough that every part of the network matters: biases and gains too."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        spread = 0.5 if name.endswith(("bias", "wpe.weight")) else 1.0 if len(shape) == 1 else 2.0 / np.sqrt(shape[0])
        spread = 1.0 if name in ("wte.weight", "lm_head.weight") else spread
        tensors[name] = rng.normal(0, spread, shape).astype(dtype)
    return tensors


def random_model(config: GPT2Config, seed: int, dtype: str = "float64") -> GPT2LMHeadModel:
    """A model with such weights."""
    return GPT2LMHeadModel(assemble(config, random_tensors(config, seed, dtype)))


def models(dtype: str = "float64", **fixed: Any) -> st.SearchStrategy[GPT2LMHeadModel]:
    """Models over all switches."""
    return st.builds(random_model, gpt2_configs(**fixed), st.integers(0, 2**32 - 1), st.just(dtype))


@st.composite
def prompts(draw: Any, vocab_size: int, rows: int | None = None, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Ids `[B P]` and a mask with padding on the left, at least one token a row."""
    B = draw(st.integers(1, 4)) if rows is None else rows
    P = draw(st.integers(1, width))
    ids = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, vocab_size, (B, P))
    pads = [draw(st.integers(0, P - 1)) for _ in range(B)]
    mask = (np.arange(P) >= np.array(pads)[:, None]).astype(np.int64)
    return ids, mask


def scores(rows: int = 2, width: int = 12) -> st.SearchStrategy[np.ndarray]:
    """float32 `[B V]` scores without ties by accident, some with ties on purpose."""

    def build(seed: int, V: int, ties: bool) -> np.ndarray:
        values = np.random.default_rng(seed).normal(0, 3, (rows, V)).astype(np.float32)
        return np.round(values) if ties else values

    return st.builds(build, st.integers(0, 2**32 - 1), st.integers(2, width), st.booleans())


@st.composite
def sampling_settings(draw: Any) -> dict[str, Any]:
    """Any subset of the settings that shape chance."""
    choices = {
        "temperature": st.sampled_from((0.3, 0.7, 1.0, 1.5, 3.0)),
        "top_k": st.integers(0, 20),
        "top_p": st.sampled_from((0.1, 0.5, 0.9, 0.99, 1.0)),
        "min_p": st.sampled_from((0.0, 0.02, 0.2, 1.0)),
    }
    return {name: draw(values) for name, values in choices.items() if draw(st.booleans())}


# --- What the conformance kit records ---------------------------------------------------------------------

NAMES = st.sampled_from(("eos.first", "cache.prefix", "a"))
RULES = st.sampled_from(
    ((), ("FWD-16",), ("EOS-01",), ("EOS-01", "PAD-04"), ("PAD-04", "EOS-01", "TOPP-01"), ("GONE-01", "FWD-16"))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
SIZES = st.floats(0, 1e6) | st.sampled_from(("inf", "nan"))
STAGES = st.builds(
    dict,
    name=st.sampled_from(("drop", "h.0.ln_1", "h.11", "lm_head", "<b>")),
    overall=SIZES,
    worst=SIZES,
    passes=st.booleans(),
)
POWER = st.builds(dict, fault=st.sampled_from(("top_p_early", "&")), tokens=SIZES, detected=st.floats(0, 1))
FACTS = st.fixed_dictionaries(  # what reports draw
    {},
    optional={
        "margins": st.lists(SIZES, max_size=4), "stages": st.lists(STAGES, max_size=4), "overall": SIZES, "worst": SIZES,
        "power": st.lists(POWER, max_size=2),
    },
)  # fmt: skip


def hostile_texts() -> st.SearchStrategy[str]:
    """Texts that break tokenizers, of every character that has one class in all versions of Unicode in use (TOK-06)."""
    known = st.characters(exclude_categories=["Cs", "Cn"])
    spaces = [
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        "\t",
        "\v",
        "\x1c",
        "\x85",
        "\xa0",
        "\u2003",
        "\u2028",
        "\u3000",
    ]
    endings = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'lL", "'d", "'", "''", "\u2019s", "'é"]
    words = [
        "the",
        "The",
        "a",
        "é",
        "Ж",
        "日本",
        "ﬁ",
        "ʰ",
        "e\u0301",
        "\u0301",
        "क्षि",
        "a\u200bb",
        "\u180e",
        "\u0131",
        "\u017f",
    ]
    numbers = ["7", "12", "½", "²", "٣", "Ⅷ", "\u3007", "1,000"]
    marks = [
        "!",
        "...",
        "_",
        "😀",
        "👩\u200d👩\u200d👧",
        "🇩🇰",
        "\0",
        "\x7f",
        "\ufeff",
        "\ufffd",
        "\ue000",
        "\U0010ffff",
        "<|",
    ]
    ends = [bpe.END, "<|end", "oftext|>", "<|ENDOFTEXT|>"]
    every = [*spaces, *endings, *words, *numbers, *marks, *ends]
    pieces = st.sampled_from(every)
    long = st.integers(0, 2**32 - 1).map(lambda seed: "".join(random.Random(seed).choices(every, k=200)))
    return st.one_of(st.text(known), st.lists(st.one_of(pieces, known)).map("".join), long)


@st.composite
def merge_lists(draw: Any, order: str = "any") -> list[bpe.Pair]:
    """Merges of two to six characters, many of which overlap.

    In the order "any", a merge may come before those that make its parts, and two merges may make the same token. In
    the order "trained" neither happens, and each token's own text is merged to that token.
    """
    tokens, merges = list(draw(st.sampled_from(["ab", "aĠ", "abc", "abĠ'Ã©"]))), []
    for _ in range(draw(st.integers(0, 12))):
        left, right = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        longer = [*merges, (left, right)]
        new = left + right not in tokens and len(left + right) <= 24
        if new and (order == "any" or bpe.merged(left + right, bpe.rank_of(longer)) == [left + right]):
            tokens.append(left + right)
            merges = longer
    if order == "trained":
        return merges
    twice = [(token[:cut], token[cut:]) for token in tokens for cut in range(1, len(token))]
    more = draw(st.lists(st.sampled_from(twice), max_size=6)) if twice else []
    return draw(st.permutations([*merges, *(pair for pair in more if {*pair} <= {*tokens})]))


def results(
    verdicts: tuple[Verdict, ...] = tuple(Verdict), facts: Any = None, claims: tuple[str, ...] = tuple(CLAIMS)
) -> st.SearchStrategy[Result]:
    """One result of one of these claims; `facts` is a strategy for those of its finding."""
    pointed = st.sampled_from(((), (), ("EOS-01",)))
    fault = st.sampled_from((None, None, "gelu_erf", "dec_pos_stale"))
    text = st.just("why") if facts is None else st.text(max_size=10)
    finding = st.builds(
        Finding, st.sampled_from(verdicts), text, st.just({}) if facts is None else facts, pointed, fault
    )
    asked = st.lists(st.sampled_from(OPERATIONS).map(lambda op: {"op": op, "input_ids": [[1]]}), max_size=1).map(tuple)
    drawn = st.tuples(NAMES, st.sampled_from(claims), RULES, text, finding, st.floats(0, 100), asked)
    return drawn.map(lambda own: Result(own[0], own[1], own[4].rules or own[2], *own[3:]))


def abouts() -> st.SearchStrategy[About]:
    """What subjects say of themselves."""
    return st.builds(
        About, NAMES, NAMES, st.sampled_from(DTYPES), st.frozensets(st.sampled_from(OPERATIONS)),
        st.dictionaries(NAMES, NAMES, max_size=2), st.booleans(), declarations(),
    )  # fmt: skip


def declarations() -> st.SearchStrategy[frozenset[str]]:
    """Claims that a subject declares."""
    return st.frozensets(st.sampled_from(tuple(CLAIMS)), max_size=3)


def runs(several: st.SearchStrategy[list[Result]] | None = None) -> st.SearchStrategy[Run]:
    """Whole records."""
    facts = st.dictionaries(st.text(max_size=4), JSON, max_size=2) | FACTS
    several = st.lists(results(facts=facts), max_size=5) if several is None else several
    return st.builds(
        Run, abouts(), several.map(tuple), seed=st.integers(0, 99), models=st.lists(NAMES, max_size=2).map(tuple),
        only=st.lists(st.sampled_from((*CLAIMS, "loop.*")), max_size=2).map(tuple), declared=declarations(),
        command=st.text(max_size=8),
    )  # fmt: skip
