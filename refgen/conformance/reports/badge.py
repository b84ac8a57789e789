"""A badge, as the JSON that shields.io draws one from: levels, dtype and counts, so that it says no more than was shown."""

import json
from collections.abc import Iterable
from pathlib import Path

from refgen.conformance.judging.run import BROKEN, CONFORMANT, INCONCLUSIVE, NOT_CONFORMANT, Run
from refgen.conformance.judging.verdicts import LEVELS, Verdict, by_level

COLORS = {CONFORMANT: "brightgreen", NOT_CONFORMANT: "red", BROKEN: "lightgrey", INCONCLUSIVE: "yellow"}
SIGNS = {"relations": "R", "probes": "P"}  # levels that have no number
NUMBERED = tuple(level for level in LEVELS if level not in SIGNS)  # by their place; smoke, 0, is not worth a badge


def write_badge(run: Run, path: Path) -> None:
    """The badge's JSON."""
    verdict = run.overall.verdict
    told = {"schemaVersion": 1, "label": "refgen", "message": message(run), "color": COLORS[verdict]}
    path.write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")


def message(run: Run) -> str:
    """Such as `levels 1-5 float32 412/412 · R 25/25`: checks that went well, of those that were not skipped."""
    verdict = run.overall.verdict
    if verdict == BROKEN:
        return verdict
    good: dict[str, int] = {}
    made: dict[str, int] = {}
    for level, own in by_level(run.results).items():
        answered = [each.verdict for each in own if each.verdict is not Verdict.SKIP]
        if any(each.good or each.bad for each in answered):
            good[level], made[level] = sum(each.good for each in answered), len(answered)
    tested = [level for level in NUMBERED[1:] if level in made]
    parts = []
    if tested:
        total = f"{sum(good[each] for each in tested)}/{sum(made[each] for each in tested)}"
        plural = "s" * (len(tested) > 1)
        parts.append(f"level{plural} {ranges(map(NUMBERED.index, tested))} {run.about.dtype} {total}")
    elif made:
        parts.append(run.about.dtype)
    parts += [f"{sign} {good[level]}/{made[level]}" for level, sign in SIGNS.items() if level in made]
    told = " · ".join(parts)
    return told if verdict in (CONFORMANT, NOT_CONFORMANT) else f"{verdict} · {told}".rstrip("· ")


def ranges(numbers: Iterable[int]) -> str:
    """Such as `1-3,5`."""
    spans: list[list[int]] = []
    for each in numbers:
        if spans and spans[-1][1] == each - 1:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
