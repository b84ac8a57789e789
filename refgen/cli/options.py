"""Options that several commands share, and the checks of their values."""

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from refgen.cli import color
from refgen.cli.parser import Parser, add_choice
from refgen.cli.width import columns
from refgen.errors import RefgenError, UsageError
from refgen.shipped import BUILT_IN

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run


# Names that lie elsewhere too, written out so that --help is fast: of the conformance kit, and of refgen.engines.
DTYPES = ("float64", "float32", "float16", "bfloat16")
ENGINES = ("plain", "numpy", "canonical")


def add_model(command: Any) -> None:
    """--model, for `find_model`."""
    built_in = f"a folder, a name of the Hugging Face Hub such as gpt2, or the built-in {BUILT_IN[0]} (default)"
    command.add_argument("-m", "--model", default=BUILT_IN[0], metavar="DIR|NAME", help=built_in)


def add_engine(command: Any) -> None:
    """--engine, for `from_pretrained`."""
    what = (
        "the way to compute: %(choices)s (default: numpy). canonical is slower and gives the same float32 bits on every machine. "
        "plain is the definition itself"
    )
    add_choice(command, "--engine", names=ENGINES, metavar="ENGINE", default="numpy", help=what)


def add_json(command: Any, what: str) -> None:
    """--json, of what is printed."""
    command.add_argument("-j", "--json", action="store_true", help=what)


def check_picture(path: Path | None, error: type[RefgenError]) -> None:
    """Refuses a --plot without the extra that draws it."""
    if path is None:
        return
    try:
        import matplotlib as mpl  # noqa: F401 - an extra
    except ImportError:
        raise error("--plot", "needs matplotlib", remedy="pip install matplotlib") from None


def read_text(text: str | None) -> str | None:
    """A prompt: as it was typed, or for `-` and from a pipe the standard input, without the newline that ends it."""
    if text is None and not is_piped(sys.stdin):
        return None
    if text not in (None, "-"):
        return text
    if sys.stdin is None:
        raise UsageError("-", "standard input is closed")
    read = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    return read if text == "-" or read else None


def ids_of(text: str) -> list[int]:
    """The token ids that --ids lists. Raises `UsageError`."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise UsageError(f"--ids {text}", "must be whole numbers with commas between them")
    return [int(word) for word in words]


def is_piped(stream: TextIO | None) -> bool:
    """Whether a program or a file is at the other end."""
    try:
        mode = os.fstat(stream.fileno()).st_mode if stream is not None else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


REPORTS = {
    "record": "JSON lines, for refgen report",
    "html": "one page (needs jinja2)",
    "junit": "XML for CI servers",
    "badge": "JSON for shields.io",
}


def add_reports(command: Parser, forms: Iterable[str] = REPORTS) -> None:
    """--record and the other forms of a report, for `check_reports` and `write_reports`."""
    for name in forms:
        command.add_output(f"--{name}", help=f"write the results to this file: {REPORTS[name]}")
    add_json(command, "print the record as JSON lines instead of the report")
    command.add_argument("-q", "--quiet", action="store_true", help="print only the verdict")


def check_reports(options: argparse.Namespace) -> None:
    """Refuses a page without the extra that writes it, before any work is done for it."""
    if options.html is not None:
        from refgen.conformance.reports import page

        page.environment()


def write_reports(run: "Run", options: argparse.Namespace) -> int:
    """Prints the report, writes the files; the exit code is the verdict."""
    from refgen.conformance.reports import badge, junit, page, record, terminal

    writers = {
        "record": record.write_jsonl,
        "html": page.write_html,
        "junit": junit.write_junit,
        "badge": badge.write_badge,
    }
    for name, write in writers.items():
        path = getattr(options, name, None)
        if path is not None:
            write(run, path)
    lines = [run.overall.sentence] if options.quiet else terminal.lines(run, width=columns())
    told = [color.verdicts(each, sys.stdout) for each in lines]
    print("\n".join(map(json.dumps, record.entries(run)) if options.json else told))
    return run.overall.code
