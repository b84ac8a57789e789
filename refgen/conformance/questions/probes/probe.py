"""A probe: a GPT-2 written by hand, in which one rule decides which token comes out, and what must come out. docs/probes.md.

A probe is plain data; a builder (known.py, memory.py and others) returns one. All numbers are whole or dyadic, so every
machine writes the same bits. What the parts have in common:

- A *field* is a range of the stream's C dimensions in which 1 at the n-th place means n, a token or a position.
- The embedding has each token's 1 in the first field, and the head is the embedding. To produce a token, put more into
  its place than into any other place of that field.
- Positions also carry *ballast*, numbers that are the same everywhere and make the stream's mean 0 and its variance a power
  of 1/4. Then LayerNorm only multiplies, by 2, 4 or 8, and a 0 stays 0.
- A softmax gives all its weight to a score 40 above the others. GELU is exactly 0 at -12 and equals its argument at 12.
  So attention copies and an MLP looks up, in any precision.

Axes    V tokens, N positions, C = n_embd.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors.numpy import save_file

from refgen.bpe import END, byte_characters
from refgen.checkpoints import tensor_shapes
from refgen.checkpoints.safetensors import WEIGHTS
from refgen.config import GPT2Config
from refgen.conformance.questions.cases import Case
from refgen.conformance.subjects.protocol import DTYPES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-*/=<>()"


@dataclass(frozen=True)
class Probe:
    """A whole model folder and the questions to it. `facts` are numbers that follow from the construction, such as its logits."""

    name: str
    sentence: str  # what it says
    rules: tuple[str, ...]
    config: GPT2Config
    tensors: Mapping[str, ndarray]  # float32, named as in `tensor_shapes`
    tokenizer: Mapping[str, Any]  # tokenizer.json
    settings: Mapping[str, Any]  # generation_config.json
    cases: tuple[Case, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = DTYPES  # in which a correct implementation must say what is expected

    def asked(self, *cases: Case) -> "Probe":
        """The same with these questions, which are then named after it."""
        named = [replace(case, id=f"probe.{self.name}.{case.id}", model=self.name) for case in cases]
        return replace(self, cases=(*self.cases, *named))


# --- Networks ---------------------------------------------------------------------------------------------


def configured(V: int, N: int, C: int, **entries: Any) -> GPT2Config:
    """A configuration with one layer and one head, unless `entries` say otherwise; the last token is the end token."""
    end = {"bos_token_id": V - 1, "eos_token_id": V - 1, "pad_token_id": V - 1}
    other = {"n_ctx": N, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    sizes = {"vocab_size": V, "n_positions": N, "n_embd": C, "n_layer": 1, "n_head": 1}
    return GPT2Config(**sizes | end | entries, other=other)


def blank(config: GPT2Config) -> dict[str, ndarray]:
    """All zeros, gains of layer norms one: a network that says the same of every token."""
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    for name, tensor in tensors.items():
        if ".ln_" in f".{name}" and name.endswith(".weight"):
            tensor[...] = 1
    return tensors


def special(config: GPT2Config) -> dict[str, Any]:
    """The special tokens, for generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def balance(x: ndarray, ballast: ndarray, variance: float) -> None:
    """Fills the columns `ballast` of x `[N C]`, alike in every row: with a 1 that the token adds, mean 0 and that variance."""
    first = x[0]
    total, square = 1 + float(first.sum()), 1 + float(first @ first)
    missing = variance * x.shape[1] - square  # so many ones, plus and minus, whose sum is -total
    minus, plus = (missing + total) / 2, (missing - total) / 2
    if minus != int(minus) or plus < 0 or missing > len(ballast):
        raise ValueError(f"{missing} ones with the sum {-total} do not fit {len(ballast)} columns")
    x[:, ballast[: int(minus)]] = -1
    x[:, ballast[int(minus) : int(missing)]] = 1


def parts_of(tensors: Mapping[str, ndarray], layer: int) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Views `[C C]` of one attention: what makes queries, keys and values, and c_proj."""
    q, k, v = np.split(tensors[f"h.{layer}.attn.c_attn.weight"], 3, axis=1)
    return q, k, v, tensors[f"h.{layer}.attn.c_proj.weight"]


def biases_of(tensors: Mapping[str, ndarray], layer: int) -> tuple[ndarray, ndarray, ndarray]:
    """Views `[C]` of the biases of queries, keys and values."""
    q, k, v = np.split(tensors[f"h.{layer}.attn.c_attn.bias"], 3)
    return q, k, v


# --- Words and questions ----------------------------------------------------------------------------------


def words(text: str | Sequence[bytes], merges: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """A `tokenizer.json` whose n-th token is the n-th character of `text`, or the n-th bytes; the last one is the end token."""
    characters = byte_characters()
    pieces = [piece.encode() for piece in text] if isinstance(text, str) else text
    names = ["".join(characters[byte] for byte in piece) for piece in pieces]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(names), "content": END, **flags, "special": True}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate([*names, END])},
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def ids(text: str, letters: str = LETTERS) -> list[int]:
    """The ids of letters."""
    return [letters.index(letter) for letter in text]


def says(
    name: str,
    rules: Iterable[str],
    why: str,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    finish: str | Sequence[str] = "length",
    *,
    kills: Iterable[str] = (),
    bug: str = "BASIC",
    **settings: Any,
) -> Case:
    """A greedy question: `prompts`, the shorter ones padded on the left with token 0, are continued by `answers`."""
    P = max(map(len, prompts))
    padded = {"input_ids": [[0] * (P - len(row)) + list(row) for row in prompts]}
    if any(len(row) < P for row in prompts):
        padded["attention_mask"] = [[0] * (P - len(row)) + [1] * len(row) for row in prompts]
    finishes = [finish] * len(answers) if isinstance(finish, str) else finish
    request = {"max_new_tokens": max(map(len, answers)), "do_sample": False} | settings
    return Case(
        id=name,
        rules=tuple(rules),
        why=why,
        model="",
        op="generate",
        request=padded | {key: value for key, value in request.items() if value is not ...},
        expected={
            "rows": [{"new_ids": list(row), "finish": each} for row, each in zip(answers, finishes, strict=True)]
        },
        bug=bug,
        kills=tuple(kills),
        ties=False,
    )


# --- Files ------------------------------------------------------------------------------------------------


def write(probe: Probe, folder: Path) -> None:
    """A Hugging Face folder, and `expectations.json` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name if name == "lm_head.weight" else f"transformer.{name}": t for name, t in probe.tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": END, "add_prefix_space": False}
    limit = {"model_max_length": probe.config.n_positions}
    for name, entries in (
        ("config.json", probe.config.to_dict() | {"dtype": "float32"}),
        ("generation_config.json", probe.settings),
        ("tokenizer.json", probe.tokenizer),
        ("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", **settings, **limit}),
        ("expectations.json", expectations(probe)),
    ):
        text = json.dumps(entries, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def expectations(probe: Probe) -> dict[str, Any]:
    """The sentence, the rules, the facts and the cases, as JSON has them."""
    cases = [
        {key: value for key, value in vars(case).items() if value not in ((), None) and key not in ("ties", "model")}
        for case in probe.cases
    ]
    return {
        "probe": probe.name,
        "sentence": probe.sentence,
        "rules": probe.rules,
        "dtypes": probe.dtypes,
        "facts": probe.facts,
        "cases": cases,
    }
