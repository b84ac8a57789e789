"""`refgen --print-completion SHELL`: the script that lets a shell complete commands, flags and values. Needs the extra `completion`."""

import argparse
from pathlib import Path
from typing import Any

from refgen.cli.parser import OneOf
from refgen.errors import UsageError

SHELLS = ("bash", "zsh", "tcsh")
FLAG = "--print-completion"


def add(top: argparse.ArgumentParser) -> None:
    """Declares the flag."""
    what = "print the completion script of a shell: bash, zsh or tcsh (needs shtab)"
    top.add_argument(FLAG, action=PrintCompletion, type=OneOf(SHELLS), metavar="SHELL", help=what)


class PrintCompletion(argparse.Action):
    """Prints the script for the whole command line, and ends."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ARG002
        """Raises `UsageError` without shtab."""
        try:
            import shtab
        except ImportError:
            raise UsageError(FLAG, "needs shtab", remedy="pip install 'refgen[completion]'") from None
        complete_values(parser, shtab.FILE)
        print(shtab.complete(parser, values))
        parser.exit()


def complete_values(parser: argparse.ArgumentParser, files: Any) -> None:
    """Lets every option complete its values: one of some names, or a file."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to its options
        if action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
        if isinstance(action.type, OneOf):
            action.choices = list(action.type.names)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                complete_values(each, files)
