"""The width of the terminal: lines that it has room for."""

import shutil
import sys
import textwrap

ENDLESS = 10_000  # of a file or a pipe


def columns() -> int:
    """The width of the terminal that stdout is, or `ENDLESS`."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else ENDLESS


def fitted(line: str) -> str:
    """A sentence in lines of that width; a row of a table, which has columns two spaces apart, as it is."""
    if len(line) <= columns() or "  " in line:
        return line
    return textwrap.fill(line, columns(), break_long_words=False, break_on_hyphens=False)
