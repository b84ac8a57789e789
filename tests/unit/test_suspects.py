"""Suspects: the fault behind greedy tokens is named, others are not, and what is unknown is called so."""

import numpy as np
import pytest

from refgen.bench.weights import random_tensors, shape_config
from refgen.checkpoints import assemble
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import FAULTS
from refgen.oracle.margins import Flip, Judgement, judge_tokens
from refgen.oracle.suspects import Suspects, likelihood, suspects

PROMPTS = [[5, 81, 17, 3], [44, 9], [100, 7, 60, 12, 1]]


@pytest.fixture(scope="module")
def small():
    """A network of three narrow layers."""
    config = shape_config("3,2,32,128,64")
    return assemble(config, random_tensors(config))


def said(gpt2, fault, prompt, count=40):
    """What greedy decoding with a fault says."""
    ids = list(prompt)
    for _ in range(count):
        p = Pass(gpt2, np.array([ids]), np.ones((1, len(ids)), np.int64), prefill=len(prompt))
        ids.append(int(fault.change(p).run()[0, -1].argmax()))
    return ids[len(prompt) :]


def planted(name):
    """The fault of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


@pytest.mark.parametrize("name", ["cached-position-plus-one", "cache-loses-last", "scale-missing", "no-mean"])
def test_faults_are_named(small, name):
    """A text that a known fault made is FAIL, and three of them name it."""
    texts = [(prompt, said(small, planted(name), prompt)) for prompt in PROMPTS]
    assert "FAIL" in {judge_tokens(small, *text).verdict for text in texts}
    found = suspects(small, texts)
    assert found.named is planted(name), found.sentence
    assert found.sentence == f"It looks like {name}: {planted(name).sentence}"


def test_the_tokens_of_no_fault_name_none(small):
    """Tokens by chance come from no known fault."""
    tokens = np.random.default_rng(0).integers(0, 128, 30).tolist()
    found = suspects(small, [(PROMPTS[0], tokens)])
    assert found.named is None
    assert found.sentence == "None of the known faults explains the tokens."


def test_right_tokens_accuse_nobody(small):
    """What the network itself says is explained by faults that change nothing, and by none better."""
    unseen = planted("no-key-bias")
    found = suspects(small, [(PROMPTS[0], said(small, unseen, PROMPTS[0]))])
    assert unseen in [fault for fault, _ in found.faults]
    assert found.named is None


def test_what_cannot_be_told_apart():
    """All that explain the tokens, or some and how many more; one that is two decades ahead is named."""
    a, b, c, d, e, f = FAULTS[:6]
    assert Suspects(((a, -3.0), (b, -5.0)), 3).named is a
    few = Suspects(((a, -3.0),), 2)
    assert (few.named, few.sentence) == (None, "Too few tokens differ, 2, to tell which known fault it is.")
    near = Suspects(((a, -3.0), (b, -4.9)), 3)
    assert (near.named, near.sentence) == (None, f"It may be {a.name} or {b.name}: each explains every token.")
    many = Suspects(tuple((fault, -1.0) for fault in (a, b, c, d, e, f)), 3)
    names = " or ".join(fault.name for fault in (a, b, c, d))
    assert many.sentence == f"It may be {names}, or one of 2 others: each explains every token."


def test_likelihood_is_that_of_each_step():
    """A near tie lost has its own chance, a step that none was lost at the rest of 1."""
    judged = Judgement("float32", (Flip(1, 3, 4, 2, 1.0, 1.0),), np.array([0.1, 0.3, 0.9]))
    assert likelihood(judged) == pytest.approx(np.log10(0.9 * 0.158655 * 0.5), abs=1e-5)
