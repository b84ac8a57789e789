"""Colour on a terminal: for errors, and for verdicts in a report. NO_COLOR turns it off, FORCE_COLOR on (no-color.org, force-color.org)."""

import os
import re
from typing import TextIO

RED, GREEN, YELLOW = "1;31", "32", "33"
VERDICTS = {
    RED: ("FAIL", "CRASH", "TIMEOUT", "wrong"),
    GREEN: ("PASS", "right"),
    YELLOW: ("TIE", "CHOICE", "INCONCLUSIVE", "inconclusive", "waiting", "adapter broken"),
}
COLOR = {word: color for color, words in VERDICTS.items() for word in words}
WORDS = "|".join(map(re.escape, COLOR))
# A verdict begins a line, follows the colon or the `is` of a sentence, or stands in a column of its own.
PLACES = re.compile(
    rf"^(?:{WORDS})\b|(?<=: )(?:{WORDS})\b|(?<=  )(?:{WORDS})(?=  |$)|(?<= is )(?:{WORDS})\b|(?<= are )(?:{WORDS})\b"
)


def wanted(stream: TextIO) -> bool:
    """Whether what is printed to `stream` may have colour."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, color: str, stream: TextIO) -> str:
    """The text in a colour, if `stream` may have one."""
    return f"\033[{color}m{text}\033[0m" if wanted(stream) else text


def verdicts(line: str, stream: TextIO) -> str:
    """A line of a report with its verdicts in colour, if `stream` may have it."""
    return PLACES.sub(lambda found: painted(found[0], COLOR[found[0]], stream), line)
