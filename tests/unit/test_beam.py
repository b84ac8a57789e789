"""Beam search against exhaustive search, and its pieces one by one."""

import warnings
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import GenerationError, GPT2Config, InputError
from refgen.cache import Cache
from refgen.generation import stopping
from refgen.generation.beam import BeamSettings, beam_search, best, drawn
from refgen.generation.processors.cuts import typical_p
from refgen.generation.processors.sampling import min_p, top_p
from refgen.generation.prompt import Prompt
from refgen.generation.scores import log_softmax
from tests.strategies import models, prompts, random_model

SEEDS = st.integers(0, 2**32 - 1)


def log_probability(model, prompt, sequence):
    """The sum of log-probabilities of `sequence` after `prompt`, teacher-forced."""
    ids = np.array([[*prompt, *sequence]])
    logp = log_softmax(model(ids).logits[0].astype(np.float32))
    return float(sum(logp[len(prompt) - 1 + i, token] for i, token in enumerate(sequence)))


@settings(max_examples=15)
@given(st.data())
def test_enough_beams_find_the_best_sequence(data):
    """BEAM-02, BEAM-09: with as many beams as there are sequences, beam search is exhaustive search."""
    model = data.draw(models(vocab_size=3))
    prompt = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    output = model.generate(
        [prompt], num_beams=9, max_new_tokens=3, num_return_sequences=3, return_dict_in_generate=True
    )
    everything = {sequence: log_probability(model, prompt, sequence) for sequence in product(range(3), repeat=3)}
    expected = sorted(everything.values(), reverse=True)[:3]
    np.testing.assert_allclose(output.sequences_scores, np.array(expected) / 3, atol=1e-4)
    assert everything[tuple(output.sequences[0, len(prompt) :].tolist())] == pytest.approx(expected[0], abs=3e-4)


@settings(max_examples=30)
@given(st.data())
def test_scores_are_those_of_the_tokens(data):
    """BEAM-06, BEAM-13: a sequence's score is the sum over its tokens of the scores they were chosen with, by length."""
    model = data.draw(models(vocab_size=8))
    ids, mask = data.draw(prompts(8))
    K, penalty = data.draw(st.integers(2, 4)), data.draw(st.sampled_from((-1.0, 0.0, 1.0, 2.0)))
    eos = data.draw(st.lists(st.integers(0, 7), max_size=1))
    call = {
        "num_beams": K,
        "max_new_tokens": 5,
        "num_return_sequences": K,
        "eos_token_id": eos or None,
        "pad_token_id": 0,
    }
    output = model.generate(ids, mask, length_penalty=penalty, return_dict_in_generate=True, output_scores=True, **call)
    assert (np.diff(output.sequences_scores.reshape(len(ids), K), axis=1) <= 0).all()
    for row, (origins, score, finish) in enumerate(
        zip(output.beam_indices, output.sequences_scores, output.finish, strict=True)
    ):
        steps = int((origins >= 0).sum())
        tokens = output.sequences[row, ids.shape[1] :][:steps]
        total = sum(float(output.scores[t][origins[t], tokens[t]]) for t in range(steps))
        assert score == pytest.approx(total / steps**penalty, rel=1e-4, abs=1e-4)
        assert (finish == "eos") == (tokens[-1] in eos)
        assert finish == "eos" or (finish == "length" and steps == 5)
        assert not set(tokens[:-1].tolist()) & set(eos)
        assert (output.sequences[row, ids.shape[1] + steps :] == 0).all()


