"""Proofs against python-flint's balls and against float64 arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import AutoModelForCausalLM
from refgen.activations import ACTIVATIONS as FLOAT_ACTIVATIONS
from refgen.checkpoints import assemble, disassemble
from refgen.model import forward as float_forward
from refgen.oracle.prove import ACTIVATIONS, Prover, network_of, prove
from tests import ball_twin
from tests.strategies import gpt2_configs, random_model, random_tensors

CONFIGS = gpt2_configs(bos_token_id=None).flatmap(
    lambda config: st.sampled_from(sorted(ACTIVATIONS)).map(lambda name: replace(config, activation_function=name))
)
PRECISION = 500  # bits of arb's numbers, of which these networks lose some hundred
EXAMPLES = 200 if settings().max_examples <= 60 else 1000


@given(CONFIGS, st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=EXAMPLES)
def test_flint_finds_the_same(figures, config, seed, T):
    """FWD-01 to FWD-17: arb's logits, which are far narrower, lie inside the proved intervals; every logit is rounded."""
    gpt2 = random_model(config, seed, "float32").gpt2
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, T)
    proof = prove(gpt2, ids)
    exact = ball_twin.logits(config, disassemble(gpt2), ids.tolist(), PRECISION)
    old, ctx.prec = ctx.prec, PRECISION
    try:
        for place in np.ndindex(proof.mid.shape):
            theirs = exact[place[0]][place[1]] * arb(2) ** proof.bits
            assert theirs.rad() < 1
            mine = arb(int(proof.mid[place]), int(proof.radius[place]))
            assert mine.contains(theirs)
    finally:
        ctx.prec = old
    assert not np.isnan(proof.float64).any()


@given(CONFIGS, st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=40)
def test_cached_is_uncached_bit_for_bit(config, seed, data):
    """CACHE-02: however a sequence is cut, middles, radii and tokens are the same; the last ones alone too."""
    gpt2 = random_model(config, seed, "float32").gpt2
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, data.draw(st.integers(1, 20)))
    network = network_of(gpt2)
    whole = Prover(network, 200).append(ids)
    edges = sorted(data.draw(st.sets(st.integers(1, len(ids) - 1))) if len(ids) > 1 else ())
    prover = Prover(network, 200)
    parts = [prover.append(part) for part in np.split(ids, edges)]
    keep = data.draw(st.integers(1, len(ids)))
    last = Prover(network, 200).append(ids, logits_to_keep=keep)
    for name in ("mid", "radius", "tokens"):
        exact = getattr(whole, name)
        assert (np.concatenate([getattr(part, name) for part in parts]) == exact).all()
        assert (getattr(last, name) == exact[-keep:]).all()


def ulps(logits, proved):
    """The largest error, in units in the last place of a position's largest logit."""
    return float((np.abs(logits - proved).max(axis=1) / np.spacing(np.abs(proved).max(axis=1))).max())


@pytest.fixture(scope="module")
def proved():
    """Two networks with large biases and gains, one trained, with ids and proved float64 logits."""
    found = []
    for name, config in (
        ("random", replace(random_config(), n_layer=3)),
        ("random, deep", replace(random_config(), n_layer=8)),
    ):
        gpt2 = assemble(config, random_tensors(config, 1, "float32"))
        found.append((name, gpt2, np.arange(12) % config.vocab_size))
    found.append(("shakespeare", AutoModelForCausalLM.from_pretrained("shakespeare").gpt2, np.arange(5, 29)))
    return [(name, gpt2, ids, prove(gpt2, ids).float64) for name, gpt2, ids in found]


def random_config():
    from refgen import GPT2Config

    return GPT2Config(
        vocab_size=50, n_positions=24, n_embd=24, n_layer=1, n_head=3, bos_token_id=None, eos_token_id=None
    )


def widened(gpt2, **change):
    """The same network in float64, some tensors or settings changed."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in disassemble(gpt2).items()}
    for name, function in change.pop("tensors", {}).items():
        tensors[name] = function(tensors[name])
    return assemble(replace(gpt2.config, **change), tensors)


def test_float64_is_near_the_proof(proved, figures):
    """FWD-21: float64 arithmetic errs by some units in the last place; what is proved is what it means."""
    for name, gpt2, ids, exact in proved:
        assert not np.isnan(exact).any()
        error = ulps(float_forward(widened(gpt2), ids[None])[0], exact)
        figures.append(f"float64 logits of {name}: at most {error:.1f} ulp of the largest from the proved ones")
        assert error < 1000


FAULTS = {
    "erf for tanh": {"activation_function": "gelu"},
    "sqrt(2/π) to ten digits": {"activation_function": "gelu_fast"},
    "epsilon 1e-5 + 1e-12": {"layer_norm_epsilon": 1.0000001e-5},
    "no scale": {"scale_attn_weights": False},
    "scale by layer": {"scale_attn_by_inverse_layer_idx": True},
    "no query bias": {"tensors": {"h.1.attn.c_attn.bias": lambda bias: np.where(np.arange(len(bias)) < len(bias) // 3, 0, bias)}},
    "no last bias": {"tensors": {"ln_f.bias": np.zeros_like}},
    "no mlp bias": {"tensors": {"h.0.mlp.c_proj.bias": np.zeros_like}},
    "float16 weights": {"tensors": {"h.0.mlp.c_fc.weight": lambda weight: weight.astype(np.float16).astype(float)}},
    "one weight's last bit": {"tensors": {"h.0.mlp.c_fc.weight": lambda weight: np.where(np.arange(weight.size).reshape(weight.shape) == 7, weight * (1 + 2**-23), weight)}},
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_show(proved, fault):
    """A fault in the arithmetic moves float64 logits away from the proved ones, far beyond rounding."""
    assert FLOAT_ACTIVATIONS.keys() >= ACTIVATIONS.keys()
    for _, gpt2, ids, exact in proved:
        clean = ulps(float_forward(widened(gpt2), ids[None])[0], exact)
        change = {**FAULTS[fault]}
        faulty = ulps(float_forward(widened(gpt2, **change), ids[None])[0], exact)
        assert faulty > 100 * clean
