"""The result object: what it holds of every step, and log-probabilities picked from it."""

import numpy as np
import pytest

from refgen import Cache, GPT2Config, RefgenError
from refgen.generation.output import Stages, transition_scores
from refgen.generation.scores import log_softmax
from tests.strategies import random_model

CONFIG = GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=3, n_head=2, bos_token_id=None, eos_token_id=None)
MODEL = random_model(CONFIG, 4)
ALL = {
    "return_dict_in_generate": True, "output_scores": True, "output_logits": True, "output_hidden_states": True,
    "output_attentions": True, "max_new_tokens": 4,
}  # fmt: skip


def test_hidden_states_are_the_stages():
    """OUT-04: embeddings, every block's output, the last after ln_f; the prompt first, then token by token."""
    result = MODEL.generate([[1, 2, 3]], **ALL)
    stages = {}
    MODEL(result.sequences[:, :-1], note=stages.__setitem__)
    for layer, name in enumerate(("drop", "h.0", "h.1", "ln_f")):
        joined = np.concatenate([states[layer] for states in result.hidden_states], axis=1)
        np.testing.assert_allclose(joined, stages[name], rtol=0, atol=1e-12)
    for layer in range(3):
        for step, patterns in enumerate(result.attentions):
            rows = slice(0, 3) if step == 0 else slice(step + 2, step + 3)
            whole = stages[f"h.{layer}.attn.pattern"][:, :, rows, : step + 3]
            np.testing.assert_allclose(patterns[layer], whole, rtol=0, atol=1e-12)


def test_nothing_is_kept_unless_asked():
    """OUT-04, OUT-02: what was not asked for is None; the cache is there, unless none was used."""
    result = MODEL.generate([[1]], max_new_tokens=2, return_dict_in_generate=True)
    assert (result.scores, result.logits, result.hidden_states, result.attentions) == (None,) * 4
    assert len(result.past_key_values) == 2
    assert (
        MODEL.generate([[1]], max_new_tokens=2, return_dict_in_generate=True, use_cache=False).past_key_values is None
    )


def test_stages_are_copies():
    """OUT-04: later work on an array changes nothing that was kept."""
    stages, array = Stages({"hidden_states": ["drop"]}), np.zeros(2)
    stages.note("drop", array)
    stages.note("other", array)
    array[:] = 1
    ((kept,),) = stages.collected()["hidden_states"]
    assert kept.tolist() == [0, 0]


def test_lengths_count_what_is_no_filling():
    """OUT-05: a row's columns up to and with its end token."""
    ids = np.arange(9)[:, None]
    ends = MODEL.generate(ids, max_new_tokens=1)[:, 1]
    end = int(ends[0])
    result = MODEL.generate(
        ids, np.ones_like(ids), max_new_tokens=3, eos_token_id=end, pad_token_id=0, return_dict_in_generate=True
    )
    for row, length in enumerate(result.lengths):
        new = result.sequences[row, 1:].tolist()
        assert length == 1 + (new.index(end) + 1 if end in new else len(new))
    beams = MODEL.generate([[1]], num_beams=3, max_new_tokens=4, return_dict_in_generate=True)
    assert beams.lengths.tolist() == [5]


def test_logprobs_by_hand():
    """OUT-08: of scores what was chosen from, of logits what the model said; 0 behind the end."""
    result = MODEL.generate([[1], [2]], do_sample=True, top_k=3, temperature=2.0, seed=1, eos_token_id=[5, 6, 7], pad_token_id=0,
                            **ALL)  # fmt: skip
    for of, steps in (("scores", result.scores), ("logits", result.logits)):
        for row in range(2):
            for step, values in enumerate(steps):
                p = np.exp(values[row].astype(np.float64))
                p = p[result.sequences[row, 1 + step]] / p.sum()
                expected = np.log(p) if 1 + step < result.lengths[row] else 0
                assert abs(result.logprobs(of)[row, step] - expected) < 1e-5


def test_beam_scores_are_sums_of_transitions():
    """OUT-06, BEAM-06: a beam's transition scores add up to its score times its length."""
    result = MODEL.generate([[1], [2]], num_beams=3, num_return_sequences=2, **ALL)
    sums = transition_scores(result.sequences, result.scores, result.beam_indices).sum(axis=1)
    np.testing.assert_allclose(sums / (result.lengths - 1), result.sequences_scores, rtol=1e-6)


