"""Drafts: what they guess, how long they are, how often the model is run, and what they need."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationConfig, GPT2Config, RefgenError
from refgen.cache import Cache
from refgen.engines import find_engine
from refgen.generation.assisted import by_draft, draft_model, prompt_lookup
from refgen.generation.processors.places import suppress
from tests.strategies import random_model

CONFIG = GPT2Config(vocab_size=11, n_positions=24, n_embd=8, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
MODEL, OTHER = random_model(CONFIG, 1), random_model(CONFIG, 2)


def ones(ids):
    """A mask without padding."""
    return np.ones((1, ids.shape[1]), dtype=np.int64)


@pytest.mark.parametrize(("text", "n", "longest", "expected"), [
    ([5, 6, 7, 5, 6], 3, 2, [7, 5, 6]),
    ([5, 6, 7, 5, 6], 1, 2, [7]),
    ([1, 6, 2, 5, 6, 3, 5, 6], 1, 2, [3]),  # the two-token match, though 6 alone stood earlier
    ([1, 6, 2, 5, 6, 3, 5, 6], 1, 1, [2]),  # the first of several
    ([4, 6, 2, 5, 6], 2, 2, [2, 5]),  # 5 6 was not there before, 6 was
    ([1, 2, 3], 5, 2, []),
    ([9, 9, 9], 5, 2, [9]),
    ([3], 5, 2, []),
])  # fmt: skip
def test_prompt_lookup_by_hand(text, n, longest, expected):
    """ASSIST-07: what followed the longest earlier match, where it first stood."""
    ids = np.array([text])
    assert prompt_lookup(ids, ones(ids), n, longest=longest) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_prompt_lookup_by_search(text, n, longest, pads):
    """ASSIST-07: the same by looking at every place; padding before the text is no part of it."""
    expected = []
    for size in range(min(longest, len(text) - 1), 0, -1):
        starts = [i for i in range(len(text) - size) if text[i : i + size] == text[-size:]]
        if starts and not expected:
            expected = text[starts[0] + size :][:n]
    ids, mask = np.array([[text[0]] * pads + text]), np.array([[0] * pads + [1] * len(text)])
    assert prompt_lookup(ids, mask, n, longest=longest) == expected


def test_draft_model_says_what_its_model_would():
    """ASSIST-03: the best tokens, again and again, also after the row went another way."""
    draft = draft_model(OTHER.engine, [], threshold=0.0)
    for text in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 9], [1, 2, 9, 9, 9], [7]):
        ids = np.array([text])
        assert draft(ids, ones(ids), 4) == OTHER.generate(ids, max_new_tokens=4)[0, len(text) :].tolist()


def test_draft_model_uses_the_processors():
    """ASSIST-03: a token that is removed is not guessed."""
    ids = np.array([[1, 2, 3]])
    best = draft_model(OTHER.engine, [], threshold=0.0)(ids, ones(ids), 1)
    without = [lambda ids, scores: suppress(ids, scores, suppressed=tuple(best))]
    assert draft_model(OTHER.engine, without, threshold=0.0)(ids, ones(ids), 1) != best


def test_an_unsure_draft_ends():
    """ASSIST-03: a token of less than the threshold is the last."""
    ids = np.array([[1, 2, 3]])
    assert len(draft_model(OTHER.engine, [], threshold=1.0)(ids, ones(ids), 5)) == 1
    assert len(draft_model(OTHER.engine, [], threshold=0.0)(ids, ones(ids), 5)) == 5


def test_a_full_draft_model_guesses_nothing():
    """ASSIST-04: a draft model with a shorter context guesses as far as it goes."""
    short = random_model(GPT2Config(vocab_size=11, n_positions=4, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 3)
    draft = draft_model(short.engine, [], threshold=0.0)
    counts = [len(draft(ids, ones(ids), 9)) for ids in (np.ones((1, n), int) for n in range(1, 8))]
    assert counts == [4, 3, 2, 1, 0, 0, 0]


def passes(monkeypatch, model, draft, settings, limit, ids):
    """The columns of each forward pass and the length of each draft, in a greedy run of `limit` columns."""
    widths, drafts = [], []

    def counted(fresh, *arguments, **keywords):
        widths.append(fresh.shape[1])
        return forward(fresh, *arguments, **keywords)

    def watched(*arguments):
        drafts.append(len(guess := draft(*arguments)))
        return guess

    engine = find_engine("numpy")(model.gpt2)  # not the one that `perfect` asks
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", counted)
    next_logits = by_draft(engine, Cache(), watched, settings, limit)
    while ids.shape[1] < limit:
        ids = np.column_stack([ids, next_logits(ids, ones(ids)).argmax(axis=1)])
    return widths, drafts


def perfect(count=None):
    """A draft that knows what MODEL will say."""
    return lambda ids, mask, n: MODEL.generate(ids, max_new_tokens=n)[0, ids.shape[1] :].tolist()[:count]


def test_a_right_draft_saves_passes(monkeypatch):
    """ASSIST-01: the whole of a right draft costs one pass, and one more token comes with it."""
    settings = GenerationConfig(num_assistant_tokens=4, num_assistant_tokens_schedule="constant")
    widths, drafts = passes(monkeypatch, MODEL, perfect(), settings, 13, np.array([[1, 2, 3]]))
    assert (widths, drafts) == ([7, 5], [4, 4])  # the prompt and 4 guesses, then the extra token and 4 more


def test_a_wrong_draft_costs_nothing_but_itself(monkeypatch):
    """ASSIST-04: every pass gives at least one token."""
    settings = GenerationConfig(num_assistant_tokens=3, num_assistant_tokens_schedule="constant")
    wrong = lambda ids, mask, n: [(token + 1) % 11 for token in perfect()(ids, mask, n)]  # noqa: E731
    widths, _ = passes(monkeypatch, MODEL, wrong, settings, 8, np.array([[1, 2, 3]]))
    assert widths == [6, 4, 3, 2, 1]  # five tokens, five passes; the last drafts are cut at the limit


def test_drafts_adapt(monkeypatch):
    """ASSIST-03: on the heuristic schedule drafts grow by 2 when right and shrink by 1 when wrong."""
    settings = GenerationConfig(num_assistant_tokens=2, num_assistant_tokens_schedule="heuristic")
    _, drafts = passes(monkeypatch, MODEL, perfect(), settings, 18, np.array([[1, 2, 3]]))
    assert drafts == [2, 4, 6]
    settings = GenerationConfig(num_assistant_tokens=3, num_assistant_tokens_schedule="heuristic")
    wrong = lambda ids, mask, n: [(token + 1) % 11 for token in perfect()(ids, mask, n)]  # noqa: E731
    _, drafts = passes(monkeypatch, MODEL, wrong, settings, 18, np.array([[1, 2, 3]]))
    assert drafts[:5] == [3, 2, 1, 1, 1]


@pytest.mark.parametrize(("settings", "message"), [
    ({"input_ids": [[1], [2]]}, r"here are 2 rows \[ASSIST-05\]\. Generate them one by one"),
    ({"num_return_sequences": 2, "do_sample": True}, r"here are 2 rows"),
    ({"num_beams": 2}, r"here are 2 rows"),
    ({"use_cache": False}, r"use_cache=False: leaves a draft nothing .* \[ASSIST-05\]"),
    ({"assistant_model": MODEL}, r"assistant_model and prompt_lookup_num_tokens: are two drafts \[ASSIST-05\]"),
    ({"output_hidden_states": True, "return_dict_in_generate": True}, r"no state a step \[OUT-07\]"),
    ({"output_attentions": True, "return_dict_in_generate": True}, r"no state a step \[OUT-07\]"),
    ({"assistant_model": "gpt2", "prompt_lookup_num_tokens": None}, r"assistant_model of type str: must be"),
    ({"prompt_lookup_num_tokens": 0}, r"prompt_lookup_num_tokens=0: must be a whole number of at least 1 \[ASSIST-07\]"),
    ({"assistant_ensemble_weight": 0.5}, r"lets the draft change the result"),
])  # fmt: skip
def test_what_drafts_refuse(settings, message):
    """ASSIST-05, ASSIST-06: drafts are for one row, with a cache, from one source, and change nothing."""
    with pytest.raises(RefgenError, match=message):
        MODEL.generate(**({"input_ids": [[1]], "max_new_tokens": 2, "prompt_lookup_num_tokens": 3} | settings))


def test_vocabularies_must_match():
    """ASSIST-05: a draft in other ids is no draft."""
    small = random_model(GPT2Config(vocab_size=7, n_positions=9, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 3)
    with pytest.raises(RefgenError, match=r"vocabulary of 7: must share the model's, which has 11 \[ASSIST-05\]"):
        MODEL.generate([[1]], assistant_model=small)
