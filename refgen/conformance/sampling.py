"""Checks of sampled text: whether tokens are drawn by the law that the settings name, each by a number of its own. docs/sampling-law.md.

What a token's law is, refgen's own processors say of the exact logits; evidence.py weighs the tokens, and sampler_faults.py has
the faults that are bet on. Dice (probes/) have the same logits at every step, so the law is known exactly and any number
of tokens can be had; of other models each token is judged by the law of the text before it, with room for rounding.

All checks of a run share one chance of a false alarm, ALPHA. A check asks until every known fault that it can see within its
`draws` would have been seen with 99 %; if the subject gives too few tokens for that, it is inconclusive.

Axes    B rows, P prompt columns, T new tokens a row, S = P + T, N tokens, V vocabulary, n laws (N, or 1 for all).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.evidence import (
    SURE,
    Evidence,
    Law,
    Learner,
    Suspicion,
    by_copy,
    by_follower,
    by_rank,
    copier,
    suspect,
    threshold,
    tokens_to_be_sure,
)
from refgen.conformance.judge import noise_format
from refgen.conformance.lab import Lab, Reference
from refgen.conformance.sampler_faults import (
    FAULTS,
    NUMBERS,
    Chain,
    NumbersFault,
    SamplerFault,
    conventions,
    meant,
    right,
    run,
    ties_are_free,
)
from refgen.conformance.subject import RefusedError, SkippedError
from refgen.conformance.verdicts import Check, Finding, Verdict
from refgen.generation.prompt import Prompt
from refgen.model import forward, softmax
from refgen.oracle.noise import expected_error
from refgen.shipped import BUILT_IN

ALPHA = 1e-6  # the chance that a run calls a right sampler wrong
ROWS = 128
REQUESTS = 40  # of one check, at most
REACH = 6.0  # how many expected errors a logit may be off by when a cut is judged
TIE = 1e-6  # the same for dice, where equal tokens may be cut in any way
HISTORY = frozenset({"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids"})  # settings that look at the text


# --- The law of a token -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows that were drawn, `ids` `[B S]` of which the first `width` are the prompt, and the exact logits before each new one.

    `logits` are `[B T V]`, or `[1 1 V]` where they are the same at every step; `sigma` is their expected error.
    """

    ids: ndarray
    width: int
    logits: ndarray
    sigma: float = 0.0

    @property
    def tokens(self) -> ndarray:
        """The new tokens, row after row, `[N]`."""
        return self.ids[:, self.width :].ravel()

    def before(self, column: int) -> ndarray:
        """For every token the one `column` columns before it in its row, `[N]`; -1 where there is only the prompt."""
        new = self.ids[:, self.width :]
        return np.column_stack([np.full((len(new), column), -1), new])[:, : new.shape[1]].ravel()

    def above(self) -> ndarray:
        """For every token that of the row above at the same step, `[N]`; -1 in the first row."""
        new = self.ids[:, self.width :]
        return np.concatenate([np.full((1, new.shape[1]), -1), new])[: len(new)].ravel()


def scores_of(chain: Chain, rows: Rows, logits: ndarray, by_text: bool) -> ndarray:
    """What a chain makes of logits `[B T V]` or `[1 1 V]`: `[n V]`, row after row. `by_text`: if it looks at the ids."""
    V = logits.shape[-1]
    if not by_text:
        return run(chain, rows.ids[:, : rows.width], logits.reshape(-1, V))
    B, T = len(rows.ids), rows.ids.shape[1] - rows.width
    wide = np.broadcast_to(logits, (B, T, V))
    steps = [run(chain, rows.ids[:, : rows.width + t], wide[:, t]) for t in range(T)]
    return np.stack(steps, axis=1).reshape(-1, V)


