"""Checks of sampled text: whether tokens follow the law of the settings, each drawn with its own number.
docs/sampling-law.md.

judging/ computes the law of a token (token_law.py) and weighs the tokens (trial.py, evidence.py).
planted/sampler_faults.py has the faults that are bet on. Dice (probes/) have the same logits at every step, so the law
is known exactly, for any number of tokens. With other models each token is judged by the law of the text before it,
with room for rounding.

All checks of a run share one chance of a false alarm, ALPHA. A check asks until it would have seen, with 99 % chance,
every known fault that is visible within its `draws`. If the subject gives too few tokens for that, the check is
inconclusive.

Axes    B rows, P prompt columns, T new tokens a row, S = P + T, N tokens, V vocabulary, n laws (N, or 1 for all).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.choices import advice
from refgen.conformance.judging.judge import noise_format
from refgen.conformance.judging.lab import Lab, Reference
from refgen.conformance.judging.token_law import Rows, Sampler
from refgen.conformance.judging.trial import CopyTrial, Terms, Trial
from refgen.conformance.judging.verdicts import Check, Finding, Verdict
from refgen.conformance.questions.cases import PROCESSING
from refgen.conformance.subjects.protocol import GarbledError, RefusedError, SkippedError
from refgen.model import forward
from refgen.oracle.noise import expected_error

ALPHA = 1e-6  # the chance that a run calls a right sampler wrong
ROWS = 128
REQUESTS = 40  # of one check, at most


# --- Asking -----------------------------------------------------------------------------------------------


@dataclass
class Drawer:
    """Gets sampled rows of a model from the subject: several at once by a seed, or, from one that cannot, less."""

    lab: Lab
    model: str
    chance: np.random.Generator
    ways: list[tuple[str, ...]] = field(
        default_factory=lambda: [("seed", "num_return_sequences"), ("num_return_sequences",), ("seed",), ()]
    )

    @property
    def several(self) -> bool:
        """Whether it may get more than one row in a request."""
        return "num_return_sequences" in self.ways[0]

    def rows(self, prompt: Sequence[int], settings: Mapping[str, Any], n: int, steps: int) -> list[list[int]] | None:
        """The new tokens of up to n rows; None if the subject answers by text whose tokens nobody can tell."""
        seed = int(self.chance.integers(2**31))
        while True:
            more: dict[str, Any] = {"seed": seed, "num_return_sequences": n}
            more = {name: value for name, value in more.items() if name in self.ways[0]}
            request = {"do_sample": True, "max_new_tokens": steps, "eos_token_id": None, **settings, **more}
            try:
                answer = self.lab.ask("generate", self.model, input_ids=[list(prompt)], **request)
            except (SkippedError, RefusedError):
                if len(self.ways) == 1:
                    raise
                self.ways.pop(0)
                continue
            several = self.read(answer["rows"])
            for number, row in enumerate(several or ()):
                if len(row) > steps or len(row) < (steps if self.lab.about.loads else 1):
                    message = f"row {number} has {len(row)} new tokens and no end token, expected {steps}"
                    raise GarbledError(message, ("LEN-01",))
            return several

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[list[int]] | None:
        """Ids of rows. Text is read where every token is one character, as on dice."""
        if all("new_ids" in row for row in rows):
            return [row["new_ids"] for row in rows]
        reference = self.lab.reference(self.model)
        tokenizer = reference.tokenizer
        pieces = [tokenizer.token_bytes(token) for token in range(len(tokenizer) - 1)]
        if any(len(piece) > 1 or not piece.isascii() for piece in pieces):
            return None
        return [row["new_ids"] if "new_ids" in row else reference.ids_of(row["text"]) for row in rows]


# --- The checks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LawCheck:
    """Tokens of one model under some settings, weighed: at most `draws` of them, at least `least`.

    A request is for many rows and few steps, since steps take time; but for `fewest` at least, and `steps` at most.
    """

    id: str
    rules: tuple[str, ...]
    why: str
    model: str
    settings: Mapping[str, Any]
    prompt: tuple[int, ...] = (0,)
    draws: int = 2048
    least: int = 256
    fewest: int = 4
    steps: int = 64
    rows: int = ROWS  # of a request, at most
    first: tuple[str, ...] = ()  # of faults that look the same here, those to name first
    alpha: float = ALPHA
    needs: frozenset[str] = frozenset({"generate"})

    @property
    def claim(self) -> str:
        """What the settings ask for beside chance."""
        return "processors" if PROCESSING & self.settings.keys() else "sampling"

    def run(self, lab: Lab) -> Finding:
        """Asks until the evidence is enough for one verdict or the other."""
        zero = self.settings.get("temperature") == 0
        option = lab.choice("temperature_zero") if zero else "greedy"
        sampler = Sampler(self.settings, lab.about.choices)
        drawer = Drawer(lab, self.model, lab.chance(self.id))
        trial = self.trial(sampler, lab)
        for _ in range(REQUESTS):
            prompt, room = self.ask_for(lab, drawer.chance)
            wanted, most = max(1, trial.wanted()), min(self.steps, room)
            abreast = self.rows if drawer.several else 1
            steps = min(most, max(self.fewest, -(-wanted // abreast)))
            n = min(abreast, -(-wanted // steps))
            try:
                several = drawer.rows(prompt, self.settings, n, steps)
            except RefusedError as error:
                if not zero:
                    raise
                if option == "greedy":
                    raise RefusedError(
                        f"{error}{advice(['temperature_zero=error'], str(error))}", error.rules
                    ) from error
                return Finding(Verdict.CHOICE, "refuses temperature 0, as it declares")
            if option != "greedy":
                verdict = Verdict.FAIL if option == "error" else Verdict.CHOICE
                return Finding(verdict, f"temperature 0 is answered; declared is temperature_zero={option}")
            if several is None:
                return Finding(Verdict.INCONCLUSIVE, "answers with text without ids, so its tokens are unknown")
            for row in several:
                lab.reference(self.model).fits(prompt, row)
            for rows in self.grouped(lab, prompt, several):
                trial.add(rows)
            if trial.over():
                break
        return trial.finding()

    @property
    def terms(self) -> Terms:
        """The plan of its trial."""
        return Terms(self.rules, self.draws, self.least, self.alpha, self.first)

    def trial(self, sampler: Sampler, lab: Lab) -> Trial:
        """What weighs the tokens. The power of an unchanging law is known before its first token."""
        trial = Trial(self.terms, sampler)
        if not sampler.by_text:
            (rows,) = self.grouped(lab, self.prompt, [[0]])
            trial.plan(rows)
        return trial

    def ask_for(self, lab: Lab, chance: np.random.Generator) -> tuple[Sequence[int], int]:
        """The prompt of the next request, and how many tokens fit after it."""
        return self.prompt, lab.reference(self.model).gpt2.config.n_positions - len(self.prompt)

    def grouped(self, lab: Lab, prompt: Sequence[int], several: Sequence[Sequence[int]]) -> Iterator[Rows]:
        """Rows of one length together, with their exact logits. Those of dice are the last of any prompt."""
        exact = lab.reference(self.model).exact
        logits = forward(exact, np.array([prompt]))[:, -1:]
        yield from (Rows(ids, len(prompt), logits) for ids in by_length(prompt, several))


def by_length(prompt: Sequence[int], several: Sequence[Sequence[int]]) -> Iterator[ndarray]:
    """Arrays `[B S]` of prompt and row, for rows of one length above 0 that follow each other: they keep their order."""
    for length, rows in groupby(several, key=len):
        if length:
            yield np.array([[*prompt, *row] for row in rows])


# --- Numbers of their own ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class IndependenceCheck(LawCheck):
    """Whether each token has its own random number: not that of the step before, the row above or another request."""

    def trial(self, sampler: Sampler, lab: Lab) -> Trial:
        """One that looks at copies, whose pace the tokens tell."""
        return CopyTrial(self.terms, sampler)


# --- Text -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextCheck(LawCheck):
    """The same of a model whose logits are others at every step: each token by the law of the text before it."""

    n_prompt: int = 6

    def trial(self, sampler: Sampler, lab: Lab) -> Trial:
        """One whose pace the text tells."""
        return Trial(self.terms, sampler)

    def ask_for(self, lab: Lab, chance: np.random.Generator) -> tuple[Sequence[int], int]:
        """Another prompt each time, of any tokens but end tokens, which may be padding."""
        reference = lab.reference(self.model)
        config = reference.gpt2.config
        P = min(self.n_prompt, config.n_positions // 2)
        ids = np.setdiff1d(np.arange(config.vocab_size), reference.ends)
        return chance.choice(ids, size=P).tolist(), config.n_positions - P

    def grouped(self, lab: Lab, prompt: Sequence[int], several: Sequence[Sequence[int]]) -> Iterator[Rows]:
        """Rows with the logits of each step, and how far off those are expected to be."""
        reference, width = lab.reference(self.model), len(prompt)
        for ids in by_length(prompt, several):
            logits = forward(reference.exact, ids[:, :-1])[:, width - 1 :]
            yield Rows(ids, width, logits, logit_error(reference))


@lru_cache(maxsize=8)
def logit_error(reference: Reference) -> float:
    """The expected error of a logit of that model in the subject's dtype: the largest in a short text of any tokens."""
    config = reference.gpt2.config
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(1, min(24, config.n_positions)))
    noise = expected_error(reference.gpt2, ids, dtype=noise_format(reference.dtype), samples=4)
    return float(noise.scale["lm_head"].max())


