"""The activation functions a `config.json` can name: every one of transformers' registry that has no weights.

FWD-15 of SPEC.md. GPT-2's own, `gelu_new`, stands in `model.py`. Each maps an array of any shape to one of the
same shape and dtype.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy import ndarray

from refgen.errors import ConfigError
from refgen.model import gelu_new

ERF = np.frompyfunc(math.erf, 1, 1)  # element by element: NumPy has no error function, and few models need it


def erf(x: ndarray) -> ndarray:
    """The error function."""
    y: ndarray = ERF(x).astype(x.dtype)
    return y


def sigmoid(x: ndarray) -> ndarray:
    """1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the right limit 0."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def softplus(x: ndarray) -> ndarray:
    """log(1 + exp(x)), and x itself above 20, where torch switches."""
    return np.where(x > 20.0, x, np.log1p(np.exp(np.minimum(x, 20.0))))


def gelu(x: ndarray) -> ndarray:
    """The exact form, x times the normal distribution function: 2e-4 away from GPT-2's tanh form."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def gelu_fast(x: ndarray) -> ndarray:
    """The tanh form with sqrt(2/pi) written as ten digits."""
    return 0.5 * x * (1.0 + np.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def gelu_10(x: ndarray) -> ndarray:
    """The exact form, clipped to [-10, 10]."""
    return np.maximum(np.minimum(gelu(x), 10.0), -10.0)


def quick_gelu(x: ndarray) -> ndarray:
    """The sigmoid form."""
    return x * sigmoid(1.702 * x)


def relu(x: ndarray) -> ndarray:
    """The positive part; 0, never -0, below."""
    return np.where(x <= 0.0, 0.0, x)


def relu2(x: ndarray) -> ndarray:
    """The positive part, squared."""
    return np.square(relu(x))


def relu6(x: ndarray) -> ndarray:
    """The positive part, at most 6."""
    return np.minimum(relu(x), 6.0)


def leaky_relu(x: ndarray) -> ndarray:
    """Slope 1 above zero, 0.01 below."""
    return np.where(x > 0.0, x, 0.01 * x)


def hardswish(x: ndarray) -> ndarray:
    """x times a sigmoid made of straight lines."""
    return x * relu6(x + 3.0) / 6.0


def silu(x: ndarray) -> ndarray:
    """x times its sigmoid, also called swish."""
    return x * sigmoid(x)


def mish(x: ndarray) -> ndarray:
    """x times the tanh of its softplus."""
    return x * np.tanh(softplus(x))


def laplace(x: ndarray) -> ndarray:
    """A normal distribution function, with the mean and deviation of MEGA."""
    return 0.5 * (1.0 + erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


def sqrtsoftplus(x: ndarray) -> ndarray:
    """The square root of softplus."""
    return np.sqrt(softplus(x))


def linear(x: ndarray) -> ndarray:
    """The input itself."""
    return x


ACTIVATIONS: Mapping[str, Callable[[ndarray], ndarray]] = MappingProxyType(
    {
        "gelu": gelu,
        "gelu_10": gelu_10,
        "gelu_accurate": gelu_new,
        "gelu_fast": gelu_fast,
        "gelu_new": gelu_new,
        "gelu_python": gelu,
        "gelu_python_tanh": gelu_new,
        "gelu_pytorch_tanh": gelu_new,
        "hardswish": hardswish,
        "laplace": laplace,
        "leaky_relu": leaky_relu,
        "linear": linear,
        "mish": mish,
        "quick_gelu": quick_gelu,
        "relu": relu,
        "relu2": relu2,
        "relu6": relu6,
        "sigmoid": sigmoid,
        "silu": silu,
        "sqrtsoftplus": sqrtsoftplus,
        "swish": silu,
        "tanh": np.tanh,
    }
)


def activation(name: str) -> Callable[[ndarray], ndarray]:
    """The function a `config.json` calls `name`; raises `ConfigError` for one that refgen does not know."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    known = ", ".join(ACTIVATIONS)
    if name in ("prelu", "xielu"):
        raise ConfigError(f"activation_function={name!r}", "has its own weights", "FWD-15", f"refgen knows {known}.")
    raise ConfigError(
        f"activation_function={name!r}", "is not an activation function", "FWD-15", f"refgen knows {known}."
    )
