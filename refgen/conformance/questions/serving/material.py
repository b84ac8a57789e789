"""Prompts with their right answers, computed by the reference of a server's model, and the judgement of the answers.

The reference computes which token is best at every step and by how much. So prompts can be chosen at which rounding
cannot change the text. `logit_bias` steers a text to a character that is split over two tokens.

Axes    V tokens, T new tokens.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.conformance.judging.completions import visible_text
from refgen.conformance.judging.judge import noise_format
from refgen.conformance.judging.lab import Reference
from refgen.conformance.subjects.protocol import GarbledError
from refgen.conformance.subjects.values import shown
from refgen.errors import TokenizerError
from refgen.generation.scores import log_softmax
from refgen.oracle.margins import Flip, Judgement, judge_tokens
from refgen.oracle.noise import Noise, expected_error, ratio
from refgen.shapes import Float

TEXTS = (
    "ROMEO:",
    "The king",
    "To be, or not to be",
    "What is the",
    "My lord,",
    "Once upon a time",
    "Good morrow",
    "In the beginning",
    "Hello",
    "The capital of France is",
    "I have a",
    "First of all, the",
)
BIAS = 100.0  # the largest that OpenAI's logit_bias takes
FAR = 32  # new tokens to look ahead
HOPELESS = 128.0  # expected errors behind the best at which rounding need not be looked at
CLEAR = 8.0  # expected errors of a difference by which a best token is called clear
LETTERS = "éüñçøåßæêöäàèìòùâîôûабвгдежзийклмноптуфхцчшщыэюяαβγδεζηθικλμνξοπρστυφχψω世界你好日本語"


@dataclass(frozen=True)
class Walk:
    """The greedy tokens of the reference after a prompt, up to its end token or FAR tokens. `margins` to the second
    best.
    """

    prompt: list[int]
    ids: list[int]
    margins: list[float]
    ended: bool

    def clear(self, least: float) -> int:
        """The number of tokens before the first without a clear best."""
        return next((t for t, margin in enumerate(self.margins) if margin < least), len(self.margins))


class Material:
    """What the reference of a model knows beforehand; `dtype` is what the server computes in."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.tokenizer = reference, reference.tokenizer
        self.config = reference.gpt2.config
        self.dtype = noise_format(reference.dtype)
        self.ends = list(reference.model.generation_config.eos_ids)

    # --- Prompts ---

    @functools.cached_property
    def walks(self) -> list[Walk]:
        """Of all prompts that survive encoding and decoding, the ones with the longest clear text first."""
        prompts = []
        for text in TEXTS:
            try:
                ids = self.tokenizer.encode(text)
            except TokenizerError:
                continue
            if ids and self.tokenizer.decode(ids) == text and self.tokenizer.encode(text) == ids:
                prompts.append(ids)
        walked = [self.walk(prompt) for prompt in prompts]
        return sorted(walked, key=lambda path: -min(path.clear(self.least), 24))

    def walk(self, prompt: Sequence[int], count: int = FAR, biases: Mapping[int, float] | None = None) -> Walk:
        """The tokens of the reference after a prompt, with numbers added to the logits of some tokens."""
        cache, ids, margins = Cache(), [], []
        new = list(prompt)
        for _ in range(min(count, self.config.n_positions - len(prompt))):
            z = self.reference.model([new], past_key_values=cache, logits_to_keep=1).logits[0, -1].copy()
            for token, bias in (biases or {}).items():
                z[token] += bias
            second, best = np.argsort(z)[-2:]
            new = [int(best)]
            ids += new
            margins.append(float(z[best] - z[second]))
            if best in self.ends:
                break
        return Walk(list(prompt), ids, margins, bool(ids) and ids[-1] in self.ends)

    @functools.cached_property
    def least(self) -> float:
        """The margin from which a best token is clear: CLEAR expected errors of a difference of two logits."""
        prompts = [self.tokenizer.encode(text) for text in TEXTS[:2]]
        scales = [self.noise(tuple(prompt)).scale["lm_head"] for prompt in prompts]
        return CLEAR * math.sqrt(2) * max(float(scale.max()) for scale in scales)

    @property
    def best(self) -> Walk:
        """The prompt with the longest clear text."""
        return self.walks[0]

    def text_of(self, path: Walk, count: int | None = None) -> str:
        """What a server shows of the first `count` tokens."""
        return visible_text(self.tokenizer, path.ids[:count])

    @functools.cached_property
    def split_character(self) -> tuple[Walk, dict[str, float], str] | None:
        """A character of two tokens that the model produces with two biases: its walk, the biases, the character.

        After the prompt the first token must lead the second, and after the first token the second must lead. Their
        biases differ by the middle of the range that the two steps allow, and both lead all others.
        """
        found: list[tuple[float, Walk, dict[str, float], str]] = []
        pairs = [(letter, ids) for letter in LETTERS if len(ids := self.tokenizer.encode(letter)) == 2]
        for walk in self.walks[:3]:
            z = self.reference.model([walk.prompt]).logits[0, -1]
            for first in {ids[0] for _, ids in pairs}:
                behind = self.reference.model([[*walk.prompt, first]]).logits[0, -1]
                up = min(float(np.ptp(z) + np.ptp(behind)) / 2 + 10, 80.0)
                for letter, ids in pairs:
                    if ids[0] == first != ids[1]:
                        most, least = (float(each[first] - each[ids[1]]) for each in (z, behind))
                        biases = {str(first): up, str(ids[1]): up + (most + least) / 2}
                        found.append(((most - least) / 2, walk, biases, letter))
        for margin, walk, biases, letter in sorted(found, key=lambda each: -each[0]):
            if margin < self.least:
                break
            steered = self.walk(walk.prompt, 2, {int(token): bias for token, bias in biases.items()})
            if max(biases.values()) <= BIAS and self.tokenizer.decode(steered.ids) == letter:
                return steered, biases, letter
        return None

    # --- Judging ---

    def tokens(self, prompt: Sequence[int], choice: Mapping[str, Any], limit: int) -> list[int]:
        """The ids of a choice; where only its text is known, the likeliest ones that give it. The end token, if it ended so.

        Many servers leave that out of the ids; one that stopped before its limit of tokens has said it.
        """
        ids = choice["ids"]
        if ids is None or choice["ids_from"] == "text":
            ids = self.read(prompt, choice["text"])
        short = len(ids) < limit and not (ids and ids[-1] in self.ends)
        if choice["finish_reason"] == "stop" and self.ends and short:
            ids = [*ids, self.ends[0]]
        return list(ids)

    def read(self, prompt: Sequence[int], text: str) -> list[int]:
        """A text as tokens: at each step the best of those it goes on with."""
        ids: list[int] = []
        cache, new, rest = Cache(), list(prompt), text.rstrip("\ufffd").encode()
        spelled = [self.tokenizer.token_bytes(token) for token in range(self.config.vocab_size)]
        while rest:
            z = self.reference.model([new], past_key_values=cache, logits_to_keep=1).logits[0, -1]
            fitting = [token for token, each in enumerate(spelled) if each and rest.startswith(each)]
            if not fitting:
                raise GarbledError(f"the text {shown(text)} is not a text of this model: no token gives {shown(rest)}")
            self.reference.fits(prompt, [*ids, 0])
            new = [max(fitting, key=lambda token: z[token])]
            ids += new
            rest = rest[len(spelled[new[0]]) :]
        return ids

    def judge(self, prompt: Sequence[int], choice: Mapping[str, Any], limit: int) -> Judgement | None:
        """Bug or tie; None if it has no token. Rounding is looked at step by step only where it might explain a token."""
        ids = self.tokens(prompt, choice, limit)
        if not ids:
            return None
        self.reference.fits(prompt, ids)
        z = self.reference.model([[*prompt, *ids[:-1]]]).logits[0, len(prompt) - 1 :]
        flips = [self.flip(z[t], t, token) for t, token in enumerate(ids) if token != z[t].argmax()]
        if not set(ids[:-1]) & set(self.ends) and (not flips or max(flip.sigmas for flip in flips) > HOPELESS):
            return Judgement(self.dtype, tuple(flips), np.zeros(len(ids)))
        return judge_tokens(self.reference.gpt2, prompt, ids, self.dtype, self.ends)

    def flip(self, z: ndarray, step: int, token: int) -> Flip:
        """A token that is not the best, with the error that is expected elsewhere."""
        margin = float(z.max() - z[token])
        return Flip(step, token, int(z.argmax()), int((z > z[token]).sum()) + 1, margin, self.least / CLEAR)

    def chosen_logprobs(self, ids: Sequence[int], temperature: float = 1.0) -> tuple[ndarray, ndarray]:
        """The logprob of each of `ids` but the first given those before it, and its expected error. T long."""
        self.reference.fits([], ids)
        noise = self.noise(tuple(ids[:-1]))
        z = noise.exact["lm_head"][0]
        exact = logprobs(z / temperature, ids[1:])
        errors = [logprobs((z + each[0]) / temperature, ids[1:]) - exact for each in noise.samples["lm_head"]]
        return exact, np.sqrt(np.mean(np.square(errors), axis=0))

    def exact_logprobs(self, ids: Sequence[int], temperature: float = 1.0) -> ndarray:
        """The same without the error."""
        self.reference.fits([], ids)
        return logprobs(self.reference.model([ids[:-1]]).logits[0] / temperature, ids[1:])

    @functools.cache  # noqa: B019 - as long as the material is there
    def noise(self, ids: tuple[int, ...]) -> Noise:
        """Exact logits and expected errors, as the subject's dtype has them."""
        return expected_error(self.reference.gpt2, np.array([ids]), dtype=self.dtype)


def logprobs(z: Float[ndarray, "T V"], chosen: Sequence[int]) -> Float[ndarray, "T"]:
    """log softmax of each row at its chosen token."""
    return log_softmax(z)[np.arange(len(chosen)), list(chosen)]


def off(numbers: Iterable[float], exact: ndarray, sigma: ndarray) -> ndarray:
    """How far numbers are from the exact ones, in expected errors: of logits, of a float32 sum of V and of six digits in text."""
    numbers = np.array(list(numbers))
    floor = 1e-6 * np.maximum(1.0, np.abs(exact))
    return ratio(np.abs(numbers - exact), np.sqrt(sigma**2 + floor**2))
