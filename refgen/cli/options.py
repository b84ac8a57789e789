"""Options that several commands have, and what is wrong with their values."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.engines import DEFAULT, ENGINES
from refgen.errors import ConformanceError, RefgenError
from refgen.shipped import BUILT_IN

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run


def add_model(command: Any) -> None:
    """--model, for `find_model`."""
    built_in = f"a folder, a name of the Hugging Face Hub such as gpt2, or the built-in {BUILT_IN[0]} (default)"
    command.add_argument("--model", default=BUILT_IN[0], metavar="DIR|NAME", help=built_in)


def add_engine(command: Any) -> None:
    """--engine, for `from_pretrained`."""
    what = (
        "how to compute: canonical gives the same float32 bits on every machine, slower; plain is the definition itself"
    )
    command.add_argument("--engine", default=DEFAULT, choices=tuple(ENGINES), help=f"{what} (default: %(default)s)")


def check_output(path: Path | None, error: type[RefgenError]) -> None:
    """Refuses a file that cannot be written, before any work is done for it."""
    if path is not None and not path.parent.is_dir():
        raise error(str(path), "lies in no folder that exists")


def check_picture(path: Path | None, error: type[RefgenError]) -> None:
    """The same for a --plot, which needs the extra too."""
    if path is None:
        return
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise error("--plot", "needs matplotlib", remedy="pip install matplotlib") from None
    check_output(path, error)


def add_reports(command: Any) -> None:
    """--record and the other formats of a report, for `check_reports` and `write_reports`."""
    files = {
        "record": "JSON lines, for refgen matrix",
        "html": "one page (needs jinja2)",
        "junit": "XML for CI servers",
        "badge": "JSON for shields.io",
    }
    for name, what in files.items():
        command.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write the results there: {what}")
    command.add_argument("--json", action="store_true", help="print the record, JSON lines, instead of the report")
    command.add_argument("--quiet", action="store_true", help="print the verdict alone")


def check_reports(options: argparse.Namespace) -> None:
    """Refuses reports that cannot be written, before any work is done for them."""
    for path in (options.record, options.html, options.junit, options.badge):
        check_output(path, ConformanceError)
    if options.html is not None:
        from refgen.conformance.reports import page  # noqa: PLC0415 - only with this option

        page.environment()


def kit_failed(error: Exception) -> int:
    """Says that refgen itself failed, which accuses no subject; the exit code of that."""
    from refgen.conformance.judging.run import KIT_FAILED  # noqa: PLC0415 - only for these commands

    print(f"refgen: kit error: {error}", file=sys.stderr)
    return KIT_FAILED


def write_reports(run: "Run", options: argparse.Namespace) -> int:
    """Prints the report, writes the files; the exit code is the verdict."""
    from refgen.conformance.reports import badge, junit, page, record, terminal  # noqa: PLC0415 - only for these commands

    writers = {
        "record": record.write_jsonl,
        "html": page.write_html,
        "junit": junit.write_junit,
        "badge": badge.write_badge,
    }
    for name, write in writers.items():
        path = getattr(options, name)
        if path is not None:
            write(run, path)
    told = map(json.dumps, record.entries(run)) if options.json else terminal.lines(run)
    print(run.overall.sentence if options.quiet else "\n".join(told))
    return run.overall.code
