"""The command line: `refgen COMMAND`. Results go to stdout, everything else to stderr.

Each command has a file in `commands/`: `add(commands)` declares it, `run(options)` does it and may give an exit code.

Exit codes: 0 done, or right · 1 a verdict that is not right · 2 a wrong option, value or file, said in one line · 3 inconclusive ·
4 a bug of refgen · 130 interrupted · 141 nobody reads the output any more.
"""

import argparse
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import refgen
from refgen.cli import commands
from refgen.errors import IgnoredSettingWarning, RefgenError

COMMANDS = tuple(each.name for each in pkgutil.iter_modules(commands.__path__))
USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = parser().parse_args(arguments)
    warnings.showwarning = show_warning
    try:
        code: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; give it a place where that succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (RefgenError, OSError, UnicodeError, MemoryError) as error:
        print(f"refgen: error: {error or type(error).__name__}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    return code or 0


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """One line, without the place in the code."""
    kind = "note" if issubclass(category, IgnoredSettingWarning) else "warning"
    print(f"refgen: {kind}: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="refgen", description="The executable specification of GPT-2 text generation.")
    top.add_argument("--version", action="version", version=f"refgen {refgen.__version__}")
    declared = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"refgen.cli.commands.{name}").add(declared)
    return top
