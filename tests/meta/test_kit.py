"""The kit tested: every planted fault is caught, and the rule it breaks is the first suspect."""

from collections import Counter
from functools import cache

import pytest
from hypothesis import settings

from refgen.conformance.adapters.python import PythonSubject, describe
from refgen.conformance.cases import CaseCheck, read, suites
from refgen.conformance.faults import FAULTS
from refgen.conformance.lab import Lab
from refgen.conformance.models import Models
from refgen.conformance.runner import check
from tests.docs.test_spec import RULES

NAMES = [fault.name for fault in FAULTS]
CASES = {case.id: case for path in suites() for case in read(path)}
KILLS = sorted((case.id, name) for case in CASES.values() for name in case.kills)
LEVELS = {  # where each family shows
    "tokenizer": ["tokenizer"],
    "forward": ["forward"],
    "process": ["process", "probes"],
    "loop": ["process", "loop", "relations", "probes"],
    "sampling": ["process", "probes"],
}
STRIDE = {"tokenizer": 3, "forward": 8, "process": 3, "loop": 12, "sampling": 8}  # in the quick profile
BLIND = {"cached-padding-visible"}  # of the forward family: no case has both a cache and padding; a probe has
UNSEEN = {"head-tied", "layers-sorted-as-text"}


@cache
def models():
    """Folders, written once."""
    return Models()


def subject(fault):
    """Of a planted fault."""
    return PythonSubject(fault.plant, describe(fault.plant, models()["shakespeare"]))


def test_the_list():
    """At least sixty, each with its own name, a sentence, rules of SPEC.md, over all levels."""
    assert len(set(NAMES)) == len(NAMES) >= 60
    assert {fault.level for fault in FAULTS} == LEVELS.keys()
    for fault in FAULTS:
        assert fault.sentence.endswith("."), fault.name
        assert set(fault.rules) <= RULES.keys(), fault.name


@pytest.mark.parametrize(("case", "name"), KILLS)
def test_a_case_kills_what_it_says(case, name):
    """With the fault planted, the case fails."""
    fault = FAULTS[NAMES.index(name)]
    finding = CaseCheck(CASES[case]).run(Lab(subject(fault), models()))
    assert finding.verdict.bad, finding


def sampled():
    """All faults in the long profile, else some of each family."""
    if settings.get_current_profile_name() == "long":
        return FAULTS
    families = Counter()
    chosen = []
    for fault in FAULTS:
        chosen += [fault] if families[fault.level] % STRIDE[fault.level] == 0 else []
        families[fault.level] += 1
    return chosen


def test_faults_are_caught_and_named(figures):
    """Every fault gets NOT CONFORMANT, and in nine of ten one of its rules is the first suspect."""
    caught, named, missed = 0, 0, []
    for fault in sampled():
        run = check(subject(fault), models(), levels=LEVELS[fault.level])
        bad = [result for result in run.results if result.verdict.bad]
        caught += bool(bad)
        right = bool(run.suspects) and run.suspects[0].rule in fault.rules
        named += right
        if not bad or not right:
            missed.append((fault.name, run.suspects[0].rule if run.suspects else "nothing"))
    total = len(sampled())
    figures.append(f"faults planted in subjects: {caught} of {total} caught, {named} named first; others: {missed}")
    assert caught == total, missed
    assert named >= 0.9 * total, missed