@settings(max_examples=30)
@given(st.data())
def test_a_prompt_is_searched_as_it_would_be_alone(data):
    """BATCH-01, BEAM-04, BEAM-07: batched, left-padded, cached or not, every prompt has the result it has alone."""
    model = data.draw(models(vocab_size=12))
    ids, mask = data.draw(prompts(12))
    call = {"num_beams": 3, "max_new_tokens": 5, "eos_token_id": 4, "pad_token_id": 0, "return_dict_in_generate": True}
    call["early_stopping"] = data.draw(st.sampled_from((True, False, "never")))
    together = model.generate(ids, mask, use_cache=data.draw(st.booleans()), **call)
    for row in range(len(ids)):
        own = ids[row : row + 1, mask[row].astype(bool)]
        alone = model.generate(own, np.ones_like(own), **call)
        np.testing.assert_allclose(together.sequences_scores[row], alone.sequences_scores[0], rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.data(), SEEDS)
def test_own_seeds_make_sampled_beams_independent(data, seed):
    """SAMP-09, BEAM-11: with a seed a prompt, beam sampling draws for each what it draws alone; one seed repeats."""
    model = data.draw(models(vocab_size=12))
    ids, mask = data.draw(prompts(12))
    seeds = [seed + row for row in range(len(ids))]
    call = {"num_beams": 2, "max_new_tokens": 4, "do_sample": True, "top_k": 0, "pad_token_id": 0}
    together = model.generate(ids, mask, seed=seeds, **call)
    np.testing.assert_array_equal(together, model.generate(ids, mask, seed=seeds, **call))
    own = ids[:1, mask[0].astype(bool)]
    alone = model.generate(own, np.ones_like(own), seed=seeds[:1], **call)[0, own.shape[1] :]
    np.testing.assert_array_equal(together[0, ids.shape[1] :], alone)


def test_ties_go_to_the_lower_index():
    """BEAM-03: the largest first, equal ones in order."""
    assert best(np.array([[1, 3, 3, 2, 3]]), 4).tolist() == [[1, 2, 4, 3]]


@pytest.mark.parametrize(
    ("processor", "setting"), [(top_p, {"p": 0.1}), (min_p, {"p": 1.0}), (typical_p, {"mass": 0.01})]
)
def test_a_token_that_can_go_on_is_kept(processor, setting):
    """WARP-01: with `keep` two, the second in line stays however narrow the setting."""
    scores = np.array([[9.0, 4.0, 1.0, 0.0]], np.float32)
    counts = [int(np.isfinite(processor(None, scores, keep=keep, **setting)).sum()) for keep in (1, 2, 3)]
    assert counts == [1, 2, 3]


def test_functions_of_ones_own_see_beams():
    """PREF-01, STOP-09, PROC-03: the beams of a prompt share its number; criteria and processors see every beam."""
    model = random_model(GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 3)
    numbers = set()

    def odd(number, ids):
        numbers.add(number)
        return [1, 3, 5, 7]

    call = {"num_beams": 3, "max_new_tokens": 6, "pad_token_id": 0}
    output = model.generate([[1], [2]], prefix_allowed_tokens_fn=odd, **call)
    assert numbers == {0, 1}
    assert (output[:, 1:] % 2 == 1).all()
    stopped = model.generate(
        [[1], [2]], stopping_criteria=[lambda ids, _: np.full(len(ids), ids.shape[1] == 4)], **call
    )
    assert stopped.shape == (2, 4)


def test_the_context_ends_beams(shakespeare):
    """LEN-04: beams fill the positions and one more, then finish by context."""
    model, _ = shakespeare
    output = model.generate(
        [[5] * 250], num_beams=2, max_new_tokens=99, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True
    )
    assert output.sequences.shape == (1, 257)
    assert output.finish == ("context",)


def test_what_beams_refuse(shakespeare):
    """BEAM-07, BEAM-09, BEAM-12: each refusal says what to do."""
    model, _ = shakespeare

    class Recorder:
        put = end = print

    for call, message in (
        ({"num_return_sequences": 3}, r"num_return_sequences=3: there are num_beams=2 \[BEAM-09\]"),
        ({"early_stopping": "always"}, r"must be True, False or \"never\" \[BEAM-07\]"),
        ({"streamer": Recorder()}, r"streamer: beam search knows its text only at the end \[BEAM-12\]"),
        ({"do_sample": True, "uniforms": [0.5] * 9}, r"uniforms: beams draw without replacement"),
        ({"do_sample": True, "seed": [1, 2]}, r"2 seeds: there are 1 rows to sample"),
    ):
        with pytest.raises(GenerationError, match=message):
            model.generate([[5]], num_beams=2, max_new_tokens=2, **call)
    with pytest.raises(InputError, match="the prompt is empty"):
        model.generate([[]], num_beams=2)


