"""argparse with manners: flags in either spelling, the nearest name for one that is misspelt, and no file overwritten.

Every mistake in a command line is a `UsageError`, which `main` prints in one line.
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from refgen.cli.files import check_output
from refgen.errors import UsageError, did_you_mean

NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")  # what argparse takes as a number, not as a flag
MESSAGES = {  # of argparse, in refgen's words
    "expected one argument": "needs a value",
    "expected at least one argument": "needs a value",
}


class Parser(argparse.ArgumentParser):
    """The parser of a command. Files of `add_output` are not overwritten without --force."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.outputs: dict[str, str] = {}  # flags of files that are written, by the names of their values

    def add_output(self, *flags: str, help: str) -> None:  # noqa: A002 - argparse's name
        """A flag that names a file to write; the first one brings --force."""
        action = self.add_argument(*flags, type=Path, metavar="FILE", help=help)
        self.outputs[action.dest] = flags[-1]
        self.add_force()

    def add_force(self) -> None:
        """-f or --force, once."""
        if "--force" not in self._option_string_actions:
            self.add_argument("-f", "--force", action="store_true", help="replace files that exist")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, after a look at the flags, and with nothing left over. Raises `UsageError`."""
        words = list(self._spelled(args or ()))
        self._check_words(words)
        found, left = super().parse_known_args(words, namespace)
        if left:
            raise UsageError(left[0], "one argument too many", remedy="Put a text with spaces in quotes.")
        self._check_outputs(found)
        if not hasattr(found, "parser"):  # the innermost, of the command
            found.parser = self
        return found, left

    def error(self, message: str) -> Any:
        """argparse's complaint as a `UsageError`."""
        if message.startswith("the following arguments are required: "):
            raise UsageError(message.partition(": ")[2], "missing", remedy=self._see)
        flag, _, problem = message.removeprefix("argument ").partition(": ")
        flag = flag.rpartition("/")[2] if flag.startswith("-") else flag
        if problem.startswith("ignored explicit argument"):
            raise UsageError(flag, "takes no value")
        if problem in MESSAGES:
            raise UsageError(flag, MESSAGES[problem], remedy=self._see)
        value, _, problem = problem.rpartition(": ")
        problem, _, remedy = problem.partition(". ")
        raise UsageError(f"{flag} {value}".rstrip(), problem, remedy=remedy)

    @property
    def flags(self) -> list[str]:
        """All spellings of all flags."""
        return list(self._option_string_actions)

    @property
    def _see(self) -> str:
        return f"See {self.prog} --help."

    def _spelled(self, words: Iterable[str]) -> Iterator[str]:
        """The words, with `-` for `_` in flags."""
        flags = True
        for word in words:
            flags = flags and word != "--"
            name, equals, value = word.partition("=")
            dashed = name.replace("_", "-")
            yield dashed + equals + value if flags and name not in self.flags and dashed in self.flags else word

    def _check_words(self, words: Sequence[str]) -> None:
        """Raises `UsageError` for an unknown command or flag, with the nearest one."""
        commands = next((each for each in self._actions if isinstance(each, argparse._SubParsersAction)), None)  # noqa: SLF001
        before = ""
        for word in words:
            if word == "--":
                return
            if word.startswith("-") and word != "-":
                self._check_flag(word, before)
            elif commands is not None and not self._takes_value(before):
                if word not in commands.choices:
                    remedy = did_you_mean(word, commands.choices) or self._see
                    of = f" of {self.prog}" if " " in self.prog else ""
                    raise UsageError(word, f"unknown command{of}", remedy=remedy)
                return  # what follows is the command's
            before = word

    def _check_flag(self, word: str, before: str) -> None:
        """Raises `UsageError` for a word that begins like a flag but is not one."""
        name = word.partition("=")[0]
        known = name in self.flags or " " in word or NEGATIVE.fullmatch(word)
        bundled = word[1] != "-" and word[:2] in self.flags and f"-{name}" not in self.flags  # -n5, -qf
        if known or bundled:
            return
        remedy = did_you_mean(f"--{name.strip('-').lower()}", [each for each in self.flags if each.startswith("--")])
        if self._takes_value(before) and not remedy:
            remedy = f"If it is the value of {before}, write {before}={word}"
        raise UsageError(name, f"unknown flag of {self.prog}", remedy=remedy or self._see)

    def _takes_value(self, word: str) -> bool:
        """Whether a word is a flag whose value is the next word."""
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs is None

    def _check_outputs(self, found: argparse.Namespace) -> None:
        """Raises `UsageError` for a file that cannot be written, or exists and no --force is given."""
        flag_of: dict[Path, str] = {}
        for name, flag in self.outputs.items():
            path = getattr(found, name)
            if path is None:
                continue
            check_output(path, flag, force=found.force)
            special = path.exists() and not path.is_file()  # such as /dev/stdout
            if not special and (other := flag_of.setdefault(path.resolve(), flag)) != flag:
                raise UsageError(f"{other} and {flag}", f"both write {path}")


# --- Values -----------------------------------------------------------------------------------------------


class Names(Sequence[str]):
    """The keys of a mapping of refgen's, such as "refgen.conformance.judging.claims:CLAIMS", imported only when somebody needs them."""

    def __init__(self, where: str) -> None:
        self._where = where

    def _names(self) -> tuple[str, ...]:
        module, _, name = self._where.partition(":")
        return tuple(getattr(import_module(module), name))

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, place: Any) -> Any:
        return self._names()[place]


def add_choice(command: Any, *flags: str, names: Sequence[str], metavar: str = "NAME", **more: Any) -> None:
    """A flag whose value is one of `names`, which argparse sees only if the help lists them; `more` goes to `add_argument`."""
    if "%(choices)s" in more["help"]:
        more["choices"] = names
    command.add_argument(*flags, type=OneOf(names), metavar=metavar, **more)


class OneOf:
    """Reads one of `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __call__(self, text: str) -> str:
        """The name; raises argparse's error for any other, with the nearest."""
        if text in self.names:
            return text
        nearest = did_you_mean(text, self.names)
        problem = f"unknown. {nearest}" if nearest else f"must be one of {', '.join(self.names)}"
        raise argparse.ArgumentTypeError(f"{text}: {problem}")


def whole(text: str) -> int:
    """Reads a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]}: must be a whole number") from None


def number(text: str) -> float:
    """Reads a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]}: must be a number") from None
