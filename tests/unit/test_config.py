"""GPT2Config: what it accepts, what it refuses and with which words, and that nothing of a `config.json` is lost."""

import json
import math
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import ConfigError, GPT2Config
from refgen.activations import ACTIVATIONS, activation
from refgen.config import ALIASES
from tests.strategies import gpt2_configs

SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
SWITCHES = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings")
OWN = {field.name for field in fields(GPT2Config)} - {"other"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
REFUSED = {"model_type", "add_cross_attention", "quantization_config"}
OTHER = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name not in OWN | REFUSED | ALIASES.keys()), JSON, max_size=4
)


def refuses(message, **entries):
    """Checks that these fields raise exactly this."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        GPT2Config(**entries)


# --- What is kept -----------------------------------------------------------------------------------------


@given(gpt2_configs(), OTHER)
def test_to_dict_and_from_dict_are_inverse(config, other):
    """From a dict and back gives every entry of it; to a dict and back gives the same configuration."""
    config = replace(config, other={"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **other})
    assert GPT2Config.from_dict(config.to_dict()) == config
    assert GPT2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(gpt2_configs(), OTHER, st.sets(st.sampled_from(sorted(OWN))))
def test_no_entry_of_a_file_is_lost(config, other, named):
    """Whatever a file says, known or not, is said again; what it leaves out gets its default."""
    entries = {name: value for name, value in config.to_dict().items() if name in named | {"n_embd", "n_head"}} | other
    kept = GPT2Config.from_dict(entries)
    assert entries.items() <= kept.to_dict().items()
    assert kept.other == other
    for name in OWN - entries.keys():
        assert getattr(kept, name) == getattr(GPT2Config(), name)


def test_the_defaults_are_those_of_the_smallest_gpt2():
    """CFG-01. Without any entry it is the 124M model."""
    assert GPT2Config.from_dict({}) == GPT2Config()
    assert GPT2Config().to_dict() == {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "pad_token_id": None,
    }


def test_legacy_entries_are_kept_and_change_nothing():
    """CKPT-10. What the published gpt2's `config.json` says beyond the fields is inert."""
    legacy = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_ctx": 512,
        "attn_pdrop": 0.1,
        "initializer_range": 0.02,
        "summary_activation": None,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    config = GPT2Config.from_dict(legacy)
    assert config == replace(GPT2Config(), other=legacy)
    assert config.n_positions == 1024


@given(gpt2_configs(), st.sets(st.sampled_from(sorted(ALIASES))))
def test_aliases_mean_the_fields(config, used):
    """CFG-01. `hidden_size` is `n_embd`, and so on; only the fields' own names are written."""
    entries = config.to_dict()
    for alias in used:
        entries[alias] = entries.pop(ALIASES[alias])
    assert GPT2Config.from_dict(entries).to_dict() == config.to_dict()
    assert ALIASES == {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_a_size_given_twice_must_be_one_size(alias, name):
    """CFG-01. An alias beside the field itself is accepted when they agree, in either order."""
    assert GPT2Config.from_dict({alias: 12, name: 12}) == replace(GPT2Config(), **{name: 12})
    for entries in ({alias: 24, name: 12}, {name: 12, alias: 24}):
        message = f"{alias}=24, {name}=12: are one size and must be equal [CFG-01]."
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            GPT2Config.from_dict(entries)


@given(st.integers(1, 50), st.none() | st.integers(1, 99))
def test_the_width_of_the_mlp(n_head, n_inner):
    """FWD-14. `n_inner`, or four times `n_embd`."""
    config = GPT2Config(n_embd=3 * n_head, n_head=n_head, n_inner=n_inner)
    assert config.inner == (12 * n_head if n_inner is None else n_inner)


def test_it_cannot_be_changed():
    """A configuration that was checked stays as it was."""
    with pytest.raises(FrozenInstanceError):
        GPT2Config().n_embd = 3


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 1.0, 32.5, "32", True, [4], math.nan, np.int64(4)])
def test_a_size_that_is_no_size_is_refused(name, value):
    """CFG-02. Sizes are whole numbers from 1 on, not numbers that look like one."""
    refuses(f"{name}={value!r}: must be a whole number of at least 1 [CFG-02].", **{name: value})


