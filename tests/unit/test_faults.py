"""Known faults: each changes what it says, breaks rules that exist, and leaves the right network as it is."""

from dataclasses import replace

import numpy as np
import pytest

from refgen import Cache, GPT2Config
from refgen.checkpoints import disassemble
from refgen.model import forward
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import FAULTS
from tests.docs.test_spec import RULES
from tests.stepping import stepping
from tests.strategies import random_model

NAMES = [fault.name for fault in FAULTS]
PREFILL = 6


def a_pass(**fields):
    """A small network with its own head, twelve layers, a padded row and cached steps: where every fault can show."""
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=12, n_layer=12, n_head=3, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = random_model(replace(config, **fields), seed=1)
    ids = np.random.default_rng(2).integers(0, 40, (2, 10))
    return Pass(model.gpt2, ids, (np.arange(10) >= np.array([[0], [3]])).astype(np.int64), prefill=PREFILL)


PASSES = [a_pass(), a_pass(activation_function="gelu", layer_norm_epsilon=1e-3)]


def named(name):
    """A fault."""
    return FAULTS[NAMES.index(name)]


def real(p, logits):
    """What is not padding."""
    return logits[p.attention_mask.astype(bool)]


def test_the_list():
    """More than thirty, each with its own name, a sentence, and rules of SPEC.md."""
    assert len(set(NAMES)) == len(NAMES)
    assert sum(not fault.equivalent for fault in FAULTS) > 30
    for fault in FAULTS:
        assert fault.sentence.endswith("."), fault.name
        assert fault.rules, fault.name
        assert set(fault.rules) <= RULES.keys(), fault.name


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_each_changes_the_logits(fault):
    """A fault shows in one of two networks, in finite numbers, unless it is equivalent; then it shows in none."""
    change = 0.0
    for p in PASSES:
        before = {name: tensor.copy() for name, tensor in disassemble(p.gpt2).items()}
        right, wrong = p.run(), fault.change(p).run()
        assert np.isfinite(real(p, wrong)).all()
        change = max(change, np.abs(real(p, wrong) - real(p, right)).max())
        assert np.array_equal(p.run(), right)
        assert all(np.array_equal(tensor, before[name]) for name, tensor in disassemble(p.gpt2).items())
    if fault.equivalent:
        assert change < 1e-9  # float64 rounding, enlarged by twelve layers
    else:
        assert change > 1e-7


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_each_keeps_the_dtype(fault):
    """In a float32 network a fault computes in float32."""
    model = random_model(PASSES[0].gpt2.config, seed=1, dtype="float32")
    assert fault.change(replace(PASSES[0], gpt2=model.gpt2)).run().dtype == np.float32


# --- Some of them done another way ------------------------------------------------------------------------


def stepped(p, positions=lambda p, t: p.positions[:, t], mask=lambda p, t: p.attention_mask[:, : t + 1]):
    """The logits of a pass whose positions after the prefill do come one by one through a cache."""
    cache, ids = Cache(), p.input_ids
    logits = [forward(p.gpt2, ids[:, :PREFILL], p.attention_mask[:, :PREFILL], cache=cache)]
    for t in range(PREFILL, ids.shape[1]):
        new = positions(p, t)[:, None]
        logits.append(forward(p.gpt2, ids[:, t : t + 1], mask(p, t), new, cache=cache))
    return np.concatenate(logits, axis=1)


@pytest.mark.parametrize(("name", "options"), [
    ("cached-position-plus-one", {"positions": lambda p, t: p.positions[:, t] + 1}),
    ("cached-position-zero", {"positions": lambda p, t: p.positions[:, t] * 0}),
    ("cached-padding-visible", {"mask": lambda p, t: np.ones_like(p.attention_mask[:, : t + 1])}),
    ("cache-loses-last", {"mask": lambda p, t: p.attention_mask[:, : t + 1] * (np.arange(t + 1) != PREFILL - 1)}),
    ("cached-mask-top-left", {"mask": lambda p, t: p.attention_mask[:, : t + 1] * (np.arange(t + 1) < 1)}),
])  # fmt: skip
def test_faults_of_the_cache(name, options):
    """What a fault does to one pass is what the mistake does to real steps through a cache."""
    p = PASSES[0]
    if name == "cached-mask-top-left":  # a row whose first key is padding sees nothing, either way
        p = replace(p, attention_mask=np.ones_like(p.attention_mask))
    expected, observed = stepped(p, **options), named(name).change(p).run()
    assert np.abs(real(p, expected) - real(p, observed)).max() < 1e-8 * np.abs(expected).max()


def softmax_plus_one(q, k, v, visible, scale, note=None):
    e = np.where(visible, np.exp(q @ k.swapaxes(-1, -2) * scale), 0)
    return e / (1 + e.sum(axis=-1, keepdims=True)) @ v


@pytest.mark.parametrize(("name", "changed"), [
    ("softmax-plus-one", {"attend": softmax_plus_one}),
    ("unbiased-variance", {"layer_norm": lambda x, f, epsilon: (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + epsilon) * f.weight + f.bias)}),
    ("no-norm-bias", {"layer_norm": lambda x, f, epsilon: (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * f.weight)}),
])  # fmt: skip
def test_faults_by_their_formulas(name, changed):
    """What needs no formula in the list agrees with the formula."""
    p = PASSES[0]
    expected = stepping(p, **changed).run()
    observed = named(name).change(p).run()
    assert np.abs(real(p, expected) - real(p, observed)).max() < 1e-8 * np.abs(expected).max()