# --- Seeds ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedCheck:
    """The same request with the same seed twice, and between them another one with another seed."""

    id: str
    rules: tuple[str, ...]
    why: str
    model: str
    claim: str = "sampling"
    needs: frozenset[str] = frozenset({"generate"})

    def run(self, lab: Lab) -> Finding:
        """Three requests, exact."""
        seeds = lab.chance(self.id).integers(2**31, size=2).tolist()

        def draw(seed: int) -> list[Any]:
            answer = lab.ask("generate", self.model, input_ids=[[0]], do_sample=True, top_k=0, eos_token_id=None,
                             max_new_tokens=48, seed=seed)  # fmt: skip
            return [row.get("new_ids", row.get("text")) for row in answer["rows"]]

        first, other, again = (draw(seed) for seed in (seeds[0], seeds[1], seeds[0]))
        facts = {"seeds": seeds, "first": first, "other": other, "again": again}
        if first != again:
            message = "the same request with the same seed gives other tokens the second time"
            return Finding(Verdict.FAIL, message, facts, ("SAMP-05",), "seed-ignored")
        if not all(each for said in (first, other, again) for each in said):
            return Finding(Verdict.FAIL, "the answer holds no token", facts, ("LEN-01",))
        if sum(map(len, first)) < 16:
            return Finding(Verdict.INCONCLUSIVE, f"{sum(map(len, first))} tokens, which may be equal by chance", facts)
        if first == other:
            return Finding(
                Verdict.FAIL, "another seed gives the same tokens", facts, ("SAMP-05",), "seed-without-effect"
            )
        return Finding(Verdict.PASS)


