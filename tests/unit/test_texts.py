"""judging/texts.py: a subject with right logits and wrong texts, and the fault that its texts have in common."""

from types import SimpleNamespace

import numpy as np
import pytest

from refgen.conformance import check
from refgen.conformance.judging import texts
from refgen.conformance.planted.subject_faults import FAULTS, FaultyNetwork
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.oracle.families import FAMILIES
from refgen.oracle.faults import FAULTS as KNOWN

PROBES = ["probe.copy-*", "probe.induction.*", "probe.heads.*", "probe.first.*"]  # whose answers need what was cached


class OnlyInText(FaultyNetwork):
    """Generates with a fault of the forward pass; its logits are right."""

    forward = ReferenceSubject.forward


def with_fault(change):
    """The factory of such a subject."""

    def plant(folder):
        subject = OnlyInText(folder)
        subject.change = change
        return subject

    return plant


def member(family, value):
    """A fault that no list has."""
    return next(each for each in FAMILIES if each.name == family).member(value)


@pytest.mark.parametrize(
    "fault",
    [
        next(each for each in KNOWN if each.name == "cache-loses-last"),
        member("cached-window", 2),
        member("cached-first", 2),
        member("cached-position-plus", 2),
    ],
    ids=lambda fault: fault.name,
)
def test_wrong_texts_name_their_fault(fault):
    """CACHE-01, CACHE-02. The fault, or one that gives the same tokens, is the first suspect."""
    run = check(with_fault(fault.change), only=PROBES)
    named = {result.finding.fault for result in run.results if result.verdict.bad}
    assert len(named - {None}) == 1
    assert run.suspects[0].faults
    assert run.suspects[0].rule in fault.rules


def test_another_token_than_the_best():
    """GREEDY-01. A subject that picks the second best token is told so."""
    plant = next(fault.plant for fault in FAULTS if fault.name == "second-best")
    run = check(plant, only=PROBES)
    assert (run.suspects[0].rule, run.suspects[0].faults) == ("GREEDY-01", ("second-best",))


def test_right_texts_name_nothing():
    """A right subject stays right."""
    assert check(ReferenceSubject, only=PROBES).overall.code == 0


@pytest.mark.parametrize(("wrong", "right", "found"), [(3, 0, True), (2, 0, False), (3, 10, True), (0, 10, False)])
def test_how_many_texts_it_takes(monkeypatch, wrong, right, found):
    """A fault must explain three wrong texts, and what was right."""
    lab = SimpleNamespace(texts=[SimpleNamespace(is_right=n >= wrong) for n in range(wrong + right)])
    monkeypatch.setattr(texts, "says", lambda *_: True)
    assert (texts.common_fault(lab, KNOWN[:1]) is not None) is found
    monkeypatch.setattr(texts, "says", lambda lab, fault, text: not text.is_right)  # it makes all others wrong too
    assert (texts.common_fault(lab, KNOWN[:1]) is not None) is (found and not right)


@pytest.mark.parametrize(("logits", "second", "last"), [([1, 3, 2], 2, 1), ([3, 3, 1], 2, 1), ([0, 5, 5], 0, 2)])
def test_picks(logits, second, last):
    """GREEDY-01. What the two mistakes pick."""
    z = np.array([logits], dtype=float)
    assert texts.second_best(z).argmax() == second
    assert texts.last_of_ties(z).argmax() == last
