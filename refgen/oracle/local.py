"""One layer by itself: the exact block applied to any hidden state.

A hidden state can serve as the embedding of tokens 0, 1, 2, …, so that one block becomes a whole network. Then
everything that works for networks works for the block: its exact stages, its expected rounding error, the effect of a
fault.

Axes    B rows, T positions, C = n_embd.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.model import GPT2, MLP, Affine, Attention, Block
from refgen.oracle.counterfactual import Pass


def cut(p: Pass, layer: int, hidden: ndarray) -> Pass:
    """Block `layer` of a pass as its own network, reading `hidden` `[B T C]`; its stages are named as layer 0's.

    The layer after the last is `ln_f` and `lm_head`, after a block that adds nothing. Of other layers these two give
    nothing of interest.
    """
    gpt2, (B, T, C) = p.gpt2, hidden.shape
    is_block = layer < gpt2.config.n_layer
    # Who reads the stream through a layer that a fault has removed reads it as it is.
    block = gpt2.h[layer] if layer < len(gpt2.h) else idle(gpt2)
    config = replace(
        gpt2.config,
        n_layer=1,
        vocab_size=B * T,
        tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=False,
    )
    alone = GPT2(
        config=config,
        wte=hidden.reshape(B * T, C).astype(gpt2.wte.dtype),
        wpe=np.zeros_like(gpt2.wpe),
        h=(block,),
        ln_f=gpt2.ln_f,
        lm_head=gpt2.lm_head[:1] if is_block else gpt2.lm_head,
    )
    own = replace(
        p,
        gpt2=alone,
        input_ids=np.arange(B * T).reshape(B, T),
        position_ids=np.zeros((B, T), dtype=np.int64),
    )
    return divided(own, layer + 1) if gpt2.config.scale_attn_by_inverse_layer_idx else own


def divided(p: Pass, number: int) -> Pass:
    """FWD-08. Scores divided by a layer's number, which a network of one layer does not know."""

    def smaller(q: ndarray, k: ndarray, v: ndarray, visible: ndarray, scale: float) -> tuple[Any, ...]:
        return q, k, v, visible, scale / number

    return replace(p, attending=(*p.attending, smaller))


def idle(gpt2: GPT2) -> Block:
    """A block that adds nothing."""
    C = gpt2.config.n_embd
    norm, attn, inner = Affine(np.zeros(C), np.zeros(C)), (C, 3 * C), (C, gpt2.config.inner)

    def nothing(shape: tuple[int, int]) -> Affine:
        return Affine(np.zeros(shape, gpt2.wte.dtype), np.zeros(shape[1], gpt2.wte.dtype))

    mlp = MLP(c_fc=nothing(inner), act=np.tanh, c_proj=nothing(inner[::-1]))
    return Block(ln_1=norm, attn=Attention(c_attn=nothing(attn), c_proj=nothing((C, C))), ln_2=norm, mlp=mlp)