@dataclass(frozen=True)
class StreamCheck:
    """Token for token what the declared random stream gives."""

    id: str
    rules: tuple[str, ...]
    why: str
    model: str
    claim: str = "sampling"
    needs: frozenset[str] = frozenset({"generate"})

    def run(self, lab: Lab) -> Finding:
        """Exact, for a subject that says that its numbers are torch's."""
        if lab.about.choices.get("random_numbers") != "torch_mt19937":
            return Finding(Verdict.SKIP, "declares no random_numbers=torch_mt19937")
        request: dict[str, Any] = {
            "input_ids": [[0], [1]],
            "do_sample": True,
            "top_k": 5,
            "max_new_tokens": 16,
            "eos_token_id": None,
        }
        seed = int(lab.chance(self.id).integers(2**31))
        rows = lab.ask("generate", self.model, **request, seed=seed)["rows"]
        expected = lab.reference(self.model).model.generate(**request, seed=seed)[:, 1:].tolist()
        observed = [row.get("new_ids") for row in rows]
        if observed == expected:
            return Finding(Verdict.PASS)
        message = f"seed {seed} gives {observed[0]}, expected {expected[0]}"
        return Finding(Verdict.FAIL, message, {"observed": observed, "expected": expected})


# --- Given numbers ----------------------------------------------------------------------------------------

EDGE = 4e-6  # how near the border of two tokens a number comes: some roundings of float32


