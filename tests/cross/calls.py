"""Whole calls of generate(), drawn at random: any mode, prompt, padding, subset of settings, source of settings and seed.

A new field of `GenerationConfig` needs one line in `values`, and one in `NEUTRAL` if it has a value that asks for
nothing. A new argument of `generate()` that is a function needs an entry in `FUNCTIONS`.

Axes    B rows, P prompt columns, V tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refgen import GPT2Config, GPT2LMHeadModel
from tests.cross.torch_twin import torch_twin
from tests.strategies import random_model

# --- The models: few and tiny, so that a call costs little ------------------------------------------------

VOCABULARIES = (4, 5, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 64, 80, 100, 120)
POSITIONS = (40, 32, 12)  # the last is soon full


@cache
def pair(number: int) -> tuple[GPT2LMHeadModel, Any]:
    """Model `number` in float32, and its twin in transformers."""
    rng = np.random.default_rng(number)
    config = GPT2Config(
        vocab_size=VOCABULARIES[number % len(VOCABULARIES)], n_positions=POSITIONS[number % len(POSITIONS)],
        n_embd=8 * int(rng.integers(1, 4)), n_head=2, n_layer=1 + number % 4 // 3,
        tie_word_embeddings=bool(rng.integers(2)), scale_attn_by_inverse_layer_idx=bool(rng.integers(2)),
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = random_model(config, int(rng.integers(2**32)), "float32")
    return model, torch_twin(model)


# --- Functions of a caller's own, by name -----------------------------------------------------------------

FUNCTIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "logits_processor": {
        "halved": lambda ids, scores: scores / 2,
        "by the last id": lambda ids, scores: scores + 0.5 * (ids[:, -1:] % 3),
        "without odd ids": lambda ids, scores: np.where(np.arange(scores.shape[1]) % 2, -np.inf, scores),
    },
    "prefix_allowed_tokens_fn": {
        "every other id": lambda V, row, ids: list(range((row + int(ids[-1])) % 2, V, 2)),
        "the first three": lambda V, row, ids: [0, 1, 2],
    },
    "stopping_criteria": {
        "at eight columns": lambda ids: ids.shape[1] == 8,
        "at every fifth id": lambda ids: ids[:, -1] % 5 == 0,
        "at two in a row": lambda ids: ids[:, -1] == ids[:, max(0, ids.shape[1] - 2)],
    },
}

# --- What is asked ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One call: the settings of the model's own configuration, of a passed one (or None), and of the call itself."""

    model: int
    prompt: list[list[int]] | None
    mask: list[list[int]] | None
    seed: int
    call: dict[str, Any]
    passed: dict[str, Any] | None = None
    own: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[dict[str, Any], ...]:
        """The settings by source, the strongest last; None in a configuration is no setting (CFG-05)."""
        return self.sayable, self.passed or {}, self.call

    @cached_property
    def sayable(self) -> dict[str, Any]:
        """STOP-08. The settings of the model's own configuration without end and pad ids that it cannot say."""
        ids = {"eos_token_id", "pad_token_id"}
        return {
            name: value
            for name, value in self.own.items()
            if name not in ids or np.max(value, initial=0) < self.vocab_size
        }

    @cached_property
    def settings(self) -> dict[str, Any]:
        """CFG-04. The settings that count, None where one is switched off."""
        return {name: value for layer in self.layers for name, value in layer.items()}

    def get(self, name: str, default: Any = None) -> Any:
        """The value that counts, or `default` where there is none or None."""
        value = self.settings.get(name)
        return default if value is None else value

    @property
    def vocab_size(self) -> int:
        """V."""
        return VOCABULARIES[self.model % len(VOCABULARIES)]

    @property
    def n_positions(self) -> int:
        """Of the model."""
        return POSITIONS[self.model % len(POSITIONS)]

    @property
    def beams(self) -> int:
        """1 for none."""
        return self.get("num_beams", 1)

    @property
    def samples(self) -> bool:
        """Whether chance is asked for."""
        return self.get("do_sample") is True

    @property
    def ends(self) -> list[int]:
        """The end tokens."""
        given = self.get("eos_token_id", [])
        return list(given) if isinstance(given, list | tuple) else [given]

    @cached_property
    def ids(self) -> np.ndarray:
        """The prompt `[B P]`; without one, the begin token."""
        return np.array([[self.get("bos_token_id", 0)]] if self.prompt is None else self.prompt)

    @cached_property
    def seen(self) -> np.ndarray:
        """The mask `[B P]`; without one, pad ids are padding unless they are ends (PAD-01)."""
        if self.mask is not None:
            return np.array(self.mask)
        pad = self.get("pad_token_id")
        padding = pad is not None and pad not in self.ends and self.prompt is not None
        return (self.ids != pad).astype(np.int64) if padding else np.ones_like(self.ids)

    @property
    def width(self) -> int:
        """P."""
        return self.ids.shape[1]

    def active(self) -> Iterator[str]:
        """The fields that ask for something which this mode can do, and the functions."""
        yield from self.functions
        for name, value in self.settings.items():
            lookup = self.get("prompt_lookup_num_tokens") is not None
            silent = (
                (name in CHANCE and not self.samples)
                or (name in OF_BEAMS and self.beams == 1)
                or (name in OF_LOOKUP and not lookup)
            )
            if value is not None and value not in NEUTRAL.get(name, ()) and not silent:
                if name == "forced_bos_token_id" and self.width > 1:
                    continue
                yield name


