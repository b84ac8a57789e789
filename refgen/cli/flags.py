"""Messages in the words of the command line: `--top-k 0`, not `top_k=0`."""

import argparse
import re
from collections.abc import Mapping

VALUE = r"""=('[^']*'|"[^"]*"|\([^)]*\)|\[[^\]]*\]|[^\s,;:]*[^\s,;:.])"""
PYTHON = {  # values that a command line does not have
    "Pass None to leave it out": "Leave it out",
    " or None ": " ",
    "Pass None to": "Write none to",
    "None ": "Leaving it out ",
    "True, False or": "true, false or",
}


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The long flag of each option by the name that its value has in Python."""
    return {action.dest: action.option_strings[-1] for action in parser._actions if action.option_strings}  # noqa: SLF001


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """The message, with flags for the settings that they set."""
    names = "|".join(sorted(map(re.escape, flags), key=len, reverse=True))
    if not names:
        return message
    message = re.sub(rf"\b({names}){VALUE}", lambda found: with_value(flags[found[1]], found[2]), message)
    compound = "|".join(re.escape(name) for name in sorted(flags, key=len, reverse=True) if "_" in name)
    message = re.sub(rf"(?<![\w-])({compound})\b", lambda found: flags[found[1]], message) if compound else message
    for python, words in PYTHON.items():
        message = message.replace(python, words)
    return message


def with_value(flag: str, value: str) -> str:
    """A flag with its value as one types it."""
    if value == "True" or (value == "False" and flag.startswith("--no-")):
        return flag
    if value == "False":
        return f"no {flag}"
    typed = value[1:-1] if value.startswith(("'", '"')) else value
    return f"{flag} {typed}"
