"""conformance/judging/claims.py and run.py: which claim a question belongs to, and the verdict on a claim and on a run, by example.

tests/properties/test_claim_laws.py has the laws.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.cli import exit_codes, main
from refgen.conformance.judging.claims import CLAIMS, FAMILIES, by_claim, claim_of_rule, claim_verdicts, counts, place
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.run import BROKEN, CODES, INCONCLUSIVE, RIGHT, WRONG, Run, overall
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.questions.cases import MUST_REJECT, Case, claim_of, config_of, is_released, read, suites
from refgen.conformance.questions.designed import DESIGNED
from refgen.conformance.questions.models import Models
from refgen.conformance.questions.probes import PROBES
from refgen.conformance.runner import SOURCES
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.names import find_model
from refgen.spec import rules
from tests.strategies import results

MINE = About("mine", "0.3")
CLAIM_VERDICTS = {"right", "wrong", "waiting", "inconclusive", "not claimed", "not asked"}
BAD = (Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT)


def several(claim, rule="GREEDY-01", **verdicts):
    """So many results of each verdict."""
    return [
        Result("a.b", claim, (rule,), "why", Finding(Verdict(verdict)), 0.25)
        for verdict, count in verdicts.items()
        for _ in range(count)
    ]


def of(*found, **run):
    """The verdict on a run of these results."""
    return overall(Run(MINE, tuple(each for own in found for each in own), **run))


# --- The verdict on a claim ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdicts", "declared", "said"), [
    ({"PASS": 1}, False, "right"),
    ({"TIE": 1, "CHOICE": 1}, False, "right"),
    ({"PASS": 5, "SKIP": 5}, False, "right"),
    ({"PASS": 5, "SKIP": 6}, False, "inconclusive"),
    ({"PASS": 5, "INCONCLUSIVE": 5}, False, "right"),
    ({"PASS": 1, "INCONCLUSIVE": 9}, False, "inconclusive"),  # what shows nothing is no pass
    ({"INCONCLUSIVE": 1}, False, "inconclusive"),
    ({"PASS": 99, "FAIL": 1}, False, "wrong"),
    ({"SKIP": 99, "CRASH": 1}, False, "wrong"),
    ({"INCONCLUSIVE": 9, "TIMEOUT": 1}, False, "wrong"),
    ({"SKIP": 9}, False, "not claimed"),
    ({"SKIP": 9}, True, "wrong"),  # it is declared, and nothing is answered
    ({"PASS": 1, "SKIP": 9}, True, "inconclusive"),
    ({}, False, "not asked"),
    ({}, True, "not asked"),
])  # fmt: skip
def test_the_verdict_on_a_claim(verdicts, declared, said):
    """By its results, and by whether the subject declares it."""
    found = claim_verdicts(several("tokenizer", **verdicts), frozenset({"tokenizer"} if declared else ()))
    assert found["tokenizer"].verdict == said
    assert {each.verdict for name, each in found.items() if name != "tokenizer"} == {"not asked"}


def test_counts_of_a_claim():
    """How many went well of those answered, and of those asked if that is more."""
    found = claim_verdicts([*several("network", PASS=2, FAIL=1), *several("batch", PASS=3, SKIP=2)])
    assert (found["network"].count, found["batch"].count) == ("2 of 3", "3 of 3 answered, 5 asked")


def test_what_rests_on_a_wrong_claim_waits():
    """Failures behind a wrong network say nothing of the cache; behind a network that was only not shown, they do."""
    found = claim_verdicts([*several("network", FAIL=1), *several("cache", FAIL=1), *several("batch", PASS=1)])
    assert (found["cache"].verdict, found["cache"].waits_for) == ("waiting", "network")
    assert (found["network"].verdict, found["batch"].verdict) == ("wrong", "right")
    for shown in ({"PASS": 1}, {"INCONCLUSIVE": 1}, {"SKIP": 1}):
        found = claim_verdicts([*several("network", **shown), *several("cache", FAIL=1)])
        assert (found["cache"].verdict, found["cache"].waits_for) == ("wrong", "")


def test_endings_wait_for_greedy_text_too():
    """And greedy text for the network, the first of them."""
    found = claim_verdicts([*several("greedy", FAIL=1), *several("ending", FAIL=1)])
    assert (found["ending"].verdict, found["ending"].waits_for) == ("waiting", "greedy")
    found = claim_verdicts([*several("network", FAIL=1), *several("greedy", FAIL=1), *several("ending", FAIL=1)])
    assert (found["greedy"].waits_for, found["ending"].waits_for) == ("network", "network")


@pytest.mark.parametrize("verdict", Verdict)
def test_refusals_count_where_they_are_declared(verdict):
    """Who does not say that it refuses wrong requests is not charged for answering them."""
    own = several("refusals", **{verdict: 1})
    assert claim_verdicts(own)["refusals"].verdict == "not claimed"
    declared = claim_verdicts(own, frozenset({"refusals"}))["refusals"].verdict
    assert declared == ("right" if verdict.good else "inconclusive" if verdict is Verdict.INCONCLUSIVE else "wrong")


# --- The verdict on a run -----------------------------------------------------------------------------------


def test_a_right_run_says_what_is_right():
    """A sentence a claim that was made, then what was not."""
    found = of(several("smoke", PASS=2), several("greedy", PASS=3, TIE=1, CHOICE=1, SKIP=2), several("beams", SKIP=1))
    assert (found.verdict, found.code) == ("right", 0)
    assert found.sentences == (
        "Greedy text is right (5 of 5 answered, 7 asked).",
        "Not claimed: beams.",
        "Not asked: tokenizer, network, cache, batch, padding, ending, configurations, processors, sampling, serving, refusals.",
    )
    assert found.sentence == " ".join(found.sentences)


def test_a_wrong_run_says_what_is_wrong():
    """With the likeliest rule; what waits for it says so, and what is right is told all the same."""
    found = of(
        several("tokenizer", PASS=2),
        several("network", "FWD-16", PASS=3, FAIL=1, CRASH=1),
        several("batch", FAIL=2),
        several("sampling", INCONCLUSIVE=1),
    )
    assert (found.verdict, found.code) == ("wrong", 1)
    assert found.sentences[:-1] == (
        "The tokenizer is right (2 of 2).",
        "The network is wrong: FWD-16 GELU (2 of 5 failed).",
        "Batches: 2 of 2 failed; that waits for the network.",
        "Sampling is not shown (0 of 1).",
    )


def test_what_went_well_elsewhere_speaks_for_a_rule():
    """A rule is less suspect where its checks pass, in whatever claim; failures that wait accuse nobody."""
    run = Run(
        MINE,
        (
            *several("sampling", "PROC-05", FAIL=1),
            *several("sampling", "SAMP-05", FAIL=1),
            *several("processors", "PROC-05", PASS=5),
        ),
    )
    assert [each.rule for each in run.suspects] == ["SAMP-05", "PROC-05"]
    assert run.suspects[1].of == 6
    assert "Sampling is wrong: SAMP-05" in run.overall.sentence
    waiting = Run(MINE, (*several("network", "FWD-16", FAIL=1), *several("batch", "BATCH-01", FAIL=9)))
    assert [each.rule for each in waiting.suspects] == ["FWD-16"]


def test_a_declared_claim_that_is_refused():
    """The sentence says so."""
    found = of(several("tokenizer", PASS=1), several("batch", SKIP=4), declared=frozenset({"batch"}))
    assert (found.verdict, found.code) == ("wrong", 1)
    assert "Batches are wrong: it is declared, and every question is refused." in found.sentences


@given(st.lists(results(), max_size=6), st.sampled_from(BAD))
def test_smoke_is_the_adapter(found, verdict):
    """Whatever else there is, a bad smoke test blames the adapter."""
    broken = Result("smoke.forward", "smoke", (), "why", Finding(verdict, "it hangs."), 0.1)
    told = of([broken], found)
    assert (told.verdict, told.code) == ("adapter broken", 2)
    assert told.sentences == (
        f"The adapter does not work: smoke.forward is a {verdict} (it hangs).",
        "The model was not tested.",
    )


@pytest.mark.parametrize(("other", "declared", "only", "code"), [
    ({"SKIP": 9}, (), (), 0),  # not claimed
    ({"SKIP": 9}, ("sampling",), (), 1),
    ({"PASS": 1, "SKIP": 9}, (), (), 0),  # answered here and there: neither right nor counted against it
    ({"PASS": 1, "SKIP": 9}, ("sampling",), (), 3),
    ({"INCONCLUSIVE": 1}, (), (), 3),  # answered, and nothing was shown
    ({"INCONCLUSIVE": 1, "SKIP": 9}, (), (), 0),
    ({}, ("sampling",), (), 3),  # declared, and no check fits the subject
    ({}, ("sampling",), ("network",), 0),  # declared, and left out
    ({"SKIP": 9}, ("sampling",), ("network", "sampling"), 1),
    ({"FAIL": 1, "SKIP": 9}, (), (), 1),
])  # fmt: skip
def test_beside_a_right_claim(other, declared, only, code):
    """What the results of another claim, declared or not, do to a run whose network is right."""
    assert (
        of(several("network", PASS=9), several("sampling", **other), declared=frozenset(declared), only=only).code
        == code
    )


def test_nothing_shown():
    """Without a right claim a run is inconclusive, however well the smoke tests went."""
    for found in ([], several("smoke", PASS=5), [*several("smoke", PASS=5), *several("network", SKIP=5)]):
        assert (of(found).verdict, of(found).code) == ("inconclusive", 3)


# --- Which claim a question belongs to ------------------------------------------------------------------------

MODELS = Models()
RELEASED = config_of(MODELS["net-plain"])
GREEDY = Case("a.b", ("GREEDY-01",), "why", "net-plain", "generate", {"input_ids": [[1, 2]], "max_new_tokens": 3})
FILED = [(case, config_of(MODELS[case.model])) for path in suites() for case in read(path)]
EVERY = [*FILED, *((case, probe.config) for probe in (build() for build in PROBES.values()) for case in probe.cases)]


@pytest.mark.parametrize(("request_", "claim"), [
    ({}, "greedy"),
    ({"do_sample": False, "num_beams": 1, "attention_mask": [[1, 1]]}, "greedy"),
    ({"do_sample": True}, "sampling"),
    ({"num_beams": 2, "do_sample": True}, "beams"),
    ({"repetition_penalty": 1.2}, "processors"),
    ({"repetition_penalty": 1.2, "do_sample": True}, "sampling"),
    ({"attention_mask": [[0, 1]], "eos_token_id": 3}, "padding"),
    ({"input_ids": [[1], [2]]}, "batch"),
    ({"input_ids": [[1], [2]], "attention_mask": [[0], [1]]}, "padding"),
    ({"use_cache": False}, "cache"),
    ({"eos_token_id": 3}, "ending"),
    ({"stop_strings": ["a"]}, "ending"),
])  # fmt: skip
def test_the_claim_of_a_question(request_, claim):
    """It is the first thing in the question that not every GPT-2 can do."""
    assert claim_of(replace(GREEDY, request={**GREEDY.request, **request_}), RELEASED) == claim


def test_the_claim_of_other_operations():
    """Text is the tokenizer's, logits are the network's, scores the processors'; to refuse is a claim of its own."""
    forward = replace(GREEDY, op="forward", request={"input_ids": [[1, 2]]})
    assert claim_of(forward, RELEASED) == "network"
    assert claim_of(replace(forward, request={"input_ids": [[1, 2]], "prefill": 1}), RELEASED) == "cache"
    assert claim_of(replace(GREEDY, op="encode", request={"text": "a"}), RELEASED) == "tokenizer"
    assert (
        claim_of(replace(GREEDY, op="process", request={"input_ids": [[1]], "logits": [[1.0]]}), RELEASED)
        == "processors"
    )
    assert claim_of(replace(GREEDY, result=MUST_REJECT), RELEASED) == "refusals"
    assert claim_of(replace(GREEDY, rules=("LEN-04",)), RELEASED) == "ending"


