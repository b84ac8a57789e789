"""Writes tests/golden/proved_logits.json: logits that are proved and correctly rounded, for networks anyone can build.

`python scripts/make_vectors.py` makes the same file everywhere. It holds, for each case, the ids, the greedy tokens that
are proved to follow and the least margin among them, and the float64 logits behind the last of the ids, as hexadecimal
text. Of the designed networks, whose weights `designed` makes from numbers, biases are not zero and gains not one.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen import AutoModelForCausalLM, AutoTokenizer, GPT2Config  # noqa: E402
from refgen.checkpoint import assemble, tensor_shapes  # noqa: E402
from refgen.model import GPT2  # noqa: E402
from refgen.oracle.prove import Prover, continuation, network_of  # noqa: E402

FILE = ROOT / "tests" / "golden" / "proved_logits.json"
TOKENS = 12
PROMPTS = ("ROMEO:", "JULIET:\nO Romeo,", "KING RICHARD III:\nNow is the")
SMALL: dict[str, Any] = {"vocab_size": 40, "n_positions": 24, "n_embd": 24, "bos_token_id": None, "eos_token_id": None}
DESIGNED: dict[str, dict[str, Any]] = {
    "plain": {"n_layer": 2, "n_head": 3},
    "deep": {"n_layer": 6, "n_head": 2},
    "own head": {"n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
    "by layer": {"n_layer": 3, "n_head": 1, "scale_attn_by_inverse_layer_idx": True},
    "no scale": {"n_layer": 2, "n_head": 6, "scale_attn_weights": False, "n_inner": 17},
    "epsilon": {"n_layer": 2, "n_head": 3, "layer_norm_epsilon": 1e-3},
    "quick_gelu": {"n_layer": 2, "n_head": 3, "activation_function": "quick_gelu"},
    "relu": {"n_layer": 2, "n_head": 3, "activation_function": "relu"},
}


def designed(config: GPT2Config) -> GPT2:
    """A network whose weights follow from their places.

    Element i of tensor k is ((7919 i + 104729 k + i²) mod 1009) / 504.5 - 1, between -1 and 1; matrices are scaled by
    2 / sqrt(inputs), vectors by 1/2, and gains moved by 1.
    """
    tensors: dict[str, ndarray] = {}
    for k, (name, shape) in enumerate(tensor_shapes(config).items()):
        i = np.arange(int(np.prod(shape)))
        values = ((7919 * i + 104729 * k + i * i) % 1009) / 504.5 - 1
        if len(shape) == 2 and name.startswith("h."):
            values *= 2 / np.sqrt(shape[0])
        elif len(shape) == 1:
            values = values / 2 + name.endswith("weight")
        tensors[name] = values.astype(np.float32).reshape(shape)
    return assemble(config, tensors)


def cases(names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All cases, or those that are named."""
    if names is None or "shakespeare" in names:
        gpt2 = AutoModelForCausalLM.from_pretrained("shakespeare").gpt2
        tokenizer, network = AutoTokenizer.from_pretrained("shakespeare"), network_of(gpt2)
        for prompt in PROMPTS:
            yield {"model": "shakespeare", "config": {}} | proved(Prover(network), tokenizer.encode(prompt))
    for name, change in DESIGNED.items():
        if names is None or name in names:
            config = GPT2Config(**SMALL | change)
            network = network_of(designed(config))
            yield {"model": name, "config": SMALL | change} | proved(Prover(network), [3, 14, 15, 9, 26])


def proved(prover: Prover, ids: list[int]) -> dict[str, Any]:
    """What one case says of its ids."""
    proofs = list(continuation(prover, np.array(ids), TOKENS, np.array([])))
    return {
        "ids": ids,
        "tokens": [int(proof.tokens[0]) for proof in proofs],
        "least_margin": min(float(proof.margins[0]) for proof in proofs),
        "logits": [float(logit).hex() for logit in proofs[0].float64[0]],
    }


def text(found: list[dict[str, Any]]) -> str:
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case) for case in found) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(text(list(cases())), encoding="utf-8")
