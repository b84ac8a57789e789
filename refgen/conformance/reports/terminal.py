"""The report of a run: what there is to say, and how a terminal says it. Other formats are in formats/.

A check says the numbers behind its verdict in the facts of its finding. Reports know these, whatever check has them:

    margins   of each greedy step, how far the token lies behind the best, in sigmas of rounding: 0 for the best; a list
    stages    of each stage of a forward pass, its error in units of the expected one: {name, overall, worst, passes}; a list
    overall, worst
              the same of the logits alone: two numbers
    power     of each known sampler fault, whether it would have been seen: {fault, tokens, detected}; a list. `tokens` is how
              many it takes on average, `detected` the chance with those that were drawn, 0 to 1

Numbers that are not finite are the texts inf, -inf and nan (record.py).
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from refgen import spec
from refgen.conformance.judging.verdicts import LEVELS, Result, Verdict
from refgen.conformance.reports.record import Run, by_level
from refgen.oracle.faults import FAULTS

WIDTH = 110
SHOWN, SUSPECTS, ALIKE = 20, 5, 6  # failures, suspects, and ids of failures like one that is shown, at most
FAULT_SENTENCES = {fault.name: fault.sentence for fault in FAULTS}


# --- What there is to say ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A check that went bad, for a person."""

    result: Result
    message: str
    why: str
    rules: tuple[tuple[str, str], ...]  # ids with their titles
    sentence: str  # of the first rule
    looks_like: str  # a fault and what it is; empty if none is known or the message says it
    repeat: str  # the command that asks it again


@dataclass(frozen=True)
class Untested:
    """Checks that showed nothing, for the same reason."""

    reason: str
    levels: tuple[str, ...]
    ids: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """How many, where, and why."""
        number = len(self.ids)
        return f"{number} check{'s' * (number != 1)} of {', '.join(self.levels)}: {self.reason}"


def failures(run: Run) -> list[Failure]:
    """Everything that went bad, by level."""
    return [failure(run, each) for own in by_level(run.results).values() for each in own if each.verdict.bad]


def grouped(several: Iterable[Failure]) -> list[list[Failure]]:
    """Failures of the same level and verdict that point at the same rule and fault; one of them is enough to read."""
    groups = defaultdict(list)
    for each in several:
        result = each.result
        groups[result.level, result.verdict, result.rules[:1], result.finding.fault].append(each)
    return list(groups.values())


def failure(run: Run, result: Result) -> Failure:
    """What there is to say about one."""
    finding = result.finding
    known = FAULT_SENTENCES.get(finding.fault or "", "")
    looks = f"{finding.fault}: {known}".rstrip(": ") if finding.fault and finding.fault not in finding.message else ""
    return Failure(
        result,
        message=line(finding.message) or "nothing was said",
        why=line(result.why),
        rules=tuple((rule, title(rule)) for rule in result.rules),
        sentence=spec.rules()[result.rules[0]].sentence if result.rules and result.rules[0] in spec.rules() else "",
        looks_like=line(looks),
        repeat=f"{run.command or 'refgen check SUBJECT'} --only {result.id} --seed {run.seed}",
    )


def title(rule: str) -> str:
    """A rule's, empty for one that this version does not have."""
    return spec.rules()[rule].title if rule in spec.rules() else ""


def untested(run: Run) -> list[Untested]:
    """Skipped and inconclusive checks by their reason, and levels that were not asked for or had none."""
    groups = defaultdict(list)
    for each in run.results:
        if each.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE):
            reason = line(each.finding.message) or ("skipped" if each.verdict is Verdict.SKIP else "nothing was shown")
            groups[reason if each.verdict is Verdict.SKIP else f"inconclusive: {reason}"].append(each)
    found = [
        Untested(reason, tuple(by_level(own)), tuple(each.id for each in own))
        for reason, own in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]
    there = by_level(run.results)
    left = tuple(level for level in LEVELS if level not in run.levels and level not in there)
    empty = tuple(level for level in run.levels if level not in there)
    found += [Untested("not asked for", left, ())] * bool(left)
    return found + [Untested("no check fits the subject", empty, ())] * bool(empty)


