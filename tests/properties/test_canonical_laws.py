"""CANON-09: what changes no bit of canonical logits, for random models of all switches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import Cache, GPT2Config, GPT2LMHeadModel
from refgen.checkpoints import assemble, disassemble
from refgen.engines.canonical import rounding
from tests.strategies import models, prompts, random_model


def canonical_models(**fixed):
    """Random float32 models that compute canonically."""
    return models("float32", **fixed).map(lambda model: GPT2LMHeadModel(model.gpt2, engine="canonical"))


def assert_same_bits(a, b):
    """Not one bit differs, signs of zeros included."""
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape
    np.testing.assert_array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32))


@given(st.data())
def test_again_alone_and_in_another_order(data):
    """CANON-09: a repeated run, a row alone without its padding, and rows in another order have the same bits."""
    model = data.draw(canonical_models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    together = model(ids, mask).logits
    assert_same_bits(model(ids, mask).logits, together)
    order = np.array(data.draw(st.permutations(range(len(ids)))))
    assert_same_bits(model(ids[order], mask[order]).logits, together[order])
    for row in range(len(ids)):
        real = mask[row].astype(bool)
        assert_same_bits(model(ids[row : row + 1, real]).logits[0], together[row, real])


@given(st.data())
def test_in_pieces_with_a_cache(data):
    """CANON-09: fed in any pieces, with rows taken along as beams are, a prompt has the bits it has at once."""
    model = data.draw(canonical_models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    cuts = sorted(data.draw(st.sets(st.integers(1, ids.shape[1]), max_size=3)) | {ids.shape[1]})
    cache, start, pieces = Cache(), 0, []
    for end in cuts:
        pieces.append(model(ids[:, start:end], mask[:, :end], past_key_values=cache).logits)
        start = end
    assert_same_bits(np.concatenate(pieces, axis=1), model(ids, mask).logits)


@given(st.data())
def test_the_last_positions_and_those_behind(data):
    """CANON-09: neither leaving earlier logits out nor appending later tokens changes a bit, at any stage."""
    model = data.draw(canonical_models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    part = data.draw(st.integers(1, ids.shape[1]))
    stages, short = {}, {}
    whole = model(ids, mask, note=lambda name, array: stages.update({name: array})).logits
    assert_same_bits(model(ids, mask, logits_to_keep=part).logits, whole[:, -part:])
    model(ids[:, :part], mask[:, :part], note=lambda name, array: short.update({name: array}))
    for name, array in short.items():
        if name.endswith(("scores", "pattern")):
            assert_same_bits(array, stages[name][:, :, :part, :part])
        else:
            positions = stages[name].swapaxes(1, -2)[:, :part].swapaxes(1, -2)
            assert_same_bits(array, positions)


@given(st.data())
def test_generated_logits_are_those_of_a_forward_pass(data):
    """CANON-09: what `generate()` sees, with a cache or without, in chunks or not, is what one pass over the text gives."""
    model = data.draw(canonical_models(n_positions=24))
    ids, mask = data.draw(prompts(model.config.vocab_size, rows=2, width=6))
    settings = data.draw(
        st.sampled_from(({}, {"use_cache": False}, {"prefill_chunk_size": 2}, {"prompt_lookup_num_tokens": 2}))
    )
    if "prompt_lookup_num_tokens" in settings:
        ids, mask = ids[:1], mask[:1]
    output = model.generate(ids, mask, max_new_tokens=4, output_logits=True, return_dict_in_generate=True, **settings)
    longer = np.pad(mask, [(0, 0), (0, 4)], constant_values=1)
    whole = model(output.sequences, longer).logits
    P = ids.shape[1]
    for step, logits in enumerate(output.logits):
        assert_same_bits(logits, whole[:, P - 1 + step])
    np.testing.assert_array_equal(output.sequences[:, P:], whole[:, P - 1 : -1].argmax(axis=-1))


def test_whatever_float64_says_within_its_bounds():
    """CANON-02, CANON-03: with every float64 value moved at random within its bound, not a bit of any stage changes."""
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=24, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(random_model(config, 8, "float32").gpt2, engine="canonical")
    rng, settle, moved = np.random.default_rng(9), rounding.settle, []

    def disturbed(value, error, exactly):
        moved.append(value.size)
        with np.errstate(over="ignore"):
            return settle(value + error * rng.uniform(-0.9, 0.9, value.shape), 2 * error, exactly)

    def stages():
        found = {}
        model(ids, note=lambda name, array: found.update({name: array}))
        return found

    ids = rng.integers(0, 50, (2, 20))
    expected = stages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "settle", disturbed)
        patch.setattr(rounding, "LIBRARY", 1e-8)  # so large that many are done again
        got = stages()
    assert sum(moved) > 20_000
    for name, array in expected.items():
        assert_same_bits(array, got[name])


@given(st.data())
def test_close_to_float64(data):
    """CANON-02: as one of the results that float32 can give, it is as near to float64's as native float32 (FWD-21)."""
    model = data.draw(canonical_models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    wide = {name: tensor.astype(np.float64) for name, tensor in disassemble(model.gpt2).items()}
    exact = GPT2LMHeadModel(assemble(model.config, wide))(ids, mask).logits[mask.astype(bool)]
    narrow = model(ids, mask).logits[mask.astype(bool)]
    assert np.abs(narrow - exact).max() <= 2e-5 * np.abs(exact).max()
