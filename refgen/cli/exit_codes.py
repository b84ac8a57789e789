"""The exit codes of all commands. `refgen --help` shows the table, and docs/command-line.md shows that."""

import textwrap

RIGHT, WRONG, USAGE, INCONCLUSIVE, FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141
MEANINGS = {
    RIGHT: "done; of check and compare: right",
    WRONG: "check: a claim is wrong; compare: the difference is more than rounding",
    USAGE: "a wrong flag, value or file; check: the adapter does not start or work",
    INCONCLUSIVE: "check: too little was shown, or the recording is cut off",
    FAILED: "refgen itself failed, which says nothing about your implementation",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "the reader of the output has left",
}


def table(width: int) -> str:
    """The table in lines of at most `width` characters."""
    lines = ["exit codes:"]
    for code, meaning in MEANINGS.items():
        lines += textwrap.wrap(meaning, width, initial_indent=f"  {code:<4}", subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"
