"""Diagnosis: planted faults are named, right runs are not accused, and what is unknown is called so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings

from refgen import GPT2Config
from refgen.bench.weights import random_tensors
from refgen.checkpoints import assemble
from refgen.engines.plain import PlainEngine
from refgen.oracle.counterfactual import Pass
from refgen.oracle.diagnose import View, diagnose, fits
from refgen.oracle.faults import FAULTS
from refgen.oracle.formats import cast
from refgen.oracle.local import cut
from refgen.oracle.noise import expected_error
from refgen.oracle.trace import record
from tests.rounded import run_in

THOROUGH = settings.default.max_examples > 100  # HYPOTHESIS_PROFILE=long


def a_case(seed, dtype):
    """A random network, with its exact and its own pass over two rows, one padded, the last steps cached; its noise."""
    rng = np.random.default_rng([seed, 77])
    H = int(rng.choice((2, 3, 4)))
    config = GPT2Config(
        vocab_size=int(rng.integers(50, 150)),
        n_positions=48,
        n_embd=H * int(rng.choice((8, 12, 16))),
        n_layer=int(rng.integers(1, 5)),
        n_head=H,
        tie_word_embeddings=bool(rng.integers(2)),
        bos_token_id=None,
        eos_token_id=None,
    )
    gpt2 = assemble(config, random_tensors(config, seed))
    ids = rng.integers(0, config.vocab_size, (2, 20))
    mask = (np.arange(20) >= np.array([[0], [4]])).astype(np.int64)
    own = Pass(gpt2, ids, mask, prefill=12)
    return replace(own, gpt2=cast(gpt2, dtype)), own, expected_error(gpt2, ids, mask, dtype)


def observed(exact, own, dtype):
    """The logits of an implementation in `dtype`."""
    return own.run() if dtype == "float32" else run_in(dtype, exact)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.95), ("bfloat16", 0.8)])
def test_planted_faults_are_named_first(figures, dtype, least):
    """Most faults that change anything are the nearest; a run without one accuses none."""
    planted = first = named = runs = 0
    for seed in range(100 if THOROUGH else 3):
        exact, own, noise = a_case(seed, dtype)
        right = observed(exact, own, dtype)
        assert diagnose(exact, [View(right, noise)]).named is None
        runs += 1
        for fault in FAULTS if THOROUGH else FAULTS[seed::6]:
            wrong = observed(fault.change(exact), fault.change(own), dtype)
            found = diagnose(exact, [View(wrong, noise)])
            if np.array_equal(wrong, right) or fault not in [match.fault for match in found.matches]:
                continue  # it changes nothing here
            planted += 1
            first += found.matches[0].fault is fault
            named += found.named is fault
            assert found.named in (None, fault) or found.matches[0].fault is not fault
    figures.append(
        f"diagnosis in {dtype}: of {planted} planted faults {first} are nearest and {named} named; of {runs} right runs 0"
    )
    assert planted > 20
    assert first >= least * planted


def test_rounding_is_not_accused(figures):
    """Right runs in three formats, from networks of random weights, have no fault."""
    runs = 0
    for dtype in ("float32", "float16", "bfloat16"):
        for seed in range(1000, 1100 if THOROUGH else 1003):
            exact, own, noise = a_case(seed, dtype)
            found = diagnose(exact, [View(observed(exact, own, dtype), noise)])
            assert fits(found.error)
            assert found.named is None, found.sentence
            assert found.sentence == "No known fault shows in what rounding explains."
            runs += 1
    figures.append(f"diagnosis of right runs: 0 of {runs} accused")


def test_an_unknown_fault_is_called_unknown():
    """An error that no fault explains, here scores plus position, names none and says how near; what a number explains has it."""
    exact, own, noise = a_case(7, "float32")
    found = diagnose(exact, [View(planted_bias(own).run(), noise)])
    assert found.named is None
    assert not fits(found.error)
    assert found.sentence.startswith("None of the ")
    assert f"(the nearest is {found.matches[0].fault.name}, R² = " in found.sentence
    assert diagnose(exact, [View(own.run() * np.float32(1.01), noise)]).named.name == "logits-times=1.01"


def planted_bias(p):
    """Attention that prefers late keys: nothing on the list."""

    def biased(q, k, v, visible, scale):
        bias = np.concatenate([k, np.linspace(0, 1, k.shape[2], dtype=k.dtype)[:, None] + 0 * k[..., :1]], axis=-1)
        one = np.concatenate([q, np.ones_like(q[..., :1]) / q.dtype.type(scale)], axis=-1)
        return one, bias, v, visible, scale

    return replace(p, attending=(*p.attending, biased))


def test_half_a_fault_is_undecided():
    """With half of a signature in it an error is not said to have the fault."""
    exact, own, noise = a_case(3, "float32")
    fault = next(fault for fault in FAULTS if fault.name == "no-fc-bias")
    half = own.run() + (fault.change(exact).run() - exact.run()) / 2
    found = diagnose(exact, [View(half, noise)], families=())
    match = next(match for match in found.matches if match.fault is fault)
    assert match.alpha == pytest.approx(0.5, abs=1e-3)
    assert match.verdict == "undecided"
    assert found.named is None


@pytest.mark.parametrize("inverse", [False, True])
def test_a_block_by_itself_is_the_block_in_the_whole(inverse):
    """Cut out and given its own input, every block gives what it gives in the whole, and so does the head."""
    exact, _, _ = a_case(2, "float32")
    gpt2 = replace(exact.gpt2, config=replace(exact.gpt2.config, scale_attn_by_inverse_layer_idx=inverse))
    p = replace(exact, gpt2=gpt2)
    whole = record(PlainEngine(gpt2), p.input_ids, p.attention_mask).stages
    L = gpt2.config.n_layer
    assert L > 1
    for layer in range(L + 1):
        hidden = whole["drop" if layer == 0 else f"h.{layer - 1}"]
        stages = {}
        cut(p, layer, hidden).run(note=stages.__setitem__)
        pairs = [("ln_f", "ln_f"), ("lm_head", "lm_head")] if layer == L else [
            (name, name.replace("h.0", f"h.{layer}", 1)) for name in stages if name.startswith("h.0")]  # fmt: skip
        for own, name in pairs:
            seen = np.isfinite(whole[name])
            assert np.abs(stages[own][seen] - whole[name][seen]).max() < 1e-11, name
