"""The record of a run of the kit: what it says of the subject, whom it suspects, and its file."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refgen.conformance.judging.run import Run, overall
from refgen.conformance.judging.suspects import suspects
from refgen.conformance.judging.verdicts import LEVELS, Finding, Result, Verdict
from refgen.conformance.reports.record import plain, read_jsonl, write_jsonl
from refgen.conformance.subjects.protocol import OPERATIONS, About
from refgen.errors import ConformanceError
from tests.strategies import abouts, results, runs

GOOD = (Verdict.PASS, Verdict.TIE, Verdict.CHOICE)
BAD = (Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT)
NEITHER = (Verdict.SKIP, Verdict.INCONCLUSIVE)
MINE = About("mine", "0.3")


def result(level, verdict, *rules, asked=(), **finding):
    """A result, short to write."""
    requests = tuple({"op": op, "model": "tiny"} for op in asked)
    found = Finding(Verdict(verdict), **finding)
    return Result("a.b", level, (*finding.get("rules", ()), *rules), "why", found, 0.25, requests)


def several(level, **verdicts):
    """So many results of each verdict."""
    return [result(level, verdict) for verdict, count in verdicts.items() for _ in range(count)]


# --- The verdict on the whole -----------------------------------------------------------------------------


def test_conformant_says_where():
    """Levels with their counts, the dtype, and what was not tested."""
    found = overall([*several("smoke", PASS=2), *several("loop", PASS=3, TIE=1, CHOICE=1, SKIP=2)], MINE)
    assert (found.verdict, found.code) == ("conformant", 0)
    assert found.sentence == (
        "CONFORMANT in float32 at levels smoke 2/2, loop 5/5 (2 skipped). "
        "Not tested: tokenizer, forward, process, sampling, serving, relations, probes."
    )


def test_not_conformant_says_where():
    """What failed by level, and what is right all the same."""
    found = overall([*several("forward", PASS=2), *several("loop", PASS=3, FAIL=1, CRASH=1)], MINE)
    assert (found.verdict, found.code) == ("not conformant", 1)
    assert found.sentence == (
        "NOT CONFORMANT in float32: 2 checks failed (loop 2 of 5). Right: forward 2/2. "
        "Not tested: smoke, tokenizer, process, sampling, serving, relations, probes."
    )


@given(st.lists(results(), max_size=6), abouts(), st.sampled_from(BAD))
def test_smoke_is_the_adapter(several, about, verdict):
    """Whatever else there is, a bad smoke check blames the adapter."""
    found = overall([*several, result("smoke", verdict, message="it hangs.")], about)
    assert (found.verdict, found.code) == ("adapter broken", 2)
    assert "Until that is mended, nothing here is about the model." in found.sentence


@given(st.lists(results(), max_size=6), results(BAD), abouts(), st.randoms())
def test_a_failure_never_conforms(several, failure, about, random):
    """A bad result among any others is a verdict of 1 or 2, in whatever order they come."""
    mixed = [*several, failure]
    random.shuffle(mixed)
    assert overall(mixed, about).code in (1, 2)


@given(st.lists(results((*GOOD, *NEITHER))), abouts(), results(NEITHER))
def test_showing_less_never_helps(several, about, nothing):
    """One more check that shows nothing makes no conformant subject of one that is not."""
    assume(overall(several, about).code == 3)
    assert overall([*several, nothing], about).code == 3


@given(st.lists(results(NEITHER)), abouts())
def test_skipping_is_not_conformance(several, about):
    """Without anything good the run is inconclusive, without any result too, and with an adapter that answers too."""
    assert overall(several, about).code == 3
    assert overall([*several, result("smoke", "PASS")], about).code == 3


def test_skipping_most_is_not_conformance():
    """Of what was asked of operations that the subject claims, half must go well; what it never claimed does not count."""
    about = replace(MINE, can=frozenset({"encode", "generate"}))
    good, skipped = several("loop", PASS=4), [result("loop", "SKIP", asked=["generate"])]
    assert overall([*good, *skipped * 4], about).code == 0
    found = overall([*good, *skipped * 5], about)
    assert found.code == 3
    assert found.sentence.startswith(
        "INCONCLUSIVE in float32: 4 of the 9 checks of what it claims to do went well, fewer than half. Right: loop 4/4"
    )
    assert overall([*good, *[result("forward", "SKIP", asked=["forward"])] * 9], about).code == 0
    assert overall([*good, *several("forward", SKIP=9)], about).code == 0


@pytest.mark.parametrize(("level", "verdict", "asked", "code"), [
    ("sampling", "INCONCLUSIVE", ["generate"], 3),
    ("forward", "SKIP", ["forward"], 3),  # it claims the operation
    ("forward", "SKIP", [], 0),
    ("serving", "SKIP", ["generate"], 0),  # it claims to generate, not all settings
])  # fmt: skip
def test_a_claimed_level_must_show_something(level, verdict, asked, code):
    """A level of an operation that is claimed, or in which answers came, needs one good result."""
    assert overall([*several("loop", PASS=9), result(level, verdict, asked=asked)], MINE).code == code


# --- Suspects ---------------------------------------------------------------------------------------------


def rules_of(*found):
    """Suspects, the first first."""
    return [each.rule for each in suspects(found)]


def test_a_named_fault_comes_first():
    """A known fault that fits beats what a finding points at, and that the counting of failures; the earliest fault leads."""
    found = suspects([
        result("forward", "FAIL", "FWD-01"),
        result("loop", "FAIL", rules=("EOS-01",)),
        result("sampling", "FAIL", rules=("TOPP-01",), fault="top_p_before_t"),
        result("forward", "FAIL", "FWD-04", rules=("FWD-16", "FWD-05"), fault="gelu_erf"),
    ])  # fmt: skip
    assert [each.rule for each in found] == ["FWD-16", "FWD-05", "TOPP-01", "EOS-01", "FWD-01", "FWD-04"]
    assert found[0].sentence == "looks like gelu_erf; 1 of its 1 checks fails"
    assert found[3].sentence == "failures point at it; 1 of its 1 checks fails"
    assert found[4].sentence == "1 of its 1 checks fails"


def test_a_finding_here_and_there_points_at_nothing():
    """Unless half of the failures point at a rule, all checks of rules count."""
    found = [*[result("loop", "FAIL", "STOP-02")] * 5, result("loop", "FAIL", rules=("STOP-01",))]
    assert rules_of(*found)[0] == "STOP-02"
    assert rules_of(*found[-2:])[0] == "STOP-01"


def test_set_logic():
    """The rule in all that fails and in nothing that passes leads; first in a check counts more; a pass counts against."""
    both = result("loop", "FAIL", "EOS-01", "MAX-01")
    assert rules_of(both) == ["EOS-01", "MAX-01"]
    assert rules_of(both, result("loop", "PASS", "EOS-01")) == ["EOS-01", "MAX-01"]
    assert rules_of(both, *[result("loop", "PASS", "EOS-01")] * 2) == ["MAX-01", "EOS-01"]
    assert rules_of(both, result("loop", "FAIL", "MAX-01")) == ["MAX-01", "EOS-01"]
    assert rules_of(both, result("loop", "FAIL", "PAD-04"), result("loop", "FAIL", "PAD-04"))[0] == "PAD-04"


def test_an_earlier_level_explains_a_later_one():
    """Where failures say as much against both, the rule of the lower level leads, however many fail above."""
    later = [result("loop", "FAIL", "EOS-01")] * 20
    assert rules_of(*later, result("forward", "FAIL", "FWD-16")) == ["FWD-16", "EOS-01"]
    assert rules_of(result("probes", "FAIL", "PAD-04"), *later) == ["EOS-01", "PAD-04"]


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
    (lambda lines: lines[:-1], "FILE: has no footer. The run did not end, so it says nothing."),
    (lambda lines: [lines[0].replace('"format": 1', '"format": 9'), *lines[1:]], "FILE: format 9: is not known, must be 1."),
    (lambda lines: [lines[0], lines[-1]], "FILE: has other results than its footer counts. It was cut or changed."),
    (lambda lines: [lines[0], lines[1].replace("FAIL", "PASS"), lines[2]],
     "FILE: has other results than its footer counts. It was cut or changed."),
    (lambda lines: [lines[0], lines[1].replace("FAIL", "GOOD"), lines[2]],
     """FILE: is no record of refgen check: ValueError("'GOOD' is not a valid Verdict")."""),
    (lambda lines: [lines[0], "FAIL", lines[2]], "FILE, line 2: is not JSON."),
    (lambda lines: [lines[0], "[]", lines[2]], "FILE, line 2: must be an object."),
])  # fmt: skip
def test_what_is_no_record(tmp_path, change, message):
    """Each refusal says which file, perhaps which line, and what is wrong."""
    path = tmp_path / "run.jsonl"
    write_jsonl(Run(MINE, (result("loop", "FAIL", "EOS-01"),)), path)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ConformanceError) as caught:
        read_jsonl(path)
    assert str(caught.value).replace(str(path), "FILE") == message


def test_facts_become_json():
    """Arrays, tuples and numbers that JSON does not have are written all the same."""
    facts = {"margins": np.array([1.5, np.inf]), "step": np.int64(3), "nan": float("nan"), 4: (True, None)}
    assert plain(facts) == {"margins": [1.5, "inf"], "step": 3, "nan": "nan", "4": [True, None]}


def test_levels_and_operations_are_those_of_the_contract():
    """The core levels are levels; a subject that claims nothing has nothing to be asked."""
    from refgen.conformance.judging.run import CORE

    assert set(CORE) <= LEVELS.keys()
    assert MINE.can == frozenset(OPERATIONS)
