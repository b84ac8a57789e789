"""`refgen generate --proof`: a greedy continuation, each token with a proof that it has the highest logit."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.oracle.prove import Proof, Prover, continuation, network_of
from refgen.progress import tell
from refgen.tokenizer import Tokenizer


def show(
    model: GPT2LMHeadModel,
    tokenizer: Tokenizer,
    ids: ndarray,
    count: int,
    ends: Sequence[int],
    bits: int | None = None,
    as_json: bool = False,
) -> None:
    """Prints up to `count` new tokens after `ids` `[T]`, a line each as soon as it is proved; one of `ends` is the last."""
    prover = Prover(network_of(model.gpt2), bits)
    if not as_json:
        print(f"{'token':>7} {'logit':>22} {'margin':>12} {'digits':>6} {'rounded':>13}  text")
    tell(f"token 1 of {count}")
    for n, proof in enumerate(continuation(prover, ids, count, np.array(ends, dtype=int)), start=2):
        tell("")
        row = told(proof, tokenizer)
        if as_json:
            print(json.dumps(row), flush=True)
        else:
            rounded = f"{row['rounded']}/{row['logits']}"
            print(
                f"{row['token']:>7} {row['logit']!r:>22} {row['margin']:>12.6g} {row['digits']:>6} {rounded:>13}  {row['text']!r}",
                flush=True,
            )
        tell(f"token {n} of {count}" if n <= count else "")
    tell("")


def told(proof: Proof, tokenizer: Tokenizer) -> dict[str, Any]:
    """One token as JSON."""
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
