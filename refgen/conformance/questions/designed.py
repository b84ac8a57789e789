"""Designed networks: small GPT-2s whose weights follow from their places, so that anyone can make them, in any language.

Biases are not zero, gains not one, square matrices not symmetric, and each network sets one switch of the configuration that a
hurried implementation forgets. Every weight has seven bits, so that float32, float16 and bfloat16 hold the same network.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.checkpoints import assemble, tensor_shapes
from refgen.config import GPT2Config
from refgen.model import GPT2

SMALL: Mapping[str, Any] = MappingProxyType(
    {"vocab_size": 40, "n_positions": 24, "n_embd": 24, "bos_token_id": None, "eos_token_id": None}
)
DESIGNED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "net-plain": {"n_layer": 2, "n_head": 3},
        "net-deep": {"n_layer": 11, "n_head": 2},
        "net-own-head": {"n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
        "net-by-layer": {"n_layer": 3, "n_head": 1, "scale_attn_by_inverse_layer_idx": True},
        "net-no-scale": {"n_layer": 2, "n_head": 6, "scale_attn_weights": False, "n_inner": 17},
        "net-epsilon": {"n_layer": 2, "n_head": 3, "layer_norm_epsilon": 2.0**-4},
        "net-quick-gelu": {"n_layer": 2, "n_head": 3, "activation_function": "quick_gelu"},
        "net-relu": {"n_layer": 2, "n_head": 3, "activation_function": "relu"},
        "net-silu": {"n_layer": 2, "n_head": 3, "activation_function": "silu"},
    }
)


def designed_config(name: str) -> GPT2Config:
    """Its configuration."""
    return GPT2Config(**{**SMALL, **DESIGNED[name]})


def designed(name: str) -> GPT2:
    """The network of that name, in float32.

    Element i of tensor k is floor(((7919 i + 104729 k + i²) mod 1009) 128 / 1009) / 64 - 1, between -1 and 1. Matrices
    and vectors of the blocks are divided by 2, and gains are increased by 1.
    """
    config = designed_config(name)
    tensors: dict[str, ndarray] = {}
    for k, (tensor, shape) in enumerate(tensor_shapes(config).items()):
        i = np.arange(int(np.prod(shape)))
        values = ((7919 * i + 104729 * k + i * i) % 1009) * 128 // 1009 / 64 - 1
        if len(shape) == 1 or tensor.startswith("h."):
            values /= 2
        if len(shape) == 1 and tensor.endswith("weight"):
            values += 1
        tensors[tensor] = values.astype(np.float32).reshape(shape)
    return assemble(config, tensors)
