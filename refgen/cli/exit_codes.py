"""The exit codes of all commands. `refgen --help` shows the table, and docs/command-line.md shows that."""

import textwrap

RIGHT, WRONG, USAGE, INCONCLUSIVE, FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141
MEANINGS = {
    RIGHT: "done, or the verdict is right",
    WRONG: "a claim is wrong (check), or rounding does not explain it (compare)",
    USAGE: "a wrong flag, value or file, or the adapter does not work (check)",
    INCONCLUSIVE: "too little was shown, or the recording is cut off (check)",
    FAILED: "refgen itself failed, so there is no verdict on your implementation",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "the reader of the output closed it",
}


def table(width: int) -> str:
    """The table in lines of at most `width` characters."""
    lines = ["exit codes:"]
    for code, meaning in MEANINGS.items():
        lines += textwrap.wrap(meaning, width, initial_indent=f"  {code:<4}", subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"