@pytest.mark.parametrize("name", [name for name in SIZES if name != "n_inner"])
def test_only_the_width_of_the_mlp_may_be_none(name):
    """CFG-02. `n_inner` has a rule for None, the other sizes have not."""
    assert GPT2Config(n_inner=None).inner == 3072
    refuses(f"{name}=None: must be a whole number of at least 1 [CFG-02].", **{name: None})


@given(st.integers(1, 200), st.integers(1, 200))
def test_heads_must_share_the_width_evenly(n_embd, n_head):
    """FWD-07. `n_embd` is a multiple of `n_head`, or an error with both numbers."""
    if n_embd % n_head == 0:
        assert GPT2Config(n_embd=n_embd, n_head=n_head).n_embd == n_embd
        return
    problem = f"n_embd must be a multiple of n_head, and {n_embd} / {n_head} leaves a remainder"
    refuses(f"n_embd={n_embd}, n_head={n_head}: {problem} [FWD-07].", n_embd=n_embd, n_head=n_head)


@given(st.floats(min_value=0, allow_infinity=False) | st.integers(0, 3))
def test_any_epsilon_from_zero_on_is_accepted(epsilon):
    """CFG-02. Zero too: LayerNorm then divides by the deviation itself."""
    assert GPT2Config(layer_norm_epsilon=epsilon).layer_norm_epsilon == epsilon


@pytest.mark.parametrize("value", [-1e-5, -1, math.nan, math.inf, -math.inf, "1e-5", None, True, np.float32(1e-5)])
def test_an_epsilon_that_is_none_is_refused(value):
    """CFG-02. Negative, endless, NaN, text and None are no epsilon."""
    refuses(f"layer_norm_epsilon={value!r}: must be a finite number of at least 0 [CFG-02].", layer_norm_epsilon=value)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, "true", None, 1.0])
def test_a_switch_that_is_no_bool_is_refused(name, value):
    """CFG-02. Nothing merely counts as true."""
    refuses(f"{name}={value!r}: must be true or false [CFG-02].", **{name: value})


@pytest.mark.parametrize("value", [None, 3, ["relu"], np.tanh])
def test_an_activation_that_is_no_name_is_refused(value):
    """FWD-15. The configuration names the activation."""
    refuses(f"activation_function={value!r}: must be a name [FWD-15].", activation_function=value)


KNOWN = (
    "refgen knows gelu, gelu_10, gelu_accurate, gelu_fast, gelu_new, gelu_python, gelu_python_tanh, "
    "gelu_pytorch_tanh, hardswish, laplace, leaky_relu, linear, mish, quick_gelu, relu, relu2, relu6, sigmoid, silu, "
    "sqrtsoftplus, swish, tanh."
)


@given(st.text(max_size=10).filter(lambda name: name not in {*ACTIVATIONS, "prelu", "xielu"}))
def test_an_unknown_activation_is_refused(name):
    """FWD-15. The error lists what there is."""
    message = f"activation_function={name!r}: is not an activation function [FWD-15]. {KNOWN}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        activation(name)


@pytest.mark.parametrize("name", ["prelu", "xielu"])
def test_an_activation_with_weights_is_refused(name):
    """FWD-15. The two activations that are learned are named as such."""
    message = f"activation_function={name!r}: has its own weights [FWD-15]. {KNOWN}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        activation(name)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "llama"}, "model_type='llama': must be 'gpt2' [CKPT-13]. refgen computes GPT-2 only."),
        ({"model_type": None}, "model_type=None: must be 'gpt2' [CKPT-13]. refgen computes GPT-2 only."),
        ({"add_cross_attention": True}, "add_cross_attention=true: refgen computes decoder-only GPT-2 [FWD-29]."),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "quantization_config: refgen reads F32, F16 and BF16 weights only [CKPT-13]. Dequantize the model first.",
        ),
    ],
)
def test_another_network_is_refused(entries, message):
    """CKPT-13, FWD-29. Entries that would make it another network are not passed over."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        GPT2Config.from_dict(entries)


@pytest.mark.parametrize(
    "entries", [{"model_type": "gpt2"}, {"add_cross_attention": False}, {"quantization_config": None}]
)
def test_entries_that_ask_for_nothing_are_kept(entries):
    """The same entries saying no are inert."""
    assert GPT2Config.from_dict(entries).other == entries