# --- The settings -----------------------------------------------------------------------------------------

CHANCE = ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
OF_BEAMS = ("length_penalty", "early_stopping")
OF_LOOKUP = ("max_matching_ngram_size",)
# What test_stop_strings_equal_transformers and test_modes.py look at: they need a tokenizer, a draft model or other answers.
ELSEWHERE = {
    "stop_strings", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "output_hidden_states", "output_attentions",
}  # fmt: skip

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "min_new_tokens": (0,), "min_length": (0,), "do_sample": (False,), "num_beams": (1,), "num_return_sequences": (1,),
    "length_penalty": (1.0,), "early_stopping": (False,), "temperature": (1.0,), "top_k": (0,), "top_p": (1.0,),
    "min_p": (0.0,), "typical_p": (1.0,), "epsilon_cutoff": (0.0,), "eta_cutoff": (0.0,), "repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,), "remove_invalid_values": (False,), "renormalize_logits": (False,),
    "guidance_scale": (1.0,), "max_matching_ngram_size": (2,), "use_cache": (True,), "return_dict_in_generate": (False,), "output_scores": (False,), "output_logits": (False,),
}  # fmt: skip


Draw = Callable[["Dice", int], Any]  # (dice, V) -> a value

VALUES: Mapping[str, Draw] = {
    "min_new_tokens": lambda dice, V: dice.below(4),
    "min_length": lambda dice, V: dice.below(9),
    "max_time": lambda dice, V: dice.one_of(1000.0, 1000.0, 1000.0, 0.0),
    "use_cache": lambda dice, V: dice.one_of(True, False, False),
    "length_penalty": lambda dice, V: dice.one_of(1.0, -1.0, 0.0, 0.5, 2.0, 10.0),
    "early_stopping": lambda dice, V: dice.one_of(False, True, "never", True, "never"),
    "temperature": lambda dice, V: dice.one_of(1.0, 0.7, 1.7, 0.3, 0.01, 1e-4, 1e-39, 100.0),
    "top_k": lambda dice, V: dice.one_of(0, 1, 2, 5, 1000, dice.below(V) + 1, dice.below(V) + 1),
    "top_p": lambda dice, V: dice.one_of(1.0, 0.8, 0.3, 0.95, 0.5, 0.01, 0.0),
    "min_p": lambda dice, V: dice.one_of(0.0, 0.05, 0.3, 0.9, 1.0),
    "top_h": lambda dice, V: dice.one_of(0.9, 0.3, 0.7, 0.01, 0.95),  # near 1 rounding decides about the last
    "typical_p": lambda dice, V: dice.one_of(1.0, 0.6, 0.2, 0.95, 0.01),
    "epsilon_cutoff": lambda dice, V: dice.one_of(0.0, 0.01, 0.1, 0.5),
    "eta_cutoff": lambda dice, V: dice.one_of(0.0, 0.01, 0.1, 0.5),
    "repetition_penalty": lambda dice, V: dice.one_of(1.0, 1.3, 0.7, 2.0, 10.0),
    "sequence_bias": lambda dice, V: {
        tuple(dice.ids(V)): dice.one_of(0.0, -20.0, -3.0, -0.5, 1.0, 4.0) for _ in range(1 + dice.below(4))
    },
    "no_repeat_ngram_size": lambda dice, V: dice.one_of(0, 2, 1, 3, 4, 2),
    "bad_words_ids": lambda dice, V: [dice.ids(V) for _ in range(1 + dice.below(3))],
    "forced_bos_token_id": lambda dice, V: dice.below(V),
    "forced_eos_token_id": lambda dice, V: dice.one_of(dice.below(V), dice.ids(V)),
    "remove_invalid_values": lambda dice, V: dice.one_of(False, True, True),
    "exponential_decay_length_penalty": lambda dice, V: (dice.below(4), dice.one_of(1.0, 1.1, 1.5, 3.0)),
    "suppress_tokens": lambda dice, V: dice.ids(V),
    "begin_suppress_tokens": lambda dice, V: dice.ids(V),
    "renormalize_logits": lambda dice, V: dice.one_of(False, True, True),
    "guidance_scale": lambda dice, V: dice.one_of(1.0, 1.5, 3.0, 0.0, -1.0),
    "watermarking_config": lambda dice, V: dice.one_of(
        {"bias": 2.0}, {"bias": 4.0, "greenlist_ratio": 0.5, "hashing_key": 7}
    ),
    "prompt_lookup_num_tokens": lambda dice, V: dice.one_of(2, 1, 5),
    "max_matching_ngram_size": lambda dice, V: dice.one_of(2, 1, 3),
    "prefill_chunk_size": lambda dice, V: dice.one_of(3, 1, 2, 8),
    "bos_token_id": lambda dice, V: dice.below(V),
}
# What a source may say that a stronger one overrules.
OVERRULED: Mapping[str, Draw] = {
    **VALUES,
    "max_new_tokens": lambda dice, V: 1 + dice.below(5),
    "max_length": lambda dice, V: 9 + dice.below(5),
    "eos_token_id": lambda dice, V: dice.below(V),
    "pad_token_id": lambda dice, V: dice.below(V),
}

