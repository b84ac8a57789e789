"""nanoGPT's and minGPT's networks in torch, written after their papers' code: the same names of weights, the same arithmetic."""

import math

import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm


class Norm(nn.Module):
    """A LayerNorm that may have no bias."""

    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width))
        self.bias = nn.Parameter(0.3 * torch.randn(width)) if bias else None

    def forward(self, x):
        """Of the stream `x`."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    """Causal attention of several heads; minGPT's keeps its mask as a buffer."""

    def __init__(self, width, heads, block_size, bias, buffer):
        super().__init__()
        self.c_attn, self.c_proj, self.heads = nn.Linear(width, 3 * width, bias), nn.Linear(width, width, bias), heads
        if buffer:
            self.register_buffer(
                "bias", torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size)
            )

    def forward(self, x):
        """Of the stream `x`."""
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))
        scores = (q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])).masked_fill(torch.ones(T, T).tril() == 0, -math.inf)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    """One layer."""

    def __init__(self, width, heads, block_size, bias, buffer, approximate):
        super().__init__()
        self.ln_1, self.ln_2 = Norm(width, bias), Norm(width, bias)
        self.attn = Attention(width, heads, block_size, bias, buffer)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias), "c_proj": nn.Linear(4 * width, width, bias)}
        )
        self.approximate = approximate

    def forward(self, x):
        """Of the stream `x`."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](gelu(self.mlp["c_fc"](self.ln_2(x)), approximate=self.approximate))


class NanoGPT(nn.Module):
    """nanoGPT: the GELU with erf, a tied head."""

    buffer, approximate, tied = False, "none", True

    def __init__(self, n_layer, n_head, n_embd, vocab_size, block_size, bias=True):
        super().__init__()
        layers = [Block(n_embd, n_head, block_size, bias, self.buffer, self.approximate) for _ in range(n_layer)]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, n_embd),
                "wpe": nn.Embedding(block_size, n_embd),
                "h": nn.ModuleList(layers),
                "ln_f": Norm(n_embd, bias),
            }
        )
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        if self.tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids):
        """The logits after each of `ids`."""
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for layer in self.transformer["h"]:
            x = layer(x)
        return self.lm_head(self.transformer["ln_f"](x))


class MinGPT(NanoGPT):
    """minGPT: GPT-2's GELU, a head of its own, a mask in every layer."""

    buffer, approximate, tied = True, "tanh", False


def sizes_of(sizes, activation):
    """A config.json of Hugging Face's kind for such a network."""
    return {
        "model_type": "gpt2", "n_positions": sizes["block_size"], "activation_function": activation, "tie_word_embeddings": False,
        **{name: sizes[name] for name in ("n_layer", "n_head", "n_embd", "vocab_size")},
    }  # fmt: skip
