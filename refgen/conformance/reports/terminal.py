"""The report of a run on a terminal."""

import textwrap
from collections.abc import Sequence
from functools import partial

from refgen.conformance.judging.claims import CLAIMS, NOT_ASKED, NOT_CLAIMED, SMOKE
from refgen.conformance.judging.run import BROKEN, Run
from refgen.conformance.judging.verdicts import Verdict
from refgen.conformance.reports.contents import SUSPECTS, Failure, failures, grouped, head, line, title, untested

WIDTH, NARROWEST, ENDLESS = 110, 20, 10_000
SHOWN, ALIKE = 20, 6  # failures, and ids of failures like one that is shown, at most


def lines(run: Run, shown: int = SHOWN, width: int = ENDLESS) -> list[str]:
    """The whole report: the answer in words, then one line for each claim, then different failures, at most `shown`.

    `width` is the terminal's: sentences are wrapped there, or at WIDTH, and the table is cut there.
    """
    wrapped = partial(wrap, width)
    about = head(run)
    told = [*([about] if len(about) <= width else wrapped(about, "", "  ")), ""]
    for sentence in run.overall.sentences:
        told += wrapped(line(sentence), "", "  ")
    if run.overall.verdict != BROKEN:
        told += ["", *(cut(each, width) for each in table(run))]
    groups = grouped(failures(run))
    for first, *others in groups[:shown]:
        told += ["", *paragraph(first, others, width)]
    if left := [each.result.id for group in groups[shown:] for each in group]:
        told += ["", *wrapped(f"… and {len(left)} more failures: {listed(left)}", "", "  ")]
    if run.suspects:
        told += ["", *wrapped("Likely causes, the likeliest first:", "", "  ")]
        for number, suspect in enumerate(run.suspects[:SUSPECTS], start=1):
            name = f"{suspect.rule} {title(suspect.rule)}".strip()
            told += wrapped(line(f"{name}: {suspect.sentence}"), f"  {number}. ", "     ")
    if run.overall.verdict != BROKEN and (refused := untested(run)):
        told += ["", *wrapped("Refused or not shown, by claim:", "", "  ")]
        for each in refused:
            told += wrapped(line(each.sentence), "  ", "    ")
    return told


def table(run: Run) -> list[str]:
    """One line for each claim: its verdict, the number of checks with each result, and its meaning."""
    verdicts = [each for each in Verdict if any(str(each) in own for own in run.counts.values())]
    rows = [["claim", *map(str, verdicts), "verdict", ""]]
    for name, own in run.counts.items():
        if name in run.claims and run.claims[name].verdict in (NOT_CLAIMED, NOT_ASKED):
            continue
        said = run.claims[name].verdict if name in run.claims else "" if name == SMOKE else "unknown"
        what = CLAIMS[name].what.partition(";")[0] if name in CLAIMS else ""
        rows.append([name, *(str(own.get(str(each), "")) for each in verdicts), said, what])
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


def paragraph(bad: Failure, others: Sequence[Failure] = (), width: int = ENDLESS) -> list[str]:
    """One failure: what was seen, the rule, what it looks like, why it matters, which are like it, how to see it again."""
    wrapped = partial(wrap, width)
    told = [f"{bad.result.verdict} {line(bad.result.id)}", *wrapped(bad.message)]
    names = [line(f"{rule} {name}".strip()) for rule, name in bad.rules]
    if names:
        told += wrapped(f"{names[0]}: {bad.sentence}" if bad.sentence else names[0])
    if names[1:]:
        told += wrapped(f"also about {', '.join(names[1:])}")
    told += wrapped(f"looks like {bad.looks_like}") if bad.looks_like else []
    told += wrapped(f"where it begins: {bad.begins}") if bad.begins else []
    told += wrapped(f"why it matters: {bad.why}") if bad.why else []
    if others:
        told += wrapped(f"{len(others)} more like it: {listed([each.result.id for each in others])}")
    told += [f"  $ {line(bad.repeat)}"]
    if bad.commands:
        told += wrapped("where it begins: record your stages of the same ids as mine.safetensors (docs/trace.md), then")
        told += [f"  $ {each}" for each in bad.commands]
    return told


def listed(ids: Sequence[str]) -> str:
    """Some ids."""
    return line(", ".join(ids[:ALIKE]) + (", …" if len(ids) > ALIKE else ""))


def cut(text: str, width: int) -> str:
    """A line of a table as far as a terminal has room for it."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def wrap(width: int, text: str, first: str = "  ", others: str = "    ") -> list[str]:
    """Lines that a terminal has room for."""
    return textwrap.wrap(
        text, max(min(width, WIDTH), NARROWEST), initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )
