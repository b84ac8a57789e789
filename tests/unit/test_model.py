"""The forward pass, piece by piece: each rule on numbers small enough to follow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refgen.model
from refgen import Cache, GPT2Config, InputError
from refgen.activations import ACTIVATIONS
from refgen.cache import FEW
from refgen.model import Affine, attend, attention_scale, gelu_new, layer_norm, linear, positions, softmax, visibility
from tests.axes import axes_checked
from tests.strategies import models, prompts, random_model

SMALL = GPT2Config(vocab_size=7, n_positions=6, n_embd=4, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_keep_their_promised_shapes_and_dtypes(dtype):
    """Every function of model.py returns the axes its annotation says, in the dtype that went in."""

    @given(st.data())
    def law(data):
        model = data.draw(models(dtype))
        ids, mask = data.draw(prompts(model.config.vocab_size))
        with axes_checked(refgen.model) as names:
            logits = refgen.model.forward(model.gpt2, ids, mask)
        assert len(names) >= 13
        assert logits.dtype == dtype

    law()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_keep_dtype_and_stay_finite(name, dtype):
    """FWD-15: dtype in is dtype out, and no argument of a float's ordinary size overflows."""
    x = np.array([-1e3, -50.0, -1.0, 0.0, 1e-3, 1.0, 50.0, 1e3], dtype)
    y = ACTIVATIONS[name](x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert np.isfinite(y).all()


def test_linear_stores_weights_in_out():
    """FWD-06: the weight's first axis is the input."""
    f = Affine(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]), np.array([0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(linear(np.array([[1.0, 1.0]]), f), [[11.5, 22.0, 33.0]])


def test_layer_norm_by_hand():
    """FWD-05: biased variance, epsilon inside the root."""
    unit = Affine(np.array([1.0, 1.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    x = np.array([[1.0, 2.0, 3.0, 6.0]])  # mean 3, mean square deviation 3.5
    expected = np.array([[-2.0, -1.0, 0.0, 6.0]]) / math.sqrt(3.5 + 0.5) + [0, 0, 0, 1]
    np.testing.assert_allclose(layer_norm(x, unit, 0.5), expected, rtol=1e-15)


def test_gelu_new_is_the_tanh_form():
    """FWD-16: the tanh form, 1.5e-4 away from the erf form at 2."""
    assert gelu_new(np.array([2.0]))[0] == pytest.approx(1.954597694087775, abs=1e-15)
    assert ACTIVATIONS["gelu"](np.array([2.0]))[0] == pytest.approx(1.9544997361036416, abs=1e-15)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8))
def test_softmax_is_a_distribution(values):
    """FWD-13: non-negative, sums to 1, whatever the size of the scores; equal scores get equal shares."""
    p = softmax(np.array([values]))
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p[0, np.array(values) == max(values)] == p.max()).all()


def test_softmax_of_nothing_is_zero():
    """FWD-11: where nothing is visible the pattern is 0, not NaN."""
    np.testing.assert_array_equal(softmax(np.array([[-np.inf, -np.inf]])), [[0, 0]])


def test_visibility_counts_from_the_lower_right_corner():
    """FWD-09: with two cached positions, the first new query sees three keys."""
    mask = np.array([[1, 1, 1, 1], [0, 1, 1, 1]])
    expected = [[[[1, 1, 1, 0], [1, 1, 1, 1]]], [[[0, 1, 1, 0], [0, 1, 1, 1]]]]
    np.testing.assert_array_equal(visibility(mask, 2), np.array(expected, bool))


def test_attend_averages_what_it_sees():
    """FWD-08: with equal keys, a query takes the plain mean of the visible values."""
    q = k = np.ones((1, 1, 3, 2))
    v = np.array([[[[1.0, 0.0], [3.0, 0.0], [8.0, 3.0]]]])
    z = attend(q, k, v, visibility(np.ones((1, 3), int), 3), 1.0)
    np.testing.assert_allclose(z[0, 0], [[1, 0], [2, 0], [4, 1]])


@pytest.mark.parametrize("huge", [1e4, 1e10, 1e30])
def test_a_hidden_key_weighs_nothing(huge):
    """FWD-10: a key that is hidden changes no bit of what a query sees, however large its score."""
    keys, values = np.array([[[[1.0], [huge]]]]), np.array([[[[5.0], [7.0]]]])
    z = attend(np.ones((1, 1, 2, 1)), keys, values, visibility(np.ones((1, 2), int), 2), 1.0)
    assert z[0, 0, 0, 0] == 5.0


def test_two_residual_lines():
    """FWD-01, FWD-03, FWD-04: the stream is embedding plus position, grows by each layer's two answers, and ends at the head."""
    config = GPT2Config(vocab_size=8, n_positions=6, n_embd=4, n_layer=2, n_head=2)
    model, stages = random_model(config, seed=1), {}
    logits = model([[3, 0, 5]], note=lambda name, array: stages.update({name: array}))
    stream = model.gpt2.wte[[[3, 0, 5]]] + model.gpt2.wpe[[[0, 1, 2]]]
    for layer in range(model.config.n_layer):
        stream = stream + stages[f"h.{layer}.attn.c_proj"]
        stream = stream + stages[f"h.{layer}.mlp.c_proj"]
        np.testing.assert_array_equal(stages[f"h.{layer}"], stream)
    normed = layer_norm(stream, model.gpt2.ln_f, model.config.layer_norm_epsilon)
    np.testing.assert_allclose(logits.logits, normed @ model.gpt2.lm_head.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("by_width", "by_layer", "expected"), [
    (True, False, 0.5), (False, False, 1.0), (True, True, 0.5 / 3), (False, True, 1 / 3),
])  # fmt: skip
def test_attention_scale_switches(by_width, by_layer, expected):
    """FWD-08: the two switches are independent; layers count from 1 in the divisor."""
    config = replace(SMALL, n_embd=8, scale_attn_weights=by_width, scale_attn_by_inverse_layer_idx=by_layer)
    assert attention_scale(config, 2) == pytest.approx(expected, abs=1e-16)


def test_positions_count_real_tokens():
    """PAD-04: padding is at position 0 and counts for nothing; cached columns count."""
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 0, 1]])
    np.testing.assert_array_equal(positions(mask, 5), [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 1, 0, 2]])
    np.testing.assert_array_equal(positions(mask, 2), [[1, 2], [3, 4], [0, 2]])