# Values that refgen refuses wherever they stand, by the rule it names (CFG-10).
INVALID: Mapping[str, tuple[tuple[Any, str], ...]] = {
    "max_new_tokens": ((0, "LEN-01"), (-3, "LEN-01"), ("3", "LEN-01")),
    "max_length": ((0, "LEN-02"),),
    "min_new_tokens": ((-1, "LEN-07"),),
    "min_length": ((-1, "LEN-08"), (2.5, "LEN-08")),
    "max_time": ((-1.0, "LEN-09"),),
    "do_sample": ((1, "CFG-11"), ("yes", "CFG-11")),
    "use_cache": ((1, "CACHE-02"),),
    "num_return_sequences": ((0, "SAMP-07"), (-1, "SAMP-07")),
    "num_beams": ((0, "BEAM-12"), (-1, "BEAM-12")),
    "length_penalty": ((float("inf"), "BEAM-06"), ("1", "BEAM-06")),
    "early_stopping": (("always", "BEAM-07"), (1, "BEAM-07")),
    "temperature": ((-1.0, "TEMP-02"), (float("inf"), "TEMP-02"), ("hot", "TEMP-02")),
    "top_k": ((-1, "TOPK-02"), (2.5, "TOPK-02"), (True, "TOPK-02")),
    "top_p": ((-0.1, "TOPP-04"), (1.5, "TOPP-04")),
    "min_p": ((-0.1, "MINP-01"), (1.5, "MINP-01")),
    "top_h": ((0.0, "TOPH-01"), (1.5, "TOPH-01")),
    "typical_p": ((0.0, "TYP-01"), (1.5, "TYP-01")),
    "epsilon_cutoff": ((-0.1, "EPS-01"), (1.0, "EPS-01")),
    "eta_cutoff": ((-0.1, "ETA-01"), (1.0, "ETA-01")),
    "repetition_penalty": ((0.0, "REP-03"), (-1.0, "REP-03")),
    "sequence_bias": (({}, "BIAS-01"), ({(-1,): 1.0}, "BIAS-01")),
    "no_repeat_ngram_size": ((-1, "NGRAM-01"), (1.5, "NGRAM-01")),
    "bad_words_ids": (([], "BAD-01"), ([[]], "BAD-01"), ([[-1]], "BAD-01")),
    "forced_bos_token_id": ((-1, "FORCE-01"),),
    "forced_eos_token_id": (([], "FORCE-02"), (-1, "FORCE-02")),
    "remove_invalid_values": ((1, "INV-01"),),
    "exponential_decay_length_penalty": (((0, 0.5), "EXPD-01"), ((0,), "EXPD-01")),
    "suppress_tokens": (([], "SUP-01"), ([-1], "SUP-01"), ([1000], "STOP-08")),
    "begin_suppress_tokens": (([], "SUP-02"), ([1000], "STOP-08")),
    "renormalize_logits": ((1, "PROC-04"),),
    "bos_token_id": ((-1, "IN-02"),),
    "eos_token_id": (([], "STOP-03"), (-1, "STOP-03"), (1000, "STOP-08")),
    "pad_token_id": ((-1, "STOP-07"), (1000, "STOP-08")),
    "return_dict_in_generate": ((1, "OUT-01"),),
    "output_scores": ((1, "OUT-02"),),
    "output_logits": ((1, "OUT-02"),),
}  # fmt: skip

