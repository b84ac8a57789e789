"""Suspects: the rules that a subject seems to break, by the checks that went bad."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refgen.conformance.judging.claims import place
from refgen.conformance.judging.verdicts import Result

FAILS = 0.75  # the chance that a check fails if its first rule is broken
NEXT = 0.7  # of this chance for the second rule, of that for the third, …
OTHERWISE = 0.02  # the chance that it fails if none of its rules is broken


@dataclass(frozen=True)
class Suspect:
    """A rule that the subject seems to break, and why it is suspected."""

    rule: str
    evidence: str  # of EVIDENCE
    score: float  # comparable within the same evidence
    faults: tuple[str, ...]  # known ones that were named
    checks: tuple[str, ...]  # ids of those that went bad
    of: int  # checks of this rule that went well or bad

    @property
    def sentence(self) -> str:
        """The reason."""
        bad = f"{len(self.checks)} of its {self.of} checks {'fails' if len(self.checks) == 1 else 'fail'}"
        if self.faults:
            return f"looks like {' or '.join(self.faults)}; {bad}"
        return f"failures point at it; {bad}" if self.evidence == POINTED else bad


NAMED, POINTED, SHARED = "named", "pointed at", "shared"
EVIDENCE = (NAMED, POINTED, SHARED)  # the strongest first: a known fault fits, a finding points there, sets of checks


def suspects(results: Sequence[Result]) -> tuple[Suspect, ...]:
    """Rules of checks that went bad, the likeliest broken one first.

    Rules that findings point at come first, and of these the rules of the earliest claim, because a mistake there spoils the
    later claims. In one claim a known fault that fits comes before other pointers. The other rules are ranked by `likelihood`.
    """
    bad = [each for each in results if each.verdict.bad]
    found = [suspect(rule, results) for rule in dict.fromkeys(rule for each in bad for rule in each.rules)]
    order = {each.rule: min(place(own.claim) for own in bad if each.rule in own.rules) for each in found}

    def rank(each: Suspect) -> tuple[float, ...]:
        if each.evidence == SHARED:
            return (1, -likelihood(each.rule, results), order[each.rule])
        return (0, order[each.rule], EVIDENCE.index(each.evidence), -each.score, -len(each.checks))

    return tuple(sorted(found, key=rank))


def suspect(rule: str, results: Sequence[Result]) -> Suspect:
    """The case against one rule."""
    own = [each for each in results if rule in each.rules]
    bad, good = ([each for each in own if getattr(each.verdict, kind)] for kind in ("bad", "good"))
    named = [each for each in bad if each.finding.fault and rule in (each.finding.rules or each.rules)]
    pointed = [each for each in bad if rule in each.finding.rules]
    about = [each for each in bad if rule in each.finding.rules or rule == each.rules[0]]
    unnamed = sum(each.verdict.bad and not each.finding.fault for each in results)
    if 4 * len(about) < unnamed:  # a finding here and there says less than all checks
        pointed = []
    against = weight(rule, bad)
    share = against / (against + weight(rule, good))
    return Suspect(
        rule,
        evidence=NAMED if named else POINTED if pointed else SHARED,
        score=weight(rule, named or pointed) or share * max(weight(rule, [each]) for each in bad),
        faults=tuple(dict.fromkeys(each.finding.fault for each in named if each.finding.fault)),
        checks=tuple(each.id for each in bad),
        of=len(bad) + len(good),
    )


def likelihood(rule: str, results: Iterable[Result]) -> float:
    """The log likelihood of the results if only this rule is broken, minus that if only another one is."""
    total = 0.0
    for each in results:
        if rule in each.rules and (each.verdict.bad or each.verdict.good):
            fails = FAILS * NEXT ** each.rules.index(rule)
            total += math.log(fails / OTHERWISE if each.verdict.bad else (1 - fails) / (1 - OTHERWISE))
    return total


def weight(rule: str, results: Iterable[Result]) -> float:
    """The weight of results for a rule: 1 for each result whose first rule it is, 1/2 for each second place, and so on."""
    return sum(1 / (1 + each.rules.index(rule)) for each in results)
