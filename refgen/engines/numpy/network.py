"""The network of model.py in fast NumPy: the same steps under the same names, in fewer passes over memory.

What differs from the definition, function by function: a batch is one matrix product per weight; arrays are changed in place;
layer norms and activations are shared among threads, some rows at a time; the last layer leaves out the queries whose logits
nobody asks for (FWD-20). Sums are done in another order at most, so results differ by rounding only.

Axes    B rows, T new positions, S cached and new positions, Q queries that go on (T, or those asked for), K logits asked for,
        C = n_embd, I in, O out, H heads, D = C / H, V tokens.
"""

import math

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.engines.numpy.parts import Span
from refgen.engines.numpy.products import product
from refgen.engines.numpy.threads import by_rows
from refgen.model import (
    GPT2,
    MLP,
    Affine,
    Attention,
    Block,
    Note,
    attention_scale,
    inside,
    merge_heads,
    silent,
    split_heads,
    visibility,
)
from refgen.model import gelu_new as defined_gelu_new
from refgen.shapes import Bool, Float, Int


def project(x: Float[ndarray, "... I"], weight: Float[ndarray, "I O"]) -> Float[ndarray, "... O"]:
    """FWD-04, FWD-06. x W, with the leading axes made one, so that any batch is one matrix product."""
    return product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[1])


def linear(x: Float[ndarray, "... I"], layer: Affine) -> Float[ndarray, "... O"]:
    """FWD-06. x W + b."""
    y = project(x, layer.weight)
    y += layer.bias
    return y


def mean(x: Float[ndarray, "... C"]) -> Float[ndarray, "... 1"]:
    """FWD-05. Of each row; `x.mean` spends more time on asking what is meant."""
    return np.add.reduce(x, axis=-1, keepdims=True) / x.shape[-1]


def layer_norm(x: Float[ndarray, "... C"], layer: Affine, epsilon: float) -> Float[ndarray, "... C"]:
    """FWD-05. Subtract the mean, divide by the root of variance plus epsilon, scale, shift."""

    def normed(x: ndarray) -> ndarray:
        y = x - mean(x)
        y /= np.sqrt(mean(y * y) + epsilon)
        y *= layer.weight
        y += layer.bias
        return y

    return by_rows(normed, x)


def gelu_new(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """FWD-16. The tanh form."""
    y = x * x * x
    y *= 0.044715
    y += x
    y *= math.sqrt(2.0 / math.pi)
    np.tanh(y, out=y)
    y += 1.0
    y *= 0.5 * x
    return y


def softmax(x: Float[ndarray, "... S"]) -> Float[ndarray, "... S"]:
    """FWD-13, FWD-11. Shifted by the row's maximum; a row that is all -inf gives zeros."""
    e = x - x.max(axis=-1, keepdims=True, initial=np.finfo(x.dtype).min)
    np.exp(e, out=e)
    e /= np.maximum(e.sum(axis=-1, keepdims=True), 1.0)
    return e


def attend(
    q: Float[ndarray, "B H Q D"],
    k: Float[ndarray, "B H S D"],
    v: Float[ndarray, "B H S D"],
    visible: Bool[ndarray, "B 1 Q S"],
    scale: float,
    note: Note = silent,
) -> Float[ndarray, "B H Q D"]:
    """FWD-08, FWD-10. Each query takes the average of the values, weighted by how well their keys match it."""
    scores = q @ k.swapaxes(-1, -2)  # [B H Q S]
    scores *= scale
    np.copyto(scores, -np.inf, where=~visible)
    pattern = softmax(note("scores", scores))
    return note("pattern", pattern) @ v


def attention(
    x: Float[ndarray, "B T C"],
    layer: Attention,
    config: GPT2Config,
    i: int,
    visible: Bool[ndarray, "B 1 Q S"],
    span: Cache | Span,
    note: Note = silent,
) -> Float[ndarray, "B Q C"]:
    """FWD-07. All T positions leave their keys and values; the last Q of them attend."""
    qkv = note("c_attn", linear(x, layer.c_attn))
    C = x.shape[-1]
    q, k, v = (note(name, split_heads(qkv[..., j * C : (j + 1) * C], config.n_head)) for j, name in enumerate("qkv"))
    k, v = span.append(i, k, v)  # [B H S D]
    q = q[:, :, q.shape[2] - visible.shape[2] :]  # [B H Q D]
    z = note("z", merge_heads(attend(q, k, v, visible, attention_scale(config, i), note)))
    return note("c_proj", linear(z, layer.c_proj))


def mlp(x: Float[ndarray, "B T C"], layer: MLP, note: Note = silent) -> Float[ndarray, "B T C"]:
    """FWD-14. Up, bend, down."""
    up = note("c_fc", linear(x, layer.c_fc))
    bent = note("act", by_rows(gelu_new if layer.act is defined_gelu_new else layer.act, up))
    return note("c_proj", linear(bent, layer.c_proj))


def block(
    x: Float[ndarray, "B T C"],
    layer: Block,
    config: GPT2Config,
    i: int,
    visible: Bool[ndarray, "B 1 Q S"],
    span: Cache | Span,
    note: Note = silent,
) -> Float[ndarray, "B Q C"]:
    """FWD-03. Attention reads the stream and adds to it, then the MLP does; of the last Q positions the stream goes on."""
    normed = note("ln_1", layer_norm(x, layer.ln_1, config.layer_norm_epsilon))
    x = x[:, x.shape[1] - visible.shape[2] :]
    x = note("resid_mid", x + attention(normed, layer.attn, config, i, visible, span, inside(note, "attn")))
    normed = note("ln_2", layer_norm(x, layer.ln_2, config.layer_norm_epsilon))
    return x + mlp(normed, layer.mlp, inside(note, "mlp"))


def forward(
    gpt2: GPT2,
    input_ids: Int[ndarray, "B T"],
    attention_mask: Int[ndarray, "B S"],
    position_ids: Int[ndarray, "B T"],
    span: Cache | Span,
    note: Note,
    keep: int,
) -> Float[ndarray, "B K V"]:
    """FWD-01 to FWD-04, FWD-20. The logits of the last `keep` positions; `span` is where keys and values go."""
    T = input_ids.shape[1]
    visible = visibility(attention_mask, T)
    x = note("drop", gpt2.wte[input_ids] + gpt2.wpe[position_ids])
    for i, layer in enumerate(gpt2.h):
        if i + 1 == len(gpt2.h) and note is silent:
            visible = visible[:, :, T - keep :]
        x = note(f"h.{i}", block(x, layer, gpt2.config, i, visible, span, inside(note, f"h.{i}")))
    x = note("ln_f", layer_norm(x, gpt2.ln_f, gpt2.config.layer_norm_epsilon))
    return note("lm_head", project(x[:, x.shape[1] - keep :], gpt2.lm_head.T))
