"""`refgen compare MINE.safetensors`: is the difference rounding, where does it begin, what does it look like?"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from refgen import checkpoint
from refgen.auto import BUILT_IN, find_model
from refgen.errors import OracleError
from refgen.oracle import compare, plot, trace
from refgen.oracle.formats import FORMATS


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "compare",
        help="tell rounding from a fault in a trace, and where it begins",
        description="Compare an implementation's stages with the exact ones, in units of the rounding error that is "
        "expected. The exit code is 1 if rounding does not explain them. docs/trace.md says how to record MINE.",
        epilog="Example: refgen compare mine.safetensors --model gpt2 --dtype bfloat16",
    )
    command.set_defaults(run=run)
    command.add_argument("mine", type=Path, metavar="MINE.safetensors", help="stages by name, and input_ids")
    built_in = f"a Hugging Face folder, or the built-in {BUILT_IN[0]} (default)"
    command.add_argument("--model", default=BUILT_IN[0], metavar="DIR|NAME", help=built_in)
    command.add_argument(
        "--dtype", choices=tuple(FORMATS), help="what MINE was computed in (default: as the file says or is stored)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw stages and positions there (needs matplotlib)")


def run(options: argparse.Namespace) -> int:
    """A trace in, a verdict out; the exit code is the verdict."""
    if options.plot is not None:
        plot.check()
        if not options.plot.parent.is_dir():
            raise OracleError(str(options.plot), "lies in no folder that exists")
    gpt2 = checkpoint.load(find_model(options.model))
    theirs = trace.load(options.mine, gpt2.config)
    found = compare.compare(gpt2, theirs, options.dtype, progress=show)
    show("")
    if options.json:
        print(json.dumps(compare.as_json(found)))
    else:
        print("\n".join(compare.report(found)))
    if options.plot is not None:
        plot.save(found, options.plot)
    return int(not found.passes)


def show(text: str) -> None:
    """What is being done, in place of what was said before, if somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
