"""The command line: `refgen COMMAND`. Results go to stdout, everything else to stderr.

Each command has a file in `commands/`: `add(commands)` declares it, `run(options)` does it and may return an exit code
(exit_codes.py). Nothing heavy is imported before a command runs, so `--help` is fast.
"""

import importlib
import os
import pkgutil
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence

import refgen
from refgen.cli import commands, completion, exit_codes
from refgen.cli.flags import flags_of, in_flags
from refgen.cli.messages import complain, show_warnings, text_of
from refgen.cli.parser import Parser
from refgen.errors import RefgenError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else [*arguments]

    flags: Mapping[str, str] = {}
    show_warnings(lambda message: in_flags(message, flags))
    try:
        options = parser(words).parse_args(words)
        flags = flags_of(options.parser)
        code: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; give it a place where that succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.BROKEN_PIPE
    except (RefgenError, OSError, UnicodeError, MemoryError) as error:
        complain("error", in_flags(text_of(error), flags))
        return exit_codes.USAGE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return exit_codes.INTERRUPTED
    except Exception:  # noqa: BLE001 - exit code 1 would be a verdict
        traceback.print_exc()
        complain("bug", f"refgen {refgen.__version__} failed. Please report the lines above.")
        return exit_codes.FAILED
    return code or exit_codes.RIGHT


def command_names() -> tuple[str, ...]:
    """The files of `commands/`."""
    return tuple(each.name for each in pkgutil.iter_modules(commands.__path__))


class Top(Parser):
    """The parser of `refgen` itself, whose help ends with the exit codes."""

    def format_help(self) -> str:
        """argparse's, and the table."""
        return f"{super().format_help()}\n{exit_codes.table(shutil.get_terminal_size().columns - 2)}"


def parser(words: Sequence[str] | None = None) -> Parser:
    """The commands and options: of the command that `words` begin with alone, or of all."""
    names = command_names()
    top = Top(
        prog="refgen",
        usage="refgen COMMAND …",
        description="The executable specification of GPT-2 text generation, and a kit that finds the bug in yours.",
        epilog='Examples: refgen generate "ROMEO:" · refgen check mine:Mine · refgen spec TOPP. '
        "`refgen COMMAND --help` explains a command.",
    )
    top.add_argument("-V", "--version", action="version", version=f"refgen {refgen.__version__}")
    completion.add(top)
    declared = top.add_subparsers(
        title="commands", required=True, metavar="COMMAND", prog="refgen", parser_class=Parser
    )
    for name in [*words][:1] if words and words[0] in names else names:
        importlib.import_module(f"refgen.cli.commands.{name}").add(declared)
    return top