# Numbers of another kind than transformers wants, by what it wants there.
OTHER_KINDS: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0, 0.0, 2, np.float32(0.5)),
    "top_k": (np.int64(3),),
    "repetition_penalty": (2, np.float32(1.5)),
    "sequence_bias": ({(1,): 2, (0, 2): -1},),
}

# --- The strategy -----------------------------------------------------------------------------------------


class Dice:
    """A row of bytes as a row of choices. 0 is always the simplest, so Hypothesis shrinks each choice by itself."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1, n at most 256."""
        return next(self._data) % n

    def one_of(self, *options: Any) -> Any:
        """Any of them; the first is the simplest."""
        return options[self.below(len(options))]

    def once_in(self, times: int) -> bool:
        """True once in so many times."""
        return self.below(times) == times - 1

    def ids(self, V: int) -> list[int]:
        """One to three ids."""
        return [self.below(V) for _ in range(1 + self.below(3))]

    def split(self) -> "Dice":
        """64 further choices made from two bytes, for a part of a call that the other parts do not shift."""
        both = bytes(islice(self._data, 2))
        return Dice(blake2b(both, digest_size=64).digest() if any(both) else bytes(64))


LENGTH = 2 * (6 + len(VALUES) + len(OVERRULED))


def requests() -> st.SearchStrategy[Request]:
    """Any call. Shrinks to a greedy one with few settings, all in the call."""
    return st.binary(min_size=LENGTH, max_size=LENGTH).map(lambda data: request(Dice(data)))


def request(dice: Dice) -> Request:
    """The call that the dice make."""
    rest = dice.split()
    model = rest.below(3 * len(VOCABULARIES))
    V = VOCABULARIES[model % len(VOCABULARIES)]
    prompt, mask, padding = prompts(dice.split(), V)
    settings = frame(dice.split(), V, 1 if prompt is None else len(prompt[0]))
    if padding and "pad_token_id" in settings and rest.once_in(2):  # padding may be of any id, or of this
        prompt = np.where(padding, settings["pad_token_id"], prompt).tolist()
    meant = set(VALUES) - (set() if "do_sample" in settings else set(CHANCE)) - (
        set() if "num_beams" in settings else set(OF_BEAMS))  # fmt: skip
    if (prompt is not None and len(prompt) > 1) or settings.keys() & {"num_beams", "num_return_sequences"}:
        meant -= {"prompt_lookup_num_tokens"}  # is for one row
    rarity = rest.one_of(30, 10, 10, 10, 6, 3)
    for name, draw in VALUES.items():
        part = dice.split()
        if part.once_in(rarity if name in meant else 10 * rarity):
            settings[name] = draw(part, V)
    if "prompt_lookup_num_tokens" in settings and rest.once_in(2):
        settings["max_matching_ngram_size"] = rest.one_of(1, 3)
    if rest.once_in(16):
        settings |= rest.one_of(*ODD)
    functions = rest.one_of(*SOME_FUNCTIONS) if rest.once_in(6) else {}
    own, passed, call = spread(dice.split(), dice, settings, V)
    seed = int.from_bytes(bytes(rest.below(256) for _ in range(5)), "little") * rest.one_of(1, 1, -1, 2**20)
    return Request(model, prompt, mask, seed, call, passed, own, functions)


