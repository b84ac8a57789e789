"""Dice for the law of sampled text: logits under which each rule of chance makes the largest difference."""

import math

from refgen.conformance.questions.probes.known import dice, drawn
from refgen.conformance.questions.probes.probe import LETTERS, Probe


def dice_loaded() -> Probe:
    """Twelve tokens from likely to rare in an order that is not the ids', with logits on both sides of zero."""
    z = [-2.5, 1.75, -0.5, 2.25, 0.75, -1.5, 1.5, -0.25, 1.0, -1.0, 0.25, -2.0]
    probe = dice([*z, -16.0], "dice-loaded", "Twelve tokens from likely to rare.", end=False)
    return probe.asked(drawn("uniforms", ["SAMP-01"], "BDGI", [0.1, 0.4, 0.7, 0.87]))


def dice_peak() -> Probe:
    """One token against all others, which are equal: nothing moves with temperature as much as the first one's share."""
    V = len(LETTERS)
    z = [0.0] * V
    z[17] = round(1.5 * math.log(V) * 8) / 8  # half of all, at temperature 1.5
    probe = dice([*z, -16.0], "dice-peak", "One token against all others.", end=False)
    return probe.asked(drawn("uniforms", ["SAMP-01"], "RRA", [0.5, 0.9, 0.001]))


def dice_pair() -> Probe:
    """Two equal tokens, and an end that cannot be: half of the mass is exactly one of them."""
    probe = dice([0.0, 0.0, -8192.0], "dice-pair", "Two equal tokens.", end=False)
    return probe.asked(drawn("uniforms", ["SAMP-01"], "ABAB", [0.25, 0.75, 0.49, 0.51]))
