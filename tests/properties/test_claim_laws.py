"""Laws of verdicts: what may and what may not become of claims and of a run when results change.

Verdicts are ordered: of a claim right is best, wrong and waiting are worst, and all others say nothing; of a run right is best, then
inconclusive, wrong, adapter broken.
"""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from refgen.conformance.judging.claims import CLAIMS, claim_verdicts
from refgen.conformance.judging.run import CODES, Run
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.subjects.protocol import About
from tests.strategies import declarations, results

GOOD = (Verdict.PASS, Verdict.TIE, Verdict.CHOICE)
BAD = (Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT)
CLAIM_RANK = {"right": 2, "inconclusive": 1, "not claimed": 1, "not asked": 1, "waiting": 0, "wrong": 0}
RUN_RANK = {"right": 3, "inconclusive": 2, "wrong": 1, "adapter broken": 0}
FEW = ("network", "greedy", "ending", "batch", "tokenizer", "refusals")  # so that several results meet in a claim
KINDS = (*GOOD, *[Verdict.PASS] * 5, *BAD, Verdict.SKIP, Verdict.SKIP, Verdict.INCONCLUSIVE)
SEVERAL = st.lists(results(KINDS, claims=FEW), max_size=14)
SMOKED = st.lists(results(KINDS, claims=(*FEW, "smoke")), max_size=14)

RESULT = Result("a.b", "network", (), "why", Finding(Verdict.PASS), 0.1)


def run(found, declared=frozenset()):
    """Of a subject that declares these claims."""
    return Run(About("mine"), tuple(found), declared=declared)


def changed(found, places, verdict):
    """The same results, but for some that have another verdict."""
    return [
        replace(each, finding=Finding(verdict), rules=()) if place in places else each
        for place, each in enumerate(found)
    ]


def some(data, found, wanted=lambda each: True):
    """Places of some of the results that are wanted."""
    places = [place for place, each in enumerate(found) if wanted(each)]
    assume(places)
    return data.draw(st.sets(st.sampled_from(places), min_size=1))


@given(SMOKED, declarations(), st.sampled_from(BAD), st.data())
def test_a_worse_result_never_helps(found, declared, verdict, data):
    """Whichever results turn bad, no claim and no run gets a better verdict."""
    worse = run(changed(found, some(data, found), verdict), declared)
    before = run(found, declared)
    for name, each in worse.claims.items():
        assert CLAIM_RANK[each.verdict] <= CLAIM_RANK[before.claims[name].verdict], name
    assert RUN_RANK[worse.overall.verdict] <= RUN_RANK[before.overall.verdict]


@given(SMOKED, declarations(), st.data())
def test_a_failure_is_never_right(found, declared, data):
    """A claim with a bad result is wrong or waits, and so the run is wrong, or the adapter broken; unless it is not claimed."""
    assume(found)
    place = data.draw(st.integers(0, len(found) - 1))
    spoilt = changed(found, {place}, Verdict.FAIL)
    name = spoilt[place].claim
    told = run(spoilt, declared)
    if name == "refusals" and name not in declared:
        assert told.claims[name].verdict == "not claimed"
        return
    assert told.overall.code in (1, 2)
    assert name == "smoke" or told.claims[name].verdict in ("wrong", "waiting")


@given(SEVERAL, declarations(), st.data())
def test_refusing_what_went_well_never_mends(found, declared, data):
    """However many of the other questions are refused, what was wrong or waited is so still, and the run is wrong."""
    before = run(found, declared)
    assume(before.overall.verdict == "wrong")
    less = run(changed(found, some(data, found, lambda each: not each.verdict.bad), Verdict.SKIP), declared)
    assert less.overall.verdict == "wrong"
    for name, each in before.claims.items():
        if CLAIM_RANK[each.verdict] == 0:
            assert CLAIM_RANK[less.claims[name].verdict] == 0, name


