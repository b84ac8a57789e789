"""Verdicts: the result of one check, and of all checks together.

A check is one question to the subject, the implementation under test: a case with its stored answer, a law of sampling,
a relation between two answers. Each check has a stable dotted id, a claim (claims.py), the rules of SPEC.md it tests,
and a sentence that explains why it exists. `run(lab)` asks the question and returns a Finding. A new kind of check is a
class with these names, and nothing else changes.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from refgen.conformance.judging.lab import Lab


class Verdict(StrEnum):
    """What a check can say."""

    PASS = "PASS"  # noqa: S105 - no password
    TIE = "TIE"  # another token than the best, which rounding explains
    CHOICE = "CHOICE"  # one of several right answers, the one the subject declares
    FAIL = "FAIL"
    CRASH = "CRASH"  # it died, or closed its end
    TIMEOUT = "TIMEOUT"
    SKIP = "SKIP"  # the subject declares that it cannot
    INCONCLUSIVE = "INCONCLUSIVE"  # nothing was shown either way; never a pass

    @property
    def good(self) -> bool:
        """Whether the subject has shown that it is right."""
        return self in (Verdict.PASS, Verdict.TIE, Verdict.CHOICE)

    @property
    def bad(self) -> bool:
        """Whether it has shown that it is not."""
        return self in (Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT)


@dataclass(frozen=True)
class Finding:
    """What one check found. `message` is one line, "observed …, expected …"; `facts` are for programs (JSON values).

    `rules` names those that the evidence points at, the likeliest first, where that is more than the check itself knows; `fault`
    the known fault it looks like.
    """

    verdict: Verdict
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    fault: str | None = None


class Check(Protocol):
    """One question. `needs` are operations of the subject without which it cannot be asked."""

    @property
    def id(self) -> str:
        """Dotted, such as `stop.eos.first`; never used again for something else."""

    @property
    def claim(self) -> str:
        """The name of the claim it belongs to."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of SPEC.md."""

    @property
    def why(self) -> str:
        """What goes wrong for a user if this does."""

    @property
    def needs(self) -> frozenset[str]:
        """Operations, such as `generate`."""

    def run(self, lab: "Lab") -> Finding:
        """Asks the subject through `lab`. Failures of the subject (subjects/protocol.py) may be left to the runner."""


@dataclass(frozen=True)
class Result:
    """A check that was made."""

    id: str
    claim: str
    rules: tuple[str, ...]  # the finding's, if it names any, else the check's
    why: str
    finding: Finding
    seconds: float
    asked: tuple[Mapping[str, Any], ...] = ()  # the last few requests, to reproduce it: {"op", "model", **request}

    @property
    def verdict(self) -> Verdict:
        """The finding's."""
        return self.finding.verdict


@dataclass(frozen=True)
class LabCheck:
    """A check that is a function."""

    id: str
    claim: str
    rules: tuple[str, ...]
    why: str
    needs: frozenset[str]
    find: Callable[["Lab"], Finding]

    def run(self, lab: "Lab") -> Finding:
        """Calls it."""
        return self.find(lab)


class KitError(Exception):
    """refgen itself failed while it made a check, whatever the subject answered: it ends the run, which has no verdict."""

    def __init__(self, check: str, error: BaseException) -> None:
        self.check = check
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
        said = " ".join(str(error).split())[:300]
        super().__init__(
            f"{check}: {type(error).__name__}{where}: {said}. This is a bug of refgen: there is no verdict."
        )


def together(findings: Iterable[Finding]) -> Finding:
    """One of several findings: the first bad one, else the first tie, else the first. Without findings the result is
    INCONCLUSIVE.
    """
    found = []
    for finding in findings:
        if finding.verdict.bad:
            return finding
        found.append(finding)
    ties = [finding for finding in found if finding.verdict is Verdict.TIE]
    return next(iter(ties or found), Finding(Verdict.INCONCLUSIVE, "there was nothing to compare"))
