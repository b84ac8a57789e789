"""The forward pass against torch: the same random networks, logits compared over every switch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import GPT2LMHeadModel
from refgen.activations import ACTIVATIONS
from refgen.oracle.faults import FAULTS
from tests.cross.torch_twin import torch_twin
from tests.strategies import models, prompts
from tests.unit.test_faults import PASSES, real

FLOAT64_BOUND = 1e-12  # logits are of size 10; a few hundred roundings of 1e-16 relative each
DEEP_BOUND = 1e-11  # relative, in float64, through the twelve layers of PASSES
FLOAT32_BOUND = 2e-5  # relative to the largest logit; some hundred roundings of 6e-8 relative each


def largest_difference(model, ids, mask):
    """The largest difference at real tokens, and the largest logit."""
    twin = torch_twin(model)
    position_ids = torch.from_numpy((mask.cumsum(1) - 1) * mask)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), position_ids=position_ids)
    real = mask.astype(bool)
    ours, theirs = model(ids, mask).logits[real], theirs.logits.numpy()[real]
    assert ours.dtype == theirs.dtype
    return np.abs(ours - theirs).max(), np.abs(theirs).max()


@pytest.mark.parametrize(("dtype", "bound"), [("float64", FLOAT64_BOUND), ("float32", FLOAT32_BOUND)])
def test_logits_equal_torch(dtype, bound, figures):
    """FWD-01 to FWD-17: logits agree with torch to rounding, over all switches, activations, paddings and batches."""
    worst, runs = 0.0, 0

    @settings(max_examples=max(10, settings().max_examples // 6))
    @given(st.data())
    def law(activation, data):
        nonlocal worst, runs
        model = data.draw(models(dtype, activation_function=activation))
        ids, mask = data.draw(prompts(model.config.vocab_size))
        difference, largest = largest_difference(model, ids, mask)
        relative = difference / (largest if dtype == "float32" else 1.0)
        worst, runs = max(worst, relative), runs + 1
        assert relative <= bound, f"{difference} of {largest}"

    for activation in sorted(ACTIVATIONS):
        law(activation)
    assert runs >= 200
    figures.append(
        f"forward {dtype} against torch: {runs} configurations, largest difference {worst:.2e}, bound {bound}"
    )


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.equivalent], ids=lambda fault: fault.name)
def test_torch_sees_every_known_fault(fault):
    """FWD-01 to FWD-17: the definition agrees with torch within the bound; with any known fault planted in it, it does not."""
    worst = 0.0
    for p in PASSES:
        with torch.no_grad():
            theirs = torch_twin(GPT2LMHeadModel(p.gpt2))(
                torch.from_numpy(p.input_ids),
                attention_mask=torch.from_numpy(p.attention_mask),
                position_ids=torch.from_numpy(p.positions),
            ).logits.numpy()
        scale = np.abs(theirs).max()
        assert np.abs(real(p, p.run() - theirs)).max() <= DEEP_BOUND * scale
        worst = max(worst, np.abs(real(p, fault.change(p).run() - theirs)).max() / scale)
    assert worst > 100 * DEEP_BOUND


@settings(max_examples=len(ACTIVATIONS) * 3)
@given(st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 2**32 - 1))
def test_activations_equal_transformers(name, seed):
    """FWD-15: every activation function equals transformers' of the same name, large arguments included."""
    from transformers.activations import ACT2FN

    x = np.random.default_rng(seed).normal(0, 10, 200)
    theirs = ACT2FN[name](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](x), theirs, rtol=1e-13, atol=1e-14)


def test_registry_is_complete():
    """FWD-15: refgen knows every activation of transformers that has no weights, and no other."""
    from transformers.activations import ACT2FN

    without_weights = {name for name in ACT2FN if not list(ACT2FN[name].parameters())}
    assert set(ACTIVATIONS) == without_weights


@given(st.data())
@settings(max_examples=25)
def test_cached_steps_equal_torch(data):
    """Feeding a prompt piece by piece through the cache gives torch's logits for the whole."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    cut = data.draw(st.integers(0, ids.shape[1] - 1))
    twin = torch_twin(model)
    positions = torch.from_numpy((mask.cumsum(1) - 1) * mask)
    with torch.no_grad():
        theirs = twin(
            torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), position_ids=positions
        ).logits.numpy()
    cache = model(ids[:, :cut], mask[:, :cut]).past_key_values if cut else None
    ours = model(ids[:, cut:], mask, past_key_values=cache).logits
    real = mask[:, cut:].astype(bool)
    np.testing.assert_allclose(ours[real], theirs[:, cut:][real], rtol=0, atol=FLOAT64_BOUND)


def test_pad_rows_match_sdpa():
    """FWD-11: a query that sees nothing gets attention output 0, as in transformers' default attention."""
    from refgen import GPT2Config
    from tests.strategies import random_model

    config = GPT2Config(
        vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    model = random_model(config, 1)
    ids, mask = np.array([[1, 2, 3, 4]]), np.array([[0, 0, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 1]])
    with torch.no_grad():
        theirs = torch_twin(model)(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), position_ids=positions)
    np.testing.assert_allclose(model(ids, mask).logits, theirs.logits.numpy(), rtol=0, atol=FLOAT64_BOUND)
