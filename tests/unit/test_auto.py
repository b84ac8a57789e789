"""The drop-in names: what a call takes and gives, what loading refuses, and what `import refgen` brings along."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refgen
from refgen import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    CheckpointError,
    GenerationConfig,
    GenerationError,
    GPT2Config,
    GPT2LMHeadModel,
    InputError,
    TokenizerError,
)
from refgen.engines.plain import PlainEngine
from tests.strategies import gpt2_configs, models, prompts, random_model

TINY = GPT2Config(vocab_size=9, n_positions=24, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=8)
UNKNOWN = "nowhere/gpt2: was not found [CKPT-15]. Looked in the folder nowhere/gpt2, the models of refgen (shakespeare), the cache "


# --- Calling the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [
    {}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"guidance_scale": 1.5}, {"use_cache": False}, {"prefill_chunk_size": 1},
])  # fmt: skip
def test_all_logits_come_from_the_engine(more):
    """FWD-27, LOOP-01: calls, generation, beams, drafts and guidance compute with the model's engine and nothing else."""

    class OneTokenOn(PlainEngine):
        def forward(self, *arguments, **keywords):
            return np.roll(super().forward(*arguments, **keywords), 1, axis=-1)

    model = random_model(replace(TINY, eos_token_id=None), 5)
    expected = (model([[1, 2]]).logits[0, -1].argmax() + 1) % 9
    model.engine = OneTokenOn(model.gpt2)
    assert model([[1, 2]]).logits[0, -1].argmax() == expected
    assert model.generate([[1, 2]], max_new_tokens=1, **({} if "num_beams" in more else more))[0, 2] == expected
    logits = model.generate(
        [[1, 2]], max_new_tokens=1, return_dict_in_generate=True, output_logits=True, **more
    ).logits[0]
    np.testing.assert_allclose(logits[0], model([[1, 2]]).logits[0, -1], rtol=0, atol=1e-5)


@given(st.data(), st.sampled_from(("float32", "float64")))
def test_logits_have_the_shape_and_the_dtype(data, dtype):
    """FWD-27. `[B T V]` in the model's own dtype, and a cache of T positions."""
    model = data.draw(models(dtype))
    ids, mask = data.draw(prompts(model.config.vocab_size))
    output = model(ids, attention_mask=mask)
    assert output.logits.shape == (*ids.shape, model.config.vocab_size)
    assert output.logits.dtype == model.dtype == np.dtype(dtype)
    assert np.isfinite(output.logits).all()
    assert len(output.past_key_values) == ids.shape[1]


@given(st.data())
def test_lists_arrays_and_tuples_mean_the_same(data):
    """Ids and masks may be nested lists, tuples or arrays of any whole-number dtype; the bits are the same."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    expected = model(ids, mask).logits.tobytes()
    for form in (
        np.ndarray.tolist,
        lambda x: tuple(map(tuple, x.tolist())),
        lambda x: x.astype(np.uint8),
        np.asfortranarray,
    ):
        assert model(form(ids), attention_mask=form(mask)).logits.tobytes() == expected
    assert model(input_ids=ids, attention_mask=mask.astype(bool)).logits.tobytes() == expected


@given(st.data())
def test_a_cache_continues_where_it_stopped(data):
    """CACHE-04. Cut anywhere, in any number of pieces, the logits are those of one pass, to float64 rounding."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    whole = model(ids, mask).logits
    cuts = sorted(data.draw(st.sets(st.integers(1, ids.shape[1] - 1)))) if ids.shape[1] > 1 else []
    cache, pieces = None, []
    for start, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        output = model(ids[:, start:end], mask[:, :end], past_key_values=cache)
        assert cache is None or output.past_key_values is cache
        cache = output.past_key_values
        assert len(cache) == end
        pieces.append(output.logits)
    real = mask.astype(bool)
    pieced = np.concatenate(pieces, axis=1)
    # Sums of at most 40 terms in another order, through three layers: some hundred roundings of 1e-16.
    assert np.abs(pieced - whole)[real].max() <= 1e-12 * max(1.0, np.abs(whole[real]).max())


