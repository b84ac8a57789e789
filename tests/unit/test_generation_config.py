"""Settings: what each may be, which source counts, and what contradicts itself."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GenerationError, IgnoredSettingWarning
from refgen.generation.config import SETTINGS
from refgen.generation.refused import REFUSED
from refgen.generation.settle import settle

FRESH = GenerationConfig()


@pytest.mark.parametrize(("setting", "message"), [
    ({"temperature": -0.5}, r"temperature=-0\.5: must be a finite number of at least 0 \[TEMP-02\]\. For greedy .*temperature=0"),
    ({"temperature": math.nan}, r"temperature=nan: must be a finite number"),
    ({"temperature": math.inf}, r"temperature=inf: must be a finite number"),
    ({"temperature": "x"}, r"temperature='x': must be a finite number"),
    ({"temperature": True}, r"temperature=True: must be a finite number"),
    ({"temperature": [1.0]}, r"temperature=\[1\.0\]: is of the wrong type"),
    ({"top_k": -1}, r"top_k=-1: must be a whole number of at least 0 \[TOPK-02\]\. 0 or None keeps every token"),
    ({"top_k": 2.5}, r"top_k=2\.5: is of the wrong type"),
    ({"top_p": 1.5}, r"top_p=1\.5: must be a number from 0 to 1 \[TOPP-04\]"),
    ({"top_p": -0.1}, r"top_p=-0\.1"),
    ({"top_p": math.nan}, r"top_p=nan"),
    ({"min_p": 2}, r"min_p=2: must be a number from 0 to 1 \[MINP-01\]"),
    ({"repetition_penalty": 0}, r"repetition_penalty=0: must be a finite number above 0 \[REP-03\]"),
    ({"max_new_tokens": 0}, r"max_new_tokens=0: must be a whole number of at least 1 \[LEN-01\]"),
    ({"max_new_tokens": "3"}, r"max_new_tokens='3': is of the wrong type"),
    ({"max_new_tokens": True}, r"max_new_tokens=True: must be a whole number"),
    ({"max_length": -1}, r"max_length=-1"),
    ({"min_new_tokens": -1}, r"min_new_tokens=-1.*at least 0 \[LEN-07\]"),
    ({"min_length": 1.0}, r"min_length=1\.0: is of the wrong type \[LEN-08\]"),
    ({"do_sample": 1}, r"do_sample=1: must be True or False \[CFG-11\]"),
    ({"use_cache": "yes"}, r"use_cache='yes': must be True or False"),
    ({"num_return_sequences": 0}, r"num_return_sequences=0: must be a whole number of at least 1"),
    ({"eos_token_id": []}, r"eos_token_id=\[\]: must name at least one id \[STOP-03\]\. Pass None"),
    ({"eos_token_id": 39.5}, r"eos_token_id=39\.5: is of the wrong type"),
    ({"eos_token_id": [1, -1]}, r"eos_token_id=\[1, -1\]: must be a whole number of at least 0"),
    ({"pad_token_id": -1}, r"pad_token_id=-1: must be a whole number of at least 0 \[STOP-07\]"),
    ({"output_scores": None, "output_logits": 0}, r"output_logits=0: must be True or False"),
    ({"temprature": 0.7}, r"temprature=0\.7: is not a setting of generate\(\) \[CFG-08\]\. Did you mean temperature\?"),
    ({"xyzzy": 1}, r"xyzzy=1: is not a setting of generate\(\) \[CFG-08\]\. See help"),
    ({"penalty_alpha": 0.6}, r"penalty_alpha=0\.6: asks for contrastive search, which transformers has removed .* \[CFG-12\]"),
    ({"inputs": [[1]]}, r"inputs=.*is called input_ids here \[CFG-12\]\. Pass input_ids"),
    ({"max_length": 9, "max_new_tokens": 3}, r"max_length=9, max_new_tokens=3: contradict each other \[LEN-01\]"),
    ({"temperature": 10**400}, r"temperature=1000.*: is of the wrong type"),
    ({"top_h": 0}, r"top_h=0: must be a number above 0, at most 1 \[TOPH-01\]"),
    ({"typical_p": 1.5}, r"typical_p=1\.5: must be a number above 0, at most 1 \[TYP-01\]"),
    ({"epsilon_cutoff": 1}, r"epsilon_cutoff=1: must be a number from 0 to below 1 \[EPS-01\]"),
    ({"eta_cutoff": -1}, r"eta_cutoff=-1: must be a number from 0 to below 1 \[ETA-01\]"),
    ({"no_repeat_ngram_size": -1}, r"no_repeat_ngram_size=-1: must be a whole number of at least 0 \[NGRAM-01\]"),
    ({"bad_words_ids": [5]}, r"bad_words_ids=\[5\]: must be a list of lists of ids.*\[BAD-01\]"),
    ({"bad_words_ids": []}, r"bad_words_ids=\[\]: must be a list of lists"),
    ({"bad_words_ids": [[]]}, r"bad_words_ids=\[\[\]\]: must name at least one id"),
    ({"bad_words_ids": [[5]], "eos_token_id": 5}, r"bad_words_ids hold the end token \[5\].*eos_token_id=None"),
    ({"sequence_bias": {}}, r"sequence_bias=\{\}: must be \{\(ids\): bias\}.*\[BIAS-01\]"),
    ({"sequence_bias": {(5,): math.nan}}, r"must have biases that are numbers"),
    ({"exponential_decay_length_penalty": (1, 0.5), "eos_token_id": 1}, r"must have a factor of at least 1 \[EXPD-01\]"),
    ({"exponential_decay_length_penalty": (1, 1.5)}, r"needs an end token to make likelier \[EXPD-01\]"),
    ({"exponential_decay_length_penalty": 3}, r"exponential_decay_length_penalty=3: must be \(start, factor\)"),
    ({"suppress_tokens": []}, r"suppress_tokens=\[\]: must name at least one id \[SUP-01\]"),
    ({"suppress_tokens": [3], "forced_eos_token_id": 3}, r"forced_eos_token_id and suppress_tokens both hold 3"),
    ({"stop_strings": [""]}, r"stop_strings=\[''\]: must be a text or a list of texts, none of them empty \[SSTR-04\]"),
    ({"max_time": -1}, r"max_time=-1: must be a number of seconds \[LEN-09\]"),
    ({"num_return_sequences": 2}, r"num_return_sequences=2: greedy decoding has one result \[GREEDY-07\]"),
    ({"num_return_sequences": 2, "do_sample": True, "temperature": 0}, r"greedy decoding has one result"),
])  # fmt: skip
def test_settings_that_are_refused(setting, message):
    """CFG-08, CFG-10: one error that names the field, its value, the rule and the remedy."""
    with pytest.raises(GenerationError, match=message):
        settle(FRESH, None, setting)


def test_every_field_is_checked():
    """No field of GenerationConfig goes in unchecked."""
    assert set(SETTINGS) == set(GenerationConfig.__dataclass_fields__)


@pytest.mark.parametrize(("name", "given_value", "settled"), [
    ("temperature", 2, 2.0), ("temperature", np.float32(0.5), 0.5), ("top_k", np.int64(3), 3), ("top_p", 1, 1.0),
    ("eos_token_id", 5, (5,)), ("eos_token_id", [5, 6], (5, 6)), ("eos_token_id", np.array([5, 6]), (5, 6)),
    ("eos_token_id", np.int32(5), (5,)),
])  # fmt: skip
def test_numbers_of_any_kind_are_numbers(name, given_value, settled):
    """TEMP-02, TOPK-02: ints, NumPy scalars and floats are the numbers they are, unlike in transformers."""
    assert getattr(settle(FRESH, None, {name: given_value, "do_sample": True}), name) == settled


def test_the_call_counts_most():
    """CFG-04: call over passed configuration over the model's over defaults."""
    model = GenerationConfig(top_k=1, top_p=0.1, temperature=0.1)
    passed = GenerationConfig(top_k=2, top_p=0.2)
    config = settle(model, passed, {"top_k": 3, "do_sample": True})
    assert (config.top_k, config.top_p, config.temperature, config.repetition_penalty) == (3, 0.2, 0.1, 1.0)


