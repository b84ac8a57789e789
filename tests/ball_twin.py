"""The forward pass once more in ball arithmetic: python-flint's arb, which knows nothing of refgen's proofs.

Every number is a ball of its own, whose radius arb keeps; nothing is shared with `refgen/oracle` but the tensors.
"""

from fractions import Fraction

from flint import arb, arb_mat, ctx, fmpq


def real(number):
    """A fraction, or a float, as it is."""
    number = Fraction(number)
    return arb(fmpq(number.numerator, number.denominator))


def row(numbers):
    return [real(float(number)) for number in numbers]


def matrix(array):
    return arb_mat([row(numbers) for numbers in array])


def sigmoid(x):
    return 1 / (1 + (-x).exp())


def gelu(x, c=None):
    """0.5 x (1 + tanh(c (x + 0.044715 x³))), c = sqrt(2/π)."""
    c = (2 / arb.pi()).sqrt() if c is None else c
    return x / 2 * (1 + (c * (x + real(Fraction("0.044715")) * x * x * x)).tanh())


ACTIVATIONS = {
    "gelu_new": gelu,
    "gelu_accurate": gelu,
    "gelu_python_tanh": gelu,
    "gelu_pytorch_tanh": gelu,
    "gelu_fast": lambda x: gelu(x, real(Fraction("0.7978845608"))),
    "quick_gelu": lambda x: x * sigmoid(real(Fraction("1.702")) * x),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "relu": lambda x: x.max(arb(0)),
    "linear": lambda x: x,
}


def linear(x, weight, bias):
    """Rows times a matrix, plus the bias."""
    product = (arb_mat(x) * weight).tolist()
    return [[a + b for a, b in zip(line, bias, strict=True)] for line in product]


def layer_norm(x, weight, bias, epsilon):
    """One row."""
    mean = sum(x) / len(x)
    c = [a - mean for a in x]
    s = (sum(a * a for a in c) / len(x) + epsilon).sqrt()
    return [a / s * w + b for a, w, b in zip(c, weight, bias, strict=True)]


def softmax(scores):
    """One row."""
    largest = max(float(score.mid()) for score in scores)
    e = [(score - largest).exp() for score in scores]
    return [a / sum(e) for a in e]


def logits(config, tensors, ids, precision):
    """`[T][V]` balls for the logits after each of `ids`."""
    old, ctx.prec = ctx.prec, precision
    try:
        return forward(config, tensors, ids)
    finally:
        ctx.prec = old


def forward(config, tensors, ids):
    w = {name: matrix(t) if t.ndim == 2 and name.startswith("h.") else t for name, t in tensors.items()}
    w = {name: row(t) if not isinstance(t, arb_mat) and t.ndim == 1 else t for name, t in w.items()}
    C, H, T = config.n_embd, config.n_head, len(ids)
    D = C // H
    epsilon = real(Fraction(repr(config.layer_norm_epsilon)))
    act = ACTIVATIONS[config.activation_function]
    x = [
        [a + b for a, b in zip(row(w["wte.weight"][token]), row(w["wpe.weight"][place]), strict=True)]
        for place, token in enumerate(ids)
    ]

    def normed(x, name):
        return [layer_norm(line, w[f"{name}.weight"], w[f"{name}.bias"], epsilon) for line in x]

    def mapped(x, name):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def added(x, y):
        return [[a + b for a, b in zip(line, other, strict=True)] for line, other in zip(x, y, strict=True)]

    for layer in range(config.n_layer):
        scale = 1 / arb(D).sqrt() if config.scale_attn_weights else arb(1)
        scale = scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale
        qkv = mapped(normed(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        z = []
        for t in range(T):
            line = []
            for head in range(H):
                q, k, v = (arb_mat([r[p * C + head * D :][:D] for r in qkv[: t + 1]]) for p in range(3))
                scores = (k * arb_mat([[q[t, i]] for i in range(D)])).entries()
                pattern = softmax([score * scale for score in scores])
                line += (arb_mat([pattern]) * v).entries()
            z.append(line)
        x = added(x, mapped(z, f"h.{layer}.attn.c_proj"))
        up = mapped(normed(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        x = added(x, mapped([[act(a) for a in line] for line in up], f"h.{layer}.mlp.c_proj"))
    head = w["wte.weight"] if config.tie_word_embeddings else w["lm_head.weight"]
    return (arb_mat(normed(x, "ln_f")) * matrix(head).transpose()).tolist()