@given(st.data())
def test_position_ids_follow_from_the_mask(data):
    """PAD-04. Given as the count of tokens before, they change nothing; shifted, they pick other rows of `wpe`."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    places = (mask.cumsum(axis=1) - 1) * mask
    assert model(ids, mask, position_ids=places).logits.tobytes() == model(ids, mask).logits.tobytes()
    stages = {}
    model(ids, mask, position_ids=places + 3, note=stages.setdefault)
    assert stages["drop"].tobytes() == (model.gpt2.wte[ids] + model.gpt2.wpe[places + 3]).tobytes()


@given(st.data())
def test_logits_to_keep_keeps_the_last(data):
    """FWD-20. The last n positions only, or all of them for 0 and for more than there are."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    keep = data.draw(st.integers(0, ids.shape[1] + 2))
    whole, kept = model(ids, mask).logits, model(ids, mask, logits_to_keep=keep).logits
    assert kept.shape == whole[:, -keep:].shape
    np.testing.assert_allclose(kept, whole[:, -keep:], rtol=0, atol=1e-12 * np.abs(whole).max())


def test_a_call_leaves_its_arrays_alone():
    """Ids, mask and positions are read, not written; the cache passed in is what grows."""
    model, cache = random_model(TINY, 0), Cache()
    given_arrays = [np.array([[0, 3, 5]]), np.array([[0, 1, 1]]), np.array([[0, 0, 1]])]
    copies = [array.copy() for array in given_arrays]
    model(*given_arrays, past_key_values=cache)
    assert all(np.array_equal(array, copy) for array, copy in zip(given_arrays, copies, strict=True))
    assert len(cache) == 3


@pytest.mark.parametrize(
    "keyword", ["input", "labels", "use_cache", "output_attentions", "token_type_ids", "inputs_embeds"]
)
def test_an_unknown_keyword_is_a_type_error(keyword):
    """What the call does not know it does not swallow."""
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
        random_model(TINY, 0)([[1]], **{keyword: None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": [[1, 2], [3]]}, r"input_ids: has rows of different lengths \[IN-01\]\. Pad them"),
        ({"input_ids": [[1.0]]}, r"input_ids of dtype float64: must be whole numbers \[IN-01\]"),
        ({"input_ids": [[True]]}, r"input_ids of dtype bool: must be whole numbers \[IN-01\]"),
        ({"input_ids": [["a"]]}, r"input_ids of dtype <U1: must be whole numbers \[IN-01\]"),
        ({"input_ids": None}, r"input_ids of dtype object: must be whole numbers \[IN-01\]"),
        ({"input_ids": [1, 2]}, r"input_ids of shape \[2\]: must be \[rows, tokens\] .* \[FWD-24\]\. One sequence"),
        ({"input_ids": [[9]]}, r"input_ids contain 9: token ids of this model run from 0 to 8 \[FWD-23\]"),
        ({"input_ids": [[1]], "attention_mask": [[1, 1]]}, r"attention_mask of shape \[1, 2\]: must be \[1, 1\]"),
        ({"input_ids": [[1]], "attention_mask": [[0.5]]}, r"attention_mask of dtype float64: must be whole numbers"),
        ({"input_ids": [[1]], "position_ids": [[24]]}, r"position 24: this model has n_positions=24, .* \[FWD-23\]"),
        ({"input_ids": [[1]], "position_ids": [[0, 1]]}, r"position_ids of shape \[1, 2\] .* whole numbers in \[1, 1\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(arguments, message):
    """The error names the argument, what it is and what it must be."""
    with pytest.raises(InputError, match=f"^{message}"):
        random_model(TINY, 0)(**arguments)


# --- Loading and saving -----------------------------------------------------------------------------------


@given(gpt2_configs(), st.integers(0, 2**32 - 1), st.sampled_from(("float32", "float64")))
def test_a_saved_model_computes_the_same_bits(tmp_path, config, seed, dtype):
    """Loading under either name gives back the model: logits equal bit for bit, settings equal."""
    model = random_model(config, seed, dtype)
    model.generation_config = GenerationConfig(max_new_tokens=7, do_sample=True, top_k=3, eos_token_id=[1, 2])
    model.save_pretrained(tmp_path)
    ids = np.arange(8).reshape(2, 4) % config.vocab_size
    for name in (GPT2LMHeadModel, AutoModelForCausalLM):
        loaded = name.from_pretrained(str(tmp_path), dtype=dtype)
        assert type(loaded) is GPT2LMHeadModel
        assert loaded(ids).logits.tobytes() == model(ids).logits.tobytes()
        assert loaded.generation_config == model.generation_config


def test_settings_come_from_the_configuration_without_their_own_file(tmp_path):
    """CKPT-11. Without `generation_config.json`, what `config.json` says of generation counts."""
    random_model(TINY, 0, "float32").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    entries = json.loads((tmp_path / "config.json").read_text()) | {"top_k": 3, "max_length": 5}
    (tmp_path / "config.json").write_text(json.dumps(entries))
    settings = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert settings == GenerationConfig(top_k=3, max_length=5, bos_token_id=0, eos_token_id=8)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 5]}')
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config == GenerationConfig(eos_token_id=[4, 5])


@pytest.mark.parametrize("name", [GPT2LMHeadModel, AutoModelForCausalLM, AutoTokenizer])
def test_an_unknown_model_is_refused(name):
    """CKPT-15. The error says where it was looked for."""
    with pytest.raises(CheckpointError, match=f"^{re.escape(UNKNOWN)}"):
        name.from_pretrained("nowhere/gpt2", local_files_only=True)


def test_a_link_to_nothing_is_no_missing_file(tmp_path):
    """CKPT-11. Settings whose file is gone are an error, not silently none."""
    random_model(TINY, 0, "float32").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").symlink_to(tmp_path / "gone")
    with pytest.raises(GenerationError, match=r"generation_config\.json: is a link to nothing \[CKPT-11\]"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_file_brings_what_is_beside_it(tmp_path):
    """CKPT-09. Given a file, the configuration, the generation settings and the tokenizer are those of its folder."""
    model = random_model(TINY, 0, "float32")
    model.generation_config = GenerationConfig(max_new_tokens=3)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nt h\n", encoding="utf-8")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model.safetensors")
    assert loaded.generation_config == model.generation_config
    assert loaded([[1]]).logits.tobytes() == model([[1]]).logits.tobytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "model.safetensors").encode("th") == [256]


