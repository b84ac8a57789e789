"""The record of a run, for programs: a file of JSON lines, from which `read_jsonl` makes the same run again.

It has one header, one line for each result and one footer, distinguished by `kind`. A record without a footer comes
from an interrupted run, and is not read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.subjects.json_lines import about_entry, about_of, read_lines
from refgen.errors import ConformanceError

FORMAT = 2


def write_jsonl(run: Run, path: Path) -> None:
    """The record, to be read by `read_jsonl` or any other program."""
    path.write_text("".join(json.dumps(each, allow_nan=False) + "\n" for each in entries(run)), encoding="utf-8")


def entries(run: Run) -> Iterator[dict[str, Any]]:
    """Header, results and footer as JSON values."""
    yield {
        "kind": "header",
        "format": FORMAT,
        "refgen": run.version,
        "subject": about_entry(run.about),
        "dtype": run.about.dtype,
        "seed": run.seed,
        "models": list(run.models),
        "only": list(run.only),
        "declared": sorted(run.declared),
        "command": run.command,
        "started": run.started,
    }
    for result in run.results:
        yield {
            "kind": "result",
            "id": result.id,
            "claim": result.claim,
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
        "claims": {name: each.verdict for name, each in run.claims.items()},
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
    """The run of a record. Raises `ConformanceError` for a file that is not a record, or was cut or changed."""
    header, *lines = read_lines(path, "a record of refgen check", FORMAT)
    if not lines or lines[-1].get("kind") != "footer":
        raise ConformanceError(str(path), "has no footer", remedy="The run did not end, so there is no verdict.")
    footer = lines.pop()
    try:
        run = Run(
            about=about_of(header["subject"]),
            results=tuple(map(result_of, lines)),
            seed=header["seed"],
            models=tuple(header["models"]),
            only=tuple(header["only"]),
            declared=frozenset(header["declared"]),
            command=header["command"],
            started=header["started"],
            version=header["refgen"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConformanceError(str(path), f"is not a record of refgen check: {error!r}") from None
    if footer.get("counts") != run.counts:
        raise ConformanceError(str(path), "has other results than its footer counts", remedy="It was cut or changed.")
    return run


def result_of(entry: Mapping[str, Any]) -> Result:
    """A result from its line."""
    if entry["kind"] != "result":
        raise ValueError(f"a line of kind {entry['kind']!r} between header and footer")
    finding = Finding(
        Verdict(entry["verdict"]), entry["message"], entry["facts"], tuple(entry["points_at"]), entry["fault"]
    )
    seconds, asked = float(entry["seconds"]), tuple(entry["asked"])
    return Result(entry["id"], entry["claim"], tuple(entry["rules"]), entry["why"], finding, seconds, asked)
