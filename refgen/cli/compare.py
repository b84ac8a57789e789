"""`refgen compare MINE.safetensors`: is the difference rounding, where does it begin, what does it look like?"""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen import checkpoint
from refgen.cli.options import add_model, check_picture
from refgen.errors import OracleError
from refgen.oracle import compare, plot, trace
from refgen.oracle.formats import FORMATS
from refgen.progress import tell
from refgen.shipped import find_model


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
    add_model(command)
    command.add_argument(
        "--dtype", choices=tuple(FORMATS), help="what MINE was computed in (default: as the file says or is stored)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw stages and positions there (needs matplotlib)")


def run(options: argparse.Namespace) -> int:
    """A trace in, a verdict out; the exit code is the verdict."""
    check_picture(options.plot, OracleError)
    gpt2 = checkpoint.load(find_model(options.model))
    theirs = trace.load(options.mine, gpt2.config)
    found = compare.compare(gpt2, theirs, options.dtype, progress=tell)
    tell("")
    if options.json:
        print(json.dumps(compare.as_json(found)))
    else:
        print("\n".join(compare.report(found)))
    if options.plot is not None:
        plot.save(found, options.plot)
    return int(not found.passes)