# --- Against a table that says by hand what follows what ---------------------------------------------------


def following(table, V):
    """A `next_logits` that gives every next token the probability the table names after the last one; else 1e-9."""

    def next_logits(ids, mask):
        p = np.full((len(ids), V), 1e-9)
        for row, last in enumerate(ids[:, -1]):
            for token, probability in table.get(int(last), {}).items():
                p[row, token] = probability
        return np.log(p)

    return next_logits


def search(table, V=6, choose=best, eos=(1,), new=6, prompt=((0,),), **settings):
    """Two beams from each prompt, by the table."""
    ids = np.repeat(np.array(prompt), 2, axis=0)
    conditions = {"eos": partial(stopping.eos, eos_ids=eos), "length": partial(stopping.length, max_length=1 + new)}
    settings = {"num_beams": 2, "length_penalty": 1.0, "early_stopping": False, "max_length": 1 + new, "n_ends": 1,
                "pad": 1} | settings  # fmt: skip
    prompt = Prompt(ids, np.ones_like(ids))
    return beam_search(following(table, V), [Cache()], prompt, [], choose, conditions, BeamSettings(**settings))


# By hand, with 1 the end. In steps: 2 .5, 3 .3 | 31 .27 ends, 24 .26 | 245 .156, 241 .104 ends | 2451 .156 ends.
SLOWLY = {0: {2: 0.5, 3: 0.3, 4: 0.2}, 2: {4: 0.52, 1: 0.48}, 3: {1: 0.9, 4: 0.1}, 4: {5: 0.6, 1: 0.4}, 5: {1: 1.0}}
# 2 .5, 3 .3 | 21 .45 ends, 31 .27 ends, and 24 .05, 34 .03 go on for ever, which pays if length does.
AT_ONCE = {0: {2: 0.5, 3: 0.3, 4: 0.2}, 2: {1: 0.9, 4: 0.1}, 3: {1: 0.9, 4: 0.1}, 4: {4: 1.0}}


@pytest.mark.parametrize(
    ("table", "early_stopping", "length_penalty", "steps", "sums", "lengths"),
    [
        (SLOWLY, True, 1.0, 3, (0.27, 0.104), (2, 3)),  # the pool is full
        (SLOWLY, False, 1.0, 4, (0.156, 0.27), (4, 2)),  # log .156 / 3 beats log .104 / 3, and then there is nothing
        (SLOWLY, False, 0.0, 4, (0.27, 0.156), (2, 4)),
        (SLOWLY, False, -1.0, 4, (0.27, 0.104), (2, 3)),  # 3 log .156 beats 3 log .104, but 4 log .156 does not
        (AT_ONCE, False, 1.0, 2, (0.45, 0.27), (2, 2)),  # log .05 / 2 does not beat log .27 / 2
        (AT_ONCE, "never", 1.0, 6, (0.45, 0.05), (2, 6)),  # but log .05 / 6 does
        (AT_ONCE, "never", 0.0, 2, (0.45, 0.27), (2, 2)),
    ],
)
def test_when_a_prompt_is_closed(table, early_stopping, length_penalty, steps, sums, lengths):
    """BEAM-05 to BEAM-08: worked out by hand: which sequences end, which of them are kept, and when the search is over."""
    result = search(table, early_stopping=early_stopping, length_penalty=length_penalty)
    assert len(result.scores) == steps
    assert result.lengths[0].tolist() == [1 + length for length in lengths]
    expected = [np.log(p) / length**length_penalty for p, length in zip(sums, lengths, strict=True)]
    np.testing.assert_allclose(result.sequences_scores[0], expected, rtol=1e-5)


