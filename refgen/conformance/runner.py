"""The runner: all checks of a subject, one after the other, each to a result whatever the subject does.

Levels come in their order. A failing smoke test ends the run; a level in which the subject keeps dying or hanging is left.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from refgen.conformance.judging.choices import settled
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import LEVELS, Check, Finding, Result, Verdict
from refgen.conformance.questions import cases, fresh, relations, sampling, serving, smoke
from refgen.conformance.questions.models import Models
from refgen.conformance.questions.probes import PROBES
from refgen.conformance.subjects.protocol import (
    CrashedError,
    RefusedError,
    SkippedError,
    Subject,
    SubjectError,
    TimedOutError,
)
from refgen.errors import ConformanceError, RefgenError


def probe_checks(lab: Lab) -> list[cases.CaseCheck]:
    """The questions of all probes that are right in the subject's dtype; of a server, those of the probe it has loaded."""
    probes = [build() for name, build in PROBES.items() if lab.about.loads or name in lab.models]
    return [cases.CaseCheck(case) for probe in probes if lab.about.dtype in probe.dtypes for case in probe.cases]


SOURCES: Sequence[Callable[[Lab], Sequence[Check]]] = (
    smoke.checks,
    cases.checks,
    fresh.checks,
    sampling.checks,
    serving.checks,
    relations.checks,
    probe_checks,
)
DEATHS = 3  # in one level, before it is left
DEADLY = frozenset({Verdict.CRASH, Verdict.TIMEOUT})


def check(
    subject: Subject,
    models: Mapping[str, Path] | None = None,
    levels: Iterable[str] | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Run:
    """Makes all checks of `levels`, by default of all, or those of them whose id matches one of `only`; tells `progress` how far it is.

    `models` are the folders that the subject is asked about, by default those of the kit. Raises `ConformanceError` for levels, ids and
    choices that there are not.
    """
    settled(subject.about.choices)
    levels = tuple(LEVELS) if levels is None else tuple(levels)
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ConformanceError(f"level {unknown[0]!r}", "is none", remedy=f"There are {', '.join(LEVELS)}.")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    lab = Lab(subject, Models() if models is None else models, seed)
    wanted = selected(lab, levels, only)
    results: list[Result] = []
    for result in made(lab, wanted):
        results.append(result)
        progress(len(results), len(wanted), result.id)
    progress(len(wanted), len(wanted), "")
    return Run(subject.about, tuple(results), seed, tuple(lab.models), levels, command, started)


def selected(lab: Lab, levels: Sequence[str], only: Sequence[str]) -> list[Check]:
    """Checks in the order of their levels; the smoke tests are always among them."""
    every = [each for source in SOURCES for each in source(lab)]
    for pattern in only:
        if not any(fnmatchcase(each.id, pattern) for each in every):
            raise ConformanceError(f"check {pattern!r}", "is none", remedy="Such as loop.end.first or 'forward.*'.")
    chosen = [
        each
        for each in every
        if each.level == "smoke"
        or (each.level in levels and (not only or any(fnmatchcase(each.id, pattern) for pattern in only)))
    ]
    return sorted(chosen, key=lambda each: list(LEVELS).index(each.level))


def made(lab: Lab, wanted: Iterable[Check]) -> Iterator[Result]:
    """A result for each check, in order."""
    deaths: dict[str, int] = {}
    broken = ""
    for each in wanted:
        if broken and each.level != "smoke":
            result = left(each, broken)
        elif deaths.get(each.level, 0) >= DEATHS:
            result = left(each, f"the subject died or hung {DEATHS} times in this level")
        else:
            result = make(lab, each)
        deaths[each.level] = deaths.get(each.level, 0) + (result.verdict in DEADLY)
        if each.level == "smoke" and result.verdict.bad:
            broken = f"{each.id} went wrong"
        yield result


def left(check: Check, reason: str) -> Result:
    """A check that was not made."""
    return Result(
        check.id, check.level, check.rules, check.why, Finding(Verdict.INCONCLUSIVE, f"not made: {reason}"), 0.0
    )


def make(lab: Lab, check: Check) -> Result:
    """One check."""
    lab.asked.clear()
    start = time.monotonic()
    missing = sorted(check.needs - lab.about.can)
    finding = Finding(Verdict.SKIP, f"the subject does not {missing[0]}") if missing else guarded(lab, check)
    rules = tuple(dict.fromkeys((*finding.rules, *check.rules)))
    asked = () if finding.verdict.good else tuple(lab.asked)  # judging/run.py looks at what was asked and skipped
    return Result(check.id, check.level, rules, check.why, finding, round(time.monotonic() - start, 4), asked)


def guarded(lab: Lab, check: Check) -> Finding:
    """What the check finds; whatever else than an answer the subject gives is a verdict too."""
    try:
        return check.run(lab)
    except (
        SubjectError,
        RefgenError,
    ) as error:  # refgen's own: what was answered cannot be looked at, such as ids that are no tokens
        verdicts: dict[type[Exception], Verdict] = {
            SkippedError: Verdict.SKIP, CrashedError: Verdict.CRASH, TimedOutError: Verdict.TIMEOUT
        }  # fmt: skip
        said = f"refused: {error}" if isinstance(error, RefusedError) else str(error)
        verdict = verdicts.get(type(error), Verdict.FAIL)
        if check.level == "smoke" and verdict is Verdict.SKIP:  # it says that it can
            verdict = Verdict.FAIL
        return Finding(verdict, said, rules=getattr(error, "rules", ()))
    except Exception as error:  # noqa: BLE001 - a fault of the kit is none of the subject's
        return Finding(Verdict.INCONCLUSIVE, f"the kit itself failed: {type(error).__name__}: {error}")
