"""The tensors that a configuration calls for, by name and shape, and the `GPT2` made of them. Rules CKPT-01 to CKPT-05 and CKPT-07.

Names are those of transformers without `transformer.`: `h.3.attn.c_attn.weight`.

Axes    V tokens, N positions, C = n_embd, inner = the width of the MLP.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.activations import activation
from refgen.checkpoints.stored import Stored, widened
from refgen.config import GPT2Config
from refgen.errors import CheckpointError, counted, listed
from refgen.model import GPT2, MLP, Affine, Attention, Block

PREFIX = "transformer."


def tensor_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """CKPT-01. The shape of every tensor of the network, by name. A tied head is not among them."""
    V, N, C, inner = config.vocab_size, config.n_positions, config.n_embd, config.inner
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (V, C), "wpe.weight": (N, C)}
    for i in range(config.n_layer):
        for name, weight in (
            ("ln_1", (C,)), ("attn.c_attn", (C, 3 * C)), ("attn.c_proj", (C, C)),
            ("ln_2", (C,)), ("mlp.c_fc", (C, inner)), ("mlp.c_proj", (inner, C)),
        ):  # fmt: skip
            shapes[f"h.{i}.{name}.weight"] = weight
            shapes[f"h.{i}.{name}.bias"] = weight[-1:]
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    return shapes if config.tie_word_embeddings else shapes | {"lm_head.weight": (V, C)}


def assemble(config: GPT2Config, tensors: Mapping[str, ndarray]) -> GPT2:
    """The network made of these very arrays, named and shaped as in `tensor_shapes(config)`, all of one dtype."""

    def affine(name: str) -> Affine:
        return Affine(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    act = activation(config.activation_function)
    blocks = tuple(
        Block(
            ln_1=affine(f"h.{i}.ln_1"),
            attn=Attention(c_attn=affine(f"h.{i}.attn.c_attn"), c_proj=affine(f"h.{i}.attn.c_proj")),
            ln_2=affine(f"h.{i}.ln_2"),
            mlp=MLP(c_fc=affine(f"h.{i}.mlp.c_fc"), act=act, c_proj=affine(f"h.{i}.mlp.c_proj")),
        )
        for i in range(config.n_layer)
    )
    wte = tensors["wte.weight"]
    head = wte if config.tie_word_embeddings else tensors["lm_head.weight"]
    return GPT2(config, wte, tensors["wpe.weight"], blocks, affine("ln_f"), head)


def disassemble(gpt2: GPT2) -> dict[str, ndarray]:
    """The inverse of `assemble`: the network's own arrays by name."""
    tensors: dict[str, ndarray] = {"wte.weight": gpt2.wte, "wpe.weight": gpt2.wpe}
    affines = {"ln_f": gpt2.ln_f}
    for i, block in enumerate(gpt2.h):
        affines |= {
            f"h.{i}.ln_1": block.ln_1, f"h.{i}.attn.c_attn": block.attn.c_attn, f"h.{i}.attn.c_proj": block.attn.c_proj,
            f"h.{i}.ln_2": block.ln_2, f"h.{i}.mlp.c_fc": block.mlp.c_fc, f"h.{i}.mlp.c_proj": block.mlp.c_proj,
        }  # fmt: skip
    for name, f in affines.items():
        tensors |= {f"{name}.weight": f.weight, f"{name}.bias": f.bias}
    return tensors if gpt2.config.tie_word_embeddings else tensors | {"lm_head.weight": gpt2.lm_head}


# --- What a folder holds, against what is called for ------------------------------------------------------


def without_prefix_and_buffers(tensors: Iterable[Stored], config: GPT2Config) -> dict[str, Stored]:
    """CKPT-02, CKPT-03. By name, without `transformer.`; the mask buffers of this model's layers are left out.

    Raises `CheckpointError` for a weight that is there twice.
    """
    named: dict[str, Stored] = {}
    buffers = {f"h.{i}.attn.{name}" for i in range(config.n_layer) for name in ("bias", "masked_bias")}
    for tensor in tensors:
        name = tensor.name.removeprefix(PREFIX)
        if name in named:
            raise CheckpointError(tensor.where, f"stands beside {named[name].name}", "CKPT-02")
        if name not in buffers:
            named[name] = tensor
    return named


def check_names(stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """CKPT-05, CKPT-07. Raises `CheckpointError` unless the names are exactly those that are called for."""
    missing, extra = sorted(shapes.keys() - stored.keys()), sorted(stored.keys() - shapes.keys())
    if missing:
        raise CheckpointError(
            str(folder),
            f"{counted(missing, 'tensor')} missing: {listed(missing)}",
            "CKPT-05",
            "refgen never fills weights in; compare n_layer and tie_word_embeddings in config.json with the file.",
        )
    if extra:
        raise CheckpointError(
            str(folder),
            f"{counted(extra, 'tensor')} that a GPT-2 of this config.json does not have: {listed(extra)}",
            "CKPT-07",
            "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file.",
        )


def check_tied_head(head: Stored, wte: ndarray) -> None:
    """CKPT-04. Raises `CheckpointError` unless a head that is stored although it is tied equals `wte` `[V C]`."""
    dtype: np.dtype[Any] = wte.dtype
    if not np.array_equal(widened(head, wte.shape, dtype), wte):
        raise CheckpointError(
            head.where,
            "differs from wte.weight although the configuration ties them",
            "CKPT-04",
            "If the head is its own, set tie_word_embeddings to false in config.json.",
        )
    head.let_go()
