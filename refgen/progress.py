"""Progress of long work: one line on a terminal's stderr that changes, and nothing into a pipe."""

import shutil
import sys


def tell(text: str) -> None:
    """Shows `text` in place of what was shown before; an empty one wipes the line."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # a longer line could not be wiped
        print(f"\r\033[K{text[:width]}", end="", file=sys.stderr, flush=True)