def test_none_in_the_call_switches_off():
    """CFG-05: None in the call is a value, None in a configuration is unset."""
    model = GenerationConfig(eos_token_id=5)
    assert settle(model, None, {"top_k": None, "eos_token_id": None}).top_k is None
    assert settle(model, None, {"eos_token_id": None}).eos_ids == ()
    assert settle(model, GenerationConfig(top_k=None), {}).top_k == 50
    assert settle(model, GenerationConfig(), {}).eos_ids == (5,)


@pytest.mark.parametrize(("one", "other"), [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")])
def test_the_later_limit_counts(one, other):
    """LEN-01: of the two ways to say a limit, the one from the later source holds."""
    config = settle(GenerationConfig(**{one: 7}), None, {other: 3})
    assert (getattr(config, one) or 0, getattr(config, other)) == (0, 3)
    config = settle(GenerationConfig(**{other: 3}), GenerationConfig(**{one: 7}), {})
    assert (getattr(config, one), getattr(config, other) or 0) == (7, 0)


@pytest.mark.parametrize(("setting", "message"), [
    ({"temperature": 0.7}, r"temperature=0\.7 has no effect without do_sample=True \[CFG-09\]"),
    ({"top_p": 0.9}, r"top_p=0\.9 has no effect"),
    ({"output_scores": True}, r"output_scores=True has no effect without return_dict_in_generate=True"),
    ({"do_sample": True, "temperature": 0, "top_p": 0.9}, r"top_p=0\.9 has no effect without a temperature above 0"),
    ({"length_penalty": 2}, r"length_penalty=2\.0 has no effect without num_beams above 1"),
    ({"max_matching_ngram_size": 3}, r"max_matching_ngram_size=3 has no effect without prompt_lookup_num_tokens"),
])  # fmt: skip
def test_what_changes_nothing_is_said(setting, message):
    """CFG-09: a setting of this call without effect is a warning."""
    with pytest.warns(IgnoredSettingWarning, match=message):
        settle(FRESH, None, setting)


@pytest.mark.parametrize("setting", [
    {"temperature": 1.0}, {"top_k": 50}, {"top_p": 1.0}, {"temperature": 0}, {"top_k": None}, {"do_sample": True, "top_p": 0.5},
    {"max_matching_ngram_size": 2}, {"length_penalty": 1.0}, {"output_scores": False},
])  # fmt: skip
def test_neutral_settings_are_silent(setting):
    """CFG-09: neutral values and the model's own settings never warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle(GenerationConfig(temperature=0.3, top_p=0.3), None, setting)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_fields_refgen_refuses(name):
    """CFG-12: at a value that asks for nothing such a field is taken, at any other it is refused by name, with a remedy."""
    asks_for_nothing, _, remedy = REFUSED[name]
    for neutral in (None, *asks_for_nothing):
        settle(FRESH, None, {name: neutral})
    with pytest.raises(GenerationError, match=name) as refusal:
        settle(FRESH, None, {name: 0.123})
    assert refusal.value.rule == "CFG-12"
    assert str(refusal.value).endswith(remedy)


VALID = st.fixed_dictionaries({}, optional={
    "max_new_tokens": st.integers(1, 99), "temperature": st.floats(0, 10), "top_k": st.integers(0, 99),
    "top_p": st.floats(0, 1), "min_p": st.floats(0, 1), "repetition_penalty": st.floats(0.1, 5),
    "eos_token_id": st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9), min_size=1, max_size=3)),
    "pad_token_id": st.integers(0, 9), "do_sample": st.booleans(),
})  # fmt: skip


@given(VALID)
def test_files_round_trip(tmp_path, settings):
    """CKPT-11: what is saved is what is loaded."""
    config = GenerationConfig(**settings)
    config.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path) == config


def test_files_with_metadata_and_neutral_fields_load(tmp_path):
    """CKPT-11: GPT-2's own file, with transformers' version in it, loads; an unknown field does not."""
    path = tmp_path / "generation_config.json"
    path.write_text(
        json.dumps({"_from_model_config": True, "eos_token_id": 5, "transformers_version": "4.26", "num_beams": 1})
    )
    assert GenerationConfig.from_pretrained(tmp_path).eos_ids == (5,)
    path.write_text('{"eos_tokens": 5}')
    with pytest.raises(GenerationError, match="eos_tokens=5: is not a setting"):
        GenerationConfig.from_pretrained(tmp_path)
    path.write_text("[]")
    with pytest.raises(GenerationError, match="must hold a JSON object"):
        GenerationConfig.from_pretrained(tmp_path)