def law_of(chain: Chain, rows: Rows, by_text: bool, temperature: float = 1.0) -> Law:
    """The right law. Where logits may be off by `sigma`, a token near a cut may be in or out.

    Four shifts of the logits by REACH sigma find those: what is kept loses and the rest gains, and the other way round; and
    so the best token and the rest. A right sampler keeps what all of them keep and nothing that none keeps, so a token has
    at most its weight by that of the tokens which are kept in any case. An error of a logit that is normal, of mean 0, and
    not the bet's to know, raises the money by exp(sigma²) a token at most, so that is allowed for too.
    """
    scores = scores_of(chain, rows, rows.logits, by_text)
    kept = np.isfinite(scores)
    if rows.sigma == 0:
        chances = softmax(scores)
        return Law(chances, chances)
    wide = rows.logits.reshape(-1, rows.logits.shape[-1])
    best = wide >= wide.max(axis=-1, keepdims=True)
    ever, always, highest = kept.copy(), kept.copy(), scores
    for gaining in (~kept, kept, best, ~best):
        shift = REACH * rows.sigma * np.where(gaining, 1, -1)
        moved = scores_of(chain, rows, (wide + shift).reshape(rows.logits.shape), by_text)
        ever, always = ever | np.isfinite(moved), always & np.isfinite(moved)
        highest = np.where(kept, scores, np.maximum(highest, moved))
    weights = np.where(ever, np.exp(highest - highest.max(axis=1, keepdims=True)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = weights / np.where(always, weights, 0).sum(axis=1, keepdims=True)
    allowance = math.exp((rows.sigma / min(temperature, 1.0)) ** 2)
    return Law(
        expected=weights / weights.sum(axis=1, keepdims=True),
        most=np.minimum(np.where(ever, most, 0) * allowance, ever),
    )


@dataclass(frozen=True)
class Sampler:
    """What a request's settings mean for one subject, and the known faults that could change it."""

    settings: Mapping[str, Any]
    choices: Mapping[str, str]
    _chains: dict[tuple[int, int], Chain] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def meant(self) -> dict[str, Any]:
        """With what the subject declares to mean where the request is silent."""
        return meant(self.settings, self.choices)

    @property
    def by_text(self) -> bool:
        """Whether the law depends on the tokens before."""
        biases = self.settings.get("sequence_bias") or ()
        return bool(HISTORY & self.settings.keys()) or any(len(ids) > 1 for ids, _ in biases)

    @cached_property
    def faults(self) -> tuple[SamplerFault, ...]:
        """Those whose settings are there, but for options that the subject declares."""
        declared = {f"{name}={option}" for name, option in self.choices.items()}
        return tuple(
            each for each in FAULTS if self.settings.keys() >= set(each.settings) and each.choice not in declared
        )

    def changed_by(self, fault: SamplerFault, rows: Rows) -> bool:
        """Whether the fault changes anything about the chain."""
        return fault.plant(self.chain(rows), self.settings) != self.chain(rows)

    def chain(self, rows: Rows) -> Chain:
        """The right one."""
        shape = (len(rows.ids) if self.by_text else 1, rows.width)
        if shape not in self._chains:
            prompt = Prompt(np.zeros(shape, int), np.ones(shape, int))  # of which a chain keeps the mask
            self._chains[shape] = conventions(self.choices)(right(self.meant, prompt), self.meant)
        return self._chains[shape]

    def law(self, rows: Rows) -> Law:
        """The law of every token."""
        free = rows.sigma == 0 and ties_are_free(self.settings, self.choices)
        softened = replace(rows, sigma=TIE) if free else rows
        return law_of(self.chain(rows), softened, self.by_text, self.settings.get("temperature") or 1.0)

    def faulty(self, fault: SamplerFault, rows: Rows) -> ndarray:
        """The law `[n V]` of every token if the fault is there."""
        with np.errstate(all="ignore"):
            chain = fault.plant(self.chain(rows), self.settings)
            return softmax(scores_of(chain, rows, rows.logits, self.by_text))


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
        """Whether it gets more than one row a request, for all it knows."""
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
            except SkippedError:
                if len(self.ways) == 1:
                    raise
                self.ways.pop(0)
                continue
            return self.read(answer["rows"])

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[list[int]] | None:
        """Ids of rows. Text is read where every token is one character, as on dice."""
        if all("new_ids" in row for row in rows):
            return [row["new_ids"] for row in rows]
        tokenizer = self.lab.reference(self.model).tokenizer
        pieces = [tokenizer.token_bytes(token) for token in range(len(tokenizer) - 1)]
        if any(len(piece) > 1 or not piece.isascii() for piece in pieces):
            return None
        return [row["new_ids"] if "new_ids" in row else tokenizer.encode(row["text"]) for row in rows]


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
    level: str = "sampling"
    needs: frozenset[str] = frozenset({"generate"})

    def run(self, lab: Lab) -> Finding:
        """Asks until the evidence is enough for one verdict or the other."""
        sampler = Sampler(self.settings, lab.about.choices)
        drawer = Drawer(lab, self.model, lab.chance(self.id))
        trial = self.trial(sampler, lab)
        for _ in range(REQUESTS):
            prompt, room = self.ask_for(lab, drawer.chance)
            wanted, most = max(1, trial.wanted()), min(self.steps, room)
            rows = self.rows if drawer.several else 1
            steps = min(most, max(self.fewest, -(-wanted // rows)))
            n = min(rows, -(-wanted // steps))
            try:
                several = drawer.rows(prompt, self.settings, n, steps)
            except RefusedError:
                if self.settings.get("temperature") == 0 and lab.about.choices.get("temperature_zero") == "error":
                    return Finding(Verdict.CHOICE, "refuses temperature 0, as it declares")
                raise
            if several is None:
                return Finding(Verdict.INCONCLUSIVE, "answers by text without ids, whose tokens cannot be told")
            vocabulary = lab.reference(self.model).gpt2.config.vocab_size
            if foreign := [token for row in several for token in row if not 0 <= token < vocabulary]:
                return Finding(Verdict.FAIL, f"token {foreign[0]} is drawn, of a vocabulary of {vocabulary}")
            for rows in self.grouped(lab, prompt, several):
                trial.add(rows)
            if trial.over():
                break
        return trial.finding()

    def trial(self, sampler: Sampler, lab: Lab) -> "Trial":
        """What weighs the tokens. What an unchanging law can show is known before the first of them."""
        trial = Trial(self, sampler)
        if not sampler.by_text:
            (rows,) = self.grouped(lab, self.prompt, [[0]])
            trial.plan(rows)
        return trial

    def ask_for(self, lab: Lab, chance: np.random.Generator) -> tuple[Sequence[int], int]:
        """The prompt of the next request, and how many tokens fit behind it."""
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


class Trial:
    """The evidence of one check while it grows, and what it says in the end."""

    def __init__(self, check: LawCheck, sampler: Sampler) -> None:
        self.check, self.sampler = check, sampler
        self.faults: tuple[SamplerFault | NumbersFault, ...] = ()
        self.evidence: Evidence | None = None
        self.pace: dict[str, Suspicion] = {}  # of one token, where it is known before

    def begin(self, rows: Rows) -> Law:
        """The law of some rows; by the first, the faults that are bet on are settled."""
        law = self.sampler.law(rows)
        if self.evidence is None:
            self.faults = self.suspects(law, rows)
            self.evidence = Evidence([each.name for each in self.faults], self.check.alpha)
        return law

    def plan(self, rows: Rows) -> None:
        """The pace of every fault, by any one token of an unchanging law."""
        suspicions = self.suspicions(self.begin(rows), rows)
        self.pace = {each.name: one for each, one in zip(self.faults, suspicions, strict=True)}

    def add(self, rows: Rows) -> None:
        """Weighs some rows."""
        law = self.begin(rows)
        assert self.evidence is not None  # noqa: S101 - begun
        self.evidence.add(rows.tokens, law, self.suspicions(law, rows), self.learners(law, rows))

    def suspects(self, law: Law, rows: Rows) -> tuple[SamplerFault | NumbersFault, ...]:
        """Known faults that can be seen here: where the law never changes, only those that make another one."""
        if len(law.expected) > 1 or self.sampler.by_text:
            return tuple(each for each in self.sampler.faults if self.sampler.changed_by(each, rows))
        return tuple(
            each for each in self.sampler.faults if np.abs(self.sampler.faulty(each, rows) - law.expected).max() > 1e-9
        )

    def suspicions(self, law: Law, rows: Rows) -> list[Suspicion]:
        """One for each fault that is bet on."""
        return [
            suspect(rows.tokens, law, self.sampler.faulty(each, rows))
            for each in self.faults
            if isinstance(each, SamplerFault)
        ]

    def learners(self, law: Law, rows: Rows) -> list[Learner]:
        """What else is learned."""
        return [by_rank(rows.tokens, law.expected)]

    def needs(self) -> dict[str, float]:
        """How many tokens would make sure of each fault, at the pace that is known or was so far."""
        pace = self.pace
        if not pace and self.evidence is not None and self.evidence.count:
            N = self.evidence.count
            pace = {
                name: Suspicion(np.zeros(0), growth / N, spread / N, clean / N)
                for name, growth, spread, clean in self.evidence.totals()
            }
        height = threshold(len(self.faults), self.check.alpha)
        return {name: tokens_to_be_sure(one, height) for name, one in pace.items()}

    def aims(self) -> dict[str, float]:
        """Those of them that this check is there to see."""
        return {name: tokens for name, tokens in self.needs().items() if tokens <= self.check.draws}

    def wanted(self) -> int:
        """How many tokens are still to be asked for."""
        enough = max(self.check.least, math.ceil(max(self.aims().values(), default=0) * 1.05))
        if self.evidence is None or not self.evidence.count:
            return min(enough, self.check.draws)
        return (self.check.draws if self.evidence.seen_at else min(enough, self.check.draws)) - self.evidence.count

    def over(self) -> bool:
        """Whether more tokens would not change what is said: the fault has its name, or all faults would have been seen."""
        if self.evidence is not None and self.evidence.count and self.evidence.seen_at:
            return bool(self.evidence.suspects()) or self.evidence.count >= self.check.draws
        return self.wanted() <= 0

    def finding(self) -> Finding:
        """The verdict, in a line, and the figures behind it."""
        evidence = self.evidence
        if evidence is None or not evidence.count:
            return Finding(Verdict.INCONCLUSIVE, "no token came")
        powers, aims = evidence.powers(), self.aims()
        facts = {
            "tokens": evidence.count,
            "alpha": self.check.alpha,
            "log10_e": round(evidence.log_e / math.log(10), 2),
            "limit": round(evidence.height / math.log(10), 2),
            "power": {name: [round(sure, 6), rounded(tokens)] for name, (sure, tokens) in powers.items()},
            "aims": sorted(aims),
        }
        if evidence.seen_at:
            return self.failure(evidence, facts)
        unsure = sorted(name for name in aims if powers[name][0] < SURE)
        odds = f"log10 E {facts['log10_e']:g} of {facts['limit']:g}"
        if unsure or not aims or evidence.count < self.check.least:
            left = f", too few to see {', '.join(unsure[:3])}" if unsure else ", too few"
            return Finding(Verdict.INCONCLUSIVE, f"{evidence.count} tokens{left}; {odds}", facts)
        least = min(powers[name][0] for name in aims)
        message = f"{evidence.count} tokens, {odds}; {len(aims)} known faults would have been seen, each with {percent(least)}"
        return Finding(Verdict.PASS, message, facts)

    def failure(self, evidence: Evidence, facts: dict[str, Any]) -> Finding:
        """What was seen, and the fault it looks like."""
        known = {each.name: each for each in self.faults}
        alike = sorted(
            (known[name] for name in evidence.suspects()),
            key=lambda each: (each.name not in self.check.first, not set(each.rules[:1]) & set(self.check.rules)),
        )
        facts = facts | {"seen_at": evidence.seen_at, "faults": [each.name for each in alike]}
        if evidence.impossible is not None:
            seen = f"token {evidence.tokens[evidence.impossible]} is drawn, which the settings rule out"
        else:
            token, count, expected = evidence.oddest()
            seen = f"token {token} came {count} times in {evidence.count}, expected {expected:.1f}"
        message = f"{seen}; seen after {evidence.seen_at} tokens, log10 E {facts['log10_e']:g}"
        if not alike:
            return Finding(Verdict.FAIL, f"{message}. It fits no known fault", facts)
        others = f" (or {', '.join(each.name for each in alike[1:])})" if alike[1:] else ""
        message += f". It looks like {alike[0].name}: {alike[0].sentence}{others}"
        option = getattr(alike[0], "choice", "")
        if option:
            message += f". If that is meant, declare {option}"
        return Finding(Verdict.FAIL, message, facts, alike[0].rules, alike[0].name)


def rounded(tokens: float) -> int | None:
    """A number of tokens, None for infinitely many, as JSON has it."""
    return round(tokens) if math.isfinite(tokens) else None


def percent(chance: float) -> str:
    """A chance, as many nines as it has."""
    return f"{100 * chance:.3g} %" if chance < 0.9995 else "more than 99.9 %"


# --- Numbers of their own ---------------------------------------------------------------------------------

SHARED = ("one_number_for_all_steps", "one_number_for_all_rows", "seed_without_effect")  # in the order of `copied`


@dataclass(frozen=True)
class IndependenceCheck(LawCheck):
    """Whether each token has a random number of its own: not that of the step before, the row above, another request."""

    def trial(self, sampler: Sampler, lab: Lab) -> Trial:
        """One that looks at copies, whose pace the tokens tell."""
        return CopyTrial(self, sampler)


class CopyTrial(Trial):
    """Bets on tokens that are those of another place."""

    def __init__(self, check: LawCheck, sampler: Sampler) -> None:
        super().__init__(check, sampler)
        self.last = np.zeros((0, 0), int)  # the new tokens of the last request

    def suspects(self, law: Law, rows: Rows) -> tuple[SamplerFault | NumbersFault, ...]:
        """Those of the law, and those that copy."""
        return (*super().suspects(law, rows), *(each for each in NUMBERS if each.name in SHARED))

    def copied(self, rows: Rows) -> list[ndarray]:
        """For every token the one before, the one above, and the one in the same place of the last request."""
        new = rows.ids[:, rows.width :]
        same_place = np.full(new.shape, -1)
        B, T = np.minimum(new.shape, self.last.shape)
        same_place[:B, :T] = self.last[:B, :T]
        return [rows.before(1), rows.above(), same_place.ravel()]

    def suspicions(self, law: Law, rows: Rows) -> list[Suspicion]:
        """Those of the law, and one for each place to copy from."""
        copiers = [copier(rows.tokens, law, place) for place in self.copied(rows)]
        return [*super().suspicions(law, rows), *copiers]

    def learners(self, law: Law, rows: Rows) -> list[Learner]:
        """How often tokens are equal, and which come behind which."""
        places = self.copied(rows)
        self.last = rows.ids[:, rows.width :]
        followers = [by_follower(rows.tokens, law.expected, each) for each in places]
        copies = [by_copy(rows.tokens, law.expected, each) for each in places]
        return [*super().learners(law, rows), *copies, *followers]


# --- Text -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextCheck(LawCheck):
    """The same of a model whose logits are others at every step: each token by the law of the text before it."""

    n_prompt: int = 6

    def trial(self, sampler: Sampler, lab: Lab) -> Trial:
        """One whose pace the text tells."""
        return Trial(self, sampler)

    def ask_for(self, lab: Lab, chance: np.random.Generator) -> tuple[Sequence[int], int]:
        """Another prompt each time, of any tokens."""
        config = lab.reference(self.model).gpt2.config
        P = min(self.n_prompt, config.n_positions // 2)
        return chance.integers(config.vocab_size, size=P).tolist(), config.n_positions - P

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
    level: str = "sampling"
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
            return Finding(Verdict.FAIL, message, facts, ("SAMP-05",), "seed_ignored")
        if sum(map(len, first)) < 16:
            return Finding(Verdict.INCONCLUSIVE, f"{sum(map(len, first))} tokens, which may be equal by chance", facts)
        if first == other:
            return Finding(
                Verdict.FAIL, "another seed gives the same tokens", facts, ("SAMP-05",), "seed_without_effect"
            )
        return Finding(Verdict.PASS)


@dataclass(frozen=True)
class StreamCheck:
    """Token for token what the declared random stream gives."""

    id: str
    rules: tuple[str, ...]
    why: str
    model: str
    level: str = "sampling"
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
    level: str = "sampling"
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
    """Numbers in every token's share: shortly behind its beginning, in the middle, shortly before its end."""
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
    law("plain", ["SAMP-01"], "tokens come more or less often than the model says", LOADED, {}),
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
        first=("top_p_reached_is_not_enough",)),
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
    """The checks of a model that is no dice."""
    why = "sampled text follows another law than the model's"
    plain = TextCheck(f"sampling.text.{model}.plain", ("SAMP-01",), why, model, {"top_k": 0, "temperature": 1.4},
                      draws=512, least=512, fewest=16, steps=16)  # fmt: skip
    cut = TextCheck(f"sampling.text.{model}.cut", ("SAMP-01", "PROC-01"), why, model,
                    {"temperature": 0.8, "top_k": 20, "top_p": 0.9}, draws=768, least=768, fewest=24, steps=24)  # fmt: skip
    return [plain, cut]


def checks(lab: Lab) -> list[Check]:
    """All that can be asked about the models at hand. Those that weigh chance share ALPHA equally."""
    models = list(lab.models)
    own = [name for name in models if name in BUILT_IN or not lab.about.loads]
    weighing = [each for each in LAWS if each.model in models] + [each for name in own for each in texts(name)]
    shared: list[Check] = [replace(each, alpha=ALPHA / len(weighing)) for each in weighing]
    return shared + [each for each in OTHERS if getattr(each, "model", None) in models]
