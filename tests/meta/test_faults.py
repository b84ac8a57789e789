"""The tester tested: every planted fault is caught by the test that is there for its rule."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_spec import RULES
from tests.meta.faults import FAULTS, FORWARD_RULES, WITHOUT


@pytest.fixture(scope="module")
def answers():
    """What happened to each fault's test, all run in one go."""
    request = json.dumps([fault._asdict() for fault in FAULTS])
    script = Path(__file__).with_name("run_faults.py")
    environment = os.environ | {"HYPOTHESIS_PROFILE": "faults"}
    done = subprocess.run(
        [sys.executable, script], input=request, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{fault.rule}-{fault.file}" for fault in FAULTS])
def test_fault_is_caught(answers, number):
    """With the fault planted, its test goes red: not passed, not skipped, not broken in collection."""
    fault, answer = FAULTS[number], answers[number]
    assert answer["code"] == 1, f"{fault}\n{answer.get('error', '')}\n{answer['output']}"


def test_every_rule_has_a_fault(figures):
    """Every rule of SPEC.md has a planted fault, or a reason why none is possible."""
    planted = {fault.rule for fault in FAULTS} | FORWARD_RULES
    assert planted <= RULES.keys()
    assert RULES.keys() - planted - WITHOUT.keys() == set()
    assert planted & WITHOUT.keys() == set()
    figures.append(
        f"planted faults: {len(FAULTS)}, and those of forward passes, for {len(planted)} of {len(RULES)} rules"
    )
