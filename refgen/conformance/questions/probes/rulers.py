"""Probes that measure: a number from the arithmetic shows as a letter. A wrong formula gives another letter.

The *ruler* turns a number v of the stream into a token. Letter i, counted from the right one, has the logit
`STRETCH * (i v - the marks between)`; where v passes a mark the next letter takes over. The letters' rows of the
embedding are small and ln_f's gain is large, so a letter that is fed back does not change the stream. Nothing else is
in the row, so int8 holds it too.

Marks stand half-way between the right value and the nearest fault, so the precision that is needed is known. Every
probe here keeps at least 3 % on both sides, and one rounding to 16 bits loses 0.4 % (bfloat16) or 0.05 % (float16).
Where a function inside needs more precision, the probe leaves the format out of its `dtypes`.

Axes    V tokens, N positions, C = n_embd.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.questions.cases import Case
from refgen.conformance.questions.probes.probe import (
    Probe,
    balance,
    biases_of,
    blank,
    configured,
    ids,
    parts_of,
    says,
    special,
    words,
)

WHISPER, GAIN = 2.0**-7, 2.0**12
STRETCH = WHISPER * GAIN  # 32 logits for a v that is 1 off
AHEAD = 0.5  # of all that is not on the ruler
N = 64


class Bench:
    """A network with a ruler in it. The stream: one place a prompt letter and one for all others, v, two that are 1 in the end, ballast."""

    def __init__(self, prompt: str, scale: str, right: str = "o", **entries: Any) -> None:
        self.letters = prompt + scale
        self.scale, self.right = scale, scale.index(right)
        V, C = len(self.letters) + 1, entries.pop("n_embd", 32)
        self.config = configured(V, N, C, **entries)
        self.tensors = blank(self.config)
        kinds = len(prompt) + 1
        self.kind, (self.v, self.coarse, self.fine), self.ballast = np.split(np.arange(C), [kinds, kinds + 3])
        balance(self.tensors["wpe.weight"], self.ballast, 1 / 4)
        self.tensors["wpe.weight"][:, self.kind[-1]] = 1  # so that a letter's own row holds nothing but whispers
        for i in range(len(prompt)):
            self.tensors["wte.weight"][i, self.kind[[i, -1]]] = 1, -1

    def final(self, v: float) -> float:
        """What ln_f makes of v, before its gain; sums are exact, so that every machine writes the same marks."""
        x = (self.tensors["wte.weight"][0] + self.tensors["wpe.weight"][0]).tolist()
        x[self.v] = v
        mean = math.fsum(x) / len(x)
        return (v - mean) / math.sqrt(math.fsum((each - mean) ** 2 for each in x) / len(x))

    def probe(self, name: str, sentence: str, rules: Sequence[str], marks: Sequence[float]) -> Probe:
        """With marks at these numbers of the stream, one between each letter of the scale and the next."""
        marked = [self.final(mark) for mark in marks]
        rule(self.tensors, (self.v, self.coarse, self.fine), len(self.letters) - len(self.scale), self.right, marked)
        sentence = f"{sentence} {self.scale[self.right]} is right."
        return Probe(name, sentence, tuple(rules), self.config, self.tensors, words(self.letters), special(self.config))

    def says(self, name: str, why: str, rules: Sequence[str], prompts: Sequence[str], count: int, **more: Any) -> Case:
        """The right letter, over and over."""
        right = ids(self.scale[self.right], self.letters) * count
        return says(name, rules, why, [ids(each, self.letters) for each in prompts], [right] * len(prompts), **more)


def rule(
    tensors: Mapping[str, ndarray], columns: Sequence[int], start: int, right: int, marks: Sequence[float]
) -> None:
    """Writes the letters from token `start` on, and ln_f. A constant has two columns, so that bfloat16 holds it."""
    v, coarse, fine = columns
    wte = tensors["wte.weight"]
    for i in range(len(marks) + 1):
        between = sum(marks[right:i]) - sum(marks[i:right])
        constant = round((AHEAD - between) * 128) / 128
        whole = round(constant * 2) / 2
        wte[start + i, v] = WHISPER * (i - right)
        wte[start + i, coarse], wte[start + i, fine] = WHISPER * whole, WHISPER * (constant - whole)
    tensors["ln_f.weight"][:] = 0
    tensors["ln_f.weight"][v] = GAIN
    tensors["ln_f.bias"][[coarse, fine]] = GAIN


# --- Attention --------------------------------------------------------------------------------------------


def scaled(name: str, score: float, sentence: str, scale: str, marks: Sequence[float], **entries: Any) -> Probe:
    """An A among eight Bs has the score 3 and gets e^3 / (e^3 + 8) = 0.715 of the second layer's attention.

    With other scales it gets 0.21 (twice), 0.36 (divided by the layer), 0.5 (root of n_embd; powers of 2) or 1.0 (none).
    """
    bench = Bench("AB", scale, n_layer=2, n_head=2, **entries)
    _, k, v, proj = parts_of(bench.tensors, 1)
    biases_of(bench.tensors, 1)[0][0] = score / 2
    k[bench.kind, 0] = 1, 0, -15  # of which LayerNorm makes the double
    v[bench.kind[0], 0] = 1 / 2
    proj[0, bench.v] = 1
    probe = bench.probe(name, sentence, ["FWD-08", "FWD-13"], marks)
    kills = () if entries else ("scale-missing", "scale-by-layer", "scale-by-width", "scale-twice", "softmax-base-2")
    return probe.asked(
        bench.says("one-of-nine", "attention scores have another scale", ["FWD-08"], ["ABBBBBBBB"], 6, kills=kills),
        bench.says("padded", "padding is seen", ["FWD-08", "PAD-05"], ["BBBABBBBB", "ABBBBBBBB"], 3),
    )  # fmt: skip


def scale() -> Probe:
    """As GPT-2 does: divided by the root of a head's width, 4."""
    marks = (0.28, 0.43, 0.61, 0.86)
    return scaled("scale", 12.0, "The scale of attention: t twice, l by layer, w by n_embd or powers of 2, m missing.",
                  "tlwom", marks)  # fmt: skip


