"""GPT-2, the definition: token ids in, the logits of each next token out. Rules FWD-01 to FWD-17 of SPEC.md.

This is the network as one would write it on a board. It knows nothing of text, sampling or speed: refgen/engines/
compute the same network faster or with other numbers, and are tested against this file. Names are the checkpoint's:
`h[3].attn.c_attn.weight` here is `h.3.attn.c_attn.weight` in the file and `h.3.attn.c_attn` in a trace. What goes in
comes out: float32 weights give float32 logits, float64 weights float64 logits (FWD-21).

Axes    B rows of the batch, T new positions, S all positions so far, the new ones included, C = n_embd,
        I in and O out of a linear map, H heads, D = C / H, V tokens of the vocabulary, N = n_positions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.shapes import Bool, Float, Int

Note = Callable[[str, ndarray], ndarray]


def silent(name: str, array: ndarray) -> ndarray:  # noqa: ARG001 - nobody listens
    """The `note` of a pass that nobody watches.

    A pass shows each intermediate array to its `note`, by name, and goes on with the array that comes back: the same
    one, unless somebody asks what would happen otherwise.
    """
    return array


def inside(note: Note, module: str) -> Note:
    """The `note` for the inside of a module: `inside(note, "h.3")("ln_1", x)` is `note("h.3.ln_1", x)`."""
    return note if note is silent else lambda name, array: note(f"{module}.{name}", array)


# --- The weights, as data ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """A weight and a bias: `[C]` and `[C]` in a LayerNorm, `[I, O]` and `[O]` in a linear map (FWD-06)."""

    weight: ndarray
    bias: ndarray


@dataclass(frozen=True)
class Attention:
    """`c_attn` `[C, 3C]` makes queries, keys and values; `c_proj` `[C, C]` mixes what the heads found."""

    c_attn: Affine
    c_proj: Affine


@dataclass(frozen=True)
class MLP:
    """`c_fc` `[C, inner]`, the activation function (GPT-2's is `gelu_new`), `c_proj` `[inner, C]`."""

    c_fc: Affine
    act: Callable[[ndarray], ndarray]
    c_proj: Affine


@dataclass(frozen=True)
class Block:
    """One layer."""

    ln_1: Affine
    attn: Attention
    ln_2: Affine
    mlp: MLP


@dataclass(frozen=True)
class GPT2:
    """A whole network. `lm_head` is `wte` itself when the head is tied (FWD-17)."""

    config: GPT2Config
    wte: Float[ndarray, "V C"]
    wpe: Float[ndarray, "N C"]
    h: tuple[Block, ...]
    ln_f: Affine
    lm_head: Float[ndarray, "V C"]


# --- The mathematics, from the bottom up ------------------------------------------------------------------


def linear(x: Float[ndarray, "... I"], layer: Affine) -> Float[ndarray, "... O"]:
    """FWD-06. x W + b. W is stored `[I, O]`, so there is nothing to transpose."""
    return x @ layer.weight + layer.bias


def layer_norm(x: Float[ndarray, "... C"], layer: Affine, epsilon: float) -> Float[ndarray, "... C"]:
    """FWD-05. Subtract the mean, divide by the root of variance plus epsilon, scale, shift."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * layer.weight + layer.bias


def gelu_new(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """FWD-16. The tanh form that GPT-2 was trained with; the erf form differs in the fourth digit."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def softmax(x: Float[ndarray, "... S"]) -> Float[ndarray, "... S"]:
    """FWD-13, FWD-11. Numbers into shares of 1. Less the largest first, so that exp never overflows.

    The largest gives exp(0) = 1, so a sum is below 1 only where all are -inf: then every share is 0.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=np.finfo(x.dtype).min))
    return e / np.maximum(e.sum(axis=-1, keepdims=True), 1.0)


def positions(attention_mask: Int[ndarray, "B S"], T: int) -> Int[ndarray, "B T"]:
    """FWD-02, PAD-04. A token's position is the number of real tokens before it, so padding moves nobody."""
    return ((attention_mask.cumsum(axis=-1) - 1) * attention_mask)[:, -T:]


def visibility(attention_mask: Int[ndarray, "B S"], T: int) -> Bool[ndarray, "B 1 T S"]:
    """FWD-09. A query sees the keys up to its own place, except padding. The last query sees up to the last key."""
    S = attention_mask.shape[1]
    return np.tri(T, S, S - T, dtype=bool) & attention_mask.astype(bool)[:, None, None, :]


def split_heads(x: Float[ndarray, "B T C"], n_head: int) -> Float[ndarray, "B H T D"]:
    """FWD-07. Head h owns columns h*D to (h+1)*D."""
    return x.reshape(*x.shape[:2], n_head, -1).swapaxes(1, 2)


def merge_heads(x: Float[ndarray, "B H T D"]) -> Float[ndarray, "B T C"]:
    """FWD-07. The inverse of `split_heads`."""
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)


