"""GPT-2s to measure: random weights of a shape, and the built-in model, as Hugging Face folders without an end token.

Without an end token every subject generates the requested number of tokens.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.checkpoints import assemble, save, tensor_shapes
from refgen.checkpoints.safetensors import WEIGHTS
from refgen.config import GPT2Config
from refgen.errors import BenchError, did_you_mean
from refgen.names import find_model

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
                remedy=f"{did_you_mean(text, SHAPES)} Known are {', '.join(SHAPES)}; the numbers are layers,heads,width,vocabulary,positions.".strip(),
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
    as much, or else the network repeats one token forever.
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


def copying_tensors(config: GPT2Config, back: int) -> dict[str, ndarray]:
    """Weights of a shape, made by hand, that say what stood `back` places before: a text goes on as it began.

    A position is the hands of clocks of random speeds, a token random numbers in the other columns. Each hand has its
    opposite, so that mean and norm are the same everywhere and LayerNorm only scales. Every head of the first block turns the hands
    back, finds the position that shows this time, and passes on the token there; the other blocks add nothing.
    """
    rng = np.random.default_rng(0)
    C, D = config.n_embd, config.n_embd // config.n_head
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.ndim == 1:  # the gain of a LayerNorm
            tensor[:] = 1
    hands = D // 4
    speeds = rng.uniform(0, np.pi, hands)  # radians a place

    def shown(places: ndarray) -> ndarray:
        angles = places[:, None] * speeds
        return np.concatenate([np.cos(angles), np.sin(angles), -np.cos(angles), -np.sin(angles)], axis=1)

    tokens = rng.standard_normal((config.vocab_size, C - 4 * hands))
    tokens -= tokens.mean(axis=1, keepdims=True)
    tensors["wte.weight"][:, 4 * hands :] = tokens / np.sqrt(np.square(tokens).mean(axis=1, keepdims=True))
    tensors["wpe.weight"][:, : 4 * hands] = shown(np.arange(config.n_positions))
    turn = np.zeros((4 * hands, 4 * hands))
    for i, angle in enumerate(
        (back - 1) * speeds
    ):  # cos(a - b) = cos a cos b + sin a sin b, sin(a - b) = sin a cos b - cos a sin b
        for half in (0, 2 * hands):
            cos, sin = half + i, half + hands + i
            turn[cos, cos] = turn[sin, sin] = np.cos(angle)
            turn[sin, cos], turn[cos, sin] = np.sin(angle), -np.sin(angle)
    c_attn = tensors["h.0.attn.c_attn.weight"]
    for head in range(config.n_head):
        c_attn[: 4 * hands, head * D : head * D + 4 * hands] = 10 * turn
        c_attn[: 4 * hands, C + head * D : C + head * D + 4 * hands] = 10 * np.eye(4 * hands)
    c_attn[:, 2 * C :] = np.eye(C)
    tensors["h.0.attn.c_proj.weight"][:] = 10 * np.eye(C)
    return tensors


def random_folder(config: GPT2Config, parent: Path) -> Path:
    """A folder in `parent` with random weights, made unless it is there."""
    return made_folder("random", config, random_tensors, parent)


def copying_folder(config: GPT2Config, back: int, parent: Path) -> Path:
    """A folder in `parent` with weights that copy, made unless it is there."""
    return made_folder(f"copying-{back}", config, lambda config: copying_tensors(config, back), parent)


def made_folder(
    name: str, config: GPT2Config, tensors: Callable[[GPT2Config], dict[str, ndarray]], parent: Path
) -> Path:
    """A folder in `parent` for weights of a kind and shape."""
    sizes = (config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.n_positions)
    folder = parent / f"{name}-{'-'.join(map(str, sizes))}"
    if not (folder / WEIGHTS).exists():  # which is written last
        save(assemble(config, tensors(config)), folder)
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
