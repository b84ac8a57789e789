"""The loop, on models that are nothing but a function from ids to logits."""

import numpy as np
import pytest

from refgen import GenerationConfig, GenerationError
from refgen.generation import decode
from refgen.generation.pick import greedy
from refgen.generation.prompt import Prompt
from refgen.generation.stopping import stopping

V = 10


def one_hot(wanted):
    """Logits that make `wanted[b]` row b's best token."""
    return np.where(np.arange(V) == np.asarray(wanted)[:, None], 5.0, 0.0)


def count_up(ids, mask):
    """A model that says the last token plus one."""
    return one_hot((ids[:, -1] + 1) % V)


def run(next_logits, rows, limit=20, eos_ids=(), n_positions=99, pad=0, mask=None, processors=(), pick=greedy):
    """All steps for a prompt of these rows."""
    ids, ends = np.array(rows), GenerationConfig(eos_token_id=eos_ids or None)
    prompt = Prompt(ids, np.ones_like(ids) if mask is None else np.array(mask))
    return list(decode(next_logits, prompt, processors, pick, stopping(ends, limit, n_positions), pad))


def tokens(steps):
    """The new tokens, a list a row."""
    return np.array([step.tokens for step in steps]).T.tolist()


def test_greedy_follows_the_model_to_the_limit():
    """LOOP-01: logits, pick, append, until the limit; the last step names the finish."""
    steps = run(count_up, [[1], [5]], limit=4)
    assert tokens(steps) == [[2, 3, 4], [6, 7, 8]]
    assert [step.finish for step in steps] == [(None, None), (None, None), ("length", "length")]


def test_ties_go_to_the_lowest_id():
    """GREEDY-01: among equal logits the lowest id, however many tie."""
    assert tokens(run(lambda ids, mask: np.zeros((1, V)), [[3]], limit=3)) == [[0, 0]]


def test_float64_differences_below_float32_are_ties():
    """GREEDY-02: logits are rounded to float32 first, so a gap of 1e-12 is a tie and the lower id wins."""
    logits = np.zeros((1, V))
    logits[0, 7], logits[0, 2] = 1.0 + 1e-12, 1.0
    (step,) = run(lambda ids, mask: logits, [[3]], limit=2)
    assert step.tokens.tolist() == [2]
    assert step.logits.dtype == step.scores.dtype == np.float32


def test_finished_rows_are_filled_and_masked():
    """STOP-04 to STOP-06: a row keeps its end token, then gets padding that the model sees as padding."""
    seen = []

    def watched(ids, mask):
        seen.append((ids.copy(), mask.copy()))
        return count_up(ids, mask)

    steps = run(watched, [[7], [4]], eos_ids=(8,), pad=1)
    assert tokens(steps) == [[8, 1, 1, 1], [5, 6, 7, 8]]
    assert [step.finish[0] for step in steps] == ["eos"] * 4
    assert steps[-1].finish == ("eos", "eos")
    assert seen[-1][1].tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]


def test_an_end_token_in_the_prompt_stops_nothing():
    """STOP-02: even as the prompt's last token."""
    assert tokens(run(count_up, [[8, 8]], limit=4, eos_ids=(8,))) == [[9, 0]]


def test_end_and_limit_together_are_the_end():
    """STOP-01: a row whose last allowed token is the end token has finished by it."""
    assert run(count_up, [[6]], limit=3, eos_ids=(8,))[-1].finish == ("eos",)


def test_the_context_ends_rows_one_by_one():
    """LEN-04, LEN-05: each row gets n_positions + 1 tokens of its own, padding not counted."""
    steps = run(count_up, [[0, 0, 1], [1, 2, 3]], mask=[[0, 0, 1], [1, 1, 1]], n_positions=4, limit=99, pad=0)
    assert tokens(steps) == [[2, 3, 4, 5], [4, 5, 0, 0]]
    assert steps[-1].finish == ("context", "context")


def test_a_pick_can_be_somebody_elses_tokens():
    """The oracle's use: the same loop, another's tokens, our scores."""
    theirs = iter([[4], [4], [9]])
    steps = run(count_up, [[1]], limit=4, pick=lambda scores: np.array(next(theirs)))
    assert tokens(steps) == [[4, 4, 9]]
    assert [int(step.scores.argmax()) for step in steps] == [2, 5, 5]


def test_processors_see_all_ids_and_leave_logits_alone():
    """OUT-02, PROC-03: a processor gets prompt and new tokens; the step keeps raw logits beside scores."""
    widths = []

    def ban_next(ids, scores):
        widths.append(ids.shape[1])
        return np.where(np.arange(V) == (ids[:, -1:] + 1) % V, -np.inf, scores)

    steps = run(count_up, [[1, 2]], limit=4, processors=[ban_next])
    assert widths == [2, 3]
    assert tokens(steps) == [[0, 0]]
    assert np.isfinite(steps[0].logits).all()
    assert steps[0].scores[0, 3] == -np.inf


@pytest.mark.parametrize(("bad", "message"), [
    (np.nan, r"row 1: the model's logits are not finite \[SAMP-08\]"),
    (np.inf, r"row 1: the model's logits are not finite"),
])  # fmt: skip
def test_logits_that_are_no_numbers_are_an_error(bad, message):
    """GREEDY-03, SAMP-08: NaN and infinity stop the run, where transformers goes on greedily."""
    logits = np.zeros((2, V))
    logits[1, 3] = bad
    with pytest.raises(GenerationError, match=message):
        run(lambda ids, mask: logits, [[1], [1]])


def test_nothing_left_to_choose_is_an_error():
    """SAMP-08: when settings remove every token there is no answer; transformers says id 0."""
    with pytest.raises(GenerationError, match="row 0: the settings leave no token to choose"):
        run(count_up, [[1]], processors=[lambda ids, scores: np.full_like(scores, -np.inf)])
