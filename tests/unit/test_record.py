"""The record of a run of the kit: whom it suspects, and its file. tests/unit/test_claims.py has its verdict."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.conformance.judging.run import Run
from refgen.conformance.judging.suspects import suspects
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.reports.record import plain, read_jsonl, write_jsonl
from refgen.conformance.subjects.protocol import About
from refgen.errors import ConformanceError
from tests.strategies import results, runs

GOOD = (Verdict.PASS, Verdict.TIE, Verdict.CHOICE)
MINE = About("mine", "0.3")


def result(claim, verdict, *rules, **finding):
    """A result, short to write."""
    found = Finding(Verdict(verdict), **finding)
    return Result("a.b", claim, (*finding.get("rules", ()), *rules), "why", found, 0.25)


# --- Suspects ---------------------------------------------------------------------------------------------


def rules_of(*found):
    """Suspects, the first first."""
    return [each.rule for each in suspects(found)]


def test_a_named_fault_comes_first():
    """What findings point at beats mere failures; of it the earliest claim leads, and in a claim a known fault that fits."""
    found = suspects([
        result("network", "FAIL", "FWD-01"),
        result("greedy", "FAIL", rules=("EOS-01",)),
        result("sampling", "FAIL", rules=("TOPP-01",), fault="top_p_before_t"),
        result("network", "FAIL", "FWD-04", rules=("FWD-16", "FWD-05"), fault="gelu_erf"),
    ])  # fmt: skip
    assert [each.rule for each in found] == ["FWD-16", "FWD-05", "EOS-01", "TOPP-01", "FWD-01", "FWD-04"]
    assert found[0].sentence == "looks like gelu_erf; 1 of its 1 checks fails"
    assert found[2].sentence == "failures point at it; 1 of its 1 checks fails"
    assert found[4].sentence == "1 of its 1 checks fails"


def test_a_finding_here_and_there_points_at_nothing():
    """Unless a quarter of the failures are about a rule that one points at, all checks of rules count."""
    found = [*[result("greedy", "FAIL", "STOP-02")] * 5, result("greedy", "FAIL", rules=("STOP-01",))]
    assert rules_of(*found)[0] == "STOP-02"
    assert rules_of(*found[-2:])[0] == "STOP-01"


def test_set_logic():
    """The rule in all that fails and in nothing that passes leads; first in a check counts more; a pass counts against."""
    both = result("greedy", "FAIL", "EOS-01", "MAX-01")
    assert rules_of(both) == ["EOS-01", "MAX-01"]
    assert rules_of(both, result("greedy", "PASS", "MAX-01")) == ["EOS-01", "MAX-01"]
    assert rules_of(both, result("greedy", "PASS", "EOS-01")) == ["MAX-01", "EOS-01"]
    assert rules_of(both, result("greedy", "FAIL", "MAX-01")) == ["MAX-01", "EOS-01"]
    assert rules_of(both, result("greedy", "FAIL", "PAD-04"), result("greedy", "FAIL", "PAD-04"))[0] == "PAD-04"


def test_an_earlier_claim_explains_a_later_one():
    """Where failures say as much against both, the rule of the earlier claim leads; more failures say more."""
    later = result("greedy", "FAIL", "EOS-01")
    assert rules_of(later, result("network", "FAIL", "FWD-16")) == ["FWD-16", "EOS-01"]
    assert rules_of(result("batch", "FAIL", "PAD-04"), *[later] * 20) == ["EOS-01", "PAD-04"]


@given(st.lists(results(), max_size=6), results(GOOD))
def test_a_pass_makes_nobody_more_suspect(several, good):
    """A good result lowers or keeps every score and suspects nobody new."""
    before = {each.rule: each.score for each in suspects(several)}
    after = {each.rule: each.score for each in suspects([*several, good])}
    assert before.keys() == after.keys()
    assert all(after[rule] <= before[rule] for rule in before)


@given(st.lists(results(), max_size=6))
def test_suspects_are_the_rules_of_failures(several):
    """All rules of bad results are there once, and no others."""
    found = [each.rule for each in suspects(several)]
    assert sorted(found) == sorted({rule for each in several if each.verdict.bad for rule in each.rules})


# --- The file ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("record") / "run.jsonl"


@given(runs())
def test_a_record_comes_back(path, run):
    """What is written is read again, the same; every line is JSON as others read it."""
    write_jsonl(run, path)
    assert read_jsonl(path) == run

    def refuse(text):
        raise AssertionError(text)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [each["kind"] for each in lines] == ["header", *["result"] * len(run.results), "footer"]
    assert (lines[-1]["verdict"], lines[-1]["exit_code"]) == (run.overall.verdict, run.overall.code)


@given(runs(st.lists(results(), min_size=1, max_size=4)), st.data())
def test_a_cut_record_is_none(path, run, data):
    """Without its header, its footer or any of its results a file is refused."""
    write_jsonl(run, path)
    lines = path.read_text().splitlines()
    kept = data.draw(st.sets(st.sampled_from(range(len(lines))), max_size=len(lines) - 1))
    path.write_text("\n".join(lines[number] for number in sorted(kept)))
    with pytest.raises(ConformanceError):
        read_jsonl(path)


@given(runs(st.lists(results(), max_size=2)), st.data())
def test_broken_records_are_refused_in_full(path, run, data):
    """A file changed anywhere is read or refused with a `ConformanceError`, never anything else."""
    write_jsonl(run, path)
    text = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(text))
    with contextlib.suppress(ConformanceError):
        read_jsonl(path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda lines: [], "FILE: is not a record of refgen check: it has no header."),
    (lambda lines: lines[:-1], "FILE: has no footer. The run did not end, so there is no verdict."),
    (lambda lines: [lines[0].replace('"format": 2', '"format": 9'), *lines[1:]], "FILE: format 9: is not known, must be 2."),
    (lambda lines: [lines[0], lines[-1]], "FILE: has other results than its footer counts. It was cut or changed."),
    (lambda lines: [lines[0], lines[1].replace("FAIL", "PASS"), lines[2]],
     "FILE: has other results than its footer counts. It was cut or changed."),
    (lambda lines: [lines[0], lines[1].replace("FAIL", "GOOD"), lines[2]],
     """FILE: is not a record of refgen check: ValueError("'GOOD' is not a valid Verdict")."""),
    (lambda lines: [lines[0], "FAIL", lines[2]], "FILE, line 2: is not JSON."),
    (lambda lines: [lines[0], "[]", lines[2]], "FILE, line 2: must be an object."),
])  # fmt: skip
def test_what_is_no_record(tmp_path, change, message):
    """Each refusal says which file, perhaps which line, and what is wrong."""
    path = tmp_path / "run.jsonl"
    write_jsonl(Run(MINE, (result("greedy", "FAIL", "EOS-01"),)), path)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ConformanceError) as caught:
        read_jsonl(path)
    assert str(caught.value).replace(str(path), "FILE") == message


def test_facts_become_json():
    """Arrays, tuples and numbers that JSON does not have are written all the same."""
    facts = {"margins": np.array([1.5, np.inf]), "step": np.int64(3), "nan": float("nan"), 4: (True, None)}
    assert plain(facts) == {"margins": [1.5, "inf"], "step": 3, "nan": "nan", "4": [True, None]}
