"""The canonical forward pass, piece by piece, and against the same rules worked out in fractions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refgen.model
from refgen import AutoModelForCausalLM, Cache, ConfigError, GPT2Config, GPT2LMHeadModel
from refgen.activations import ACTIVATIONS, relu
from refgen.checkpoints import assemble
from refgen.engines import ENGINES
from refgen.engines.canonical.numbers import Canonical, canonical, kept
from refgen.model import Affine, attend, attention_scale, gelu_new, layer_norm, linear, softmax, visibility
from tests import exact_twin
from tests.axes import axes_checked
from tests.strategies import models, prompts, random_model, random_tensors

SMALL = GPT2Config(vocab_size=7, n_positions=6, n_embd=4, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None)


def f32(*values):
    """Canonical numbers."""
    return canonical(np.array(values, dtype=np.float32))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_logits_are_those_of_the_rules_in_fractions(seed, tied, scaled, by_layer):
    """CANON-02 to CANON-09: every bit is what the rules give when worked out number by number in fractions."""
    rng = np.random.default_rng(seed)
    config = replace(
        SMALL,
        n_embd=6,
        n_inner=5,
        layer_norm_epsilon=float(rng.choice([1e-5, 1e-12])),
        tie_word_embeddings=tied,
        scale_attn_weights=scaled,
        scale_attn_by_inverse_layer_idx=by_layer,
    )
    tensors = random_tensors(config, seed, "float32")
    ids = rng.integers(0, 7, 3)
    got = GPT2LMHeadModel(assemble(config, tensors), engine="canonical")
    expected = exact_twin.logits(config, tensors, ids)
    np.testing.assert_array_equal(got(ids[None]).logits[0], np.array(expected, np.float32))


def test_functions_keep_their_promised_shapes_and_stay_float32():
    """CANON-02: with canonical numbers every function of model.py returns the axes its annotation says, in float32; so does every stage."""

    @given(st.data())
    def law(data):
        model = data.draw(models("float32"))
        ids, mask = data.draw(prompts(model.config.vocab_size))
        native, own = {}, {}
        model(ids, mask, note=lambda name, array: native.update({name: array}))
        engine = GPT2LMHeadModel(model.gpt2, engine="canonical").engine
        with axes_checked(refgen.model) as names:
            engine.forward(ids, mask, note=lambda name, array: own.update({name: array}))
        assert len(names) >= 7
        assert all(type(array) is np.ndarray for array in own.values())
        assert {name: (array.shape, array.dtype) for name, array in native.items()} == {
            name: (array.shape, array.dtype) for name, array in own.items()
        }

    law()


def test_engines_are_chosen_by_name(tmp_path):
    """CANON-01: loading takes a name; the same weights, and what is saved says nothing of it."""
    model = AutoModelForCausalLM.from_pretrained("shakespeare", engine="canonical")
    assert model.engine.name == "canonical"
    model.save_pretrained(tmp_path)
    native = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert native.engine.name == "numpy"
    again = AutoModelForCausalLM.from_pretrained(tmp_path, engine="canonical")
    np.testing.assert_array_equal(again([[1, 2]]).logits, model([[1, 2]]).logits)
    assert (native([[1, 2]]).logits != model([[1, 2]]).logits).any()


def test_what_is_refused():
    """CANON-01: float64 weights, and names that are none."""
    with pytest.raises(ConfigError, match=r"weights are float64 \[CANON-01\]. Load with dtype='float32'"):
        AutoModelForCausalLM.from_pretrained("shakespeare", dtype="float64", engine="canonical")
    with pytest.raises(
        ConfigError,
        match=rf"engine='canonicl': must be one of {', '.join(ENGINES)} \[CANON-01\]. Did you mean canonical\?",
    ):
        AutoModelForCausalLM.from_pretrained("shakespeare", engine="canonicl")


def test_linear_rounds_the_product_and_then_the_sum():
    """CANON-04: 2**24 + 1 rounds down, and again with the bias; added at once it would round up."""
    f = Affine(np.array([[2**24], [1]], np.float32), f32(1))
    assert linear(f32([1, 1]), f).tolist() == [[2.0**24]]
    assert linear(f32([1, 1]), Affine(kept(f.weight), f.bias)).tolist() == [[2.0**24]]


def test_rows_go_in_blocks():
    """CANON-04: more rows than one block has give the bits they have one by one."""
    f = Affine(kept(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)), f32(1, 2, 3))
    x = canonical(np.random.default_rng(1).normal(size=(1, 300, 5)).astype(np.float32))
    one_by_one = [np.asarray(linear(row[None, None], f))[0, 0] for row in x[0]]
    np.testing.assert_array_equal(np.asarray(linear(x, f))[0], one_by_one)


def test_a_mean_is_rounded_twice():
    """CANON-05: the sum rounds to 2**24 + 4 before it is divided."""
    assert f32([2**24, 5, 0]).mean(axis=-1, keepdims=True).tolist() == [[5592406.5]]


def test_layer_norm_by_hand():
    """CANON-05: mean 3, mean square deviation 3.5; small numbers need no rounding."""
    unit = Affine(f32(1, 1, 1, 2), f32(0, 0, 0, 1))
    assert layer_norm(f32([1, 2, 3, 6]), unit, 0.5).tolist() == [[-1, -0.5, 0, 4]]


def test_scale_is_written_one_way():
    """CANON-06: in float32 the other way to write 1 / sqrt(D), the power -1/2, agrees for every width and layer there is."""
    for D in range(1, 300):
        for layer in (0, 1, 2, 11, 47):
            config = replace(SMALL, n_embd=D, n_head=1, scale_attn_by_inverse_layer_idx=True)
            assert np.float32(attention_scale(config, layer)) == np.float32(D**-0.5 / (layer + 1))
    assert attention_scale(replace(SMALL, scale_attn_weights=False), 5) == 1


def test_scores_are_rounded_before_they_are_scaled():
    """CANON-06: q·k = 2**24 + 1 rounds down; scaled first it would stay above."""
    stages = {}
    q, k = f32([[[2**12, 1]]])[None], f32([[[2**12, 1]]])[None]
    attend(q, k, k, visibility(np.ones((1, 1), int), 1), 0.75, stages.setdefault)
    assert stages["scores"].item() == 2.0**24 * 0.75


def test_hidden_keys_change_no_bit():
    """CANON-07: hidden scores add exactly nothing, and a row that is all hidden is 0."""
    x = canonical(np.random.default_rng(3).normal(size=(50, 9)).astype(np.float32))
    hidden = np.concatenate([canonical(np.full((50, 4), -np.inf, np.float32)), x], axis=1)
    np.testing.assert_array_equal(np.asarray(softmax(hidden))[:, 4:], np.asarray(softmax(x)))
    assert softmax(f32([-np.inf, -np.inf])).tolist() == [[0, 0]]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_the_native_ones_to_rounding(name):
    """CANON-08: every activation of canonical numbers is canonical, near to float64's value, without a warning."""
    x = f32(-1e3, -50, -6, -1, -1e-3, -0.0, 0, 1e-3, 0.3, 1, 2.5, 6, 19.9, 20.5, 50, 1e3)
    got, expected = ACTIVATIONS[name](x), ACTIVATIONS[name](np.asarray(x).astype(np.float64))
    assert got.dtype == np.float32
    assert type(got) is Canonical
    np.testing.assert_allclose(np.asarray(got), expected, rtol=2e-6, atol=3e-6)  # cancellation in 1 + tanh, at x = -6
    assert not np.signbit(np.asarray(relu(x))).any()