def test_stage_names_are_the_checkpoint_modules():
    """Every stage is offered under its module's name, in the order of computation, without changing the logits."""
    model = random_model(SMALL, 3)
    names = []
    with_note = model([[1, 2, 3]], note=lambda name, array: names.append((name, array.shape))).logits
    np.testing.assert_array_equal(with_note, model([[1, 2, 3]]).logits)
    block = ["ln_1", "attn.c_attn", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z", "attn.c_proj",
             "resid_mid", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj"]  # fmt: skip
    layers = [[f"h.{i}.{name}" for name in block] + [f"h.{i}"] for i in range(2)]
    assert [name for name, _ in names] == ["drop", *layers[0], *layers[1], "ln_f", "lm_head"]
    assert dict(names)["h.1.attn.pattern"] == (1, 2, 3, 3)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"input_ids": [1, 2]}, r"input_ids of shape \[2\]: must be \[rows, tokens\].*ids\[None, :\]"),
    ({"input_ids": np.zeros((1, 0), int)}, r"shape \[1, 0\]: must be .* at least one"),
    ({"input_ids": [[1, 7]]}, r"input_ids contain 7: token ids of this model run from 0 to 6 \[FWD-23\]"),
    ({"input_ids": [[-1]]}, r"input_ids contain -1"),
    ({"input_ids": [[0] * 7]}, r"position 6: this model has n_positions=6, so positions 0 to 5 \[FWD-23\]"),
    ({"input_ids": [[1.5]]}, r"input_ids of dtype float64: must be whole numbers"),
    ({"input_ids": [[1], [2, 3]]}, r"input_ids: has rows of different lengths"),
    ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, r"attention_mask of shape \[1, 1\]: must be \[1, 2\]"),
    ({"input_ids": [[1, 2]], "attention_mask": [[1, 1, 1]]}, r"must be \[1, 2\]: 1 rows of 0 cached and 2 new"),
    ({"input_ids": [[1, 2]], "attention_mask": [[2, 1]]}, r"attention_mask: must hold only 0 \(padding\) and 1"),
    ({"input_ids": [[1, 2]], "position_ids": [[0, 6]]}, r"position 6"),
    ({"input_ids": [[1, 2]], "position_ids": [[-1, 0]]}, r"position -1"),
    ({"input_ids": [[1, 2]], "logits_to_keep": -1}, r"logits_to_keep=-1: must be at least 0 \[FWD-20\]"),
    ({"input_ids": [[1, 2]], "position_ids": [[0]]}, r"position_ids of shape \[1, 1\]"),
])  # fmt: skip
def test_what_the_forward_pass_refuses(arguments, message):
    """FWD-12, FWD-23, FWD-24: each wrong array gives one error that names it, its value and the rule."""
    with pytest.raises(InputError, match=message):
        random_model(SMALL, 0)(**arguments)


