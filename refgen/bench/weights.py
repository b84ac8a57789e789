"""GPT-2s to measure: random weights of a shape, and the built-in model, as Hugging Face folders without an end token.

Without an end token every subject makes all the tokens it is asked for.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel, find_model
from refgen.checkpoint import WEIGHTS, assemble, tensor_shapes
from refgen.config import GPT2Config
from refgen.errors import BenchError

# Layers, heads, width, vocabulary, positions.
SHAPES: Mapping[str, tuple[int, ...]] = {
    "124M": (12, 12, 768, 50257, 1024),
    "355M": (24, 16, 1024, 50257, 1024),
    "small": (4, 4, 256, 4096, 512),
    "tiny": (2, 2, 32, 128, 64),
}


def shape_config(text: str) -> GPT2Config:
    """The configuration of a shape: a name from `SHAPES`, or its five numbers with commas."""
    sizes = SHAPES.get(text)
    if sizes is None:
        words = text.split(",")
        if len(words) != 5 or not all(word.isdecimal() and int(word) for word in words):
            raise BenchError(
                f"--shape {text}",
                "is neither a known shape nor five positive numbers",
                remedy=f"Known are {', '.join(SHAPES)}; the numbers are layers,heads,width,vocabulary,positions.",
            )
        sizes = tuple(map(int, words))
    n_layer, n_head, n_embd, vocab_size, n_positions = sizes
    return GPT2Config(
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        vocab_size=vocab_size,
        n_positions=n_positions,
        bos_token_id=None,
        eos_token_id=None,
    )


def random_tensors(config: GPT2Config, seed: int = 0) -> dict[str, ndarray]:
    """The same float32 weights for the same shape, wherever they are made.

    Spread so that activations stay near one: 0.02 at 768 columns, as GPT-2 was initialized. Positions count five times
    as much, else the network says one token for ever.
    """
    rng = np.random.default_rng(seed)
    spread = np.float32(0.02 * (768 / config.n_embd) ** 0.5)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        tensor = rng.standard_normal(shape, dtype=np.float32) * spread * (5 if name == "wpe.weight" else 1)
        if name.endswith("weight") and len(shape) == 1:  # the gain of a LayerNorm
            tensor += 1
        tensors[name] = tensor
    return tensors


def random_folder(config: GPT2Config, parent: Path) -> Path:
    """A folder in `parent` with these weights, made unless it is there."""
    sizes = (config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.n_positions)
    folder = parent / f"random-{'-'.join(map(str, sizes))}"
    if not (folder / WEIGHTS).exists():  # which is written last
        GPT2LMHeadModel(assemble(config, random_tensors(config))).save_pretrained(folder)
    return folder


def endless_folder(name: str, parent: Path) -> Path:
    """A copy of a model that has forgotten its end token."""
    source, folder = find_model(name), parent / f"endless-{Path(name).name}"
    if not (folder / WEIGHTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        entries: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
        entries |= {"bos_token_id": None, "eos_token_id": None}
        (folder / "config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        shutil.copy(source / WEIGHTS, folder)
    return folder


def read_folder(folder: Path) -> tuple[GPT2Config, dict[str, ndarray]]:
    """Configuration and tensors by name without prefix, for the converters."""
    from safetensors.numpy import load_file  # noqa: PLC0415 - converters only

    config = GPT2Config.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return config, {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / WEIGHTS).items()}


def bytes_per_token(config: GPT2Config, width: int = 4) -> int:
    """The bytes of weights that one new token reads: all but the tables of which it takes one row."""
    shapes = tensor_shapes(config)
    rows = {"wpe.weight"} if config.tie_word_embeddings else {"wpe.weight", "wte.weight"}
    return width * sum(int(np.prod(shape)) for name, shape in shapes.items() if name not in rows)


def cache_bytes_per_position(config: GPT2Config, width: int = 4) -> int:
    """The bytes by which one more position of one row makes the cache grow: a key and a value a layer."""
    return 2 * config.n_layer * config.n_embd * width
