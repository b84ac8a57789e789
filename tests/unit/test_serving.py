"""The claim "serving" on a server with planted faults (openai_server.py). Rules SERVE-01 to SERVE-10 and those a server keeps.

The whole table, each fault asked every question, is long: it is made under HYPOTHESIS_PROFILE=long.
"""

import os

import pytest

from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.serving import checks
from refgen.conformance.questions.serving.material import Material
from refgen.conformance.subjects.http import HttpSubject, connect
from refgen.conformance.subjects.protocol import SkippedError
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.conformance.subjects.wire import Wire
from refgen.names import find_model
from refgen.spec import rules
from tests.openai_server import FAULTS, Server

FOLDER = find_model("shakespeare")
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
KINDS = {
    "legacy": {}, "vllm": {"owner": "vllm"}, "text": {"texts_only": True}, "chat": {"shape": "chat", "owner": "no_done"},
    "poor": {"texts_only": True, "refuses": ["logprobs", "n", "seed", "echo", "logit_bias"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def known():
    """A profile of the correct server, and what the reference knows."""
    with Server(FOLDER) as url:
        subject = connect(url, FOLDER)
        subject.close()
    return subject, Material(Lab(subject, {"shakespeare": FOLDER}).reference("shakespeare"))


def asked(subject, material, only=None):
    """Every question's finding by its id; what the server cannot be asked is left out."""
    lab = Lab(subject, {"shakespeare": FOLDER})
    findings = {}
    for check in checks(lab, material):
        if check.needs <= subject.about.can and only in (None, check.id):
            try:
                findings[check.id] = check, check.run(lab)
            except SkippedError as error:
                findings[check.id] = check, Finding(Verdict.SKIP, str(error))
    return findings


def rule_of(check, finding):
    return (finding.rules or check.rules)[0]


def faulty(known, url):
    subject, material = known
    return HttpSubject(Wire(url), FOLDER, subject.profile, subject.tokenizer, "float32", {"logprobs": "raw"}), material


@pytest.mark.parametrize("kind", KINDS)
def test_a_correct_server_passes(known, figures, kind):
    """SERVE-01 to SERVE-10. Of each kind, nothing fails, and little is skipped."""
    with Server(FOLDER, **KINDS[kind]) as url:
        subject = connect(url, FOLDER)
        findings = asked(subject, known[1])
        subject.close()
    wrong = {name: finding for name, (_, finding) in findings.items() if not finding.verdict.good}
    assert wrong == {}
    assert len(findings) >= (24 if kind == "poor" else 45)
    figures.append(f"questions to a correct server ({kind}): {len(findings)}, FAIL 0, requests {subject.wire.spent}")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_rule(known, name):
    """Its own question fails and names its rule first."""
    fault = FAULTS[name]
    with Server(FOLDER, name) as url:
        subject, material = faulty(known, url)
        ((check, finding),) = asked(subject, material, f"serving.{fault.check}").values()
        subject.close()
    assert finding.verdict is Verdict.FAIL, finding
    assert rule_of(check, finding) in fault.rules, finding
    assert finding.message


@pytest.mark.skipif(not LONG, reason="long: HYPOTHESIS_PROFILE=long asks every faulty server everything")
def test_a_fault_is_named_by_the_first_question_that_fails(known, figures):
    """Over all questions in their order, the first failure names the fault's rule, for nine faults of ten at least."""
    first = []
    for name, fault in FAULTS.items():
        with Server(FOLDER, name) as url:
            subject, material = faulty(known, url)
            failures = [pair for pair in asked(subject, material).values() if pair[1].verdict is Verdict.FAIL]
            subject.close()
        assert failures, name
        first.append(rule_of(*failures[0]) in fault.rules)
    figures.append(f"faults of servers: {len(first)} found, {sum(first)} named first")
    assert sum(first) >= 0.9 * len(first)


def test_faults_cover_the_rules_of_the_claim(known):
    """Every rule a question is about first has a fault, every fault a question, all ids are rules of SPEC.md."""
    subject, material = known
    questions = {check.id: check for check in checks(Lab(subject, {"shakespeare": FOLDER}), material)}
    assert {f"serving.{fault.check}" for fault in FAULTS.values()} <= questions.keys()
    assert {f"SERVE-{number:02}" for number in range(1, 11)} <= {
        rule for fault in FAULTS.values() for rule in fault.rules
    }
    cited = {rule for check in questions.values() for rule in check.rules}
    assert cited | {rule for fault in FAULTS.values() for rule in fault.rules} <= rules().keys()
    assert all(check.claim == "serving" and check.why for check in questions.values())


def test_a_declared_choice_is_held_to(known):
    """OUT-08. The server of this file gives the model's own logprobs: declared otherwise, it fails."""
    with Server(FOLDER) as url:
        subject, material = known
        subject = HttpSubject(
            Wire(url), FOLDER, subject.profile, subject.tokenizer, "float32", {"logprobs": "processed"}
        )
        ((_, finding),) = asked(subject, material, "serving.logprobs.temperature").values()
        subject.close()
    assert finding.verdict is Verdict.FAIL
    assert "observed raw, declared processed" in finding.message


def test_no_questions_to_what_is_no_server():
    """There are none for a subject in Python."""
    lab = Lab(PythonSubject(ReferenceSubject, describe(ReferenceSubject, FOLDER)), {"shakespeare": FOLDER})
    assert checks(lab) == []