def test_other_configurations_are_another_claim():
    """Any network that OpenAI's four are not like, in anything but its sizes."""
    assert not is_released(replace(RELEASED, activation_function="relu"))
    assert claim_of(GREEDY, replace(RELEASED, tie_word_embeddings=False)) == "configurations"
    assert claim_of(GREEDY, replace(RELEASED, n_layer=7)) == "greedy"
    assert is_released(config_of(MODELS["shakespeare"]))
    assert {is_released(config_of(MODELS[name])) for name in DESIGNED} == {True, False}


@given(
    st.sampled_from(EVERY), st.sampled_from([case.id for case, _ in EVERY]), st.text(), st.lists(st.text()).map(tuple)
)
def test_the_claim_goes_by_the_question_alone(question, name, text, names):
    """Under another id, with another reason, other faults and another answer it is the same."""
    case, config = question
    other = replace(case, id=name, why=text, model=text, expected={}, kills=names, seen_in=names, bug=text, choice=text)
    assert claim_of(other, config) == claim_of(case, config)


def test_the_network_does_not_rest_on_endings():
    """No question of the network or of greedy text ends before its limit, so a wrong ending is not charged to them."""
    for case, config in EVERY:
        if case.op == "generate" and claim_of(case, config) in ("network", "greedy"):
            answers = [case.expected] if "rows" in case.expected else list(case.expected.values())
            finishes = {row["finish"] for answer in answers if answer for row in answer["rows"]}
            assert finishes == {"length"}, case.id


