"""A badge, as the JSON that shields.io draws one from: the claims that are right or wrong, so that it says no more than was shown."""

import json
from pathlib import Path

from refgen.conformance.judging.claims import RIGHT as CLAIM_RIGHT
from refgen.conformance.judging.claims import WRONG as CLAIM_WRONG
from refgen.conformance.judging.run import BROKEN, INCONCLUSIVE, RIGHT, WRONG, Run

COLORS = {RIGHT: "brightgreen", WRONG: "red", BROKEN: "lightgrey", INCONCLUSIVE: "yellow"}


def write_badge(run: Run, path: Path) -> None:
    """The badge's JSON."""
    told = {"schemaVersion": 1, "label": "refgen", "message": message(run), "color": COLORS[run.overall.verdict]}
    path.write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")


def message(run: Run) -> str:
    """Such as `float32: network, greedy, cache right`, or what is wrong."""
    verdict = run.overall.verdict
    if verdict == BROKEN:
        return verdict
    wanted = CLAIM_WRONG if verdict == WRONG else CLAIM_RIGHT
    names = [name for name, each in run.claims.items() if each.verdict == wanted]
    said = f"{', '.join(names)} {wanted}" if names else verdict
    return f"{run.about.dtype}: {said}"