@dataclass(frozen=True)
class UniformsCheck:
    """Numbers of the kit's own, close to both ends of every token's share: the answer is one, and exact."""

    id: str
    rules: tuple[str, ...]
    why: str
    model: str
    settings: Mapping[str, Any]
    claim: str = "sampling"
    needs: frozenset[str] = frozenset({"generate"})

    def run(self, lab: Lab) -> Finding:
        """One request, a row of numbers."""
        sampler = Sampler(self.settings, lab.about.choices)
        logits = forward(lab.reference(self.model).exact, np.array([[0]]))[:, -1:]
        rows = Rows(np.zeros((1, 2), int), 1, logits)
        u = edges(sampler.law(rows).expected[0])
        request = {"do_sample": True, "max_new_tokens": len(u), "eos_token_id": None, **self.settings}
        (row,) = lab.ask("generate", self.model, input_ids=[[0]], uniforms=[u.tolist()], **request)["rows"]
        expected, observed = by_number(sampler.law(rows).expected[0], u), row.get("new_ids")
        if observed is None:
            return Finding(Verdict.INCONCLUSIVE, "answers by text without ids")
        if observed == expected:
            return Finding(Verdict.PASS, f"{len(u)} numbers, {EDGE:g} from every border")
        facts = {"uniforms": u.tolist(), "observed": observed, "expected": expected}
        fault = next((each for each in sampler.faults if by_number(sampler.faulty(each, rows)[0], u) == observed), None)
        at = next(
            (i for i, pair in enumerate(zip(observed, expected, strict=False)) if pair[0] != pair[1]), len(observed)
        )
        message = (
            f"number {u[min(at, len(u) - 1)]:.7f} draws {observed[at:][:1]}, expected {expected[at:][:1]} (step {at})"
        )
        if fault is None:
            return Finding(Verdict.FAIL, message, facts)
        return Finding(
            Verdict.FAIL, f"{message}. That is {fault.name}: {fault.sentence}", facts, fault.rules, fault.name
        )


def edges(chances: ndarray) -> ndarray:
    """Numbers in every token's share: shortly after its beginning, in the middle, shortly before its end."""
    ends = chances.cumsum()
    wide = chances > 8 * EDGE
    begin, end = (ends - chances)[wide], ends[wide]
    return np.concatenate([begin + EDGE, (begin + end) / 2, end - EDGE])


def by_number(chances: ndarray, u: ndarray) -> list[int]:
    """SAMP-10. In id order the first token whose cumulative probability exceeds the number."""
    tokens: list[int] = np.searchsorted(chances.cumsum() / chances.sum(), u, side="right").tolist()
    return tokens


# --- All of them ------------------------------------------------------------------------------------------

BIAS = [[[11], 4.0], [[3], -2.0]]
LOADED, WIDE, PEAK, PAIR, TIES = "dice-loaded", "dice-wide", "dice-peak", "dice-pair", "dice-ties"


def law(name: str, rules: Sequence[str], why: str, model: str, settings: Mapping[str, Any], **more: Any) -> LawCheck:
    """A check of a law."""
    return LawCheck(f"sampling.{name}", tuple(rules), why, model, settings, **more)


