"""Activation functions at a few points, worked out by hand; `cross/test_forward.py` compares them with transformers'."""

import math

import numpy as np
import pytest

from refgen.activations import ACTIVATIONS

E = math.e
BY_HAND = {  # at -4, -1, 0, 2 and 7
    "linear": (-4, -1, 0, 2, 7),
    "relu": (0, 0, 0, 2, 7),
    "relu2": (0, 0, 0, 4, 49),
    "relu6": (0, 0, 0, 2, 6),
    "leaky_relu": (-0.04, -0.01, 0, 2, 7),
    "hardswish": (0, -1 / 3, 0, 5 / 3, 7),
    "sigmoid": (1 / (1 + E**4), 1 / (1 + E), 1 / 2, 1 / (1 + E**-2), 1 / (1 + E**-7)),
    "silu": (-4 / (1 + E**4), -1 / (1 + E), 0, 2 / (1 + E**-2), 7 / (1 + E**-7)),
    "sqrtsoftplus": [math.sqrt(math.log(1 + E**x)) for x in (-4, -1, 0, 2, 7)],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_activations_by_hand(name):
    """FWD-15: each name is its own function."""
    x = np.array([-4.0, -1.0, 0.0, 2.0, 7.0])
    np.testing.assert_allclose(ACTIVATIONS[name](x), BY_HAND[name], rtol=1e-14)
