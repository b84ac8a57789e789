"""Suspects: the rules that a subject seems to break, by the checks that went bad."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refgen.conformance.judging.claims import place
from refgen.conformance.judging.verdicts import Result

MOST = 0.75  # of a rule's checks: one whose checks nearly all fail is as suspect as one of a single check that does


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

    A known fault that fits comes before what else findings point at, and that before set logic: the share of a rule's
    checks that went bad. A rule that stands first in a check counts most, in both directions. Where that is
    equal, or MOST for both, an earlier claim explains a later one, and of one claim the rule of more checks.
    """
    bad = [each for each in results if each.verdict.bad]
    found = [suspect(rule, results) for rule in dict.fromkeys(rule for each in bad for rule in each.rules)]
    order = {each.rule: min(place(own.claim) for own in bad if each.rule in own.rules) for each in found}

    def rank(each: Suspect) -> tuple[float, ...]:
        claim, evidence = order[each.rule], EVIDENCE.index(each.evidence)
        # Two findings that name faults are no rivals: the later one was made on what the earlier one spoiled.
        rest = (-min(each.score, MOST), claim) if each.evidence == SHARED else (claim, -each.score)
        return (evidence, *rest, -len(each.checks), -each.score)

    return tuple(sorted(found, key=rank))


def suspect(rule: str, results: Sequence[Result]) -> Suspect:
    """The case against one rule."""
    own = [each for each in results if rule in each.rules]
    bad, good = ([each for each in own if getattr(each.verdict, kind)] for kind in ("bad", "good"))
    named = [each for each in bad if each.finding.fault and rule in (each.finding.rules or each.rules)]
    pointed = [each for each in bad if rule in each.finding.rules]
    unnamed = sum(each.verdict.bad and not each.finding.fault for each in results)
    if 2 * len(pointed) < unnamed:  # a finding here and there says less than all checks
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


def weight(rule: str, results: Iterable[Result]) -> float:
    """How much results are about a rule: 1 for each in which it stands first, 1/2 where second, 1/3 ...."""
    return sum(1 / (1 + each.rules.index(rule)) for each in results)