# Dice of at most 50 tokens need no top_k=0. What is more special comes later, so that the first failure names the fault.
LAWS = (
    IndependenceCheck("sampling.numbers", ("SAMP-04", "SAMP-07", "SAMP-05"),
                      "tokens share random numbers, with the step before, another row or another request", LOADED, {},
                      draws=4096, least=4096, fewest=16, steps=16),
    law("plain", ["SAMP-01"], "tokens come more or less often than the model's probabilities", LOADED, {}),
    law("settings", ["PROC-01"], "settings are taken and do nothing: each of these alone leaves one token", LOADED,
        {"temperature": 1e-4, "top_p": 1e-9}, least=64),
    law("temperature.low", ["TEMP-01"], "temperature does not make text surer as it should", LOADED, {"temperature": 0.5}),
    law("temperature.high", ["TEMP-01"], "temperature does not make text freer as it should", LOADED, {"temperature": 2.0}),
    law("temperature.zero", ["TEMP-02"], "temperature 0 draws at random", LOADED, {"temperature": 0}, rows=1, steps=64,
        least=64),
    law("temperature.tiny", ["TEMP-01", "TEMP-03"], "a tiny temperature overflows, or draws at random", LOADED,
        {"temperature": 1e-4}, least=64),
    law("top-k.three", ["TOPK-01"], "top_k keeps one token too many or too few", LOADED, {"top_k": 3}),
    law("top-k.one", ["TOPK-03", "TOPK-01"], "top_k=1 is not greedy", LOADED, {"top_k": 1}),
    law("top-k.ties", ["TOPK-01"], "tokens that tie with the k-th are removed, or others kept", TIES, {"top_k": 2}),
    law("top-k.off", ["TOPK-02"], "top_k=0 keeps one token, or a hidden number of them", WIDE, {"top_k": 0}),
    law("top-p.inside", ["TOPP-01"], "top_p keeps one token too many or too few", LOADED, {"top_p": 0.65}),
    law("top-p.ties", ["TOPP-03"], "of equal tokens others stay than those of lowest id", TIES, {"top_p": 0.3}),
    law("top-p.half", ["TOPP-01"], "mass that is exactly top_p is not enough", PAIR, {"top_p": 0.5},
        first=("top-p-reached-is-not-enough",)),
    law("top-p.tiny", ["TOPP-01", "TOPP-04"], "a tiny top_p removes every token, or none", LOADED, {"top_p": 1e-9}),
    law("order.temperature-top-p", ["TOPP-05", "PROC-01", "TEMP-01"], "top_p does not see the temperature", LOADED,
        {"temperature": 2.0, "top_p": 0.65}),
    law("order.top-k-top-p", ["TOPP-05", "PROC-01"], "top_p does not see what top_k left", LOADED,
        {"top_k": 3, "top_p": 0.6}),
    law("order.all", ["PROC-01"], "temperature, top_k and top_p together give another law", LOADED,
        {"temperature": 0.7, "top_k": 6, "top_p": 0.85}),
    law("min-p.quarter", ["MINP-01"], "min_p keeps other tokens than it should", LOADED, {"min_p": 0.25}),
    law("min-p.behind-temperature", ["MINP-01", "PROC-01"], "min_p does not see the temperature", LOADED,
        {"temperature": 2.0, "min_p": 0.3}),
    law("min-p.behind-top-p", ["PROC-01"], "min_p and top_p are in another order than declared", LOADED,
        {"top_p": 0.75, "min_p": 0.3}),
    law("penalty", ["REP-01"], "a repetition penalty is left out, rewards, or counts what it should not", LOADED,
        {"repetition_penalty": 1.8}, prompt=(3, 3, 3, 0, 2, 5, 7, 9, 11), steps=4, least=512,
        rows=64),
    law("bias.cut", ["BIAS-01", "PROC-01"], "a bias comes after top_k, which has removed what it should raise", LOADED,
        {"top_k": 3, "sequence_bias": BIAS}),
    law("bias.temperature", ["BIAS-01", "PROC-01"], "a bias is not tempered", LOADED,
        {"temperature": 2.0, "sequence_bias": BIAS}),
    law("temperature.fine", ["TEMP-01"], "temperature is a few percent off", PEAK,
        {"top_k": 0, "temperature": 1.5}, draws=24_000),
    law("leaks", ["SAMP-01", "SAMP-02"], "a removed token is drawn now and then", LOADED, {"top_k": 8},
        draws=6_000, least=6_000),
    law("silent", ["PROC-05", "TOPK-02"], "a request without settings is sampled by other defaults than declared", WIDE, {}),
)  # fmt: skip
OTHERS: tuple[Check, ...] = (
    SeedCheck("sampling.seed.repeats", ("SAMP-05",), "a seed does not give the same text again", WIDE),
    StreamCheck("sampling.seed.torch", ("SAMP-03", "SAMP-02", "SAMP-04"), "a seed gives other tokens than torch's", LOADED),
    UniformsCheck("sampling.uniforms.plain", ("SAMP-10", "SAMP-01"), "given numbers draw other tokens", WIDE, {"top_k": 0}),
    UniformsCheck("sampling.uniforms.all", ("SAMP-10", "PROC-01"), "given numbers draw other tokens under settings", LOADED,
                  {"temperature": 0.7, "top_k": 6, "top_p": 0.85}),
)  # fmt: skip


def texts(model: str) -> list[LawCheck]:
    """The checks of a model that is not dice."""
    why = "sampled text follows another law than the model's"
    plain = TextCheck(f"sampling.text.{model}.plain", ("SAMP-01",), why, model, {"top_k": 0, "temperature": 1.4},
                      draws=512, least=512, fewest=16, steps=16)  # fmt: skip
    cut = TextCheck(f"sampling.text.{model}.cut", ("SAMP-01", "PROC-01"), why, model,
                    {"temperature": 0.8, "top_k": 20, "top_p": 0.9}, draws=768, least=768, fewest=24, steps=24)  # fmt: skip
    return [plain, cut]


def checks(lab: Lab) -> list[Check]:
    """All that can be asked about the models at hand. Those that weigh chance share ALPHA equally."""
    models = set(lab.models)
    text = [lab.own] if lab.own in models - {each.model for each in LAWS} else []
    weighing = [each for each in LAWS if each.model in models] + [each for name in text for each in texts(name)]
    shared: list[Check] = [replace(each, alpha=ALPHA / len(weighing)) for each in weighing]
    return shared + [each for each in OTHERS if getattr(each, "model", None) in models]
