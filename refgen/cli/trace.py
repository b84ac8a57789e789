"""`refgen trace PROMPT`: what the network computes on its way, stage by stage."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.cli.options import add_engine, add_model, check_output
from refgen.errors import OracleError
from refgen.names import beside, find_model
from refgen.oracle import trace
from refgen.tokenizer import Tokenizer


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "trace",
        help="show or save every intermediate array",
        description="Run PROMPT through the network; list every stage in the order of refgen/model.py, or save them all.",
        epilog="Example: refgen trace 'ROMEO:' --stages 'h.0.attn.*'",
    )
    command.set_defaults(run=run)
    command.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text")
    command.add_argument("--ids", metavar="N,N,…", help="token ids instead of PROMPT")
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help="save the stages there, as safetensors")
    command.add_argument(
        "--stages",
        action="append",
        metavar="PATTERN",
        help="such as lm_head or 'h.*.mlp.act'; repeat for more (default: all)",
    )
    command.add_argument("--tokens", type=int, default=0, metavar="N", help="go on greedily for N tokens (default: 0)")
    add_model(command)
    command.add_argument("--dtype", default="float32", choices=("float32", "float64"), help="default: %(default)s")
    add_engine(command)


def run(options: argparse.Namespace) -> None:
    """A listing out, a file if asked for."""
    folder = find_model(options.model)
    check_output(options.output, OracleError)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=options.dtype, engine=options.engine)
    ids = read_ids(options, folder)
    prefill = None
    if options.tokens:
        prefill = ids.shape[1]
        ids = model.generate(ids, max_new_tokens=options.tokens, do_sample=False)
    found = trace.record(model.engine, ids, stages=options.stages or ("*",), prefill=prefill)
    if options.output is not None:
        trace.save(found, options.output)
    for line in trace.listing(found):
        print(line)


def read_ids(options: argparse.Namespace, folder: Path) -> ndarray:
    """`[1 T]` from --ids or PROMPT."""
    if (options.prompt is None) == (options.ids is None):
        raise OracleError("PROMPT and --ids", "give one of them")
    if options.ids is None:
        return Tokenizer.from_pretrained(beside(folder))([options.prompt], return_tensors="np")["input_ids"]
    words = options.ids.replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise OracleError(f"--ids {options.ids}", "must be whole numbers with commas between them")
    return np.array([[int(word) for word in words]])
