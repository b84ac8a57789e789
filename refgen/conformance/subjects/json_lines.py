"""Files of JSON lines that begin with a header about a subject: what recorded traffic and records of runs have in common."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.border import hello
from refgen.conformance.subjects.protocol import About, GarbledError
from refgen.errors import ConformanceError


class CutOffError(ConformanceError):
    """A file that ends before the run did."""


NOTHING = "The run did not end, so there is no verdict on the subject."


def read_lines(path: Path, what: str, version: int) -> list[dict[str, Any]]:
    """The objects of a file, the header first. Raises `ConformanceError`, with the number of the wrong line.

    `what` the file should be, for error messages; `version` of its format, the only one that can be read.
    """
    found: list[dict[str, Any]] = []
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeError:
        raise ConformanceError(str(path), f"is not {what}: it is not UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError, MemoryError):
            if found and text.endswith(line):  # without a line's end
                raise CutOffError(f"{path}, line {number}", "is cut off", remedy=NOTHING) from None
            raise ConformanceError(f"{path}, line {number}", "is not JSON") from None
        if not isinstance(entry, dict):
            raise ConformanceError(f"{path}, line {number}", "must be an object")
        found.append(entry)
    if not found or found[0].get("kind") != "header":
        raise ConformanceError(str(path), f"is not {what}: it has no header")
    if found[0].get("format") != version:
        raise ConformanceError(f"{path}: format {found[0].get('format')}", f"is not known, must be {version}")
    return found


def about_entry(about: About) -> dict[str, Any]:
    """What a subject says of itself, as a header has it."""
    takes = {op: sorted(names) for op, names in about.takes.items()}
    told = {"can": sorted(about.can), "choices": dict(about.choices), "takes": takes, "claims": sorted(about.claims)}
    return asdict(about) | told


def about_of(entry: Mapping[str, Any]) -> About:
    """What a subject says of itself, from its entry in a header. Raises `TypeError` or `ValueError`."""
    try:
        return hello(**entry, known=None)
    except GarbledError as error:
        raise ValueError(str(error)) from None
