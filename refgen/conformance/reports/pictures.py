"""What the page draws, from the facts of findings (contents.py): heights and shades between 0 and 1, and the words beside them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from refgen.conformance.judging.claims import by_claim
from refgen.conformance.judging.verdicts import Result
from refgen.oracle.compare import part_of
from refgen.oracle.margins import NEAR

DRAWN = 12  # pictures of a kind, at most
DARKEST = 1e3  # times the expected error, from which on shades do not grow


@dataclass(frozen=True)
class Bar:
    """One step of a timeline."""

    step: int
    sigmas: str
    height: float
    kind: str  # best, tie or off


@dataclass(frozen=True)
class Timeline:
    """How far each greedy token is below the best."""

    result: Result
    bars: tuple[Bar, ...]
    limit: float  # the height of what rounding explains
    largest: str


@dataclass(frozen=True)
class Cell:
    """One stage, or one check."""

    name: str
    part: str  # of the network; of a check nothing
    overall: str
    worst: str
    passes: bool
    shade: float


@dataclass(frozen=True)
class Strip:
    """Errors side by side."""

    title: str
    cells: tuple[Cell, ...]

    @property
    def parts(self) -> list[tuple[int, str, int]]:
        """Where each part of the network begins, its name and how many cells it has."""
        found, start = [], 0
        for part, own in groupby(self.cells, key=lambda cell: cell.part):
            size = len(list(own))
            found += [(start, part, size)] * bool(part)
            start += size
        return found

    @property
    def first(self) -> Cell | None:
        """The first that rounding does not explain."""
        return next((cell for cell in self.cells if not cell.passes), None)


@dataclass(frozen=True)
class Power:
    """A known fault of samplers, and whether a check would have seen it."""

    check: str
    fault: str
    tokens: str
    detected: float


def ordered(results: Iterable[Result], fact: str) -> list[Result]:
    """Results that have the fact: those that went bad first, then by claim."""
    found = [each for own in by_claim(results).values() for each in own if fact in each.finding.facts]
    return sorted(found, key=lambda each: not each.verdict.bad)


def timelines(results: Sequence[Result]) -> list[Timeline]:
    """Of texts in which not every token is the best."""
    found = []
    for each in ordered(results, "margins"):
        margins = [max(0.0, number(value)) for value in each.finding.facts["margins"]]
        if any(margins):
            found.append(timeline(each, margins))
    return found


def timeline(result: Result, margins: Sequence[float]) -> Timeline:
    """One text; heights are logarithmic, and what is infinite is as high as there is room."""
    finite = [margin for margin in margins if math.isfinite(margin)]
    top = math.log1p(max(2 * NEAR, *finite))
    bars = tuple(
        Bar(
            step,
            figure(margin),
            min(1.0, math.log1p(margin) / top),
            "best" if margin == 0 else "tie" if margin <= NEAR else "off",
        )
        for step, margin in enumerate(margins)
    )
    return Timeline(result, bars, math.log1p(NEAR) / top, figure(max(margins)))


def strips(results: Sequence[Result]) -> list[Strip]:
    """One of all checks of logits, and one of the stages of each pass that shows them."""
    whole = [each for own in by_claim(results).values() for each in own if "overall" in each.finding.facts]
    checks = tuple(cell(each.id, "", each.finding.facts, not each.verdict.bad) for each in whole)
    found = [Strip("logits, one cell a check", checks)] * bool(checks)
    for each in ordered(results, "stages"):
        stages = each.finding.facts["stages"]
        cells = tuple(cell(stage["name"], part_of(stage["name"]), stage, bool(stage["passes"])) for stage in stages)
        found += [Strip(f"{each.verdict} {each.id}", cells)] * bool(cells)
    return found


def cell(name: str, part: str, facts: Mapping[str, Any], passes: bool) -> Cell:
    """A stage; the stronger its shade, the further it is off."""
    overall, worst = (number(facts.get(key, "nan")) for key in ("overall", "worst"))
    off = max(overall, 1.0) if math.isfinite(overall) else DARKEST
    return Cell(name, part, figure(overall), figure(worst), passes, min(1.0, math.log(off) / math.log(DARKEST)))


def powers(results: Sequence[Result]) -> list[Power]:
    """What checks of sampling would have seen."""
    return [
        Power(each.id, str(own["fault"]), figure(number(own["tokens"])), float(own["detected"]))
        for each in ordered(results, "power")
        for own in each.finding.facts["power"]
    ]


def number(value: Any) -> float:
    """A fact as a number, or NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
