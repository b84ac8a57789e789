"""`refgen matrix A.jsonl B.jsonl …`: records of several subjects in one table."""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen.cli.options import check_output
from refgen.errors import ConformanceError


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "matrix",
        help="show several subjects claim by claim",
        description="Lay records of `refgen check` side by side: subjects down, claims across. "
        "A cell has the checks that went well of those made; ! marks a claim in which one failed.",
        epilog="Example: refgen matrix mine.jsonl theirs.jsonl --html matrix.html",
    )
    command.set_defaults(run=run)
    command.add_argument("records", metavar="RECORD.jsonl", nargs="+", type=Path, help="as refgen check writes them")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page too (needs jinja2)")
    command.add_argument("--json", action="store_true", help="an array with one object a record")


def run(options: argparse.Namespace) -> None:
    """Records in, one table out."""
    from refgen.conformance.reports import matrix  # noqa: PLC0415 - only for this command
    from refgen.conformance.reports.record import read_jsonl  # noqa: PLC0415

    check_output(options.html, ConformanceError)
    runs = [read_jsonl(path) for path in options.records]
    if options.html is not None:
        matrix.write_html(runs, options.html)
    if options.json:
        print(json.dumps(matrix.as_json(runs), indent=2))
    else:
        print("\n".join(matrix.lines(runs)))
