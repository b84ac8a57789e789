"""Smoke tests: whether the adapter works at all. What fails here says nothing of the model, and ends the run."""

import numpy as np

from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, LabCheck, Verdict
from refgen.conformance.questions.model_talk import ModelTalk
from refgen.errors import TokenizerError


def checks(lab: Lab) -> list[LabCheck]:  # noqa: ARG001 - all sources have one signature
    """One for each operation that the subject claims, with the simplest question there is."""
    return [
        LabCheck(f"smoke.{op}", "smoke", (), f"the adapter answers {op}", frozenset({op}), find)
        for op, find in (
            ("encode", encode),
            ("decode", decode),
            ("forward", forward),
            ("process", process),
            ("generate", generate),
        )
    ]


def prompt(lab: Lab) -> list[int]:
    """Three tokens of any model; of one that has words, a word."""
    try:
        return [1, 2, 3] if lab.about.loads else lab.reference(lab.own).tokenizer.encode("Hello")
    except TokenizerError:  # a probe knows letters only
        return [0, 1, 2]


def encode(lab: Lab) -> Finding:
    """A word to ids."""
    if not ModelTalk(lab, "smoke.encode").speaks:
        return Finding(Verdict.SKIP, "the model has no tokenizer")
    ids = lab.ask("encode", lab.own, text="Hello")["ids"]
    return Finding(Verdict.PASS if ids else Verdict.FAIL, f"ids of 'Hello' are {ids}")


def decode(lab: Lab) -> Finding:
    """Ids to a text."""
    if not ModelTalk(lab, "smoke.decode").speaks:
        return Finding(Verdict.SKIP, "the model has no tokenizer")
    text = lab.ask("decode", lab.own, ids=lab.reference(lab.own).tokenizer.encode("Hello"), skip_special_tokens=False)[
        "text"
    ]
    return Finding(Verdict.PASS if text else Verdict.FAIL, f"text is {text!r}")


def forward(lab: Lab) -> Finding:
    """Logits of the right shape."""
    V = lab.reference(lab.own).gpt2.config.vocab_size
    logits = lab.ask("forward", lab.own, input_ids=[prompt(lab)])["logits"]
    right = logits.shape[2] == V and bool(np.isfinite(logits).all())
    return Finding(
        Verdict.PASS if right else Verdict.FAIL,
        f"logits of shape {list(logits.shape)}, expected {V} finite ones a position",
    )


def process(lab: Lab) -> Finding:
    """Scores of logits that no setting changes."""
    scores = lab.ask("process", lab.own, input_ids=[[1]], logits=[[0.0, 1.0, 2.0]])["scores"]
    return Finding(Verdict.PASS if np.isfinite(scores).any() else Verdict.FAIL, f"scores are {scores.tolist()}")


def generate(lab: Lab) -> Finding:
    """One greedy token."""
    row = lab.ask("generate", lab.own, input_ids=[prompt(lab)], max_new_tokens=1, do_sample=False)["rows"][0]
    right = len(row.get("new_ids", [0])) > 0
    return Finding(Verdict.PASS if right else Verdict.FAIL, f"new_ids {row.get('new_ids')}, expected a token")