@pytest.mark.parametrize("stage", ["drop", "h.1.ln_2", "ln_f", "lm_head"])
def test_a_failed_pass_leaves_the_cache_as_it_was(stage):
    """CACHE-04: after an error or an interrupt in the middle, the cache still continues the earlier positions."""
    model = random_model(SMALL, 5)
    cache = model([[1, 2]]).past_key_values

    def interrupt(name, array):
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model([[3, 4]], past_key_values=cache, note=interrupt)
    assert len(cache) == 2
    np.testing.assert_allclose(
        model([[3]], past_key_values=cache).logits[:, -1], model([[1, 2, 3]]).logits[:, -1], rtol=0, atol=1e-13
    )


def test_cache_crops_and_refuses():
    """CACHE-06: a cropped cache continues from there; more than it holds, or another batch, is an error."""
    model = random_model(SMALL, 6)
    cache = model([[1, 2, 3]]).past_key_values
    cache.crop(1)
    np.testing.assert_allclose(
        model([[5]], past_key_values=cache).logits, model([[1, 5]]).logits[:, 1:], rtol=0, atol=1e-13
    )
    with pytest.raises(InputError, match="length=9: the cache holds 2 positions"):
        cache.crop(9)
    with pytest.raises(
        InputError, match="float64 keys for 2 rows, 2 heads of 2: the cache holds float64 keys for 1 rows"
    ):
        model([[1], [2]], past_key_values=cache)


def test_a_cache_serves_one_model():
    """CACHE-01: a cache of another depth, width or dtype is refused; an empty one serves anybody."""
    model, other = random_model(SMALL, 7), random_model(replace(SMALL, n_layer=1), 7)
    cache = model([[1, 2]]).past_key_values
    with pytest.raises(InputError, match="1 layers: the cache holds 2"):
        other([[3]], past_key_values=cache)
    with pytest.raises(InputError, match=r"float32 keys .* the cache holds float64 keys"):
        random_model(SMALL, 7, "float32")([[3]], past_key_values=cache)
    with pytest.raises(InputError, match=r"length=1\.0"):
        cache.crop(1.0)
    cache.crop(0)
    np.testing.assert_array_equal(other([[1], [2]], past_key_values=cache).logits, other([[1], [2]]).logits)


@pytest.mark.parametrize("expected", [None, 0, 2, 13, 20, 500])
def test_cache_grows_without_losing_anything(expected):
    """CACHE-01: keys and values appended one by one are all there, whatever room there was, and there is none for nothing."""
    cache, rng = Cache(expected), np.random.default_rng(0)
    parts = [rng.normal(size=(2, 2, 3, width, 4)) for width in (1, 1, 3, 1, 7)]
    for part in parts:
        keys, values = cache.append(0, part[0], part[1])
        cache.advance(part.shape[3])
        room = keys.base.shape[3]
        assert room <= (
            2 * len(cache) if expected is None or expected < len(cache) else max(2 * len(cache), min(expected, FEW))
        )
    whole = np.concatenate(parts, axis=3)
    np.testing.assert_array_equal(keys, whole[0])
    np.testing.assert_array_equal(values, whole[1])


def test_caches_of_one_model_join():
    """BATCH-01: an empty cache becomes a copy of the other, and caches of different models do not join."""
    model, other = random_model(SMALL, 7), random_model(replace(SMALL, n_layer=1), 7)
    cache, joined = model([[1, 2]]).past_key_values, Cache()
    joined.join(cache)
    joined.join(Cache())
    assert (len(joined), joined.rows, len(cache)) == (2, 1, 2)
    expected = model([[1, 2, 3]]).logits[:, -1:]
    np.testing.assert_allclose(model([[3]], past_key_values=joined).logits, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(model([[3]], past_key_values=cache).logits, expected, rtol=0, atol=1e-13)
    with pytest.raises(InputError, match="a cache of another model: cannot join this one"):
        joined.join(other([[1]]).past_key_values)
