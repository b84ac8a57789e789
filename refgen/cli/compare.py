"""`refgen compare MINE.safetensors [OTHER.safetensors]`: is the difference rounding, where does it begin, what does it look like?"""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen import checkpoints
from refgen.cli.options import add_model, check_picture
from refgen.errors import OracleError
from refgen.names import find_model
from refgen.oracle import compare, plot, trace
from refgen.oracle.formats import FORMATS
from refgen.progress import tell


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "compare",
        help="tell rounding from a fault in a trace, and where it begins",
        description="Compare an implementation's stages with the exact ones, in units of the rounding error that is "
        "expected; or with those of another implementation, either of which may round. The exit code is 1 if rounding "
        "does not explain them. docs/trace.md says how to record MINE and OTHER.",
        epilog="Example: refgen compare mine.safetensors --model gpt2 --dtype bfloat16",
    )
    command.set_defaults(run=run)
    command.add_argument("mine", type=Path, metavar="MINE.safetensors", help="stages by name, and input_ids")
    command.add_argument(
        "other",
        type=Path,
        nargs="?",
        metavar="OTHER.safetensors",
        help="compare MINE with these, not with the exact ones",
    )
    add_model(command)
    command.add_argument(
        "--dtype", choices=tuple(FORMATS), help="what MINE was computed in (default: as the file says or is stored)"
    )
    command.add_argument("--other-dtype", choices=tuple(FORMATS), help="the same of OTHER")
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw stages and positions there (needs matplotlib)")


def run(options: argparse.Namespace) -> int:
    """A trace or two in, a verdict out; the exit code is the verdict."""
    check_picture(options.plot, OracleError)
    if options.other is None and options.other_dtype is not None:
        raise OracleError("--other-dtype", "speaks of a second file, which is not given")
    gpt2 = checkpoints.load(find_model(options.model))
    mine = trace.load(options.mine, gpt2.config)
    other = None if options.other is None else trace.load(options.other, gpt2.config)
    found = compare.compare(gpt2, mine, options.dtype, other, options.other_dtype, progress=tell)
    tell("")
    if options.json:
        print(json.dumps(compare.as_json(found)))
    else:
        print("\n".join(compare.report(found)))
    if options.plot is not None:
        plot.save(found, options.plot)
    return int(not found.passes)