def test_loading_takes_no_other_keywords():
    """Options of transformers that mean nothing here are not swallowed."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'torch_dtype'"):
        AutoModelForCausalLM.from_pretrained("shakespeare", torch_dtype="float32")


def test_a_tokenizer_loads_from_a_folder(tmp_path):
    """`AutoTokenizer` gives a `Tokenizer`; a folder without one is a `TokenizerError`."""
    with pytest.raises(TokenizerError, match=r"holds no tokenizer \[TOK-01\]"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    assert type(tokenizer) is refgen.Tokenizer
    assert tokenizer.encode("the") == [257]


# --- The package ------------------------------------------------------------------------------------------


def test_there_is_no_training_mode():
    """FWD-22: `eval()` is the model itself, and calls give the same bits with it and without."""
    model = refgen.AutoModelForCausalLM.from_pretrained("shakespeare")
    before = model([[1, 2]]).logits
    assert model.eval() is model
    np.testing.assert_array_equal(model([[1, 2]]).logits, before)


def test_the_public_names_are_those_listed():
    """`from refgen import *` gives exactly `__all__`, which is sorted and holds no name twice."""
    names = {}
    exec("from refgen import *", names)
    del names["__builtins__"]
    assert names.keys() == set(refgen.__all__)
    assert refgen.__all__ == sorted(set(refgen.__all__))
    assert all(names[name] is getattr(refgen, name) for name in names)


@pytest.mark.parametrize("name", [name for name in refgen.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name):
    """Each class, each public method of its own, and each function says what it does."""
    thing = getattr(refgen, name)
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}(")  # what dataclasses write by themselves
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        if not method.startswith("_") and (callable(value) or isinstance(value, property | classmethod | staticmethod)):
            assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


def test_importing_refgen_imports_no_framework():
    """NumPy, safetensors and tokenizers are all it needs; what reads names and other forms of weights comes when it is needed."""
    code = (
        "import refgen, sys; print(sorted({'gguf', 'huggingface_hub', 'jax', 'pickletools', 'scipy', 'tensorflow', 'torch', "
        "'transformers', 'zipfile'} & set(sys.modules)))"
    )
    root = Path(refgen.__file__).parents[1]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"