def test_transitions_behind_the_end_are_0():
    """OUT-06: where beam_indices are -1."""
    scores = [np.full((2, 3), -1.0, np.float32)] * 2
    table = transition_scores(np.array([[0, 1, 2], [0, 1, 0]]), scores, np.array([[0, 1], [0, -1]]))
    assert table.tolist() == [[-1, -1], [-1, 0]]
    normed = transition_scores(np.array([[0, 1, 2]]), scores, normalize_logits=True)
    np.testing.assert_allclose(normed, log_softmax(scores[0])[:1, 1:])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: MODEL.generate([[1]], max_new_tokens=1, return_dict_in_generate=True).logprobs(),
     r"logprobs\('scores'\): needs the scores of every step \[OUT-08\]\. Generate with output_scores=True"),
    (lambda: MODEL.generate([[1]], **ALL).logprobs("x"), r"of='x': must be \"scores\" or \"logits\" \[OUT-08\]"),
    (lambda: transition_scores(np.array([[1]]), [np.zeros((1, 9))] * 2), r"2 scores: sequences of 1 columns .* \[OUT-06\]"),
    (lambda: transition_scores(np.array([[1]]), []), r"0 scores"),
    (lambda: transition_scores(np.array([[1], [2]]), [np.zeros((1, 9))]), r"row 1: scores have 1 rows \[OUT-06\]"),
])  # fmt: skip
def test_what_outputs_refuse(call, message):
    """OUT-06, OUT-08: arrays that are not from one result, and what was not asked for."""
    with pytest.raises(RefgenError, match=message):
        call()


def test_continuing_computes_only_what_is_new():
    """CACHE-05: the cache grows by what it did not hold, and holds P + new - 1 positions, drafts or not."""
    for extra in ({}, {"prompt_lookup_num_tokens": 5}, {"num_beams": 3}):
        cache = Cache()
        first = MODEL.generate([[1, 2, 1, 2]], max_new_tokens=3, past_key_values=cache, **extra)
        assert len(cache) == first.shape[1] - 1
    cache, plain = Cache(), MODEL.generate([[1, 2, 1, 2]], max_new_tokens=3)
    ended = {"eos_token_id": int(plain[0, 5]), "assistant_model": MODEL, "assistant_confidence_threshold": 0}
    short = MODEL.generate([[1, 2, 1, 2]], max_new_tokens=9, past_key_values=cache, **ended)
    assert len(cache) == short.shape[1] - 1 <= 5  # though the draft looked further
    again = MODEL.generate(first, max_new_tokens=3, past_key_values=Cache())
    np.testing.assert_array_equal(again[:, :7], first)


@pytest.mark.parametrize(("settings", "message"), [
    ({"input_ids": [[1, 2]]}, r"past_key_values of 2 positions: must leave at least one .* 2 columns .* \[CACHE-05\]\..*crop\(1\)"),
    ({"input_ids": [[1, 2, 3]] * 2}, r"past_key_values of 1 rows: input_ids have 2 \[CACHE-04\]"),
    ({"use_cache": False}, r"past_key_values: is not used with use_cache=False \[CACHE-04\]"),
    ({"past_key_values": []}, r"past_key_values of type list: must be a refgen\.Cache \[CACHE-04\]"),
])  # fmt: skip
def test_caches_that_are_refused(settings, message):
    """CACHE-04, CACHE-05: a cache of other rows, or one that leaves nothing to compute."""
    cache = Cache()
    MODEL([[1, 2]], past_key_values=cache)
    with pytest.raises(RefgenError, match=message):
        MODEL.generate(**({"input_ids": [[1, 2, 3]], "past_key_values": cache, "max_new_tokens": 1} | settings))


@pytest.mark.parametrize(("settings", "message"), [
    ({"guidance_scale": 1.0}, r"negative_prompt_ids: need a guidance_scale \[CFGG-01\]"),
    ({"negative_prompt_ids": [[1], [2], [3]]}, r"negative_prompt_ids of 3 rows: must have 1 or 2, like input_ids \[CFGG-01\]"),
    ({"negative_prompt_ids": [[1] * 14]}, r"negative_prompt_ids of 14 tokens: and 4 new ones are more than n_positions=16"),
    ({"negative_prompt_ids": [[99]]}, r"negative_prompt_ids contain 99"),
    ({"negative_prompt_ids": [1]}, r"negative_prompt_ids of shape \[1\]"),
    ({"negative_prompt_attention_mask": [[1, 1]]}, r"negative_prompt_attention_mask of shape \[1, 2\]: must be \[1, 1\], like negative"),
])  # fmt: skip
def test_negative_prompts_that_are_refused(settings, message):
    """CFGG-01: one negative prompt for all rows or one each, that fits."""
    call = {"input_ids": [[1], [2]], "negative_prompt_ids": [[1]], "guidance_scale": 2.0, "max_new_tokens": 4}
    with pytest.raises(RefgenError, match=message):
        MODEL.generate(**(call | settings))
