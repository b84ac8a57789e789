"""Progress of long work: one line on a terminal's stderr that changes, and nothing into a pipe."""

import sys


def tell(text: str) -> None:
    """Shows `text` in place of what was shown before; an empty one wipes the line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
