"""`refgen compare MINE [OTHER]`: is a difference rounding or a fault? For implementations, recorded stages, and greedy tokens."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli import color, exit_codes
from refgen.cli.messages import complain
from refgen.cli.options import DTYPES, add_json, add_model, check_picture, ids_of
from refgen.cli.parser import add_choice
from refgen.cli.width import fitted
from refgen.errors import OracleError
from refgen.names import find_model
from refgen.progress import tell

if TYPE_CHECKING:
    from refgen.model import GPT2

FORMATS = tuple(name for name in DTYPES if name != "float64")  # float64 is what they are compared with


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "compare",
        help="tell rounding from a fault, in an implementation, recorded stages or tokens",
        description="Compare an implementation's stages with the exact ones, in units of the expected rounding error. With "
        "OTHER, compare the stages of two implementations. With greedy tokens, decide whether rounding explains each that is not the "
        "best. The exit code is 1 if rounding does not explain the difference. MINE and OTHER are implementations, as in refgen "
        "check, or files, which docs/trace.md shows how to record.",
        epilog='TOKENS.json holds {"prompt_ids": [813, 25], "new_ids": [198, 40, 457], "eos_token_id": 1023}. '
        "Both lists may hold one list for each row. eos_token_id is one id, several or null, and may be left out. "
        "Examples: refgen compare mine:Mine · refgen compare mine.safetensors --model gpt2 --dtype bfloat16",
    )
    command.set_defaults(run=run)
    command.add_argument(
        "mine",
        metavar="MINE",
        help="an implementation, or MINE.safetensors (stages by name, and input_ids), or TOKENS.json (- reads standard input)",
    )
    command.add_argument(
        "other", nargs="?", metavar="OTHER", help="compare MINE with these stages, not with the exact ones"
    )
    add_model(command)
    command.add_argument(
        "--ids", metavar="N,N,…", help="the tokens for implementations (default: 32 ids, the same each time)"
    )
    computed = "the dtype that MINE was computed in: %(choices)s (default: as declared or stored; float32 for tokens)"
    add_choice(command, "--dtype", names=FORMATS, metavar="DTYPE", help=computed)
    add_choice(command, "--other-dtype", names=FORMATS, metavar="DTYPE", help="the dtype that OTHER was computed in")
    add_json(command, "one JSON object")
    command.add_output("--plot", help="draw stages and positions there (needs matplotlib)")


def run(options: argparse.Namespace) -> int:
    """Stages or tokens in, a verdict out; the exit code is the verdict."""
    from refgen import checkpoints
    from refgen.cli import tokens
    from refgen.conformance.subjects.protocol import SubjectError

    check_picture(options.plot, OracleError)
    if options.other is None and options.other_dtype is not None:
        raise OracleError("--other-dtype", "speaks of OTHER, which is not given")
    of_tokens = options.mine == "-" or options.mine.endswith(".json")
    if of_tokens:
        refuse_for_tokens(options)
    folder = find_model(options.model)
    gpt2 = checkpoints.load(folder)
    if of_tokens:
        passes = tokens.judge(gpt2, Path(options.mine), options.dtype or "float32", options.json)
    else:
        try:
            passes = compare_stages(gpt2, folder, options)
        except SubjectError as error:
            complain("error", str(error))
            return exit_codes.USAGE
    return exit_codes.RIGHT if passes else exit_codes.WRONG


def refuse_for_tokens(options: argparse.Namespace) -> None:
    """Raises `OracleError` for what only a comparison of stages has."""
    for name, given in (("OTHER", options.other), ("--plot", options.plot), ("--ids", options.ids)):
        if given is not None:
            raise OracleError(name, "goes with stages, not with tokens", remedy="Leave it out.")


def compare_stages(gpt2: "GPT2", folder: Path, options: argparse.Namespace) -> bool:
    """Prints the report; whether rounding explains the difference."""
    import numpy as np

    from refgen.cli.stages import read_or_ask
    from refgen.oracle import compare, plot

    ids = None if options.ids is None else np.array([ids_of(options.ids)])
    mine, other = read_or_ask(options.mine, options.other, ids, folder, gpt2.config)
    found = compare.compare(gpt2, mine, options.dtype, other, options.other_dtype, progress=tell)
    tell("")
    if options.json:
        print(json.dumps(compare.as_json(found)))
    else:
        print("\n".join(color.verdicts(fitted(each), sys.stdout) for each in compare.report(found)))
    if options.plot is not None:
        plot.save(found, options.plot)
    return found.passes