def test_candidates_are_drawn_by_probability():
    """BEAM-11: worked out by hand: probabilities over exponentials, the largest first; of probability 0 in order."""
    sums = np.log(np.array([[0.5, 0.3, 0.2, 1e-99, 1e-99]]))
    choose = drawn(lambda shape: np.array([[2.0, 0.5, 0.1, 1.0, 1.0]]))  # .25, .6, 2, 0, 0
    assert choose(sums.astype(np.float32), 4).tolist() == [[2, 1, 0, 3]]


def test_beams_keep_one_that_goes_on_though_nothing_ends(shakespeare):
    """WARP-01: without end tokens beam sampling keeps two tokens, as with one."""
    model, _ = shakespeare
    call = {"num_beams": 2, "do_sample": True, "max_new_tokens": 1, "pad_token_id": 0, "output_scores": True}
    for eos, kept in ((None, 2), (5, 2), ([5, 6], 3)):
        output = model.generate([[9]], top_k=1, seed=1, eos_token_id=eos, return_dict_in_generate=True, **call)
        assert np.isfinite(output.scores[0]).sum(axis=1).tolist() == [kept, kept]


def test_a_full_prompt_waits_for_the_others(shakespeare):
    """LEN-04, BATCH-01: a prompt whose beams fill the positions is closed; a shorter one in its batch goes on."""
    model, _ = shakespeare
    ids = np.arange(510).reshape(2, 255) % 900
    mask = (np.arange(255) >= [[0], [2]]).astype(np.int64)
    call = {"num_beams": 2, "max_new_tokens": 9, "eos_token_id": None, "pad_token_id": 0}
    together = model.generate(ids, mask, **call)
    assert together.shape == (2, 259)
    np.testing.assert_array_equal(together[0, :257], model.generate(ids[:1], mask[:1], **call)[0])
    np.testing.assert_array_equal(together[1, 2:], model.generate(ids[1:, 2:], mask[1:, 2:], **call)[0])


