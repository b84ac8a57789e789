"""The record of a run: what was checked, what each check found, what it says of the subject as a whole, whom to suspect.

`overall` holds these in this order, and the first that applies is the verdict:

    adapter broken   2  a check of level smoke went bad: nothing else says anything about the model
    not conformant   1  another check went bad
    inconclusive     3  nothing went bad, but too little went well: nothing beyond smoke, fewer than half of what was asked
                        there of operations that the subject claims, or nothing in a level that it claims
    conformant       0  else, at the levels and in the dtype that the sentence names

A record is a file of JSON lines: one header, one line a result, one footer, told apart by `kind`. A file whose footer is
missing is of a run that did not end, and no record.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

import refgen
from refgen.conformance.judging.verdicts import LEVELS, Finding, Result, Verdict
from refgen.conformance.subjects.protocol import About
from refgen.errors import ConformanceError

CONFORMANT, NOT_CONFORMANT, BROKEN, INCONCLUSIVE = "conformant", "not conformant", "adapter broken", "inconclusive"
CODES = {CONFORMANT: 0, NOT_CONFORMANT: 1, BROKEN: 2, INCONCLUSIVE: 3}
FORMAT = 1
# Levels that are about an operation as such; who claims it is asked no more there than to do it. The others also ask for
# settings that not everyone has.
CORE = ("tokenizer", "forward", "process", "loop")
MOST = 0.75  # of a rule's checks: one whose checks nearly all fail is as suspect as one of a single check that does
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


# --- Together ---------------------------------------------------------------------------------------------


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


def by_level(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by level, in the order of LEVELS; levels without any are not there."""
    found = defaultdict(list)
    for each in sorted(results, key=lambda result: place(result.level)):
        found[each.level].append(each)
    return dict(found)


def place(level: str) -> int:
    """The number of a level; those of later versions come last."""
    return list(LEVELS).index(level) if level in LEVELS else len(LEVELS)


def counts(results: Iterable[Result]) -> dict[str, dict[str, int]]:
    """How many results of each verdict, by level; verdicts in their order, those that are not there left out."""
    found = {level: Counter(each.verdict for each in own) for level, own in by_level(results).items()}
    return {level: {str(each): number[each] for each in Verdict if number[each]} for level, number in found.items()}


# --- Whom to suspect --------------------------------------------------------------------------------------


def suspects(results: Sequence[Result]) -> tuple[Suspect, ...]:
    """Rules of checks that went bad, the likeliest broken one first.

    A known fault that fits comes before what else findings point at, and that before set logic: the share of a rule's
    checks that went bad. A rule that stands first in a check counts most, in both directions. Where that is
    equal, or MOST for both, an earlier level explains a later one, and of one level the rule of more checks.
    """
    bad = [each for each in results if each.verdict.bad]
    found = [suspect(rule, results) for rule in dict.fromkeys(rule for each in bad for rule in each.rules)]
    levels = {each.rule: min(place(own.level) for own in bad if each.rule in own.rules) for each in found}

    def rank(each: Suspect) -> tuple[float, ...]:
        level, evidence = levels[each.rule], EVIDENCE.index(each.evidence)
        # Two findings that name faults are no rivals: the later one was made on what the earlier one spoiled.
        order = (-min(each.score, MOST), level) if each.evidence == SHARED else (level, -each.score)
        return (evidence, *order, -len(each.checks), -each.score)

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


# --- JSON lines -------------------------------------------------------------------------------------------


def write_jsonl(run: Run, path: Path) -> None:
    """The record, to be read by `read_jsonl` or any other program."""
    path.write_text("".join(json.dumps(each, allow_nan=False) + "\n" for each in entries(run)), encoding="utf-8")


def entries(run: Run) -> Iterator[dict[str, Any]]:
    """Header, results and footer as JSON values."""
    about = asdict(run.about) | {"can": sorted(run.about.can), "choices": dict(run.about.choices)}
    yield {
        "kind": "header",
        "format": FORMAT,
        "refgen": run.version,
        "subject": about,
        "dtype": run.about.dtype,
        "seed": run.seed,
        "models": list(run.models),
        "levels": list(run.levels),
        "command": run.command,
        "started": run.started,
    }
    for result in run.results:
        yield {
            "kind": "result",
            "id": result.id,
            "level": result.level,
            "verdict": str(result.verdict),
            "message": result.finding.message,
            "rules": list(result.rules),
            "why": result.why,
            "fault": result.finding.fault,
            "points_at": list(result.finding.rules),
            "facts": plain(result.finding.facts),
            "seconds": plain(result.seconds),
            "asked": plain(result.asked),
        }
    whole = run.overall
    yield {
        "kind": "footer",
        "counts": run.counts,
        "verdict": whole.verdict,
        "exit_code": whole.code,
        "sentence": whole.sentence,
        "suspects": [asdict(each) | {"sentence": each.sentence} for each in run.suspects],
    }


def plain(value: Any) -> Any:
    """A value as strict JSON: arrays are lists, and a number that is not finite is the text nan, inf or -inf."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def read_jsonl(path: Path) -> Run:
    """The run of a record. Raises `ConformanceError` for a file that is none, or was cut or changed."""
    header, *lines = read_lines(path, "a record of refgen check")
    if header.get("format") != FORMAT:
        raise ConformanceError(f"{path}: format {header.get('format')}", f"is not known, must be {FORMAT}")
    if not lines or lines[-1].get("kind") != "footer":
        raise ConformanceError(str(path), "has no footer", remedy="The run did not end, so it says nothing.")
    footer = lines.pop()
    try:
        run = Run(
            about=about_of(header["subject"]),
            results=tuple(map(result_of, lines)),
            seed=header["seed"],
            models=tuple(header["models"]),
            levels=tuple(header["levels"]),
            command=header["command"],
            started=header["started"],
            version=header["refgen"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConformanceError(str(path), f"is no record of refgen check: {error!r}") from None
    if footer.get("counts") != run.counts:
        raise ConformanceError(str(path), "has other results than its footer counts", remedy="It was cut or changed.")
    return run


def read_lines(path: Path, what: str) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines that begins with a header. Raises `ConformanceError`, naming the line."""
    found = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeError:
        raise ConformanceError(str(path), f"is not {what}: it is no UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise ConformanceError(f"{path}, line {number}", "is not JSON") from None
        if not isinstance(entry, dict):
            raise ConformanceError(f"{path}, line {number}", "must be an object")
        found.append(entry)
    if not found or found[0].get("kind") != "header":
        raise ConformanceError(str(path), f"is not {what}: it has no header")
    return found


def about_of(entry: Mapping[str, Any]) -> About:
    """What a subject says of itself, from a header."""
    return About(**{**entry, "can": frozenset(entry["can"])})


def result_of(entry: Mapping[str, Any]) -> Result:
    """A result from its line."""
    if entry["kind"] != "result":
        raise ValueError(f"a line of kind {entry['kind']!r} between header and footer")
    finding = Finding(
        Verdict(entry["verdict"]), entry["message"], entry["facts"], tuple(entry["points_at"]), entry["fault"]
    )
    seconds, asked = float(entry["seconds"]), tuple(entry["asked"])
    return Result(entry["id"], entry["level"], tuple(entry["rules"]), entry["why"], finding, seconds, asked)