def test_every_family_of_rules_has_a_claim():
    """No family is misspelt, and what has none is about text in general."""
    families = {rule.partition("-")[0] for rule in rules()}
    assert FAMILIES.keys() <= families
    assert set(FAMILIES.values()) <= CLAIMS.keys()
    assert all(claim_of_rule(rule) in CLAIMS for rule in rules())
    assert (claim_of_rule("FWD-16"), claim_of_rule("GREEDY-01")) == ("network", "greedy")


def test_every_check_belongs_to_one_claim():
    """Of a whole run each check has an id of its own and a claim of CLAIMS; each claim but serving has checks."""
    subject = PythonSubject(ReferenceSubject, describe(ReferenceSubject, find_model("shakespeare")))
    lab = Lab(subject, Models())
    every = [check for source in SOURCES for check in source(lab)]
    assert len({check.id for check in every}) == len(every) > 350
    assert {check.claim for check in every} == CLAIMS.keys() - {"serving"}
    again = {check.id: check.claim for source in SOURCES for check in source(lab)}
    assert again == {check.id: check.claim for check in every}


# --- The table ------------------------------------------------------------------------------------------------


def test_the_table_of_claims():
    """Names stand once; a claim rests on earlier ones, and on the network if on any."""
    for name, claim in CLAIMS.items():
        assert claim.name == name
        assert claim.what
        assert all(place(other) < place(name) for other in claim.rests_on)
        assert not claim.rests_on or "network" in claim.rests_on
        assert claim.says("right").endswith((" is right", " are right"))
    assert [name for name, claim in CLAIMS.items() if claim.only_declared] == ["refusals"]