def test_a_full_prompt_is_closed_whatever_its_pool_holds():
    """LEN-04, BATCH-01: also where only one token is left to every beam, so that others have nothing real to offer."""
    model = random_model(GPT2Config(vocab_size=7, n_positions=8, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 0)
    ids, mask = np.array([[1, 2, 3, 4, 5], [4, 4, 4, 1, 2]]), np.array([[1] * 5, [0, 0, 0, 1, 1]])
    call = {"num_beams": 3, "do_sample": True, "top_k": 0, "top_h": 0.01, "eos_token_id": [3, 5, 6], "pad_token_id": 0}
    both = model.generate(ids, mask, **call, max_new_tokens=6, seed=0)
    alone = model.generate(ids[:1], mask[:1], **call, max_new_tokens=6, seed=0)
    np.testing.assert_array_equal(both[0, : alone.shape[1]], alone[0])


def test_a_beam_with_nothing_left_spoils_no_other():
    """BEAM-11, SAMP-08: renormalised, a beam that cannot win has no numbers; the beam that can is drawn from as ever."""

    def only_two(ids, scores):
        first = np.where(np.arange(6) == 2, scores, -np.inf)
        return first if ids.shape[1] == 1 else np.where(ids[:, -1:] == 2, scores, np.nan)

    ids = np.zeros((2, 1), dtype=np.int64)
    conditions = {"length": partial(stopping.length, max_length=3)}
    settings = BeamSettings(2, 1.0, False, 3, 0, 0)
    table = {0: {2: 1.0}, 2: {4: 1.0}}
    choose = drawn(np.ones)
    result = beam_search(
        following(table, 6), [Cache()], Prompt(ids, np.ones_like(ids)), [only_two], choose, conditions, settings
    )
    assert result.sequences[0, 0].tolist() == [0, 2, 4]


def test_a_beam_that_cannot_win_does_not_win_by_infinity():
    """SAMP-08: an infinite score is refused also where the beam has ended and runs on only as a filler."""

    def two_or_end(ids, scores):
        if ids.shape[1] == 1:
            return np.where(np.isin(np.arange(6), (2, 3)), scores, -np.inf)
        return np.where((np.arange(6) == 4) & (ids[:, -1:] == 3), np.inf, scores)

    ids = np.zeros((2, 1), dtype=np.int64)
    conditions = {"eos": partial(stopping.eos, eos_ids=(3,)), "length": partial(stopping.length, max_length=3)}
    settings = BeamSettings(2, 1.0, False, 3, 1, 0)
    prompt, caches = Prompt(ids, np.ones_like(ids)), [Cache()]
    with pytest.raises(GenerationError, match=r"\[SAMP-08\]"):
        beam_search(following({0: {2: 1.0}}, 6), caches, prompt, [two_or_end], best, conditions, settings)


def rising(ids, scores):
    """Every token scores 2e38: once a float32 holds it, twice it does not."""
    return np.full_like(scores, 2e38)


@pytest.mark.parametrize("choose", [best, drawn(np.ones)])
def test_a_sum_that_overflows_is_an_error(choose):
    """SAMP-08, TEMP-03: finite scores whose sum is infinite leave nothing to compare beams by, or to draw from."""
    ids = np.zeros((2, 1), dtype=np.int64)
    prompt, table = Prompt(ids, np.ones_like(ids)), following({}, 6)
    for new, refused in ((1, False), (2, True)):
        conditions = {"length": partial(stopping.length, max_length=1 + new)}
        settings = BeamSettings(2, 1.0, False, 1 + new, 0, 0)
        if refused:
            with pytest.raises(GenerationError, match=r"row 0: .*overflows float32 \[SAMP-08\]"):
                beam_search(table, [Cache()], prompt, [rising], choose, conditions, settings)
        else:
            result = beam_search(table, [Cache()], prompt, [rising], choose, conditions, settings)
            assert result.sequences_scores[0, 0] == np.float32(2e38)


@given(st.integers(0, 200), st.sampled_from([1e-39, 3e-39, 1e-38, 1e-37]), st.sampled_from([1.0, 3.0]), st.booleans())
def test_sampled_sums_are_numbers_or_refused(seed, temperature, shift, closes):
    """SAMP-08, BEAM-11: whatever a tiny temperature makes of scores, no answer scores infinity, nor what is no number."""
    config = GPT2Config(vocab_size=7, n_positions=8, n_embd=8, n_layer=1, n_head=2, eos_token_id=None)
    call = {"num_beams": 2, "do_sample": True, "temperature": temperature, "top_k": 0, "seed": seed, "pad_token_id": 0,
            "eos_token_id": 3 if closes else None, "return_dict_in_generate": True, "max_new_tokens": 4}  # fmt: skip
    try:
        said = random_model(config, seed).generate(
            [[4], [5]], **call, logits_processor=[lambda ids, scores: scores + shift]
        )
    except GenerationError:
        return  # refused
    assert not np.isposinf(said.sequences_scores).any()
    assert not np.isnan(said.sequences_scores).any()


def test_sums_that_overflow_warn_nowhere():
    """BEAM-06: a sum of the smallest numbers, times a length, is no number of NumPy's for the user to hear about."""
    model = random_model(GPT2Config(vocab_size=7, n_positions=8, n_embd=8, n_layer=1, n_head=2, eos_token_id=None), 0)
    call = {"num_beams": 2, "length_penalty": -1.0, "forced_eos_token_id": 0, "remove_invalid_values": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate([[4]], **call, max_new_tokens=5, pad_token_id=0).shape == (1, 6)
