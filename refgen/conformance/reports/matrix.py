"""Several runs side by side: subjects down, claims across."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refgen.conformance.judging.claims import CLAIMS, NOT_CLAIMED, by_claim, place
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Result, Verdict
from refgen.conformance.reports.contents import line, title, who
from refgen.conformance.reports.page import render
from refgen.conformance.reports.terminal import aligned

NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """One claim of one subject."""

    good: int
    made: int  # without those that were skipped
    skipped: int
    bad: int

    @property
    def kind(self) -> str:
        """bad, good, or none if nothing was shown."""
        return "bad" if self.bad else "good" if self.good else "none"

    def __str__(self) -> str:
        if not self.made:
            return NOTHING
        return f"{self.good}/{self.made}"


def cell_of(results: Sequence[Result]) -> Cell:
    """Counts of a claim."""
    verdicts = [each.verdict for each in results]
    skipped = verdicts.count(Verdict.SKIP)
    good, bad = (sum(getattr(each, kind) for each in verdicts) for kind in ("good", "bad"))
    return Cell(good, len(verdicts) - skipped, skipped, bad)


def claims_of(runs: Sequence[Run]) -> list[str]:
    """The claims that any of them has, in order."""
    return sorted({each.claim for run in runs for each in run.results}, key=lambda claim: (place(claim), claim))


def cells(run: Run, claims: Sequence[str]) -> list[Cell]:
    """One a claim; empty for a claim that the subject does not make."""
    own, said = by_claim(run.results), run.claims
    return [
        cell_of(() if claim in said and said[claim].verdict == NOT_CLAIMED else own.get(claim, ())) for claim in claims
    ]


def lines(runs: Sequence[Run]) -> list[str]:
    """The table for a terminal: checks that went well of those made, the verdict, and whom to suspect."""
    claims = claims_of(runs)
    rows = [["subject", "dtype", *claims, "verdict"]]
    for run in runs:
        told = [f"{each}{'!' * bool(each.bad)}" for each in cells(run, claims)]
        rows.append([who(run), run.about.dtype, *told, f"{run.overall.verdict}{suspected(run)}"])
    return [line(each) for each in aligned(rows)]


def suspected(run: Run) -> str:
    """The likeliest rule of a subject that fails."""
    if not run.suspects or not run.overall.code:
        return ""
    rule = run.suspects[0].rule
    return f": {rule} {title(rule)}".rstrip()


def as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The same for programs, an object a run."""
    return [
        {
            "subject": run.about.name,
            "version": run.about.version,
            "dtype": run.about.dtype,
            "refgen": run.version,
            "seed": run.seed,
            "verdict": run.overall.verdict,
            "exit_code": run.overall.code,
            "sentence": run.overall.sentence,
            "claims": {name: each.verdict for name, each in run.claims.items()},
            "counts": run.counts,
            "suspects": [each.rule for each in run.suspects],
        }
        for run in runs
    ]


def write_html(runs: Sequence[Run], path: Path) -> None:
    """The table as an HTML page. Raises `ConformanceError` without jinja2."""
    claims = claims_of(runs)
    rows = [(run, who(run), cells(run, claims), suspected(run).removeprefix(": ")) for run in runs]
    path.write_text(
        render("matrix.html.j2", claims=claims, rows=rows, what={name: each.what for name, each in CLAIMS.items()}),
        encoding="utf-8",
    )
