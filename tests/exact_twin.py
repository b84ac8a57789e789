"""CANON-02 to CANON-08 once more, number by number in fractions: one unpadded sequence through a gelu_new GPT-2.

Shares no arithmetic with refgen: numbers are fractions, `nearest` rounds them with whole-number arithmetic, functions
come to 90 digits from `decimal`, and loops stand where refgen has matrices.
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np


def nearest(exact):
    """A fraction rounded to float32, ties to even, as a fraction; subnormals kept, no overflow."""
    exact = Fraction(exact)
    if exact == 0:
        return exact
    exponent = max(math.floor(math.log2(abs(exact))) - 23, -149)
    while abs(exact) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    while exponent > -149 and abs(exact) / Fraction(2) ** exponent < 2**23:
        exponent -= 1
    unit = Fraction(2) ** exponent
    return round(exact / unit) * unit  # Python rounds fractions half to even


def function(name, x):
    """exp, tanh, sqrt, log1p or erf of a fraction, rounded once."""
    with localcontext(prec=90):
        z = Decimal(x.numerator) / Decimal(x.denominator)
        e = (2 * z).exp() if name == "tanh" else None
        value = {
            "exp": z.exp,
            "tanh": lambda: (e - 1) / (e + 1),
            "sqrt": z.sqrt,
            "log1p": (Decimal(1) + z).ln,
            "erf": lambda: erf(z),
        }[name]()
    return nearest(Fraction(value))


def erf(z):
    """The alternating series, which cancels at most as many digits as exp(z²) has."""
    series, factor = Decimal(0), Decimal(1)
    for n in range(400):
        series += factor * z ** (2 * n + 1) / (2 * n + 1)
        factor *= Decimal(-1) / (n + 1)
    four_arctans = 4 * (4 * arctan(5) - arctan(239))  # Machin
    return 2 * series / four_arctans.sqrt()


def arctan(q):
    """The angle whose tangent is 1 / q."""
    return sum(Decimal((-1) ** n) / ((2 * n + 1) * Decimal(q) ** (2 * n + 1)) for n in range(70))


def dot(a, b):
    """A dot product, rounded once."""
    return nearest(sum(x * y for x, y in zip(a, b, strict=True)))


def linear(x, weight, bias):
    """Two roundings."""
    return [nearest(dot(x, column) + b) for column, b in zip(zip(*weight, strict=True), bias, strict=True)]


def mean(x):
    """Two roundings."""
    return nearest(nearest(sum(x)) / len(x))


def layer_norm(x, weight, bias, epsilon):
    """One rounding an operation."""
    m = mean(x)
    d = [nearest(a - m) for a in x]
    root = function("sqrt", nearest(mean([nearest(a * a) for a in d]) + nearest(epsilon)))
    return [nearest(nearest(nearest(a / root) * w) + b) for a, w, b in zip(d, weight, bias, strict=True)]


def gelu_new(x):
    """Nine operations."""
    cube = nearest(nearest(x * x) * x)
    inner = nearest(x + nearest(nearest(0.044715) * cube))
    t = function("tanh", nearest(nearest(math.sqrt(2 / math.pi)) * inner))
    return nearest(nearest(x / 2) * nearest(1 + t))


def softmax(x):
    """One rounding an operation."""
    e = [function("exp", nearest(a - max(x))) for a in x]
    total = nearest(sum(e))
    return [nearest(a / total) for a in e]


def logits(config, tensors, ids):
    """`[T][V]` fractions, and the stream after every block."""
    weights = {name: fractions(tensor) for name, tensor in tensors.items()}
    D = config.n_embd // config.n_head
    stream = [
        [nearest(a + b) for a, b in zip(weights["wte.weight"][token], weights["wpe.weight"][place], strict=True)]
        for place, token in enumerate(ids)
    ]
    for layer in range(config.n_layer):
        w = {name.removeprefix(f"h.{layer}."): value for name, value in weights.items()}
        scale = 1 / math.sqrt(D) if config.scale_attn_weights else 1.0
        scale = nearest(scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale)
        qkv = [
            linear(layer_norm(x, w["ln_1.weight"], w["ln_1.bias"], config.layer_norm_epsilon),
                   w["attn.c_attn.weight"], w["attn.c_attn.bias"])
            for x in stream
        ]  # fmt: skip
        for t, x in enumerate(stream):
            z = []
            for head in range(config.n_head):
                q, k, v = ([row[part * config.n_embd + head * D :][:D] for row in qkv[: t + 1]] for part in range(3))
                pattern = softmax([nearest(dot(q[t], key) * scale) for key in k])
                z += [dot(pattern, column) for column in zip(*v, strict=True)]
            y = linear(z, w["attn.c_proj.weight"], w["attn.c_proj.bias"])
            mid = [nearest(a + b) for a, b in zip(x, y, strict=True)]
            up = linear(layer_norm(mid, w["ln_2.weight"], w["ln_2.bias"], config.layer_norm_epsilon),
                        w["mlp.c_fc.weight"], w["mlp.c_fc.bias"])  # fmt: skip
            y = linear([gelu_new(a) for a in up], w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])
            stream[t] = [nearest(a + b) for a, b in zip(mid, y, strict=True)]
    head = weights["wte.weight" if config.tie_word_embeddings else "lm_head.weight"]
    normed = [layer_norm(x, weights["ln_f.weight"], weights["ln_f.bias"], config.layer_norm_epsilon) for x in stream]
    return [[dot(x, row) for row in head] for x in normed]


def fractions(tensor):
    """Nested lists of fractions."""
    return Fraction(float(tensor)) if tensor.ndim == 0 else [fractions(np.asarray(part)) for part in tensor]
