"""`refgen prove`: the greedy continuation of a text, each token with its proof."""

import argparse
import json
from typing import Any

import numpy as np

from refgen.auto import GPT2LMHeadModel
from refgen.cli.options import add_model
from refgen.errors import OracleError
from refgen.names import beside, find_model
from refgen.progress import tell
from refgen.tokenizer import Tokenizer


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "prove",
        help="continue a text greedily, with proof",
        description="Continue PROMPT with the best token each time, and prove that it is the best; see docs/proofs.md.",
        epilog='Example: refgen prove "ROMEO:" --tokens 8',
    )
    command.set_defaults(run=run)
    command.add_argument("prompt", metavar="PROMPT", help="the text to continue")
    command.add_argument("--tokens", type=int, default=8, metavar="N", help="how many new tokens at most (default: 8)")
    add_model(command)
    command.add_argument(
        "--bits", type=int, metavar="F", help="bits behind the binary point (default: as many as it takes)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a token")


def run(options: argparse.Namespace) -> None:
    """Prompt in, tokens with their proofs out."""
    from refgen.oracle.prove import Proof, Prover, continuation, network_of  # noqa: PLC0415 - only for this command

    if options.tokens < 1:
        raise OracleError(f"--tokens {options.tokens}", "must be at least 1")
    if not options.prompt:
        raise OracleError("PROMPT", "is empty")
    folder = find_model(options.model)
    tokenizer = Tokenizer.from_pretrained(beside(folder))
    model = GPT2LMHeadModel.from_pretrained(folder)
    end = model.generation_config.eos_token_id
    ends = np.array([] if end is None else end).reshape(-1)
    ids = np.array(tokenizer.encode(options.prompt))
    prover = Prover(network_of(model.gpt2), options.bits)

    def told(proof: Proof) -> dict[str, Any]:
        token, nearest = int(proof.tokens[0]), proof.float64[0]
        return {
            "token": token,
            "text": tokenizer.decode([token]),
            "logit": float(nearest[token]),
            "margin": float(proof.margins[0]),
            "digits": int(proof.spare[0] * 0.30103),
            "rounded": int(np.isfinite(nearest).sum()),
            "logits": nearest.size,
            "bits": proof.bits,
        }

    if not options.json:
        print(f"{'token':>7} {'logit':>22} {'margin':>12} {'digits':>6} {'rounded':>13}  text")
    tell(f"token 1 of {options.tokens}")
    for n, proof in enumerate(continuation(prover, ids, options.tokens, ends), start=2):
        tell("")
        row = told(proof)
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            rounded = f"{row['rounded']}/{row['logits']}"
            print(
                f"{row['token']:>7} {row['logit']!r:>22} {row['margin']:>12.6g} {row['digits']:>6} {rounded:>13}  {row['text']!r}",
                flush=True,
            )
        tell(f"token {n} of {options.tokens}" if n <= options.tokens else "")
    tell("")
