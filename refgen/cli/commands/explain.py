"""`refgen explain PROMPT`: what the network computes on its way, stage by stage."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli.options import add_engine, add_model, ids_of, read_text
from refgen.cli.parser import add_choice, whole
from refgen.errors import OracleError
from refgen.names import beside, find_model

if TYPE_CHECKING:
    from numpy import ndarray


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "explain",
        help="show or save every intermediate array",
        description="Run PROMPT through the network. List every stage in the order of refgen/model.py, or save them all.",
        epilog="Example: refgen explain 'ROMEO:' --stages 'h.0.attn.*'",
    )
    command.set_defaults(run=run)
    command.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="the text (- reads standard input, and so does a pipe)"
    )
    command.add_argument("--ids", metavar="N,N,…", help="token ids instead of PROMPT")
    command.add_output("-o", "--output", help="save the stages there, as safetensors")
    command.add_argument(
        "--stages",
        action="append",
        metavar="PATTERN",
        help="such as lm_head or 'h.*.mlp.act'; repeat for more (default: all)",
    )
    command.add_argument(
        "-n", "--max-new-tokens", type=whole, default=0, metavar="N", help="first generate N greedy tokens (default: 0)"
    )
    add_model(command)
    add_choice(
        command, "--dtype", names=("float32", "float64"), default="float32", help="%(choices)s (default: %(default)s)"
    )
    add_engine(command)


def run(options: argparse.Namespace) -> None:
    """Prints the listing, and writes the file if one is given."""
    from refgen.auto import GPT2LMHeadModel
    from refgen.oracle import trace

    folder = find_model(options.model)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=options.dtype, engine=options.engine)
    ids = read_ids(options, folder)
    prefill = None
    if options.max_new_tokens:
        prefill = ids.shape[1]
        ids = model.generate(ids, max_new_tokens=options.max_new_tokens, do_sample=False)
    found = trace.record(model.engine, ids, stages=options.stages or ("*",), prefill=prefill)
    if options.output is not None:
        trace.save(found, options.output)
    for line in trace.listing(found):
        print(line)


def read_ids(options: argparse.Namespace, folder: Path) -> "ndarray":
    """`[1 T]` from --ids or PROMPT."""
    import numpy as np

    from refgen.tokenizer import Tokenizer

    prompt = options.prompt if options.ids is not None else read_text(options.prompt)
    if (prompt is None) == (options.ids is None):
        raise OracleError("PROMPT and --ids", "give one of them")
    if prompt is not None:
        return Tokenizer.from_pretrained(beside(folder))([prompt], return_tensors="np")["input_ids"]
    return np.array([ids_of(options.ids)])
