"""Asking any subject for rows and logits of one model, and whether two answers are the same but for rounding.

Where refgen can compute the model, two different greedy answers are both judged by it, and may be a tie. Where it
cannot, answers that differ are counted, and only a majority of them counts as evidence.

Axes    B rows, T positions, V tokens.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.judge import around, end_ids, first_difference
from refgen.conformance.judging.lab import Lab, Reference
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.subjects.protocol import GarbledError
from refgen.errors import TokenizerError
from refgen.oracle.margins import judge_tokens
from refgen.oracle.noise import POSITION, ratio

SENTENCE = (
    "the king and queen of night speak to a little fool who would not hear what love or death had done with him in this fair "
    "house where all men go when they are old or sad but she said good morrow my lord come let us see how it is"
)
TWO = 2**0.5  # the difference of two runs errs by the root of two as much as one


class ModelTalk:
    """A model of the lab's, by default its own; `name` makes the prompts."""

    def __init__(self, lab: Lab, name: str, model: str | None = None) -> None:
        self.lab, self.model = lab, model or lab.own
        self.chance = lab.chance(name)
        self.gives_ids: bool | None = None  # or texts alone: known after the first answer, and true of all

    @property
    def reference(self) -> Reference:
        """refgen's view of the model."""
        return self.lab.reference(self.model)

    @cached_property
    def limit(self) -> int:
        """How many tokens there is room for."""
        return self.reference.gpt2.config.n_positions

    def prompt(self, words: int = 8) -> list[int]:
        """Ids of some words in any order, or of a model that knows no words any ids; few where the context is short."""
        text = " ".join(str(word) for word in self.chance.choice(SENTENCE.split(), words))
        most = max(2, self.limit // 5)
        try:
            return self.reference.tokenizer.encode(text[:1].upper() + text[1:])[:most]
        except TokenizerError:
            if not self.lab.about.loads:
                raise
        ids = [each for each in range(self.reference.gpt2.config.vocab_size) if each not in self.reference.ends]
        return [int(each) for each in self.chance.choice(ids, min(most, words + words // 2))]

    @property
    def speaks(self) -> bool:
        """Whether the model has a tokenizer."""
        try:
            return bool(self.reference.tokenizer)
        except TokenizerError:
            return False

    def prompts(self, count: int, words: int = 8) -> list[list[int]]:
        """Several, most of different lengths."""
        return [self.prompt(words + number % 4) for number in range(count)]

    def rows(self, prompts: Sequence[Sequence[int]], **settings: Any) -> list[dict[str, Any]]:
        """One row for each prompt, the shorter ones padded on the left. Greedy unless `settings` say otherwise.

        For a subject that loads models, without an end token. Many servers cannot switch theirs off.
        """
        width = max(map(len, prompts))
        padded = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
        request: dict[str, Any] = {"input_ids": padded, "do_sample": False, "max_new_tokens": 12}
        request |= {"eos_token_id": None} if self.lab.about.loads else {}
        if len({len(ids) for ids in prompts}) > 1:
            request["attention_mask"] = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        if len(prompts) > 1:
            request["pad_token_id"] = 0
        request |= settings
        rows: list[dict[str, Any]] = self.lab.ask("generate", self.model, **request)["rows"]
        if self.lab.named_end is False:  # it may end by itself or not: what counts is the text up to there
            rows = [until(row, self.reference.ends) for row in rows]
        if self.gives_ids is None:
            self.gives_ids = "new_ids" in rows[0]
        endless = request.get("eos_token_id", 0) is None and "stop_strings" not in request
        for number, row in enumerate(rows if endless else ()):
            if self.lab.named_end is False and {*self.reference.ends} & {*row.get("new_ids", ())}:
                continue
            if (count := len(row.get("new_ids", ()))) not in (request["max_new_tokens"], 0 if "text" in row else -1):
                message = f"row {number} has {count} new tokens and no end token, expected {request['max_new_tokens']}"
                raise GarbledError(message, ("LEN-01",))
        self.look_at(rows, request["max_new_tokens"], may_be_empty="eos_token_id" in settings)
        return rows

    def look_at(self, rows: Sequence[Mapping[str, Any]], asked: int, *, may_be_empty: bool) -> None:
        """Raises `GarbledError` for rows of another kind than those before, and for empty ones."""
        for number, row in enumerate(rows):
            if ("new_ids" in row) != self.gives_ids:
                raise GarbledError(
                    f"row {number} has {'a text' if self.gives_ids else 'new_ids'} alone, unlike answers before"
                )
            if row.get("new_ids") == [] and not may_be_empty:
                raise GarbledError(f"row {number} has no new token, expected {asked}", ("LEN-01",))

    def endless(self) -> dict[str, Any]:
        """What a request says of end tokens, as the subject understands it: none, or nothing of them, which means the model's own."""
        return {"eos_token_id": None} if self.lab.about.loads and self.lab.named_end is not False else {}

    def say(self, prompt: Sequence[int], **settings: Any) -> dict[str, Any]:
        """The only row."""
        return self.rows([prompt], **settings)[0]

    def logits(self, input_ids: Sequence[Sequence[int]], **request: Any) -> ndarray:
        """`[B T V]`."""
        logits: ndarray = self.lab.ask("forward", self.model, input_ids=[list(ids) for ids in input_ids], **request)[
            "logits"
        ]
        return logits

    # --- Comparing ----------------------------------------------------------------------------------------

    def same(self, prompt: Sequence[int], a: dict[str, Any], b: dict[str, Any], what: str) -> Finding:
        """Two greedy answers to one prompt, `what` they are described in few words."""
        mine, other = tokens(a), tokens(b)
        if mine == other:
            return Finding(Verdict.PASS)
        step = first_difference(mine, other)
        message = f"{what}: step {step}, {around(mine, step)} and {around(other, step)}"
        facts = {"step": step, "observed": list(mine), "expected": list(other), "prompt": list(prompt)}
        if isinstance(mine, str) or isinstance(other, str) or step == min(len(mine), len(other)):
            return Finding(Verdict.FAIL, message, facts)
        judged = [self.judged(prompt, each) for each in (mine, other)]
        if all(verdict != "FAIL" for verdict, _ in judged):
            return Finding(Verdict.TIE, f"{message}; rounding explains both", facts)
        wrong = next(sentence for verdict, sentence in judged if verdict == "FAIL")
        return Finding(Verdict.FAIL, f"{message}. {wrong}", facts)

    def judged(self, prompt: Sequence[int], new_ids: list[int]) -> tuple[str, str]:
        """Verdict and sentence of the oracle."""
        self.reference.fits(prompt, new_ids)
        ends = end_ids(self.reference, self.endless())
        found = judge_tokens(self.reference.gpt2, prompt, new_ids, self.lab.noise, ends, samples=6)
        return found.verdict, found.sentence

    def near(self, a: ndarray, b: ndarray, ids: Sequence[Sequence[int]], what: str, mask: Any = None) -> Finding:
        """Two logits `[B T V]` of the same positions, which may each be off by what rounding explains."""
        real = np.ones(np.shape(ids), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        noise = self.lab.expected_error(self.model, np.asarray(ids), real.astype(np.int64), samples=4)
        off = np.sqrt(
            (ratio(np.where(real[..., None], a - b, 0), noise.scale["lm_head"][..., None]) ** 2).mean(axis=-1)
        )
        if np.isfinite(off).all() and off.max() <= POSITION * TWO:
            return Finding(Verdict.PASS)
        row, position = (int(each) for each in np.unravel_index(np.nan_to_num(off, nan=np.inf).argmax(), off.shape))
        message = (
            f"{what}: logits at row {row}, position {position} differ by up to {np.abs(a - b)[row, position].max():.3g}, "
            f"{off[row, position]:.3g} times what rounding explains"
        )
        return Finding(Verdict.FAIL, message, {"row": row, "position": position})


def tokens(row: dict[str, Any]) -> list[int] | str:
    """The ids, or the text of a subject that gives no ids."""
    return row["new_ids"] if "new_ids" in row else row["text"]


def until(row: dict[str, Any], ends: Sequence[int]) -> dict[str, Any]:
    """The row up to and with its first end token."""
    ids = row.get("new_ids", ())
    at = next((place for place, token in enumerate(ids) if token in ends), None)
    return row if at is None else row | {"new_ids": ids[: at + 1], "finish": "eos"}


def must(holds: bool, message: str, **facts: Any) -> Finding:
    """A finding of something that holds or not."""
    return Finding(Verdict.PASS) if holds else Finding(Verdict.FAIL, message, facts)