def scale_off() -> Probe:
    """`scale_attn_weights` is false: the score is 3 already, a quarter of it would be t."""
    return scaled("scale-off", 3.0, "A model without a scale of attention: t means that it is scaled nevertheless.", "to",
                  (0.46,), scale_attn_weights=False)  # fmt: skip


def scale_by_layer() -> Probe:
    """`scale_attn_by_inverse_layer_idx` is true: the score is halved in the second layer. Without that it is 6, which
    gives m.
    """
    return scaled("scale-by-layer", 24.0, "A model whose scores are divided by the layer's number: m means that they are not.",
                  "om", (0.85,), scale_attn_by_inverse_layer_idx=True)  # fmt: skip


def heads() -> Probe:
    """Four heads look for A, B, C and D; what they find counts 1, 2, 3 and 4, so the letter says how much was lost.

    Each head answers in another of its eight columns, so that none can be mistaken for another.
    """
    scale = "abcdefghijo"
    bench = Bench("ABCD", scale, n_head=4)
    _, k, v, proj = parts_of(bench.tensors, 0)
    for head, kind in enumerate(bench.kind[:4]):
        column = 8 * head + 2 * head
        biases_of(bench.tensors, 0)[0][column] = 16
        k[kind, column] = 4
        v[kind, column] = 1 / 2
        proj[column, bench.v] = (head + 1) / 8
    marks = [(i + 0.5) / 8 for i in range(10)]
    probe = bench.probe("heads", "Which of four heads are right: a none.", ["FWD-07"], marks)
    kills = ("heads-interleaved", "heads-unmerged", "heads-swapped", "qkv-by-head", "query-key-swapped",
             "proj-transposed")  # fmt: skip
    return probe.asked(
        bench.says("four", "heads are mixed up", ["FWD-07"], ["BDAC"], 5, kills=kills),
        bench.says("padded", "heads are mixed up when there is padding", ["FWD-07", "PAD-05"], ["ABCD", "AABCDDCB"], 3),
    )  # fmt: skip


# --- Biases -----------------------------------------------------------------------------------------------


