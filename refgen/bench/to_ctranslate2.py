"""A Hugging Face folder → CTranslate2's own format, by its specification of decoders; no torch needed.

CTranslate2 speaks tokens, not ids: the vocabulary is the ids as words.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import Activation, TransformerDecoderModelSpec
from numpy import ndarray

from refgen.bench.weights import read_folder
from refgen.config import GPT2Config


def build(config: GPT2Config, tensors: dict[str, ndarray]) -> Any:
    """The model."""
    spec = TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, pre_norm=True, activation=Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = tensors["wte.weight"]
    decoder.position_encodings.encodings = tensors["wpe.weight"]
    decoder.projection.weight = tensors["wte.weight" if config.tie_word_embeddings else "lm_head.weight"]
    norm(decoder.layer_norm, tensors, "ln_f")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, tensors, f"h.{i}.ln_1")
        linear(layer.self_attention.linear[0], tensors, f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], tensors, f"h.{i}.attn.c_proj")
        norm(layer.ffn.layer_norm, tensors, f"h.{i}.ln_2")
        linear(layer.ffn.linear_0, tensors, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, tensors, f"h.{i}.mlp.c_proj")
    spec.register_vocabulary([str(token) for token in range(config.vocab_size)])
    unused = "0"  # there must be some
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = unused
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    return spec


def norm(spec: Any, tensors: dict[str, ndarray], name: str) -> None:
    """A LayerNorm's two tensors."""
    spec.gamma, spec.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def linear(spec: Any, tensors: dict[str, ndarray], name: str) -> None:
    """A linear map's two tensors, the weight as `[out, in]`."""
    spec.weight, spec.bias = np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"]


def convert(folder: Path) -> Path:
    """Writes the folder `ctranslate2` beside the weights, unless it is there."""
    target = folder / "ctranslate2"
    if not target.exists():
        temporary = folder / "ctranslate2.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        spec = build(*read_folder(folder))
        spec.validate()
        spec.optimize(quantization=None)
        spec.save(str(temporary))
        temporary.rename(target)
    return target