def test_gelu_new_is_nine_operations():
    """CANON-08: bit for bit the nine roundings, in their order, worked out in fractions."""
    x = np.random.default_rng(4).normal(0, 2, 300).astype(np.float32)
    expected = [exact_twin.gelu_new(exact_twin.fractions(each)) for each in x]
    assert gelu_new(canonical(x)).tolist() == expected


def test_a_cache_filled_by_one_engine_serves_another():
    """CANON-09: keys and values are float32 in both, so going on with the other is allowed, if not canonical."""
    model = random_model(SMALL, 3, "float32")
    cache = Cache()
    model([[1, 2]], past_key_values=cache)
    GPT2LMHeadModel(model.gpt2, engine="canonical")([[3]], past_key_values=cache)
    assert len(cache) == 3


@pytest.mark.parametrize("operation", [
    lambda x: np.power(x, 3.0), lambda x: x.sum(axis=0), lambda x: x.sum(axis=-1), np.log, np.cumsum, lambda x: np.add.at(x, 0, 1),
])  # fmt: skip
def test_operations_nobody_defined_are_refused(operation):
    """CANON-02: an operation without a rule for its rounding raises an error, and never falls back to NumPy's own."""
    with pytest.raises(TypeError):
        operation(f32([1, 2], [3, 4]))
