"""GPT-2's forward pass, the definition: token ids in, next-token logits out. Rules FWD-01 to FWD-17 of SPEC.md.

Knows nothing of text, sampling or stopping. What goes in comes out: float32 weights give float32 logits,
float64 weights give float64 logits (FWD-21). Names are those of the checkpoint: `h[3].attn.c_attn.weight` here,
`h.3.attn.c_attn.weight` in the file, `h.3.attn.c_attn` in a trace.

Axes    B rows of the batch, T new positions, S cached and new positions, C = n_embd, H heads, D = C / H, V tokens.

Rows of a batch are leading axes, not a loop: only `attend` lets positions meet, and only within their row;
everything else treats each position alone, so `linear` folds B and T into one axis and a whole batch costs
one matrix product per weight (BATCH-01). One sequence is the case B = 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated as Bool  # shapes as types: Float[ndarray, "T C"]; tests/axes.py checks them
from typing import Annotated as Float
from typing import Annotated as Int

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.engines.numpy.parts import Span, in_parts
from refgen.engines.numpy.products import product
from refgen.engines.numpy.threads import by_rows
from refgen.errors import InputError

Note = Callable[[str, ndarray], None]


def silent(name: str, array: ndarray) -> None:
    """The `note` that discards what it is told."""


# --- The weights, as data ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """A weight and a bias: `[C]` and `[C]` in a LayerNorm, `[in, out]` and `[out]` in a linear map (FWD-06)."""

    weight: ndarray
    bias: ndarray


@dataclass(frozen=True)
class Attention:
    """`c_attn` `[C, 3C]` makes queries, keys and values; `c_proj` `[C, C]` mixes the heads' answers."""

    c_attn: Affine
    c_proj: Affine


@dataclass(frozen=True)
class MLP:
    """`c_fc` `[C, inner]`, the activation, `c_proj` `[inner, C]`."""

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
class Arithmetic:
    """The steps of a forward pass that round numbers, each as its namesake below does or another way (CANON-01)."""

    linear: Callable[..., ndarray]
    layer_norm: Callable[..., ndarray]
    attend: Callable[..., ndarray]
    head: Callable[..., ndarray]


@dataclass(frozen=True)
class GPT2:
    """A whole network. `lm_head` is `wte` itself when the head is tied (FWD-17).

    `arithmetic` is None for that of this file.
    """

    config: GPT2Config
    wte: Float[ndarray, "V C"]
    wpe: Float[ndarray, "N C"]
    h: tuple[Block, ...]
    ln_f: Affine
    lm_head: Float[ndarray, "V C"]
    arithmetic: Arithmetic | None = None


# --- The mathematics, from the bottom up ------------------------------------------------------------------


def project(x: Float[ndarray, "... I"], weight: Float[ndarray, "I O"]) -> Float[ndarray, "... O"]:
    """FWD-04, FWD-06. x W, with the leading axes made one, so that any batch is one matrix product."""
    return product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[1])


def linear(x: Float[ndarray, "... I"], f: Affine) -> Float[ndarray, "... O"]:
    """FWD-06. x W + b, with W stored `[in, out]`, so there is nothing to transpose."""
    y = project(x, f.weight)
    y += f.bias
    return y


def head(x: Float[ndarray, "... C"], weight: Float[ndarray, "V C"]) -> Float[ndarray, "... V"]:
    """FWD-04. x times each token's row: the output matrix is the embedding, unless the head is its own."""
    return project(x, weight.T)


def mean(x: Float[ndarray, "... C"]) -> Float[ndarray, "... 1"]:
    """FWD-05. Of each row; NumPy's own spends more time on asking what is meant."""
    return np.add.reduce(x, axis=-1, keepdims=True) / x.shape[-1]


def layer_norm(x: Float[ndarray, "... C"], f: Affine, epsilon: float) -> Float[ndarray, "... C"]:
    """FWD-05. Subtract the mean, divide by sqrt(mean square + epsilon), scale, shift."""

    def normed(x: ndarray) -> ndarray:
        y = x - mean(x)
        y /= np.sqrt(mean(y * y) + epsilon)
        y *= f.weight
        y += f.bias
        return y

    return by_rows(normed, x)


