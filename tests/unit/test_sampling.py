"""sampling.py: right samplers pass, every known fault is seen and named, and whoever gives too little is inconclusive."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refgen import checkpoints
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.token_law import REACH, Rows, Sampler
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.planted.sampler_faults import (
    FAULTS,
    NUMBERS,
    NumbersFault,
    SamplerFault,
    find_fault,
    independent,
)
from refgen.conformance.questions.designed import designed
from refgen.conformance.questions.sampling import ALPHA, LawCheck, checks
from refgen.conformance.subjects.protocol import GarbledError, RefusedError
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.spec import rules
from tests.sampled import RIGHT, Sampled, by_convention, dice_models, lab_of


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return dice_models(tmp_path_factory.mktemp("dice"))


def findings(lab, only=""):
    """Every check whose id matches, with what it found."""
    return {each.id: each.run(lab) for each in checks(lab) if re.search(only, each.id)}


def failures(found):
    return {name: each for name, each in found.items() if each.verdict.bad}


# --- Right samplers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_right_sampler_passes(models, seed):
    """Every check of dice, but for the stream that it does not claim to have; and each says which faults it would have seen."""
    found = findings(lab_of(models, seed=seed))
    assert {each.verdict for name, each in found.items() if name != "sampling.seed.torch"} == {Verdict.PASS}
    assert found["sampling.seed.torch"].verdict is Verdict.SKIP
    assert all(each.facts["aims"] for each in found.values() if "tokens" in each.facts)


def test_refgen_passes(models):
    """With the stream of torch, too."""
    about = describe(ReferenceSubject, models["dice-loaded"])
    subject = PythonSubject(ReferenceSubject, about)
    subject.about = type(about)(**{**vars(about), "choices": {"random_numbers": "torch_mt19937"}})
    found = findings(Lab(subject, models))
    assert {each.verdict for each in found.values()} == {Verdict.PASS}


def test_the_checks_are_named_and_share_the_chance_of_a_false_alarm(models):
    """Ids stand once, rules are rules, and the alphas of a run add up to ALPHA."""
    several = checks(lab_of(models))
    assert len({each.id for each in several}) == len(several)
    assert all(set(each.rules) <= rules().keys() and each.why for each in several)
    assert {each.claim for each in several} == {"sampling", "processors"}
    assert sum(each.alpha for each in several if isinstance(each, LawCheck)) == pytest.approx(ALPHA)
    assert checks(lab_of({})) == []


CHOICES = [
    {"order": "penalties_temperature_min_p_top_k_top_p"},
    {"order": "penalties_top_k_typical_p_top_p_min_p_temperature"},
    {"order": "temperature_top_p_top_k"},
    {"order": "top_p_top_k_temperature"},
    {"top_k_ties": "exactly_k"},
    {"top_p_boundary": "exclude"},
    {"top_p_reached": "one_more"},
    {"top_p_ties": "all_stay"},
    {"top_p_ties": "any"},
    {"penalty_scope": "last_64"},
    {
        "order": "penalties_top_k_typical_p_top_p_min_p_temperature",
        "top_k_ties": "exactly_k",
        "top_p_boundary": "exclude",
    },
]


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: ",".join(choices.values()))
def test_who_declares_an_option_is_held_to_it(models, choices):
    """Declared it passes; the same sampler undeclared fails, unless the option allows what is usual, and is told what to declare."""
    fault, about = by_convention(choices), "top-|order|min-p|penalty"
    assert not failures(findings(lab_of(models, fault=fault, choices=choices), about))
    (option, *others) = (f"{name}={value}" for name, value in choices.items())
    if not others and option in {each.choice for each in FAULTS}:
        undeclared, usual = lab_of(models, fault=fault), lab_of(models, choices=choices)
        several = [each for each in checks(undeclared) if re.search(about, each.id)]
        assert any(f"declare it with --choice {option}" in each.run(undeclared).message for each in several)
        assert any(each.run(usual).verdict.bad for each in several) or option == "top_k_ties=exactly_k"


def test_equal_tokens_may_be_cut_in_any_way_by_who_says_so(models):
    """TOPP-03. Of the pair the other token is kept: right with top_p_ties=any, wrong without."""

    class Other(Sampled):
        def rows(self, model, ids, settings, u):
            other = {0: 1, 1: 0} if model.name == "dice-pair" else {}
            return [[other.get(token, token) for token in row] for row in super().rows(model, ids, settings, u)]

    for choices, fails in (({"top_p_ties": "any"}, False), ({}, True)):
        (found,) = findings(Lab(Other(choices=choices), models), "top-p.half").values()
        assert found.verdict.bad is fails


# --- Faults -----------------------------------------------------------------------------------------------


def first_failure(models, fault):
    """The first check that fails, and what it found. Where the fault leaves the chain as it is, the sampler is a right one."""
    numbers = fault.numbers if isinstance(fault, NumbersFault) else independent
    lab = lab_of(models, fault=RIGHT if isinstance(fault, NumbersFault) else fault, numbers=numbers)
    rows = Rows(np.zeros((1, 2), int), 1, np.zeros((1, 1, 9)))
    for each in checks(lab):
        law = isinstance(each, LawCheck) and isinstance(fault, SamplerFault)
        if not law or Sampler(each.settings, {}).changed_by(fault, rows):
            found = each.run(lab)
            if found.verdict.bad:
                return each.id, found
    return "none", Finding(Verdict.PASS)


def test_every_fault_is_seen_and_named_first(models, figures):
    """The first check that fails names the fault and its rule."""
    firsts = {each: first_failure(models, each) for each in (*FAULTS, *NUMBERS)}
    unnamed = [
        each.name for each, (_, found) in firsts.items() if (found.fault, found.rules) != (each.name, each.rules)
    ]
    figures.append(f"faults of samplers: {len(firsts)} planted, {len(firsts) - len(unnamed)} seen and named first")
    for each, (check, found) in firsts.items():
        tokens = f"{found.facts['seen_at']:,} tokens" if "seen_at" in found.facts else "three requests"
        figures.append(f"  {each.name}: {tokens} of {check}")
    assert unnamed == []


def test_every_fault_of_the_catalogue_is_the_aim_of_a_check(models):
    """There is a law under which each would be seen with 99 %."""
    found = findings(lab_of(models)).values()
    aims = {name for each in found for name in each.facts.get("aims", ())}
    assert aims >= {each.name for each in FAULTS} | {each.name for each in NUMBERS} - {"seed-ignored"}


def test_an_unknown_fault_is_seen_and_not_named(models):
    """One token in twenty is replaced by id 4, which no entry of the catalogue does."""

    class Odd(Sampled):
        def rows(self, model, ids, settings, u):
            rows = super().rows(model, ids, settings, u)
            return [[4 if i % 20 == 7 else token for i, token in enumerate(row)] for row in rows]

    (finding,) = findings(Lab(Odd(), models), "numbers").values()
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, None)
    assert "token 4 came" in finding.message
    assert "no known fault" in finding.message


def test_weak_dependence_is_learned(models):
    """One token in ten repeats the one before it: each is as frequent as it should be, and yet it is seen."""

    def numbers(seed, request, B, T):
        rng = np.random.default_rng(seed)
        u = rng.random((B, T))
        for t in range(1, T):
            u[:, t] = np.where(rng.random(B) < 0.1, u[:, t - 1], u[:, t])
        return u

    (finding,) = findings(lab_of(models, numbers=numbers), "numbers").values()
    assert finding.verdict is Verdict.FAIL


def test_rules_that_are_broken_by_given_numbers(models):
    """SAMP-10. One wrong cut shows in one request, and is named."""
    found = findings(lab_of(models, fault=find_fault("top-p-ignored")), "uniforms")
    assert found["sampling.uniforms.plain"].verdict is Verdict.PASS
    assert found["sampling.uniforms.all"].fault == "top-p-ignored"


# --- Subjects that give little ----------------------------------------------------------------------------


def short_of(length, **subject):
    """Somebody who gives so many tokens a row, whatever is asked."""

    class Short(Sampled):
        def rows(self, model, ids, settings, u):
            return [row[:length] for row in super().rows(model, ids, settings, u)]

    return Short(n=False, **subject)


FEW = "temperature.high|top-p.inside|numbers|seed.repeats"


def test_too_few_tokens_are_inconclusive(models):
    """A server, whose model may know an end token that was not asked for, has shown nothing by a token a request."""
    found = findings(Lab(short_of(1, loads=False), models), FEW)
    assert {each.verdict for each in found.values()} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(("length", "loads"), [(0, False), (0, True), (1, True)])
def test_rows_cut_short_are_no_answer(models, length, loads):
    """Fewer tokens than asked without an end token is a fault, and no way out of a check; so is no token at all."""
    lab = Lab(short_of(length, loads=loads), models)
    for each in checks(lab):
        if re.search("temperature.high|top-p.inside|numbers", each.id):
            with pytest.raises(GarbledError, match=f"has {length} new tokens and no end token"):
                each.run(lab)


def test_without_several_rows_or_seeds(models):
    """A subject that has neither is asked more often, and passes; one that gives texts of dice is read."""
    lab = lab_of(models, n=False, seeds=False)
    assert findings(lab, "temperature.high")["sampling.temperature.high"].verdict is Verdict.PASS

    class Texts(Sampled):
        def ask(self, op, model, request):
            rows = super().ask(op, model, request)["rows"]
            tokenizer = Lab(self, models).reference(model.name).tokenizer
            return {"rows": [{"text": tokenizer.decode(row["new_ids"])} for row in rows]}

    assert findings(Lab(Texts(), models), "top-k.three")["sampling.top-k.three"].verdict is Verdict.PASS


def test_tokens_that_there_are_not(models):
    """FWD-23. An id outside the vocabulary fails."""

    class Wild(Sampled):
        def rows(self, model, ids, settings, u):
            return [[99] * u.shape[1] for _ in u]

    with pytest.raises(GarbledError, match="row 0: token 99 is not one of the model's"):  # a failure for the runner
        findings(Lab(Wild(), models), "plain")


def test_who_refuses_temperature_0(models):
    """TEMP-02. It is a declared option, or not claimed, with a word that says which. Who declares it and answers fails."""

    class Refusing(Sampled):
        def ask(self, op, model, request):
            if request.get("temperature") == 0:
                raise RefusedError("temperature must be above 0")
            return super().ask(op, model, request)

    lab = Lab(Refusing(choices={"temperature_zero": "error"}), models)
    assert findings(lab, "temperature.zero")["sampling.temperature.zero"].verdict is Verdict.CHOICE
    with pytest.raises(RefusedError, match="--choice temperature_zero=error"):
        findings(Lab(Refusing(), models), "temperature.zero")
    (found,) = findings(lab_of(models, choices={"temperature_zero": "error"}), "temperature.zero").values()
    assert found.verdict is Verdict.FAIL


# --- Text, and rounding -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of 40 tokens whose logits are others at every step."""
    folder = tmp_path_factory.mktemp("small")
    checkpoints.save(designed("net-plain"), folder)
    return {"net-plain": Path(folder)}