def line(text: str) -> str:
    """A text on one line; what cannot be printed is escaped, so that no subject writes to the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def head(run: Run) -> str:
    """Who was checked, and by what."""
    parts = [f"{who(run)} in {run.about.dtype}", f"refgen {run.version}", f"seed {run.seed}"]
    parts += [f"choices {', '.join(f'{name}={option}' for name, option in run.about.choices.items())}"] * bool(
        run.about.choices
    )
    parts += [f"models {', '.join(run.models)}" if len(run.models) <= 3 else f"{len(run.models)} models"] * bool(
        run.models
    )
    return line(" · ".join([*parts, f"{run.seconds:.1f} s"]))


def who(run: Run) -> str:
    """Name and version."""
    return line(f"{run.about.name} {run.about.version}".strip())


# --- On a terminal ----------------------------------------------------------------------------------------


def lines(run: Run, shown: int = SHOWN) -> list[str]:
    """The whole report; of failures that differ at most `shown`."""
    groups = grouped(failures(run))
    told = [head(run), "", *table(run)]
    for first, *others in groups[:shown]:
        told += ["", *paragraph(first, others)]
    if left := [each.result.id for group in groups[shown:] for each in group]:
        told += ["", *wrapped(f"… and {len(left)} more failures: {listed(left)}", "", "  ")]
    told += ["", *wrapped(line(run.overall.sentence), "", "  ")]
    if run.suspects:
        told += ["", "Suspects, the likeliest first:"]
        for number, suspect in enumerate(run.suspects[:SUSPECTS], start=1):
            name = f"{suspect.rule} {title(suspect.rule)}".strip()
            told += wrapped(line(f"{name}: {suspect.sentence}"), f"  {number}. ", "     ")
    if reasons := untested(run):
        told += ["", "Not tested:"]
        for reason in reasons:
            about = reason.sentence if reason.ids else f"{', '.join(reason.levels)}: {reason.reason}"
            told += wrapped(about, "  ", "    ")
    return told


def table(run: Run) -> list[str]:
    """A line a level: how many of each verdict, and what the level is."""
    verdicts = [each for each in Verdict if any(str(each) in own for own in run.counts.values())]
    rows = [["level", *map(str, verdicts), ""]]
    rows += [
        [level, *(str(own.get(str(each), "")) for each in verdicts), LEVELS.get(level, "").partition(";")[0]]
        for level, own in run.counts.items()
    ]
    return aligned(rows)


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns: the first and last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        ).rstrip()
        for row in rows
    ]


def paragraph(bad: Failure, others: Sequence[Failure] = ()) -> list[str]:
    """One failure: what was seen, the rule, what it looks like, why it matters, which are like it, how to see it again."""
    told = [f"{bad.result.verdict} {line(bad.result.id)}", *wrapped(bad.message)]
    names = [line(f"{rule} {name}".strip()) for rule, name in bad.rules]
    if names:
        told += wrapped(f"{names[0]}: {bad.sentence}" if bad.sentence else names[0])
    if names[1:]:
        told += wrapped(f"also about {', '.join(names[1:])}")
    told += wrapped(f"looks like {bad.looks_like}") if bad.looks_like else []
    told += wrapped(f"why it matters: {bad.why}") if bad.why else []
    if others:
        told += wrapped(f"{len(others)} more like it: {listed([each.result.id for each in others])}")
    return [*told, f"  $ {line(bad.repeat)}"]


def listed(ids: Sequence[str]) -> str:
    """Some ids."""
    return line(", ".join(ids[:ALIKE]) + (", …" if len(ids) > ALIKE else ""))


def wrapped(text: str, first: str = "  ", others: str = "    ") -> list[str]:
    """Lines that a terminal has room for."""
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


# --- Rules ------------------------------------------------------------------------------------------------


def coverage(results: Iterable[Result]) -> dict[str, dict[str, list[Result]]]:
    """Of each rule, in the order of SPEC.md, its checks by verdict; rules without a check are not there."""
    found: defaultdict[str, defaultdict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        for rule in each.rules:
            found[rule][str(each.verdict)].append(each)
    order: Mapping[str, int] = {rule: number for number, rule in enumerate(spec.rules())}
    return {rule: dict(found[rule]) for rule in sorted(found, key=lambda rule: (order.get(rule, len(order)), rule))}
