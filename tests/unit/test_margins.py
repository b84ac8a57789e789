"""Bug or tie: margins against the network itself, the count of flips against all possible outcomes, the verdicts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen.errors import InputError, OracleError
from refgen.model import forward
from refgen.oracle.formats import cast
from refgen.oracle.margins import ODDS, Flip, Judgement, at_least, judge_tokens, together, up_to_end
from refgen.oracle.noise import expected_error
from tests.strategies import models


@settings(max_examples=20)
@given(models("float32"), st.data())
def test_margins_are_those_behind_their_own_tokens(model, data):
    """Each step's best token, rank and margin are those of a forward pass over the prefix alone."""
    token = st.integers(0, model.config.vocab_size - 1)
    prompt, new = (data.draw(st.lists(token, min_size=1, max_size=6)) for _ in range(2))
    judged = judge_tokens(model.gpt2, prompt, new, "bfloat16", samples=2)
    network, flips = cast(model.gpt2, "bfloat16"), {flip.step: flip for flip in judged.flips}
    assert len(judged.chances) == len(new)
    for step, taken in enumerate(new):
        z = forward(network, np.array([prompt + new[:step]]))[0, -1]
        if step in flips:
            flip = flips[step]
            assert (flip.token, flip.best, flip.rank) == (taken, z.argmax(), 1 + (z > z[taken]).sum())
            assert flip.margin == pytest.approx(z.max() - z[taken], abs=1e-9)
        else:
            assert z[taken] == z.max()


def test_the_exact_text_passes_and_one_wrong_token_fails(shakespeare):
    """refgen's own greedy text is PASS; another token at step 5 is FAIL there, and behind it the text is judged anew."""
    model, tokenizer = shakespeare
    prompt = tokenizer.encode("ROMEO:\n")
    new = model.generate([prompt], max_new_tokens=20)[0, len(prompt) :].tolist()
    judged = judge_tokens(model.gpt2, prompt, new)
    assert (judged.verdict, judged.sentence, judged.flips) == ("PASS", "PASS: all 20 tokens are the best.", ())
    changed = [*new[:5], (new[5] + 1) % 1024]
    changed += model.generate([prompt + changed], max_new_tokens=9)[0, len(prompt) + 6 :].tolist()
    judged = judge_tokens(model.gpt2, prompt, changed)
    assert judged.verdict == "FAIL"
    assert [flip.step for flip in judged.flips] == [5]
    assert judged.sentence.startswith(f"FAIL: step 5: token {changed[5]} instead of {new[5]}, rank ")
    assert judged.sentence.endswith(" sigma; rounding of float32 explains 4.")


def test_equal_logits_are_a_tie(shakespeare):
    """Two tokens with the same row of weights: either may be taken, and no error is expected between them."""
    from dataclasses import replace

    model, tokenizer = shakespeare
    prompt = tokenizer.encode("ROMEO:\n")
    (best,) = model.generate([prompt], max_new_tokens=1)[0, len(prompt) :].tolist()
    twin = next(each for each in range(best + 1, 1024) if each not in prompt)
    head = model.gpt2.lm_head.copy()
    head[twin] = head[best]
    untied = replace(model.gpt2.config, tie_word_embeddings=False)
    judged = judge_tokens(replace(model.gpt2, config=untied, lm_head=head), prompt, [twin])
    assert judged.verdict == "TIE"
    assert (judged.flips[0].margin, judged.flips[0].best) == (0, best)


def test_sigma_is_that_of_the_difference(shakespeare):
    """The root mean square, over the noisy runs, of the error of the best logit minus that of the taken one."""
    gpt2, ids = shakespeare[0].gpt2, [813, 25, 198, 40, 458, 7]
    noise = expected_error(gpt2, np.array([ids[:-1]]), dtype="float16", samples=5, seed=3)
    judged = judge_tokens(gpt2, ids[:2], ids[2:], "float16", samples=5, seed=3)
    assert judged.flips
    for flip in judged.flips:
        errors = noise.samples["lm_head"][:, 0, 1 + flip.step].astype(np.float64)
        expected = np.sqrt(((errors[:, flip.best] - errors[:, flip.token]) ** 2).mean())
        assert flip.sigma == pytest.approx(expected, rel=1e-6)
        assert flip.sigmas == pytest.approx(flip.margin / flip.sigma)


def test_four_sigma_are_a_tie():
    """And no more than that."""
    for sigmas, tie in ((0.0, True), (4.0, True), (4.01, False), (np.inf, False)):
        assert Flip(0, 1, 2, 2, sigmas, 1.0).is_tie is tie
    assert not Flip(0, 1, 2, 2, 1e-9, 0.0).is_tie


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 9))
def test_the_chance_of_so_many(chances, count):
    """By adding up all outcomes."""
    outcomes = product((0, 1), repeat=len(chances))
    expected = sum(
        np.prod([c if hit else 1 - c for c, hit in zip(chances, outcome, strict=True)])
        for outcome in outcomes
        if sum(outcome) >= count
    )
    assert at_least(count, np.array(chances)) == pytest.approx(expected, abs=1e-12)


def test_many_near_ties_are_a_fail_together():
    """Three flips of 1 sigma in 100 steps with a chance of 0.001 each are nothing; sequence upon sequence, they are."""
    flips = (Flip(3, 1, 2, 2, 1.0, 1.0),) * 3
    one = Judgement("bfloat16", flips, np.full(100, 1e-3))
    assert (one.verdict, one.fault, one.expected) == ("TIE", None, pytest.approx(0.1))
    all_of_them = together([one] * 10)
    assert all_of_them.verdict == "FAIL"
    assert all_of_them.odds < ODDS < one.odds
    assert all_of_them.sentence == "FAIL: 30 of 1000 tokens are near ties lost; rounding of bfloat16 loses 1.0."
    assert one.sentence == (
        "TIE: 3 of 100 tokens are not the best, first at step 3; rounding of bfloat16 explains each, the largest margin is 1.0 sigma."
    )


@pytest.mark.parametrize(("new", "judged", "goes_on"), [
    ([5, 6], [5, 6], None), ([5, 0], [5, 0], None), ([5, 0, 0, 0], [5, 0], None), ([0, 7, 7], [0], None),
    ([5, 1, 6, 7], [5, 1], 2),
])  # fmt: skip
def test_text_ends_with_the_end_token(new, judged, goes_on):
    """Up to the first end token; filling may follow, text may not."""
    assert up_to_end(new, (0, 1)) == (judged, goes_on)


def test_going_on_is_a_fail(shakespeare):
    """An implementation that does not stop is told so."""
    model, _ = shakespeare
    best = int(forward(model.gpt2, np.array([[813, 25]]))[0, -1].argmax())
    judged = judge_tokens(model.gpt2, [813, 25], [best, 198, 40], end_ids=[best])
    assert judged.sentence == "FAIL: text goes on at step 1, after the end token."


def test_what_is_refused(shakespeare):
    """Nothing to judge, ids that the model does not have, more than it has positions for."""
    gpt2 = shakespeare[0].gpt2
    for prompt, new in (([], [1]), ([1], [])):
        with pytest.raises(OracleError, match="must hold at least one token each"):
            judge_tokens(gpt2, prompt, new)
    with pytest.raises(InputError, match="token ids of this model run from 0 to 1023"):
        judge_tokens(gpt2, [1], [2, 1024])
    with pytest.raises(InputError, match="n_positions=256"):
        judge_tokens(gpt2, [1] * 200, [1] * 58)
