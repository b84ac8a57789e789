"""The runner: all checks of a subject, one after the other, each to a result whatever the subject does.

Claims come in their order. A failing smoke test ends the run; a claim in which the subject keeps dying or hanging is left.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from refgen.conformance.judging import texts
from refgen.conformance.judging.choices import settled
from refgen.conformance.judging.claims import CLAIMS, SMOKE, place
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Check, Finding, KitError, Result, Verdict
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
from refgen.errors import ConformanceError, did_you_mean


def probe_checks(lab: Lab) -> list[cases.CaseCheck]:
    """The questions of all probes that are right in the subject's dtype; of a server, those of the probe it has loaded."""
    probes = [build() for name, build in PROBES.items() if name in lab.models]
    return [
        check
        for probe in probes
        if lab.about.dtype in probe.dtypes
        for case in probe.cases
        for check in cases.with_rows(case, probe.config, {})
    ]


SOURCES: Sequence[Callable[[Lab], Sequence[Check]]] = (
    smoke.checks,
    cases.checks,
    fresh.checks,
    sampling.checks,
    serving.checks,
    relations.checks,
    probe_checks,
)
DEATHS = 3  # in one claim, before it is left
DEADLY = frozenset({Verdict.CRASH, Verdict.TIMEOUT})


def check(
    subject: Subject,
    models: Mapping[str, Path] | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    claims: Iterable[str] = (),
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Run:
    """Makes all checks, or those of the claims and ids that `only` names ("network", "forward.*"); tells `progress` how far it is.

    `models` are the folders that the subject is asked about, by default those of the kit; `claims` must be answered. Raises
    `ConformanceError` for claims, ids and choices that do not exist, `KitError` if refgen itself fails.
    """
    settled(subject.about.choices)
    declared = frozenset(claims) | subject.about.claims
    for name in declared:
        if name not in CLAIMS:
            raise ConformanceError(f"claim {name!r}", "does not exist", remedy=did_you_mean(name, CLAIMS))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    lab = Lab(subject, Models() if models is None else models, seed)
    wanted = selected(lab, only)
    results: list[Result] = []
    for result in made(lab, wanted):
        results.append(result)
        progress(len(results), len(wanted), result.id)
    results = asked_again(lab, wanted, texts.explained(lab, results))
    progress(len(wanted), len(wanted), "")
    return Run(subject.about, tuple(results), seed, tuple(lab.models), tuple(only), declared, command, started)


def selected(lab: Lab, only: Sequence[str]) -> list[Check]:
    """Checks in the order of their claims; the smoke tests are always among them."""
    every = [each for source in SOURCES for each in source(lab)]
    for pattern in only:
        if pattern not in CLAIMS and not any(fnmatchcase(each.id, pattern) for each in every):
            remedy = did_you_mean(pattern, [*CLAIMS, *(each.id for each in every)]) or "Such as network or 'forward.*'."
            raise ConformanceError(f"--only {pattern}", "is neither a claim nor the id of a check", remedy=remedy)
    chosen = [
        each
        for each in every
        if each.claim == SMOKE or not only or any(each.claim == name or fnmatchcase(each.id, name) for name in only)
    ]
    return sorted(chosen, key=lambda each: place(each.claim))


def made(lab: Lab, wanted: Iterable[Check]) -> Iterator[Result]:
    """A result for each check, in order."""
    deaths: dict[str, int] = {}
    broken = ""
    for each in wanted:
        if isinstance(each, cases.RowCheck) and (broken or not each.applies(lab)):
            continue
        if broken and each.claim != SMOKE:
            result = left(each, broken)
        elif deaths.get(each.claim, 0) >= DEATHS:
            result = left(each, f"the subject died or hung {DEATHS} times in this claim")
        else:
            result = make(lab, each)
        deaths[each.claim] = deaths.get(each.claim, 0) + (result.verdict in DEADLY)
        if each.claim == SMOKE and result.verdict.bad:
            broken = f"{each.id} went wrong"
        yield result


def left(check: Check, reason: str) -> Result:
    """A check that was not made."""
    return Result(
        check.id, check.claim, check.rules, check.why, Finding(Verdict.INCONCLUSIVE, f"not made: {reason}"), 0.0
    )


def make(lab: Lab, check: Check) -> Result:
    """One check."""
    lab.asked.clear()
    lab.check = check.id
    start = time.monotonic()
    missing = sorted(check.needs - lab.about.can)
    finding = Finding(Verdict.SKIP, f"the subject does not {missing[0]}") if missing else guarded(lab, check)
    dead = finding.verdict in DEADLY  # a crash names no rule: it may have any cause
    rules = () if dead else tuple(dict.fromkeys((*finding.rules, *check.rules)))
    asked = () if finding.verdict.good else tuple(lab.asked)  # judging/run.py looks at what was asked and skipped
    return Result(check.id, check.claim, rules, check.why, finding, round(time.monotonic() - start, 4), asked)


def asked_again(lab: Lab, wanted: Sequence[Check], results: Sequence[Result]) -> list[Result]:
    """The first failure of each kind once more, alone and twice, of a subject that begins anew: if the answer changes, that is it.

    Checks of chance draw anew each time, and a time-out takes its time; they are left as they are.
    """
    seen, final, checks = set(), [], {each.id: each for each in wanted}
    for result in results:
        check = checks[result.id]
        kind = (result.claim, result.rules[:1], result.finding.fault)
        repeats = result.verdict.bad and result.verdict is not Verdict.TIMEOUT and not hasattr(check, "draws")
        if repeats and result.claim != SMOKE and kind not in seen:
            seen.add(kind)
            result = replace(result, finding=repeated(lab, check, result.finding))  # noqa: PLW2901 - the same, looked at again
            result = replace(result, rules=result.finding.rules if "again" in result.finding.facts else result.rules)  # noqa: PLW2901
        final.append(result)
    return final


def repeated(lab: Lab, check: Check, finding: Finding) -> Finding:
    """The same finding, or that the answer changes."""
    again = []
    lab.repeating = True
    for _ in range(2):
        lab.subject.restart()
        again.append(guarded(lab, check).verdict)
    lab.repeating = False
    good = sum(each.good for each in again)
    if not good:
        return finding
    said = (
        "asked alone, it is right: the answer depends on earlier requests"
        if good == 2
        else "the answer changes each time"
    )
    rules = ("CACHE-01", "GREEDY-04") if good == 2 else ("GREEDY-04", "CACHE-01")
    facts = {**finding.facts, "again": [str(each) for each in again]}
    return replace(finding, message=f"{said}. At first: {finding.message}", rules=rules, fault=None, facts=facts)


def guarded(lab: Lab, check: Check) -> Finding:
    """What the check finds; whatever else than an answer the subject gives is a verdict too. Raises `KitError`."""
    try:
        with np.errstate(all="ignore"):  # any numbers may be answered
            return check.run(lab)
    except SubjectError as error:
        if isinstance(error, RefusedError) and check.claim != SMOKE:
            crashed = error.is_crash
            return Finding(Verdict.CRASH if crashed else Verdict.SKIP, f"{'raised' if crashed else 'refused:'} {error}")
        verdicts: dict[type[Exception], Verdict] = {
            SkippedError: Verdict.SKIP, CrashedError: Verdict.CRASH, TimedOutError: Verdict.TIMEOUT
        }  # fmt: skip
        said = f"refused: {error}" if isinstance(error, RefusedError) else str(error)
        verdict = verdicts.get(type(error), Verdict.FAIL)
        if check.claim == SMOKE and verdict is Verdict.SKIP:  # it says that it can
            verdict = Verdict.FAIL
        return Finding(verdict, said, rules=error.rules)
    except Exception as error:
        raise KitError(check.id, error) from error
