"""GPT-2's forward pass in canonical float32: the same bits on every machine. Rules CANON-01 to CANON-09 of SPEC.md.

The network is model.py's; these are its steps that round numbers, under the same names and with the same formulas.
What differs is that every operation is rounded once, to the nearest float32: + - * / and sqrt are so in any float32, exp and its kin and all sums and dot
products come from `rounding.py`. Then no order of additions, no BLAS, no thread, no batch and no cache is left for
the result to depend on. Operations are done in the order in which Python reads the formula; constants are rounded
to float32.

Axes    B rows of the batch, T new positions, S cached and new positions, I in, O out, C = n_embd, H heads, D width, V tokens.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated as Bool
from typing import Annotated as Float

import numpy as np
from numpy import ndarray

from refgen.engines.canonical.rounding import Wide, erf, exp, kept, log1p, matmul, tanh, total, widen
from refgen.errors import ConfigError
from refgen.model import GPT2, Affine, Arithmetic, Note, silent

# --- The mathematics, from the bottom up ------------------------------------------------------------------


def project(x: Float[ndarray, "... I"], weight: Wide) -> Float[ndarray, "... O"]:
    """CANON-04. x W: every element a dot product, rounded once; 128 rows at a time, for the memory's sake."""
    rows = x.reshape(-1, x.shape[-1])
    blocks = [matmul(rows[start : start + 128], weight) for start in range(0, len(rows), 128)]
    return np.concatenate(blocks).reshape(*x.shape[:-1], -1)


def linear(x: Float[ndarray, "... I"], f: Affine) -> Float[ndarray, "... O"]:
    """CANON-04. x W, rounded, and then + b."""
    return project(x, kept(f.weight)) + f.bias


def head(x: Float[ndarray, "... C"], weight: Float[ndarray, "V C"]) -> Float[ndarray, "... V"]:
    """CANON-04. x times each token's row."""
    return project(x, kept(weight, transposed=True))


def mean(x: Float[ndarray, "... C"]) -> Float[ndarray, "... 1"]:
    """CANON-05. The sum, rounded, divided by C."""
    return total(x) / np.float32(x.shape[-1])


def layer_norm(x: Float[ndarray, "... C"], f: Affine, epsilon: float) -> Float[ndarray, "... C"]:
    """CANON-05. Subtract the mean, divide by sqrt(mean square + epsilon), scale, shift: six roundings after the mean."""
    centred = x - mean(x)
    variance = mean(centred * centred)
    return centred / np.sqrt(variance + np.float32(epsilon)) * f.weight + f.bias


def softmax(x: Float[ndarray, "... S"]) -> Float[ndarray, "... S"]:
    """CANON-07. Shift by the row's maximum, exponentiate, divide by the sum; hidden keys add exactly 0 to it."""
    e = exp(x - x.max(axis=-1, keepdims=True, initial=np.finfo(x.dtype).min))
    return e / np.maximum(total(e), np.float32(1.0))


def attend(
    q: Float[ndarray, "B H T D"],
    k: Float[ndarray, "B H S D"],
    v: Float[ndarray, "B H S D"],
    visible: Bool[ndarray, "B 1 T S"],
    scale: float,
    note: Note = silent,
) -> Float[ndarray, "B H T D"]:
    """CANON-06. q·k, rounded, times the scale; the pattern's average of the values, rounded once."""
    scores = np.where(
        visible, matmul(q, widen(k.swapaxes(-1, -2))) * np.float32(scale), np.float32(-np.inf)
    )  # [B H T S]
    pattern = softmax(scores)
    note("scores", scores)
    note("pattern", pattern)
    return matmul(pattern, widen(v))


# --- Activations ------------------------------------------------------------------------------------------


def gelu_new(x: ndarray) -> ndarray:
    """CANON-08. The tanh form GPT-2 was trained with."""
    return 0.5 * x * (1.0 + tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def gelu_fast(x: ndarray) -> ndarray:
    """CANON-08. The tanh form with sqrt(2/pi) written as ten digits."""
    return 0.5 * x * (1.0 + tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def gelu(x: ndarray) -> ndarray:
    """CANON-08. The exact form."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def laplace(x: ndarray) -> ndarray:
    """CANON-08. A normal distribution function, with the mean and deviation of MEGA."""
    return 0.5 * (1.0 + erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


def sigmoid(x: ndarray) -> ndarray:
    """CANON-08. 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exp(-x))


def softplus(x: ndarray) -> ndarray:
    """CANON-08. log(1 + exp(x)), and x itself above 20."""
    return np.where(x > 20.0, x, log1p(exp(np.minimum(x, 20.0))))


def relu(x: ndarray) -> ndarray:
    """CANON-08. The positive part; 0, never -0, below."""
    return np.where(x <= 0.0, 0.0, x)


def relu6(x: ndarray) -> ndarray:
    """CANON-08. The positive part, at most 6."""
    return np.minimum(relu(x), 6.0)


ACTIVATIONS: Mapping[str, Callable[[ndarray], ndarray]] = MappingProxyType(
    {
        "gelu": gelu,
        "gelu_10": lambda x: np.clip(gelu(x), -10.0, 10.0),
        "gelu_accurate": gelu_new,
        "gelu_fast": gelu_fast,
        "gelu_new": gelu_new,
        "gelu_python": gelu,
        "gelu_python_tanh": gelu_new,
        "gelu_pytorch_tanh": gelu_new,
        "hardswish": lambda x: x * relu6(x + 3.0) / 6.0,
        "laplace": laplace,
        "leaky_relu": lambda x: np.where(x > 0.0, x, 0.01 * x),
        "linear": lambda x: x,
        "mish": lambda x: x * tanh(softplus(x)),
        "quick_gelu": lambda x: x * sigmoid(1.702 * x),
        "relu": relu,
        "relu2": lambda x: np.square(relu(x)),
        "relu6": relu6,
        "sigmoid": sigmoid,
        "silu": lambda x: x * sigmoid(x),
        "sqrtsoftplus": lambda x: np.sqrt(softplus(x)),
        "swish": lambda x: x * sigmoid(x),
        "tanh": tanh,
    }
)


# --- Choosing it ------------------------------------------------------------------------------------------


def canonical(gpt2: GPT2) -> GPT2:
    """CANON-01. The same network, computing canonically. Raises `ConfigError` unless its weights are float32."""
    if gpt2.wte.dtype != np.float32:
        raise ConfigError(
            "arithmetic='canonical'",
            f"is float32 arithmetic, and the weights are {gpt2.wte.dtype}",
            "CANON-01",
            "Load with dtype='float32'.",
        )
    act = ACTIVATIONS[gpt2.config.activation_function]
    blocks = tuple(replace(block, mlp=replace(block.mlp, act=act)) for block in gpt2.h)
    return replace(gpt2, h=blocks, arithmetic=Arithmetic(linear, layer_norm, attend, head))


def with_arithmetic(gpt2: GPT2, name: str) -> GPT2:
    """CANON-01. `native` is NumPy's own arithmetic, `canonical` this file's."""
    if name not in ("native", "canonical"):
        raise ConfigError(f"arithmetic={name!r}", "must be 'native' or 'canonical'", "CANON-01")
    return canonical(gpt2) if name == "canonical" else gpt2
