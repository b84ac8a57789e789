"""The command line: `refgen COMMAND`. Results go to stdout, everything else to stderr.

Each command has a file beside this one: `add(commands)` declares it, `run(options)` does it and may give an exit code.

Exit codes: 0 done · 1 an error in the input, said in one line, or a verdict that is no pass · 2 wrong usage · 4 a bug of refgen
in `check` or `replay` · 130 interrupted · 141 nobody reads the output any more.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import refgen
from refgen.cli import (
    bench,
    check,
    compare,
    convert,
    generate,
    judge,
    matrix,
    probes,
    prove,
    replay,
    spec,
    trace,
    vectors,
)
from refgen.errors import IgnoredSettingWarning, RefgenError

COMMANDS = (generate, convert, check, replay, matrix, trace, compare, judge, prove, probes, vectors, spec, bench)
INTERRUPTED, BROKEN_PIPE = 130, 141


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
        return 1
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
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
