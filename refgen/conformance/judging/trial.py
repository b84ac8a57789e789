"""A trial: the evidence about one sampler under some settings while it grows, how much more is needed, and what it says in the end."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.choices import advice
from refgen.conformance.judging.evidence import (
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
from refgen.conformance.judging.token_law import Rows, Sampler
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.planted.sampler_faults import NUMBERS, NumbersFault, SamplerFault

SHARED = ("one-number-for-all-steps", "one-number-for-all-rows", "seed-without-effect")  # in the order of `copied`


@dataclass(frozen=True)
class Terms:
    """The plan of a trial: its rules, its highest and lowest number of tokens, and its chance of a false alarm."""

    rules: tuple[str, ...]
    draws: int
    least: int
    alpha: float
    first: tuple[str, ...] = ()  # of faults that look the same, those to name first


class Trial:
    """The evidence of one check while it grows, and what it says in the end."""

    def __init__(self, terms: Terms, sampler: Sampler) -> None:
        self.terms, self.sampler = terms, sampler
        self.faults: tuple[SamplerFault | NumbersFault, ...] = ()
        self.evidence: Evidence | None = None
        self.pace: dict[str, Suspicion] = {}  # of one token, where it is known before

    def begin(self, rows: Rows) -> Law:
        """The law of some rows; by the first, the faults that are bet on are settled."""
        law = self.sampler.law(rows)
        if self.evidence is None:
            self.faults = self.suspects(law, rows)
            self.evidence = Evidence([each.name for each in self.faults], self.terms.alpha)
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
        """The learners."""
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
        height = threshold(len(self.faults), self.terms.alpha)
        return {name: tokens_to_be_sure(one, height) for name, one in pace.items()}

    def aims(self) -> dict[str, float]:
        """Those of them that this check is there to see."""
        return {name: tokens for name, tokens in self.needs().items() if tokens <= self.terms.draws}

    def wanted(self) -> int:
        """The number of tokens still to request."""
        enough = max(self.terms.least, math.ceil(max(self.aims().values(), default=0) * 1.05))
        if self.evidence is None or not self.evidence.count:
            return min(enough, self.terms.draws)
        return (self.terms.draws if self.evidence.seen_at else min(enough, self.terms.draws)) - self.evidence.count

    def over(self) -> bool:
        """Whether more tokens would not change the verdict: the fault is named, or all faults would have been seen."""
        if self.evidence is not None and self.evidence.count and self.evidence.seen_at:
            return bool(self.evidence.suspects()) or self.evidence.count >= self.terms.draws
        return self.wanted() <= 0

    def finding(self) -> Finding:
        """The verdict, in a line, and its figures."""
        evidence = self.evidence
        if evidence is None or not evidence.count:
            return Finding(Verdict.INCONCLUSIVE, "no token came")
        powers, aims = evidence.powers(), self.aims()
        facts = {
            "tokens": evidence.count,
            "alpha": self.terms.alpha,
            "log10_e": round(evidence.log_e / math.log(10), 2),
            "limit": round(evidence.height / math.log(10), 2),
            "power": [
                {"fault": name, "tokens": rounded(tokens), "detected": round(sure, 6)}
                for name, (sure, tokens) in powers.items()
            ],
            "aims": sorted(aims),
        }
        if evidence.seen_at:
            return self.failure(evidence, facts)
        unsure = sorted(name for name in aims if powers[name][0] < SURE)
        odds = f"log10 E {facts['log10_e']:g} of {facts['limit']:g}"
        if unsure or not aims or evidence.count < self.terms.least:
            left = f", too few to see {', '.join(unsure[:3])}" if unsure else ", too few"
            return Finding(Verdict.INCONCLUSIVE, f"{evidence.count} tokens{left}; {odds}", facts)
        least = min(powers[name][0] for name in aims)
        message = f"{evidence.count} tokens, {odds}; {len(aims)} known faults would have been seen, each with {percent(least)}"
        return Finding(Verdict.PASS, message, facts)

    def failure(self, evidence: Evidence, facts: dict[str, Any]) -> Finding:
        """The observation, and the fault it looks like."""
        known = {each.name: each for each in self.faults}
        alike = sorted(
            (known[name] for name in evidence.suspects()),
            key=lambda each: (each.name not in self.terms.first, not set(each.rules[:1]) & set(self.terms.rules)),
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
            message += advice([option])
        return Finding(Verdict.FAIL, message, facts, alike[0].rules, alike[0].name)


def rounded(tokens: float) -> int | str:
    """A number of tokens; infinitely many are the text inf, as in all facts (reports/contents.py)."""
    return round(tokens) if math.isfinite(tokens) else str(tokens)


def percent(chance: float) -> str:
    """A chance, as many nines as it has."""
    return f"{100 * chance:.3g} %" if chance < 0.9995 else "more than 99.9 %"


class CopyTrial(Trial):
    """Bets on tokens that are those of another place."""

    def __init__(self, terms: Terms, sampler: Sampler) -> None:
        super().__init__(terms, sampler)
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
        """How often tokens are equal, and which tokens follow which."""
        places = self.copied(rows)
        self.last = rows.ids[:, rows.width :]
        followers = [by_follower(rows.tokens, law.expected, each) for each in places]
        copies = [by_copy(rows.tokens, law.expected, each) for each in places]
        return [*super().learners(law, rows), *copies, *followers]
