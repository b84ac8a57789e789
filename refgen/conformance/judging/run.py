"""A run: one subject, checked, and what all claims together say.

`overall` tries these in this order, and the first that applies is the verdict. The exit codes are those of all commands:

    adapter broken   2  a smoke test went bad: nothing else says anything about the model
    wrong            1  a claim is wrong, or one that was declared was not answered
    inconclusive     3  no claim is right, or one that was mostly answered, or declared, was not shown
    right            0  every claim that was made is right

`cli/exit_codes.py` has the codes of everything else.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import refgen
from refgen import spec
from refgen.conformance.judging.claims import (
    ENOUGH,
    NOT_ASKED,
    NOT_CLAIMED,
    SMOKE,
    WAITING,
    ClaimVerdict,
    claim_verdicts,
    counts,
)
from refgen.conformance.judging.claims import INCONCLUSIVE as UNCLEAR
from refgen.conformance.judging.claims import RIGHT as CLAIM_RIGHT
from refgen.conformance.judging.claims import WRONG as CLAIM_WRONG
from refgen.conformance.judging.suspects import Suspect, suspects
from refgen.conformance.judging.verdicts import Result
from refgen.conformance.subjects.protocol import About

RIGHT, WRONG, BROKEN, INCONCLUSIVE = "right", "wrong", "adapter broken", "inconclusive"
CODES = {RIGHT: 0, WRONG: 1, BROKEN: 2, INCONCLUSIVE: 3}


@dataclass(frozen=True)
class Overall:
    """What all results say together. `sentences` are one for each claim that was made, then what was not."""

    verdict: str
    sentences: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All in one line."""
        return " ".join(self.sentences)

    @property
    def code(self) -> int:
        """For the shell."""
        return CODES[self.verdict]


@dataclass(frozen=True)
class Run:
    """One subject, checked."""

    about: About
    results: tuple[Result, ...]
    seed: int = 0
    models: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # claims and ids that were asked for; empty for all
    declared: frozenset[str] = frozenset()  # claims that the subject or --claim declares
    command: str = ""  # that repeats it, without --seed, --only and reports
    started: str = ""  # ISO 8601
    version: str = field(default_factory=lambda: refgen.__version__)

    @property
    def claims(self) -> dict[str, ClaimVerdict]:
        """The verdict on every claim."""
        return claim_verdicts(self.results, self.declared)

    @property
    def overall(self) -> Overall:
        """The verdict on the subject."""
        return overall(self)

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The likeliest broken rule first, of the claims that are wrong."""
        return suspected(self.results, {name for name, each in self.claims.items() if each.verdict == CLAIM_WRONG})

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many results of each verdict, by claim."""
        return counts(self.results)

    @property
    def seconds(self) -> float:
        """Of all checks."""
        return sum(result.seconds for result in self.results)


# --- The verdict -----------------------------------------------------------------------------------------


def overall(run: Run) -> Overall:
    """What the results say of a subject."""
    smoke = [each for each in run.results if each.claim == SMOKE and each.verdict.bad]
    if smoke:
        said = (smoke[0].finding.message or smoke[0].why).rstrip(".")
        return Overall(
            BROKEN,
            (
                f"The adapter does not work: {smoke[0].id} is a {smoke[0].verdict} ({said}).",
                "The model was not tested.",
            ),
        )
    claims = run.claims
    made = [each for each in claims.values() if each.verdict not in (NOT_CLAIMED, NOT_ASKED)]
    sentences = [sentence(each, run) for each in made]
    for verdict, words in ((NOT_CLAIMED, "Not claimed"), (NOT_ASKED, "Not asked")):
        if names := [name for name, each in claims.items() if each.verdict == verdict]:
            sentences.append(f"{words}: {', '.join(names)}.")
    return Overall(verdict_of(made, claims, held_to(run)), tuple(sentences))


def held_to(run: Run) -> frozenset[str]:
    """The declared claims that this run is to show; one that --only leaves out is not among them."""
    claims = run.claims
    return frozenset(
        name for name in run.declared if name in claims and not (run.only and claims[name].verdict == NOT_ASKED)
    )


def verdict_of(made: Sequence[ClaimVerdict], claims: Mapping[str, ClaimVerdict], declared: frozenset[str]) -> str:
    """The verdict of a working adapter, including the claims that are declared."""
    if any(each.verdict == CLAIM_WRONG for each in made):
        return WRONG
    unclear = [each for each in made if each.verdict in (UNCLEAR, WAITING) and each.answered >= ENOUGH * each.asked]
    missing = [name for name in declared if claims[name].verdict != CLAIM_RIGHT]
    if unclear or missing or not any(each.verdict == CLAIM_RIGHT for each in made):
        return INCONCLUSIVE
    return RIGHT


def suspected(results: Sequence[Result], claims: Collection[str]) -> tuple[Suspect, ...]:
    """The suspects for the failures of some claims. Checks that passed count against a suspect, whatever their
    claim.
    """
    return suspects([each for each in results if each.verdict.good or each.claim in claims])


def sentence(each: ClaimVerdict, run: Run) -> str:
    """The sentence about a claim that was made."""
    if each.verdict == CLAIM_RIGHT:
        return f"{each.claim.says('right')} ({each.count})."
    if each.verdict == WAITING:
        return f"{each.claim.subject}: {each.bad} of {each.answered} failed; that waits for {run.claims[each.waits_for].claim.subject.lower()}."
    if each.verdict == UNCLEAR:
        return f"{each.claim.says('not shown')} ({each.count})."
    if not each.answered:
        return f"{each.claim.says('wrong')}: it is declared, and every question is refused."
    own = suspected(run.results, {each.claim.name})
    rule = own[0].rule if own else ""
    cause = f": {rule} {spec.rules()[rule].title}" if rule in spec.rules() else ""
    return f"{each.claim.says('wrong')}{cause} ({each.bad} of {each.answered} failed)."
