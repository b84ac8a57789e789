"""The settings of nanoGPT and minGPT as entries of a config.json. Rule CKPT-17 of SPEC.md.

Both are GPT-2 under GPT-2's names. nanoGPT uses the GELU with erf, ties its head, and may have no biases. minGPT uses GPT-2's
GELU and has an untied head. Neither has an end token.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refgen.errors import CheckpointError

NANO = {
    "block_size": "n_positions",
    "vocab_size": "vocab_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
HEADS = {
    "openai-gpt": 12, "gpt2": 12, "gpt2-medium": 16, "gpt2-large": 20, "gpt2-xl": 25, "gopher-44m": 16,
    "gpt-mini": 6, "gpt-micro": 4, "gpt-nano": 3,
}  # fmt: skip
ENDLESS = {"model_type": "gpt2", "bos_token_id": None, "eos_token_id": None}


def nano_gpt(file: Path, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """CKPT-17. The `model_args` of a nanoGPT checkpoint. Raises `CheckpointError` for settings that nanoGPT does not have."""
    if missing := sorted({*NANO, "bias"} - model_args.keys()):
        raise CheckpointError(str(file), f"its model_args lack {', '.join(missing)}", "CKPT-17")
    if others := sorted(map(str, model_args.keys() - {*NANO, "bias", "dropout"})):
        problem = f"its model_args have {', '.join(others)[:100]}, which nanoGPT does not"
        raise CheckpointError(str(file), problem, "CKPT-17", "refgen computes nanoGPT as published.")
    sizes = {name: model_args[theirs] for theirs, name in NANO.items()}
    return ENDLESS | sizes | {"activation_function": "gelu", "tie_word_embeddings": True, "bias": model_args["bias"]}


def min_gpt(path: Path, model: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """CKPT-17. minGPT's `config.json`: the number of heads follows from its `model_type`, all other sizes from the file."""
    heads = model.get("n_head") or HEADS.get(str(model.get("model_type")))
    if heads is None:
        problem = f"says neither n_head nor a known model_type: {str(model.get('model_type'))[:50]!r}"
        raise CheckpointError(str(path), problem, "CKPT-17", f"Known are {', '.join(HEADS)}.")
    ends = {name: shape for key, shape in shapes.items() for name in ("wte.weight", "wpe.weight") if key.endswith(name)}
    if len(ends) < 2 or any(len(shape) != 2 for shape in ends.values()):
        raise CheckpointError(str(path.parent), "holds no minGPT: wte.weight and wpe.weight are missing", "CKPT-17")
    layers = {int(found[1]) for key in shapes if (found := re.search(r"\bh\.(\d{1,6})\.", key))}
    sizes = {"vocab_size": ends["wte.weight"][0], "n_positions": ends["wpe.weight"][0], "n_embd": ends["wte.weight"][1]}
    return ENDLESS | sizes | {"n_layer": len(layers), "n_head": heads, "tie_word_embeddings": False}