def attention_biases() -> Probe:
    """The query's bias is worth 4 (it finds the A among Bs), the values' 2, c_proj's 1, in eighths."""
    bench = Bench("AB", "aqvpox")
    _, k, v, proj = parts_of(bench.tensors, 0)
    of_queries, _, of_values = biases_of(bench.tensors, 0)
    of_queries[0] = 16
    k[bench.kind[0], 0] = 8
    v[bench.kind[0], 0] = 1 / 2
    of_values[1] = 1
    proj[:2, bench.v] = 4 / 8, 2 / 8
    bench.tensors["h.0.attn.c_proj.bias"][bench.v] = 1 / 8
    probe = bench.probe("attention-biases", "Which bias of attention is missing: a several, q, v, p the projection's.",
                        ["FWD-06", "CKPT-03"], [each / 8 for each in (2.5, 4.5, 5.5, 6.5, 7.5)])  # fmt: skip
    kills = ("no-attention-biases", "no-query-bias", "no-value-bias", "no-attention-proj-bias")
    return probe.asked(
        bench.says("all", "a bias is missing", ["FWD-06"], ["ABBB"], 4, kills=kills),
        bench.says("batch", "a bias is missing", ["FWD-06", "BATCH-01"], ["ABBB", "BBAB"], 4),
    )  # fmt: skip


def mlp_biases() -> Probe:
    """The bias of c_fc is worth 4, that of ln_2 2, that of c_proj 1, in eighths."""
    bench = Bench("A", "fnpox")
    t = bench.tensors
    t["h.0.mlp.c_fc.bias"][0] = 8
    t["h.0.ln_2.bias"][bench.fine] = 1  # a column of the stream that is 0
    t["h.0.mlp.c_fc.weight"][bench.fine, 1] = 8
    t["h.0.mlp.c_proj.weight"][:2, bench.v] = 4 / 64, 2 / 64
    t["h.0.mlp.c_proj.bias"][bench.v] = 1 / 8
    probe = bench.probe("mlp-biases", "Which bias of the MLP is missing: f that of c_fc, n of ln_2, p of c_proj.",
                        ["FWD-06", "FWD-03"], [each / 8 for each in (4, 5.5, 6.5, 7.5)])  # fmt: skip
    kills = ("no-fc-bias", "no-mlp-proj-bias", "no-norm-bias", "ln-1-twice", "no-final-norm-bias")
    return probe.asked(bench.says("all", "a bias is missing", ["FWD-06", "FWD-03"], ["A", "AAA"], 4, kills=kills))


# --- Activation -------------------------------------------------------------------------------------------


def gelu() -> Probe:
    """The activation at -2, times -16: 0.73 is GELU in either form, 0 ReLU, 1.03 its sigmoid form, 3.8 SiLU."""
    bench = Bench("A", "roqs")
    bench.tensors["h.0.mlp.c_fc.bias"][0] = -2
    bench.tensors["h.0.mlp.c_proj.weight"][0, bench.v] = -16
    probe = bench.probe("gelu", "The activation, in either form of GELU: r ReLU, q x sigmoid(1.702 x), s SiLU.",
                        ["FWD-15", "FWD-16"], (0.36, 0.87, 2.0))  # fmt: skip
    return probe.asked(bench.says("minus-two", "another activation function is used", ["FWD-15"], ["A", "AA"], 4,
                                  kills=("gelu-sigmoid", "relu", "silu")))  # fmt: skip


def tail(name: str, scale: str, function: str, sentence: str, kills: Sequence[str]) -> Probe:
    """The activation at -3.5, times -1024: 0.62 is GELU's tanh form, 0.83 its exact form, 0 ReLU, 9 and more others.

    The forms never differ by more than 0.0005, but out there that is a third of their value. The function must be
    computed in float32. With 1 + tanh rounded to 16 bits, as in transformers' gelu_new in bfloat16, the tail is 0 or
    twice too long.
    """
    bench = Bench("A", scale, activation_function=function)
    bench.tensors["h.0.mlp.c_fc.bias"][0] = -3.5
    bench.tensors["h.0.mlp.c_proj.weight"][0, bench.v] = -1024
    probe = bench.probe(name, sentence, ["FWD-15", "FWD-16"], (0.25, 0.72, 2.0))
    probe = replace(probe, dtypes=("float64", "float32"))
    return probe.asked(
        bench.says("tail", "another activation function is used", ["FWD-15"], ["A", "AA"], 4, kills=kills)
    )


