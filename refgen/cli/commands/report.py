"""`refgen report RECORD.jsonl …`: the record of a check, shown again; several in one table."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli.options import add_reports, check_reports, write_reports
from refgen.errors import ConformanceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refgen.conformance.judging.run import Run


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "report",
        help="show the record of a check again, or several side by side",
        description="Show the record that `refgen check --record` has written, in any form. With several records, show a table: subjects "
        "down, claims across. A cell shows how many checks passed, and ! marks a claim with a failure. "
        "The exit code is 0 whatever the verdict was.",
        epilog="Example: refgen report mine.jsonl theirs.jsonl --html table.html",
    )
    command.set_defaults(run=run)
    command.add_argument("records", metavar="RECORD.jsonl", nargs="+", type=Path, help="records of refgen check")
    add_reports(command, ("html", "junit", "badge"))


def run(options: argparse.Namespace) -> None:
    """Records in, a report or a table out."""
    from refgen.conformance.reports.record import read_jsonl

    check_reports(options)
    runs = [read_jsonl(path) for path in options.records]
    if len(runs) == 1:
        write_reports(runs[0], options)
    else:
        show_table(runs, options)


def show_table(runs: "Sequence[Run]", options: argparse.Namespace) -> None:
    """Subjects down, claims across."""
    from refgen.conformance.reports import matrix

    for name in ("junit", "badge", "quiet"):
        if getattr(options, name):
            raise ConformanceError(f"--{name}", "works with one record, and several are given")
    if options.html is not None:
        matrix.write_html(runs, options.html)
    if options.json:
        print(json.dumps(matrix.as_json(runs), indent=2))
    else:
        print("\n".join(matrix.lines(runs)))
