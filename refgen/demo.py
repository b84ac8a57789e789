"""A small GPT-2 with one mistake, to try the conformance kit on: `refgen check refgen.demo:WrongGelu --only network`.

It is a typical first GPT-2 in NumPy: no cache, no padding, one row at a time. The mistake is the GELU. GPT-2 was trained with
the tanh form, and this file has the exact one. The text that it generates looks right.
"""

import json
import math
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors.numpy import load_file

USUAL = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}  # the configurations that it supports
erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: ndarray) -> ndarray:
    """x times the normal distribution function: not the GELU that GPT-2 was trained with."""
    return (0.5 * x * (1 + erf(x / math.sqrt(2)))).astype(np.float32)


def softmax(x: ndarray) -> ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class WrongGelu:
    """A subject for the kit (docs/subjects.md), with the model of a Hugging Face folder."""

    name, version, dtype = "refgen.demo", "1", "float32"

    def __init__(self, folder: Path) -> None:
        self.config = USUAL | json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        weights = load_file(Path(folder) / "model.safetensors")
        self.weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}

    def forward(self, input_ids: list[list[int]]) -> ndarray:
        """Logits `[B T V]`."""
        return np.stack([self.run(ids)["lm_head"] for ids in input_ids])

    def stages(self, input_ids: list[list[int]]) -> dict[str, ndarray]:
        """The intermediate arrays of one row, by name, so that the report can name the layer at fault."""
        return self.run(input_ids[0])

    def generate(self, input_ids: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """The new ids of each row, greedily."""
        rows = [list(ids) for ids in input_ids]
        for ids in rows * max_new_tokens:
            ids.append(int(self.run(ids)["lm_head"][-1].argmax()))
        return [ids[len(prompt) :] for ids, prompt in zip(rows, input_ids, strict=True)]

    def run(self, ids: list[int]) -> dict[str, ndarray]:
        """All stages of a forward pass over one row."""
        if any(self.config[name] != value for name, value in USUAL.items()):
            raise NotImplementedError("only GPT-2's own configuration")
        x = self.weights["wte.weight"][ids] + self.weights["wpe.weight"][: len(ids)]
        stages = {"drop": x}
        for n in range(self.config["n_layer"]):
            x = x + self.attention(self.norm(x, f"h.{n}.ln_1"), f"h.{n}.attn")
            c_fc = self.linear(self.norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")
            act = gelu(c_fc)
            x = x + self.linear(act, f"h.{n}.mlp.c_proj")
            stages |= {f"h.{n}.mlp.c_fc": c_fc, f"h.{n}.mlp.act": act, f"h.{n}": x}
        return stages | {"lm_head": self.norm(x, "ln_f") @ self.weights["wte.weight"].T}

    def attention(self, x: ndarray, name: str) -> ndarray:
        """Every position looks at itself and at those before it."""
        (T, C), H = x.shape, self.config["n_head"]
        q, k, v = self.linear(x, f"{name}.c_attn").reshape(T, 3, H, C // H).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(C // H))
        seen = softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf)) @ v
        return self.linear(seen.transpose(1, 0, 2).reshape(T, C), f"{name}.c_proj")

    def linear(self, x: ndarray, name: str) -> ndarray:
        """x W + b."""
        return x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def norm(self, x: ndarray, name: str) -> ndarray:
        """Layer normalisation."""
        d = x - x.mean(axis=-1, keepdims=True)
        epsilon = np.float32(self.config.get("layer_norm_epsilon", 1e-5))
        normed = d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + epsilon)
        return normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
