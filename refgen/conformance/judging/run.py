"""A run: one subject, checked, and the verdict on the subject as a whole.

`overall` tries these in this order, and the first that applies is the verdict:

    adapter broken   2  a check of level smoke went bad: nothing else says anything about the model
    not conformant   1  another check went bad
    inconclusive     3  nothing went bad, but too little went well: nothing beyond smoke, fewer than half of what was asked
                        there of operations that the subject claims, or nothing in a level that it claims
    conformant       0  else, at the levels and in the dtype that the sentence names
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import refgen
from refgen.conformance.judging.suspects import Suspect, suspects
from refgen.conformance.judging.verdicts import LEVELS, Result, Verdict, by_level, counts
from refgen.conformance.subjects.protocol import About

CONFORMANT, NOT_CONFORMANT, BROKEN, INCONCLUSIVE = "conformant", "not conformant", "adapter broken", "inconclusive"
CODES = {CONFORMANT: 0, NOT_CONFORMANT: 1, BROKEN: 2, INCONCLUSIVE: 3}
# Levels that are about an operation as such; who claims it is asked no more there than to do it. The others also ask for
# settings that not everyone has.
CORE = ("tokenizer", "forward", "process", "loop")
ENOUGH = 0.5  # of the checks that were asked of claimed operations, at least


@dataclass(frozen=True)
class Overall:
    """What all results say together."""

    verdict: str
    sentence: str

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
    levels: tuple[str, ...] = tuple(LEVELS)  # that were asked for
    command: str = ""  # that repeats it, without --seed, --only and reports
    started: str = ""  # ISO 8601
    version: str = field(default_factory=lambda: refgen.__version__)

    @property
    def overall(self) -> Overall:
        """The verdict on the subject."""
        return overall(self.results, self.about)

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The likeliest broken rule first."""
        return suspects(self.results)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many results of each verdict, by level."""
        return counts(self.results)

    @property
    def seconds(self) -> float:
        """Of all checks."""
        return sum(result.seconds for result in self.results)


# --- The verdict -----------------------------------------------------------------------------------------


def overall(results: Sequence[Result], about: About) -> Overall:
    """What the results say of a subject that says `about` of itself."""
    levels = by_level(results)
    bad = {level: [each for each in own if each.verdict.bad] for level, own in levels.items()}
    good = {level: sum(each.verdict.good for each in own) for level, own in levels.items()}
    tested = {level: score(own) for level, own in levels.items() if good[level] or bad[level]}
    shown = ", ".join(f"{level} {told}" for level, told in tested.items() if not bad[level])
    untested = ", ".join(level for level in LEVELS if level not in tested)
    tail = f" Not tested: {untested}." if untested else ""
    if first := next(iter(bad.get("smoke", ())), None):
        return Overall(
            BROKEN,
            f"ADAPTER BROKEN: {first.id}: {first.verdict}, {(first.finding.message or first.why).rstrip('.')}. "
            "Until that is mended, nothing here is about the model.",
        )
    if failing := {level: len(each) for level, each in bad.items() if each}:
        number = sum(failing.values())
        where = ", ".join(f"{level} {count} of {len(levels[level])}" for level, count in failing.items())
        right = f" Right: {shown}." if shown else ""
        return Overall(
            NOT_CONFORMANT,
            f"NOT CONFORMANT in {about.dtype}: {number} check{'s' * (number > 1)} failed ({where}).{right}{tail}",
        )
    if reason := too_little(results, about):
        right = f" Right: {shown}." if shown else ""
        return Overall(INCONCLUSIVE, f"INCONCLUSIVE in {about.dtype}: {reason}.{right}{tail}")
    return Overall(CONFORMANT, f"CONFORMANT in {about.dtype} at levels {shown}.{tail}")


def too_little(results: Sequence[Result], about: About) -> str:
    """Why results of which none is bad show nothing; empty if they do."""
    asked = [each for each in results if each.level != "smoke" and was_asked(each, about)]
    good = sum(each.verdict.good for each in asked)
    if not good:
        return "no check beyond the smoke tests went well"
    if good < ENOUGH * len(asked):
        return f"{good} of the {len(asked)} checks of what it claims to do went well, fewer than half"
    for level, own in by_level(asked).items():
        spoke = level in CORE or any(each.verdict is not Verdict.SKIP for each in own)
        if spoke and not any(each.verdict.good for each in own):
            return f"no check of level {level}, which it claims, went well"
    return ""


def was_asked(result: Result, about: About) -> bool:
    """Whether the subject was asked something that it claims to do; a check it was spared does not count."""
    ops = {request.get("op") for request in result.asked}
    return result.verdict is not Verdict.SKIP or (bool(ops) and ops <= about.can)


def score(results: Sequence[Result]) -> str:
    """Such as `38/40 (2 skipped)`: how many went well of those made."""
    skipped = sum(each.verdict is Verdict.SKIP for each in results)
    unclear = sum(each.verdict is Verdict.INCONCLUSIVE for each in results)
    parts = [f"{skipped} skipped"] * bool(skipped) + [f"{unclear} inconclusive"] * bool(unclear)
    good = sum(each.verdict.good for each in results)
    return f"{good}/{len(results) - skipped}" + (f" ({', '.join(parts)})" if parts else "")