ODD = [{name: value} for name, entries in INVALID.items() for value, _ in entries] + [
    {name: value} for name, entries in OTHER_KINDS.items() for value in entries for _ in range(3)
]
SOME_FUNCTIONS = [{name: choice} for name, choices in FUNCTIONS.items() for choice in choices]
MODES = [{}] * 3 + [{"do_sample": True}] * 4 + [{"num_beams": K} for K in (2, 3, 4)] + [
    {"num_beams": K, "do_sample": True} for K in (2, 3)]  # fmt: skip


def frame(dice: Dice, V: int, P: int) -> dict[str, Any]:
    """Mode, limit, ends, pad id and what is returned."""
    settings = dict(dice.one_of(*MODES))
    if settings and dice.once_in(3):
        settings["num_return_sequences"] = 1 + dice.below(settings.get("num_beams", 3))
    if "do_sample" in settings and not dice.once_in(4):
        settings["top_k"] = 0  # instead of 50, which is rarely fewer than all
    new = dice.one_of(1, 2, 3, 4, 1, 2, 3, 5, 6)
    limit = dice.below(30)  # once in 30 times the default, which is 20 new tokens
    settings |= {"max_new_tokens": new} if limit < 20 else {"max_length": P + new} if limit < 29 else {}
    ends = dice.one_of(None, dice.below(V), None, dice.ids(V), dice.ids(V))
    pad = dice.one_of(None, dice.below(V), dice.below(V), dice.below(V), ends if isinstance(ends, int) else None)
    settings |= {name: value for name, value in (("eos_token_id", ends), ("pad_token_id", pad)) if value is not None}
    outputs = ("return_dict_in_generate", "output_scores", "output_logits")
    return settings | dict.fromkeys(outputs[: dice.one_of(3, 3, 3, 3, 3, 3, 2, 1, 0)], True)


def prompts(dice: Dice, V: int) -> tuple[Any, Any, Any]:
    """Ids, a mask or None, and where padding stands; once in a while a prompt that makes no sense, or none."""
    B, P = dice.one_of(1, 2, 3), dice.one_of(1, 2, 3, 4, 5, 6, 8)
    padding = np.arange(P) < np.array([[dice.below(P)] for _ in range(B)]) * dice.below(2)
    ids = np.random.default_rng([dice.below(256), dice.below(256)]).integers(0, V, (B, P))
    mask, kind = 1 - padding.astype(np.int64), dice.below(40)
    if kind == 39:
        return None, None, None
    if kind >= 37:
        ids, mask = dice.one_of(*NO_PROMPTS)(ids, mask)
        return ids.tolist(), mask.tolist(), None
    return ids.tolist(), mask.tolist() if (padding.any() and kind % 8) or kind % 2 else None, padding.tolist()


NO_PROMPTS: tuple[Callable[..., Any], ...] = (
    lambda ids, mask: (ids + 1000, mask),
    lambda ids, mask: (ids - 1000, mask),
    lambda ids, mask: (ids, mask * 0),
    lambda ids, mask: (np.pad(ids, ((0, 0), (1, 0))), np.pad(mask[:, ::-1], ((0, 0), (0, 1)))),
    lambda ids, mask: (ids, np.pad(mask, ((0, 0), (0, 1)))),
    lambda ids, mask: (ids, mask[:, 1:]),
    lambda ids, mask: (ids[:, :0], mask[:, :0]),
    lambda ids, mask: (np.tile(ids, 41), np.tile(np.ones_like(mask), 41)),
)


def spread(dice: Dice, parts: Dice, settings: dict[str, Any], V: int) -> tuple[Any, Any, Any]:
    """The settings laid into the model's own configuration, a passed one and the call; some twice, some switched off."""
    how = dice.below(4)  # 0 and 1: all in the call
    layers: list[dict[str, Any]] = [{}, {}, {}]  # call, passed, own
    for name, value in settings.items():
        layers[dice.below(3) if how > 1 else 0][name] = value
    call, passed, own = layers
    for name, draw in OVERRULED.items() if how == 3 else ():
        part = parts.split()
        if part.once_in(20):
            own.setdefault(name, draw(part, V))
        if part.once_in(200):
            call[name] = None
    return own, passed if passed or how == 3 else None, call