def gelu_new(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """FWD-16. 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the form GPT-2 was trained with; not the erf form."""
    y = x * x * x
    y *= 0.044715
    y += x
    y *= math.sqrt(2.0 / math.pi)
    np.tanh(y, out=y)
    y += 1.0
    y *= 0.5 * x
    return y


def softmax(x: Float[ndarray, "... S"]) -> Float[ndarray, "... S"]:
    """FWD-13. Shifted by the row's maximum, so exp never overflows; a row that is all -inf gives zeros (FWD-11)."""
    e = x - x.max(axis=-1, keepdims=True, initial=np.finfo(x.dtype).min)
    np.exp(e, out=e)
    # The maximum contributes exp(0), so the sum is at least 1, unless nothing at all was visible.
    e /= np.maximum(e.sum(axis=-1, keepdims=True), 1.0)
    return e


def split_heads(x: Float[ndarray, "B T C"], n_head: int) -> Float[ndarray, "B H T D"]:
    """FWD-07. Head h owns columns h*D to (h+1)*D."""
    return x.reshape(*x.shape[:2], n_head, -1).swapaxes(1, 2)


def merge_heads(x: Float[ndarray, "B H T D"]) -> Float[ndarray, "B T C"]:
    """FWD-07. The inverse of `split_heads`."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def visibility(attention_mask: Int[ndarray, "B S"], T: int) -> Bool[ndarray, "B 1 T S"]:
    """FWD-09. A query sees the keys up to its own place, except masked ones.

    The triangle is counted from the lower right corner, so a cache needs no special case.
    """
    S = attention_mask.shape[1]
    return np.tri(T, S, S - T, dtype=bool) & attention_mask.astype(bool)[:, None, None, :]


def attend(
    q: Float[ndarray, "B H T D"],
    k: Float[ndarray, "B H S D"],
    v: Float[ndarray, "B H S D"],
    visible: Bool[ndarray, "B 1 T S"],
    scale: float,
    note: Note = silent,
) -> Float[ndarray, "B H T D"]:
    """FWD-08, FWD-10. Each query takes the average of the values, weighted by how well their keys match it."""
    scores = q @ k.swapaxes(-1, -2)  # [B H T S]
    scores *= scale
    np.copyto(scores, -np.inf, where=~visible)
    pattern = softmax(scores)
    note("scores", scores)
    note("pattern", pattern)
    return pattern @ v


def attention_scale(config: GPT2Config, layer: int) -> float:
    """FWD-08. 1 / sqrt(D), and 1 / (layer + 1) more if the model asks for it; the two switches are independent."""
    scale = 1.0 / math.sqrt(config.n_embd // config.n_head) if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


def attention(
    x: Float[ndarray, "B T C"],
    f: Attention,
    config: GPT2Config,
    layer: int,
    visible: Bool[ndarray, "B 1 Q S"],
    cache: Cache | Span,
    rounded: Arithmetic,
    note: Note = silent,
) -> Float[ndarray, "B Q C"]:
    """FWD-07. Project once, split in three, split in heads; remember keys and values; attend; merge; project."""
    qkv = rounded.linear(x, f.c_attn)
    C = x.shape[-1]
    q, k, v = (split_heads(qkv[..., i * C : (i + 1) * C], config.n_head) for i in range(3))
    note("c_attn", qkv)
    note("q", q)
    note("k", k)
    note("v", v)
    k, v = cache.append(layer, k, v)  # [B H S D]
    q = q[:, :, q.shape[2] - visible.shape[2] :]  # [B H Q D]
    z = merge_heads(rounded.attend(q, k, v, visible, attention_scale(config, layer), note))
    note("z", z)
    y = rounded.linear(z, f.c_proj)
    note("c_proj", y)
    return y


def mlp(x: Float[ndarray, "B T C"], f: MLP, rounded: Arithmetic, note: Note = silent) -> Float[ndarray, "B T C"]:
    """FWD-14. Up, bend, down."""
    up = rounded.linear(x, f.c_fc)
    note("c_fc", up)
    bent = by_rows(f.act, up)
    note("act", bent)
    y = rounded.linear(bent, f.c_proj)
    note("c_proj", y)
    return y


def run_block(
    x: Float[ndarray, "B T C"],
    f: Block,
    config: GPT2Config,
    layer: int,
    visible: Bool[ndarray, "B 1 Q S"],
    cache: Cache | Span,
    rounded: Arithmetic,
    note: Note = silent,
) -> Float[ndarray, "B Q C"]:
    """FWD-03. Attention reads the stream and adds to it, then the MLP does: the two lines that are GPT-2.

    All T positions leave their keys and values; of the last Q of them the stream goes on (FWD-20).
    """
    normed = rounded.layer_norm(x, f.ln_1, config.layer_norm_epsilon)
    note("ln_1", normed)
    x = x[:, x.shape[1] - visible.shape[2] :]
    x = x + attention(normed, f.attn, config, layer, visible, cache, rounded, under(note, "attn"))
    note("resid_mid", x)
    normed = rounded.layer_norm(x, f.ln_2, config.layer_norm_epsilon)
    note("ln_2", normed)
    return x + mlp(normed, f.mlp, rounded, under(note, "mlp"))


def positions(attention_mask: Int[ndarray, "B S"], T: int) -> Int[ndarray, "B T"]:
    """FWD-02, PAD-04. A token's position is the number of unmasked tokens before it, so padding moves nobody."""
    return ((attention_mask.cumsum(axis=-1) - 1) * attention_mask)[:, -T:]


def run(
    gpt2: GPT2,
    input_ids: Int[ndarray, "B T"],
    attention_mask: Int[ndarray, "B S"],
    position_ids: Int[ndarray, "B T"],
    cache: Cache | Span,
    note: Note,
    keep: int,
) -> Float[ndarray, "B keep V"]:
    """FWD-01 to FWD-04. Embed, pass through the layers, normalise, compare with every token's row."""
    rounded = gpt2.arithmetic or Arithmetic(linear, layer_norm, attend, head)
    T = input_ids.shape[1]
    visible = visibility(attention_mask, T)
    x = gpt2.wte[input_ids] + gpt2.wpe[position_ids]
    note("drop", x)  # the name of the dropout whose output this is; it does nothing outside training
    for i, block in enumerate(gpt2.h):
        if i + 1 == len(gpt2.h) and note is silent and gpt2.arithmetic is None:
            visible = visible[:, :, T - keep :]  # FWD-20: nobody asks what the others say
        x = run_block(x, block, gpt2.config, i, visible, cache, rounded, under(note, f"h.{i}"))
        note(f"h.{i}", x)
    x = rounded.layer_norm(x, gpt2.ln_f, gpt2.config.layer_norm_epsilon)
    note("ln_f", x)
    logits = rounded.head(x[:, x.shape[1] - keep :], gpt2.lm_head)
    note("lm_head", logits)
    return logits


def forward(
    gpt2: GPT2,
    input_ids: Int[ndarray, "B T"],
    attention_mask: Int[ndarray, "B S"] | None = None,
    position_ids: Int[ndarray, "B T"] | None = None,
    cache: Cache | None = None,
    note: Note = silent,
    logits_to_keep: int = 0,
) -> Float[ndarray, "B T V"]:
    """FWD-01 to FWD-04, FWD-21, PAD-05, BATCH-01. The logits of the token that follows each of `input_ids`.

    `attention_mask` (1 real, 0 padding; default all 1) covers cached and new positions; `position_ids` follow
    from it unless given. `cache` holds the positions before these and gains these. `note` is offered every
    stage by name. `logits_to_keep` = n > 0 projects only the last n positions (FWD-20).
    Raises `InputError` for what cannot be computed.
    """
    cache = Cache() if cache is None else cache
    cache.check_layers(len(gpt2.h))
    check_ids(input_ids, gpt2.config)
    if logits_to_keep < 0:
        raise InputError(f"logits_to_keep={logits_to_keep}", "must be at least 0", "FWD-20", "0 keeps all positions.")
    B, T = input_ids.shape
    if attention_mask is None:
        attention_mask = np.ones((B, len(cache) + T), dtype=np.int64)
    check_mask(attention_mask, B, len(cache), T)
    if position_ids is None:
        position_ids = positions(attention_mask, T)
    check_positions(position_ids, B, T, gpt2.config)

    past, keep = len(cache), min(logits_to_keep or T, T)

    def run_part(start: int, end: int, cache: Cache | Span) -> ndarray:
        places, seen = position_ids[:, start:end], attention_mask[:, : past + end]
        asked = min(max(0, keep - (T - end)), end - start)
        return run(gpt2, input_ids[:, start:end], seen, places, cache, note, asked)

    if note is silent and gpt2.arithmetic is None:
        heads = (B, gpt2.config.n_head, T, gpt2.config.n_embd // gpt2.config.n_head)
        logits = in_parts(run_part, cache, len(gpt2.h), heads, gpt2.wte.dtype)
    else:
        logits = run_part(0, T, cache)
    cache.advance(T)
    return logits


# --- Stage names, and what the forward pass refuses -------------------------------------------------------


# Names without a module of their own: q, k, v, scores (masked), pattern (their softmax) and z (the heads' answers,
# merged) inside attn; resid_mid, the stream between attention and MLP.


def under(note: Note, prefix: str) -> Note:
    """A `note` for the inside of `prefix`: `under(note, "h.3")("ln_1", x)` is `note("h.3.ln_1", x)`."""
    return note if note is silent else lambda name, array: note(f"{prefix}.{name}", array)


def check_ids(input_ids: ndarray, config: GPT2Config, name: str = "input_ids") -> None:
    """FWD-23, FWD-24. Whole numbers in `[B, T]`, at least one row and one column, each the id of a token."""
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InputError(
            f"{name} of shape {list(input_ids.shape)}",
            "must be [rows, tokens] with at least one of each",
            "FWD-24",
            "One sequence has shape [1, T]: add the axis with ids[None, :]." if input_ids.ndim == 1 else "",
        )
    if input_ids.dtype.kind not in "iu":
        raise InputError(f"{name} of dtype {input_ids.dtype}", "must be whole numbers", "FWD-24")
    for worst in (input_ids.min(), input_ids.max()):
        if not 0 <= worst < config.vocab_size:
            raise InputError(
                f"{name} contain {worst}",
                f"token ids of this model run from 0 to {config.vocab_size - 1}",
                "FWD-23",
                "Use the tokenizer that belongs to the model.",
            )


def check_mask(attention_mask: ndarray, B: int, past: int, T: int) -> None:
    """FWD-12. One 0 or 1 for each cached and each new position; transformers takes other widths, and is wrong."""
    if attention_mask.shape != (B, past + T):
        raise InputError(
            f"attention_mask of shape {list(attention_mask.shape)}",
            f"must be [{B}, {past + T}]: {B} rows of {past} cached and {T} new positions",
            "FWD-12",
        )
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise InputError("attention_mask", "must hold only 0 (padding) and 1 (token)", "FWD-12")


def check_positions(position_ids: ndarray, B: int, T: int, config: GPT2Config) -> None:
    """FWD-23. Positions are rows of `wpe`: 0 to n_positions - 1."""
    if position_ids.shape != (B, T) or position_ids.dtype.kind not in "iu":
        raise InputError(
            f"position_ids of shape {list(position_ids.shape)} and dtype {position_ids.dtype}",
            f"must be whole numbers in [{B}, {T}]",
            "FWD-24",
        )
    for worst in (position_ids.min(), position_ids.max()):
        if not 0 <= worst < config.n_positions:
            raise InputError(
                f"position {worst}",
                f"this model has n_positions={config.n_positions}, so positions 0 to {config.n_positions - 1}",
                "FWD-23",
                "Shorten the prompt or ask for fewer new tokens.",
            )