def attention_scale(config: GPT2Config, i: int) -> float:
    """FWD-08. 1 / sqrt(D), and in layer i 1 / (i + 1) more if the model asks for it; the two switches are independent."""
    scale = 1.0 / math.sqrt(config.n_embd // config.n_head) if config.scale_attn_weights else 1.0
    return scale / (i + 1) if config.scale_attn_by_inverse_layer_idx else scale


def attend(
    q: Float[ndarray, "B H T D"],
    k: Float[ndarray, "B H S D"],
    v: Float[ndarray, "B H S D"],
    visible: Bool[ndarray, "B 1 T S"],
    scale: float,
    note: Note = silent,
) -> Float[ndarray, "B H T D"]:
    """FWD-08, FWD-10. Each query takes the average of the values, weighted by how well their keys match it."""
    scores = note("scores", np.where(visible, q @ k.swapaxes(-1, -2) * scale, -np.inf))  # [B H T S]
    pattern = note("pattern", softmax(scores))
    return pattern @ v


def attention(
    x: Float[ndarray, "B T C"],
    layer: Attention,
    config: GPT2Config,
    i: int,
    visible: Bool[ndarray, "B 1 T S"],
    cache: Cache,
    note: Note = silent,
) -> Float[ndarray, "B T C"]:
    """FWD-07. Project once, split in three and in heads, remember keys and values, attend, merge, project."""
    qkv = note("c_attn", linear(x, layer.c_attn))
    q, k, v = (split_heads(third, config.n_head) for third in np.split(qkv, 3, axis=-1))
    q, k, v = note("q", q), note("k", k), note("v", v)
    k, v = cache.append(i, k, v)  # those of the positions before, then these: [B H S D]
    z = note("z", merge_heads(attend(q, k, v, visible, attention_scale(config, i), note)))
    return note("c_proj", linear(z, layer.c_proj))


def mlp(x: Float[ndarray, "B T C"], layer: MLP, note: Note = silent) -> Float[ndarray, "B T C"]:
    """FWD-14. Up, bend, down."""
    up = note("c_fc", linear(x, layer.c_fc))
    bent = note("act", layer.act(up))
    return note("c_proj", linear(bent, layer.c_proj))


def block(
    x: Float[ndarray, "B T C"],
    layer: Block,
    config: GPT2Config,
    i: int,
    visible: Bool[ndarray, "B 1 T S"],
    cache: Cache,
    note: Note = silent,
) -> Float[ndarray, "B T C"]:
    """FWD-03. Attention reads the stream and adds to it, then the MLP does. These two additions are GPT-2."""
    normed = note("ln_1", layer_norm(x, layer.ln_1, config.layer_norm_epsilon))
    x = note("resid_mid", x + attention(normed, layer.attn, config, i, visible, cache, inside(note, "attn")))
    normed = note("ln_2", layer_norm(x, layer.ln_2, config.layer_norm_epsilon))
    return x + mlp(normed, layer.mlp, inside(note, "mlp"))


def forward(
    gpt2: GPT2,
    input_ids: Int[ndarray, "B T"],
    attention_mask: Int[ndarray, "B S"] | None = None,
    position_ids: Int[ndarray, "B T"] | None = None,
    cache: Cache | None = None,
    note: Note = silent,
) -> Float[ndarray, "B T V"]:
    """FWD-01 to FWD-04. Embed, pass through the layers, normalise, compare with every token's row.

    `attention_mask` is 1 at tokens and 0 at padding, cached positions included. The `cache` holds the positions before
    these and gains these. The ids are taken to be right: `Engine.forward` checks them first.
    """
    T, cache = input_ids.shape[1], Cache() if cache is None else cache
    if attention_mask is None:
        attention_mask = np.ones((len(input_ids), len(cache) + T), dtype=np.int64)
    if position_ids is None:
        position_ids = positions(attention_mask, T)
    visible = visibility(attention_mask, T)
    x = gpt2.wte[input_ids] + gpt2.wpe[position_ids]
    x = note("drop", x)  # the module between embedding and layers; its dropout works in training only
    for i, layer in enumerate(gpt2.h):
        x = note(f"h.{i}", block(x, layer, gpt2.config, i, visible, cache, inside(note, f"h.{i}")))
    x = note("ln_f", layer_norm(x, gpt2.ln_f, gpt2.config.layer_norm_epsilon))
    logits = note("lm_head", x @ gpt2.lm_head.T)
    cache.advance(T)
    return logits