@given(st.lists(results()))
def test_results_by_claim(found):
    """Each result is in one group, groups are in the order of CLAIMS, and counts are their sizes."""
    groups = by_claim(found)
    assert list(groups) == sorted(groups, key=place)
    assert sorted(map(id, found)) == sorted(id(each) for own in groups.values() for each in own)
    assert {claim: sum(own.values()) for claim, own in counts(found).items()} == {k: len(v) for k, v in groups.items()}


def test_claims_of_other_versions_come_last():
    """A record of another version is read, and what it does not know stands at the end."""
    other = replace(several("network", PASS=1)[0], claim="poetry")
    assert list(by_claim([other, *several("serving", PASS=1)])) == ["serving", "poetry"]


# --- The page -------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "check-your-implementation.md").read_text(encoding="utf-8")


def rows_below(header):
    """The cells of a table of the page."""
    _, _, rest = PAGE.partition(f"| {header} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines, header
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_the_claims():
    """docs/check-your-implementation.md has every claim, in order, and what it is about."""
    told = {name: what for name, what, _ in rows_below("claim | subject matter | needs")}
    assert list(told) == list(CLAIMS)
    assert all(told[name].startswith(claim.what.split(":")[0].split(",")[0]) for name, claim in CLAIMS.items())


def test_the_page_has_the_verdicts():
    """Those of claims, and those of runs in the order in which they are tried, once."""
    assert {verdict for verdict, _ in rows_below("verdict | when")} == CLAIM_VERDICTS
    assert [verdict for verdict, _ in rows_below("verdict on the run | when")] == [BROKEN, WRONG, INCONCLUSIVE, RIGHT]
    assert CODES == {
        RIGHT: exit_codes.RIGHT,
        WRONG: exit_codes.WRONG,
        BROKEN: exit_codes.USAGE,
        INCONCLUSIVE: exit_codes.INCONCLUSIVE,
    }


def test_the_help_has_the_exit_codes(capsys):
    """`refgen --help`."""
    with pytest.raises(SystemExit):
        main(["--help"])
    table = capsys.readouterr().out.partition("exit codes:\n")[2]
    told = {int(line.split()[0]) for line in table.splitlines() if line[2].isdigit()}
    assert told == {*exit_codes.MEANINGS} >= {*CODES.values()}
