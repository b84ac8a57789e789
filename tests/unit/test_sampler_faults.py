"""sampler_faults.py: the catalogue, and the options that subjects declare."""

import numpy as np
import pytest

from refgen.conformance.planted import sampler_faults
from refgen.conformance.planted.sampler_faults import (
    FAULTS,
    NUMBERS,
    conventions,
    find_fault,
    independent,
    meant,
    right,
    run,
)
from refgen.generation.prompt import Prompt
from refgen.spec import rules

IDS = np.array([[3, 3, 0, 5]])
LOGITS = np.array([[-1.0, 2.0, 0.5, 1.0, -2.0, 1.5]])


def kept(name, **settings):
    """The tokens that a sampler with this fault leaves, from the likeliest on."""
    scores = find_fault(name).scores(settings, IDS, LOGITS)[0]
    return [int(token) for token in np.argsort(-scores, kind="stable") if np.isfinite(scores[token])]


def test_the_catalogue_names_rules_and_options_of_the_specification():
    """Names stand once, rules are rules, options are options of Stacks."""
    everything = [*FAULTS, *NUMBERS]
    assert len({each.name for each in everything}) == len(everything) >= 40
    stacks = " ".join(rule.stacks for rule in rules().values())
    for fault in everything:
        assert set(fault.rules) <= rules().keys()
        if getattr(fault, "choice", ""):
            name, option = fault.choice.split("=")
            assert f"{name}=" in stacks
            assert option in stacks
    for option in [*sampler_faults.PLANTS, *sampler_faults.SILENT, *sampler_faults.ANY_OF_EQUALS]:
        assert option.split("=")[0] + "=" in stacks
        assert option.split("=")[1] in stacks


@pytest.mark.parametrize(
    ("name", "settings", "left"),
    [
        ("top-k-one-more", {"top_k": 2}, [1, 5, 3]),
        ("top-k-one-less", {"top_k": 2}, [1]),
        ("top-k-zero-keeps-one", {"top_k": 0}, [1]),
        ("top-p-crossing-dropped", {"top_k": 0, "top_p": 0.75}, [1, 5]),
        ("top-p-one-more", {"top_k": 0, "top_p": 0.75}, [1, 5, 3, 2]),
        ("top-p-worst-first", {"top_k": 0, "top_p": 0.25}, [3, 2, 0, 4]),
        ("top-p-not-scattered", {"top_k": 0, "top_p": 0.75}, [1, 2, 0]),
        ("top-p-before-top-k", {"top_k": 2, "top_p": 0.6}, [1, 5]),
        ("min-p-of-one", {"top_k": 0, "min_p": 0.2}, [1, 5]),
        ("min-p-of-scores", {"top_k": 0, "min_p": 0.6}, [1, 5]),
        ("greedy", {"temperature": 2.0}, [1]),
        ("bias-after-cuts", {"top_k": 1, "sequence_bias": [[[4], 9.0]]}, [1]),
        ("settings-ignored", {"top_k": 1}, [1, 5, 3, 2, 0, 4]),
    ],
)
def test_what_a_fault_leaves(name, settings, left):
    """By hand: probabilities are .43, .26, .16, .10, .02 and .01, best first 1, 5, 3, 2, 0, 4."""
    assert kept(name, **settings) == left


def test_what_a_fault_scores():
    """By hand: ids 3 (twice), 0 and 5 are there already."""
    penalty = {"top_k": 0, "repetition_penalty": 2.0}

    def scores(name, width=None, **settings):
        return find_fault(name).scores(settings, IDS, LOGITS, width)[0].tolist()

    assert scores("penalty-divides-negatives", **penalty) == [-0.5, 2.0, 0.5, 0.5, -2.0, 0.75]
    assert scores("penalty-an-occurrence", **penalty) == [-2.0, 2.0, 0.5, 0.25, -2.0, 0.75]
    assert scores("penalty-of-new-tokens", 3, **penalty) == [-1.0, 2.0, 0.5, 1.0, -2.0, 0.75]
    assert scores("penalty-of-the-prompt", 3, **penalty) == [-2.0, 2.0, 0.5, 0.5, -2.0, 1.5]
    assert scores("temperature-twice", top_k=0, temperature=2.0) == (LOGITS[0] / 4).tolist()
    assert scores("temperature-multiplied", top_k=0, temperature=2.0) == (LOGITS[0] * 2).tolist()
    assert scores("bias-after-temperature", temperature=2.0, sequence_bias=[[[0], 1.0]])[0] == 0.5
    assert scores("softmax-twice", top_k=0) == pytest.approx(np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum())


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("penalties_temperature_top_k_top_p_min_p", ["repetition_penalty", "temperature", "top_k", "top_p", "min_p"]),
        ("penalties_temperature_min_p_top_k_top_p", ["repetition_penalty", "temperature", "min_p", "top_k", "top_p"]),
        ("penalties_top_k_typical_p_top_p_min_p_temperature", ["repetition_penalty", "top_k", "top_p", "min_p", "temperature"]),
        ("temperature_top_p_top_k", ["repetition_penalty", "temperature", "top_p", "top_k", "min_p"]),
        ("top_p_top_k_temperature", ["repetition_penalty", "top_p", "top_k", "temperature", "min_p"]),
    ],
)  # fmt: skip
def test_declared_orders(option, names):
    """PROC-01. The order is read from the option's name; what the name leaves out stays behind."""
    settings = {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.2}
    chain = conventions({"order": option})(right(settings, Prompt(IDS, np.ones_like(IDS))), settings)
    assert [name for name, _ in chain] == names


def test_what_silence_means():
    """PROC-05. A declared default stands where the request says nothing, and gives way to what it says."""
    llama = {"plain_sampling": "temperature_0.8_top_k_40_top_p_0.95_min_p_0.05"}
    assert meant({"top_p": 0.5}, llama) == {"temperature": 0.8, "top_k": 40, "top_p": 0.5, "min_p": 0.05}
    assert meant({}, {"plain_sampling": "nothing"}) == {"top_k": 0}
    assert meant({}, {}) == {}


def test_the_last_64():
    """REP-01. One option of penalty_scope."""
    ids = np.array([[1] + [0] * 64])
    chain = conventions({"penalty_scope": "last_64"})(
        right({"top_k": 0, "repetition_penalty": 2.0}, Prompt(ids, np.ones_like(ids))), {}
    )
    assert run(chain, ids, LOGITS)[0, :2].tolist() == [-2.0, 2.0]


def test_numbers():
    """Right ones are independent and repeat with the seed; the faulty ones are what they are called."""
    faulty = {each.name: each.numbers for each in NUMBERS}
    assert np.array_equal(independent(1, 0, 3, 4), independent(1, 7, 3, 4))
    assert len(np.unique(independent(1, 0, 3, 4))) == 12
    assert (np.ptp(faulty["one-number-for-all-steps"](1, 0, 3, 4), axis=1) == 0).all()
    assert (np.ptp(faulty["one-number-for-all-rows"](1, 0, 3, 4), axis=0) == 0).all()
    assert np.array_equal(faulty["seed-without-effect"](1, 0, 3, 4), faulty["seed-without-effect"](2, 1, 3, 4))
    assert not np.array_equal(faulty["seed-ignored"](1, 0, 3, 4), faulty["seed-ignored"](1, 1, 3, 4))