@given(SEVERAL, declarations(), st.data())
def test_refusing_never_makes_a_claim_right(found, declared, data):
    """To refuse anything but failures leaves a claim as good as it was, or worse."""
    before = run(found, declared).claims
    less = run(changed(found, some(data, found, lambda each: not each.verdict.bad), Verdict.SKIP), declared).claims
    assert all(before[name].verdict == "right" for name, each in less.items() if each.verdict == "right")


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.booleans(), st.randoms())
def test_half_must_be_shown(good, skipped, unclear, bad, is_declared, random):
    """Right is: nothing bad, and at least half of what was asked good. With less a claim is inconclusive, not claimed, or wrong."""
    one = replace(RESULT, claim="tokenizer")
    verdicts = (
        [Verdict.PASS] * good + [Verdict.SKIP] * skipped + [Verdict.INCONCLUSIVE] * unclear + [Verdict.FAIL] * bad
    )
    random.shuffle(verdicts)
    own = [replace(one, finding=Finding(each)) for each in verdicts]
    said = claim_verdicts(own, frozenset({"tokenizer"} if is_declared else ()))["tokenizer"].verdict
    if not own:
        assert said == "not asked"
    elif bad:
        assert said == "wrong"
    elif skipped == len(own):
        assert said == ("wrong" if is_declared else "not claimed")
    else:
        assert said == ("right" if 2 * good >= len(own) else "inconclusive")


@given(SMOKED, declarations(), results((Verdict.INCONCLUSIVE,), claims=FEW))
def test_what_shows_nothing_never_helps(found, declared, nothing):
    """One more inconclusive result makes nothing right that was not."""
    before, after = run(found, declared), run([*found, nothing], declared)
    assert before.overall.code == 0 or after.overall.code != 0
    assert all(before.claims[name].verdict == "right" for name, each in after.claims.items() if each.verdict == "right")


@given(SEVERAL, SEVERAL, declarations(), st.sampled_from(FEW))
def test_claims_do_not_influence_each_other(found, others, declared, name):
    """Whatever becomes of a claim, others keep their verdict; those that rest on it may begin or cease to wait."""
    there = [each for each in found if each.claim != name] + [each for each in others if each.claim == name]
    before, after = (claim_verdicts(each, declared) for each in (found, there))
    for other, claim in CLAIMS.items():
        if other in ("smoke", name):
            continue
        was, now = before[other].verdict, after[other].verdict
        assert was == now or (name in claim.rests_on and {was, now} == {"wrong", "waiting"}), other
        assert (before[other].good, before[other].bad, before[other].asked) == (
            after[other].good,
            after[other].bad,
            after[other].asked,
        )


@given(SMOKED, declarations())
def test_code_zero_is_earned(found, declared):
    """A run of code 0 has a right claim beyond smoke, none that is wrong or waits, and every declared one is right."""
    told = run(found, declared)
    said = {name: each.verdict for name, each in told.claims.items()}
    assert told.overall.code == CODES[told.overall.verdict]
    if told.overall.code == 0:
        assert "right" in said.values()
        assert not {"wrong", "waiting"} & set(said.values())
        assert all(said[name] == "right" for name in declared - {"smoke"})
        assert not any(each.claim == "smoke" and each.verdict.bad for each in found)


@given(SEVERAL, st.sampled_from(FEW), st.integers(1, 9))
def test_a_declared_claim_must_be_answered(found, name, asked):
    """Declared and refused it is wrong, and the run; no other claim changes but in what it waits for."""
    rest = [each for each in found if each.claim != name]
    refused = [replace(RESULT, claim=name, finding=Finding(Verdict.SKIP))] * asked
    silent, declared = run([*rest, *refused]), run([*rest, *refused], frozenset({name}))
    assert silent.claims[name].verdict == "not claimed"
    assert declared.claims[name].verdict == "wrong"
    assert declared.overall.verdict == "wrong"
    for other, claim in CLAIMS.items():
        if other not in ("smoke", name):
            was, now = silent.claims[other].verdict, declared.claims[other].verdict
            assert was == now or (name in claim.rests_on and (was, now) == ("wrong", "waiting")), other


@given(SMOKED, declarations(), st.randoms())
def test_order_does_not_matter(found, declared, random):
    """Results in another order give the same verdicts."""
    mixed = [*found]
    random.shuffle(mixed)
    before, after = run(found, declared), run(mixed, declared)
    assert after.overall.verdict == before.overall.verdict
    assert after.claims == before.claims


@given(SMOKED, declarations())
def test_every_claim_is_told(found, declared):
    """Unless the adapter is broken, the sentences name each claim once: right, wrong, waiting, not shown, or not made."""
    told = run(found, declared)
    assume(told.overall.code != 2)
    made = [each for each in told.claims.values() if each.verdict not in ("not claimed", "not asked")]
    for each, sentence in zip(made, told.overall.sentences, strict=False):
        assert sentence.startswith(each.claim.subject)
    rest = " ".join(told.overall.sentences[len(made) :])
    assert all((name in rest) == (each not in made) for name, each in told.claims.items())