def gelu_tanh() -> Probe:
    """GPT-2's own."""
    sentence = "The form of GELU, which is tanh (gelu_new): e the exact one, r ReLU, x another."
    return tail("gelu-tanh", "roex", "gelu_new", sentence, ("gelu-erf", "gelu-sigmoid", "relu", "silu"))


def gelu_exact() -> Probe:
    """A model that asks for the exact form."""
    sentence = "The form of GELU, which is the exact one (gelu): t the tanh form, r ReLU, x another."
    return tail("gelu-exact", "rtox", "gelu", sentence, ("gelu-tanh", "gelu-sigmoid", "relu", "silu"))


def relu() -> Probe:
    """A model that asks for ReLU."""
    bench = Bench("A", "ogx", activation_function="relu")
    bench.tensors["h.0.mlp.c_fc.bias"][0] = -1
    bench.tensors["h.0.mlp.c_proj.weight"][0, bench.v] = -4
    probe = bench.probe("relu", "The activation, which is relu: g GELU.", ["FWD-15"], (0.3, 1.5))
    return probe.asked(bench.says("minus-one", "the configuration's activation is ignored", ["FWD-15"], ["A", "AA"], 4,
                                  kills=("gelu-erf", "gelu-tanh", "gelu-sigmoid", "silu")))  # fmt: skip


# --- Layer norm -------------------------------------------------------------------------------------------


def normed(
    name: str, sentence: str, scale: str, marks: Sequence[float], size: float, offset: float, count: int,
    kills: Sequence[str], **entries: Any,
) -> Probe:  # fmt: skip
    """Four numbers `offset + size` and four `offset - size`: mean and deviation are `offset` and `size` whatever the precision."""
    C, letters = 8, "A" + scale
    config = configured(len(letters) + 1, N, C, **entries)
    tensors = blank(config)
    tensors["wpe.weight"][:] = offset + size * np.array([1, -1] * 4)
    rule(tensors, (0, 1, 2), 1, scale.index("o"), marks)
    probe = Probe(name, sentence, ("FWD-05",), config, tensors, words(letters), special(config))
    right = ids("o", letters) * count
    prompts = [ids(each, letters) for each in ("A", "AAAA")]
    return probe.asked(says("both", ["FWD-05"], "layer norms have another formula", prompts, [right] * 2, kills=kills))


def variance() -> Probe:
    """Eight numbers, so that dividing by 7 instead makes 0.935 of 1; and a mean of 8, without which it would be 1.1."""
    return normed("variance", "The variance: o is right, u is divided by C - 1, and r subtracts nothing.", "uor",
                  (0.96875, 1.0625), 1.0, 8.0, 6, ("unbiased-variance", "no-mean", "no-norm-gain", "no-norm-bias",
                  "no-final-norm", "no-final-norm-bias", "final-norm-twice"))  # fmt: skip


def epsilon() -> Probe:
    """Deviations of 0.001, whose square is a tenth of epsilon: 0.30 is right, 0.70 is 1e-6, 1 is less or outside of the root."""
    return normed("epsilon", "The epsilon of layer norms: o is right, l is more than 1e-5, s is 1e-6, and z is less or outside the root.",
                  "losz", (0.2, 0.45, 0.85), 2.0**-10, 0.0, 1, ("epsilon-1e-6", "epsilon-1e-12", "epsilon-outside"))  # fmt: skip


def epsilon_large() -> Probe:
    """An epsilon of 1 makes 0.71 of 1; who does not read the configuration says x."""
    return normed("epsilon-large", "A model with an epsilon of 1: o is right, h puts it outside the root, and x does not read it.",
                  "hox", (0.6, 0.85), 1.0, 0.0, 6, ("epsilon-1e-5", "epsilon-1e-6", "epsilon-1e-12", "epsilon-outside"),
                  layer_norm_epsilon=1.0)  # fmt: skip
