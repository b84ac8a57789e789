"""The call around the loop: lengths, fillers, seeds, uniforms, and what it refuses before the first step."""

import re
from inspect import signature
from itertools import pairwise

import numpy as np
import pytest

from refgen import GenerationConfig, GenerationError, GPT2Config, GPT2LMHeadModel, IgnoredSettingWarning, InputError
from refgen.generation.call import CALL_ARGUMENTS
from tests.strategies import random_model

CONFIG = GPT2Config(vocab_size=7, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=6, eos_token_id=None)
MODEL = random_model(CONFIG, 1)


def widths(*arguments, **settings):
    """New columns of a call."""
    return MODEL.generate(*arguments, **settings).shape[1]


def test_default_length():
    """LEN-03: 20 new tokens, but not more than fit the positions."""
    roomy = random_model(GPT2Config(vocab_size=7, n_positions=64, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 1)
    assert roomy.generate([[1, 2, 3]]).shape == (1, 23)
    assert widths([[1, 2, 3]]) == 8


def test_explicit_lengths():
    """LEN-01, LEN-02: max_new_tokens counts new ones, max_length all."""
    assert widths([[1, 2, 3]], max_new_tokens=2) == 5
    assert widths([[1, 2, 3]], max_length=5) == 5


def test_one_token_more_than_positions():
    """LEN-04: the last token is never fed back, so n_positions + 1 tokens fit; then the row ends by context."""
    output = MODEL.generate([[1, 2, 3]], max_new_tokens=99, return_dict_in_generate=True)
    assert output.sequences.shape == (1, 9)
    assert output.finish == ("context",)
    assert widths([[1] * 8], max_new_tokens=1) == 9


def test_padding_takes_no_positions():
    """LEN-05: a prompt wider than the positions works if its tokens fit."""
    ids, mask = np.zeros((1, 12), int), np.array([[0] * 10 + [1, 1]])
    np.testing.assert_array_equal(
        MODEL.generate(ids, mask, max_new_tokens=4)[0, 12:], MODEL.generate([[0, 0]], max_new_tokens=4)[0, 2:]
    )


def test_no_prompt_starts_from_bos():
    """IN-02: generate() without ids continues the bos token."""
    np.testing.assert_array_equal(MODEL.generate(max_new_tokens=3), MODEL.generate([[6]], max_new_tokens=3))


def test_finished_rows_are_filled_with_the_first_end_token():
    """STOP-07: without a pad id the filler is the first end token."""
    ids = np.arange(7)[:, None]
    ends = MODEL.generate(ids, max_new_tokens=1)[:, 1]
    other = next(token for token in range(7) if token not in ends)  # never said first, so never stops a row there
    stop = int(ends[0])
    output = MODEL.generate(ids, max_new_tokens=4, eos_token_id=[other, stop])
    assert output.shape == (7, 5)  # some rows go on
    assert output[0, 1:].tolist() == [stop, other, other, other]


@pytest.mark.parametrize(("call", "error", "message"), [
    ({"max_length": 3}, GenerationError, r"max_length=3: ends at 3 columns, and the prompt already has 3 \[LEN-02\].*max_new_tokens"),
    ({"min_new_tokens": 5, "max_new_tokens": 3}, GenerationError, r"min_new_tokens=5: cannot be reached: the limit is 3 new"),
    ({"min_new_tokens": 30}, GenerationError, r"min_new_tokens=30: cannot be reached: the limit is 5 new tokens \[LEN-07\]"),
    ({"min_length": 9}, GenerationError, r"min_length=9: cannot be reached: the limit is 5 new tokens \[LEN-08\]"),
    ({"min_length": 9, "max_new_tokens": 2}, GenerationError, r"min_length=9: cannot be reached: the limit is 2 new"),
    ({"generation_config": {"top_k": 5}}, GenerationError, r"generation_config of type dict: must be a refgen"),
    ({"streamer": "x"}, GenerationError, r"streamer='x': must have put\(ids\) and end\(\) \[STREAM-01\]"),
    ({"suppress_tokens": [1, 7]}, GenerationError, r"suppress_tokens=7: token ids of this model run from 0 to 6"),
    ({"bad_words_ids": [[1, 9]]}, GenerationError, r"bad_words_ids=9: token ids of this model"),
    ({"sequence_bias": {(8,): 1.0}}, GenerationError, r"sequence_bias=8: token ids of this model"),
    ({"logits_processor": print}, GenerationError, r"logits_processor=.*must be a list of functions \[PROC-03\]"),
    ({"stopping_criteria": [5]}, GenerationError, r"stopping_criteria=\(5,\): must be a list of functions \[STOP-09\]"),
    ({"stop_strings": "a"}, GenerationError, r"stop_strings=\['a'\]: need a tokenizer to be found \[SSTR-01\]"),
    ({"eos_token_id": 7}, GenerationError, r"eos_token_id=7: token ids of this model run from 0 to 6.*eos_token_id=None"),
    ({"pad_token_id": 7}, GenerationError, r"pad_token_id=7: token ids of this model run from 0 to 6"),
    ({"do_sample": True, "seed": "x"}, GenerationError, r"seed='x': must be a whole number, or one for each row"),
    ({"do_sample": True, "seed": 1.5}, GenerationError, r"seed=1\.5: must be a whole number"),
    ({"do_sample": True, "seed": [1, 2]}, GenerationError, r"2 seeds: there are 1 rows to sample \[SAMP-09\]"),
    ({"do_sample": True, "seed": 1, "uniforms": [0.5] * 9}, GenerationError, r"seed and uniforms: are two sources"),
    ({"do_sample": True, "uniforms": [0.5]}, InputError, r"uniforms of shape \[1, 1\]: must be \[1, 5\]"),
    ({"do_sample": True, "uniforms": [1.0] * 9}, InputError, r"uniforms: must be at least 0 and below 1"),
    ({"do_sample": True, "uniforms": ["a"]}, InputError, r"uniforms: must be numbers in \[1, 5\]"),
])  # fmt: skip
def test_calls_that_are_refused(call, error, message):
    """Each wrong argument gives one error before anything is computed."""
    with pytest.raises(error, match=message):
        MODEL.generate([[1, 2, 3]], **call)


def test_temperatures_and_penalties_that_overflow_are_refused():
    """TEMP-03: scores beyond float32 are an error, in one sentence and without NumPy's warnings."""
    for settings in (
        {"do_sample": True, "temperature": 1e-44},
        {"repetition_penalty": 1e-39},
    ):
        with pytest.raises(
            GenerationError, match=r"leave no token to choose.*overflows float32 \[SAMP-08\].*temperature=0"
        ):
            MODEL.generate([[1, 2, 3, 4, 5, 6, 0]], max_new_tokens=1, **settings)


def test_a_streamer_cannot_change_the_prompt():
    """STREAM-01: what a streamer does with the arrays it is given is its own affair."""

    class Eraser:
        def put(self, ids):
            ids[:] = 0

        def end(self):
            pass

    assert MODEL.generate([[1, 2]], max_new_tokens=2, streamer=Eraser())[0, :2].tolist() == [1, 2]


def test_only_the_uniforms_that_can_be_used_are_needed():
    """SAMP-10: where the context ends first, no more columns are asked for."""
    output = MODEL.generate([[1, 2]], do_sample=True, uniforms=[0.5] * 7, max_new_tokens=99)
    assert output.shape == (1, 9)


def test_bad_words_are_never_said():
    """BAD-01: neither a banned id nor a banned sequence comes, also across the border of the prompt."""
    said = MODEL.generate([[1, 2]], max_new_tokens=6)[0].tolist()
    banned = [[said[2]], [said[3], said[4]]]
    other = MODEL.generate([[1, 2]], max_new_tokens=6, bad_words_ids=banned)[0].tolist()
    assert said[2] not in other[2:]
    assert (said[3], said[4]) not in pairwise(other[1:])
    border = MODEL.generate([[1, 2]], max_new_tokens=1, bad_words_ids=[[2, said[2]], [1, 5, 3]])[0].tolist()
    assert border[2] != said[2]
    free = MODEL.generate([[1, 2]], max_new_tokens=1, bad_words_ids=[[3, said[2]]])[0].tolist()
    assert free[2] == said[2]


def test_forced_beginnings_need_a_prompt_of_one_column():
    """FORCE-01: a longer prompt has begun already."""
    said = int(MODEL.generate([[1, 2]], max_new_tokens=1)[0, 2])
    other = (said + 1) % 7
    assert MODEL.generate([[1, 2]], max_new_tokens=1, forced_bos_token_id=other)[0, 2] == said
    assert MODEL.generate([[1]], max_new_tokens=1, forced_bos_token_id=other)[0, 1] == other


def test_prompts_too_long_are_refused():
    """FWD-23: a prompt with more tokens than positions says both numbers."""
    with pytest.raises(InputError, match=r"position 8: this model has n_positions=8"):
        MODEL.generate([[1] * 9], max_new_tokens=1)


def test_rows_that_end_apart_need_a_filler():
    """STOP-07: without end or pad id, rows that reach the context at different steps cannot be one array."""
    ids, mask = [[0, 1, 2], [3, 4, 5]], [[0, 1, 1], [1, 1, 1]]
    with pytest.raises(GenerationError, match=r"pad_token_id=None: rows can end at different steps.*Set pad_token_id"):
        MODEL.generate(ids, mask, max_new_tokens=9)
    assert MODEL.generate(ids, mask, max_new_tokens=9, pad_token_id=0).shape == (2, 10)
    assert MODEL.generate(ids, mask, max_new_tokens=6).shape == (2, 9)


def test_settings_of_the_model_are_the_start():
    """CFG-03, CFG-04: a model's own settings hold unless the call says otherwise."""
    model = GPT2LMHeadModel(MODEL.gpt2, GenerationConfig(max_new_tokens=2))
    assert model.generate([[1]]).shape == (1, 3)
    assert model.generate([[1]], max_new_tokens=4).shape == (1, 5)
    assert model.generate([[1]], generation_config=GenerationConfig(max_new_tokens=3)).shape == (1, 4)


def test_foreign_ids_of_the_model_are_left_out():
    """STOP-08: an end or pad id that came with the model but is none of its tokens is no end, and is said."""
    model = GPT2LMHeadModel(MODEL.gpt2, GenerationConfig(eos_token_id=[50256, 3], pad_token_id=50256))
    with pytest.warns(
        IgnoredSettingWarning, match=r"eos_token_id=\[50256, 3\] or pad_token_id=50256 is outside its vocabulary"
    ):
        output = model.generate([[1]], max_new_tokens=4)
    np.testing.assert_array_equal(output, MODEL.generate([[1]], max_new_tokens=4, eos_token_id=3))


@pytest.mark.parametrize("method", ["generate", "steps"])
@pytest.mark.parametrize("cause", [{"temperature": 0.5}, {"eos_token_id": 50256}])
def test_warnings_name_the_line_of_the_call(method, cause):
    """CFG-09, STOP-08: a warning points at the caller's line, where it can be mended, not into refgen."""
    own, said = (cause, {}) if "eos_token_id" in cause else ({}, cause)
    model = GPT2LMHeadModel(MODEL.gpt2, GenerationConfig(**own))
    with pytest.warns(IgnoredSettingWarning) as warned:
        getattr(model, method)([[1]], max_new_tokens=1, **said)
    assert [each.filename for each in warned] == [__file__]


def test_help_explains_every_argument():
    """CFG-08: what generate() takes stands in its signature, and a line of its help explains it."""
    names = [*signature(GPT2LMHeadModel.generate).parameters]
    assert names[:3] == ["self", "input_ids", "attention_mask"]
    assert set(names[1:-1]) == CALL_ARGUMENTS
    explained = re.findall(r"^(\w+)  +\S", GPT2LMHeadModel.generate.__doc__, re.MULTILINE)
    assert sorted(explained) == sorted(CALL_ARGUMENTS)


def test_only_the_public_arguments_have_names():
    """CFG-08: how the oracle passes logits, and the collected settings, are no arguments of generate()."""
    for name in ("next_logits", "settings"):
        with pytest.raises(GenerationError, match=rf"{name}=.*is not a setting of generate\(\) \[CFG-08\]"):
            MODEL.generate([[1]], **{name: 1})


def test_steps_need_no_streamer():
    """STREAM-01: who takes the steps has the tokens."""
    with pytest.raises(GenerationError, match=r"streamer: steps\(\) returns each step itself \[STREAM-01\]"):
        MODEL.steps([[1]], streamer=object())


def test_the_prompt_is_never_changed():
    """IN-04: the caller's array is the same after the call, and the output does not share its memory."""
    ids = np.array([[1, 2, 3]])
    output = MODEL.generate(ids, max_new_tokens=2)
    assert ids.tolist() == [[1, 2, 3]]
    assert not np.shares_memory(ids, output)
    assert output.dtype == np.int64