@pytest.mark.parametrize(("dtype", "noise"), [("float32", 2e-7), ("float16", 1e-3), ("bfloat16", 1e-2)])
def test_rounded_logits_are_no_fault(small, dtype, noise, figures):
    """Text of a model whose logits are off by as much as the dtype rounds passes, or is called too little; it never fails."""
    verdicts = []
    for seed in range(2):
        lab = lab_of(small, seed=seed, noise=noise, dtype=dtype, loads=False)
        verdicts += [each.verdict for each in findings(lab, "text").values()]
    figures.append(f"text sampled from logits of {dtype}: {verdicts.count(Verdict.PASS)} of {len(verdicts)} pass")
    assert set(verdicts) <= {Verdict.PASS, Verdict.INCONCLUSIVE}
    assert Verdict.PASS in verdicts


@pytest.mark.parametrize("name", ["temperature-ignored", "top-p-ignored", "greedy"])
def test_faults_show_in_text(small, name):
    """And are named there."""
    bad = failures(findings(lab_of(small, fault=find_fault(name), noise=2e-7, loads=False), "text"))
    assert name in {fault for each in bad.values() for fault in each.facts["faults"]}


@settings(max_examples=200)
@example(1, 0.1, 1, 0.95, 0.0)  # three tokens that rounding can bring to the top of each other
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 1e-2, 0.1]), st.integers(1, 12), st.floats(0.05, 0.99),
       st.floats(0, 0.4))  # fmt: skip
def test_what_rounding_can_make_of_a_law_is_allowed(seed, sigma, k, p, floor):
    """However logits are off within REACH sigma over 2, what is then kept is possible, and what is not kept in any case is no floor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, 5, 20)) * 2
    asked = {"top_k": k, "top_p": p, "min_p": floor, "temperature": 0.8}
    ids = np.zeros((1, 6), int)
    sampler = Sampler(asked, {})
    law = sampler.law(Rows(ids, 1, logits, sigma))
    off = logits + sigma * np.clip(rng.normal(size=logits.shape), -REACH / 2, REACH / 2)
    real = sampler.law(Rows(ids, 1, off)).expected
    assert (law.most[real > 0] > 0).mean() == 1
    inside = (law.most > 0) & (real > 0)
    assert (real[inside] <= law.most[inside] * np.exp(2 * REACH * sigma / 0.8)).all()
    assert law.expected.sum(axis=1) == pytest.approx(np.ones(5))
