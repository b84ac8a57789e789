"""The tester tested: every option of SPEC.md's *Stacks* that a subject can show is one that the kit holds it to.

Parametrized over SPEC.md itself: a new option without a question fails here. Of the checks that depend on an option the first few
are made, by refgen with that option (planted/options.py), with the declaration and without, and by refgen that only declares it.
"""

from functools import cache, partial

import pytest

from refgen import spec
from refgen.conformance import check
from refgen.conformance.judging.choices import settled
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Verdict
from refgen.conformance.planted.options import CHANGES, NOT_YET, PERMISSIVE, AnyAnswerError, Taken
from refgen.conformance.planted.sampler_faults import PLANTS
from refgen.conformance.questions import relations
from refgen.conformance.questions.models import Models
from refgen.conformance.questions.serving import checks as serving_checks
from refgen.conformance.runner import guarded
from refgen.conformance.subjects.http import HttpSubject, connect
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.python import PythonSubject
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.conformance.subjects.wire import Wire
from refgen.errors import ConformanceError
from refgen.names import find_model
from scripts.make_choices import cases_of
from tests.openai_server import OPTIONS, Server

MODELS = Models()
SHAKESPEARE = find_model("shakespeare")
FEW = 1  # checks of an option, the first that depend on it
VISIBLE = [f"{choice.name}={option}" for choice in spec.choices().values() for option in choice.others]
ASKED = [option for option in VISIBLE if option.partition("=")[0] not in NOT_YET]
BY_CASES = [option for option in ASKED if option in CHANGES and option != "gelu=tanh_float16_table"]


class Follows(Taken):
    """Takes options; where there is no right answer, it gives any."""

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """Of the ids alone, if need be."""
        try:
            return super().forward(input_ids, attention_mask, prefill)
        except AnyAnswerError:
            return super().forward(input_ids)

    def process(self, input_ids, logits, **settings):
        """As refgen does, if need be."""
        try:
            return super().process(input_ids, logits, **settings)
        except AnyAnswerError:
            return ReferenceSubject.process(self, input_ids, logits, **settings)

    def generate(self, **request):
        """One token, if need be."""
        try:
            return super().generate(**request)
        except AnyAnswerError:
            return [{"new_ids": [1], "finish": "length"} for _ in request["input_ids"]]


class SeedForEachRow(ReferenceSubject):
    """seed_scope=request: every row is drawn by the seed as if it were alone."""

    def generate(self, input_ids, **request):
        """Row by row."""
        return [row for ids in input_ids for row in super(SeedForEachRow, self).generate([ids], **request)]


def lab_of(options, declared):
    """A lab whose subject follows some options and declares some."""
    about = About("chooses", choices=dict(option.split("=") for option in declared))
    factory = SeedForEachRow if options == ("seed_scope=request",) else partial(Follows, options=options)
    return Lab(PythonSubject(factory, about), MODELS)


@cache
def checks_of(option):
    """The first checks that depend on it; those of the sampler's chain that stand in a process case come first."""
    if option == "seed_scope=request":
        return [each for each in relations.checks(None) if each.id == "relations.seed-scope"]
    return cases_of(option, FEW)


def made(lab, option):
    """What the checks of an option find."""
    return {each.id: guarded(lab, each) for each in checks_of(option)}


def test_there_is_a_question_for_every_visible_option():
    """A new option in SPEC.md is asked for, or stands in NOT_YET with the reason; nothing there is asked for after all."""
    without = {option for option in VISIBLE if option not in CHANGES and option not in OPTIONS}
    names = {option.partition("=")[0] for option in without} - {"seed_scope"}
    assert names == NOT_YET.keys()
    assert CHANGES.keys() <= set(VISIBLE) >= PERMISSIVE
    assert PLANTS.keys() <= set(VISIBLE)
    assert set(OPTIONS) <= set(VISIBLE)
    assert all(cases_of(option, 1) for option in BY_CASES)


@pytest.mark.parametrize("option", [*BY_CASES, "seed_scope=request"])
def test_a_subject_is_held_to_what_it_declares(option):
    """Declared and followed: nothing is wrong. Declared and not followed: something fails. Followed and not declared: it is named."""
    followed = made(lab_of((option,), (option,)), option)
    assert followed
    assert not [(name, found.message) for name, found in followed.items() if not found.verdict.good], option
    only_declared = made(lab_of((), (option,)), option)
    undeclared = made(lab_of((option,), ()), option)
    if option in PERMISSIVE:
        assert all(found.verdict.good for found in only_declared.values())
        return
    assert any(found.verdict is Verdict.FAIL for found in only_declared.values()), only_declared
    failures = [found for found in undeclared.values() if not found.verdict.good]  # who refuses claims nothing: SKIP
    assert failures, undeclared
    assert any("--choice" in found.message for found in failures), failures
    assert any(option in found.facts.get("options", found.message) for found in failures), failures


def test_a_table_in_float16_is_allowed_its_rounding():
    """FWD-16. A declared table of float16 allows as much as float16's rounding, and no more."""
    option = "gelu=tanh_float16_table"

    class Table(Follows):
        def forward(self, input_ids, attention_mask=None, prefill=None):
            """As the fault of that name does."""
            from refgen.conformance.planted.subject_faults import FaultyNetwork
            from refgen.oracle.faults import FAULTS

            faulty = FaultyNetwork(self.folder)
            faulty.change = next(fault.change for fault in FAULTS if fault.name == "gelu-float16")
            return faulty.forward(input_ids, attention_mask, prefill)

    for declared, code in (({"gelu": "tanh_float16_table"}, 0), ({}, 1)):
        subject = PythonSubject(partial(Table, options=(option,)), About("table", choices=declared))
        run = check(subject, only=["forward.net-plain.full", "forward.net-deep.full"])
        assert run.overall.code == code, run.overall.sentence


@pytest.fixture(scope="module")
def profile():
    """What is known of the right server."""
    with Server(SHAKESPEARE) as url:
        subject = connect(url, SHAKESPEARE)
        subject.close()
    return subject


@pytest.mark.parametrize("option", OPTIONS)
def test_a_server_is_held_to_what_it_declares(profile, option):
    """The same of servers. Undeclared, an option is named in a failure, or found to be the choice that was made."""
    follows, usual, check_id = OPTIONS[option]
    name, _, value = option.partition("=")

    def found(planted, choices):
        with Server(SHAKESPEARE, planted) as url:
            subject = HttpSubject(Wire(url), SHAKESPEARE, profile.profile, profile.tokenizer, "float32", choices)
            lab = Lab(subject, {"shakespeare": SHAKESPEARE})
            (one,) = [each for each in serving_checks(lab) if each.id == f"serving.{check_id}"]
            finding = guarded(lab, one)
            subject.close()
        return finding

    assert found(follows, {name: value}).verdict is Verdict.CHOICE
    assert found(usual, {name: value}).verdict is Verdict.FAIL
    undeclared = found(follows, {})
    assert option in undeclared.message
    assert undeclared.verdict is Verdict.CHOICE or "--choice" in undeclared.message


# --- Declarations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"contxt_end": "slide"}, "choice contxt_end=slide: unknown name. Did you mean context_end?"),
        ({"context_end": "slid"}, "unknown option of context_end. Did you mean context_end=slide?"),
        ({"context_end": "xyz"}, "context_end is one of n_plus_1, error, n, slide"),
        ({"foo": "bar"}, "docs/choices.md lists them"),
        ({"context_end": 5}, "unknown option of context_end"),
    ],
)
def test_what_cannot_be_declared(choices, message):
    """Unknown names and options are errors with the nearest one, wherever they come from."""
    with pytest.raises(ConformanceError, match=message.replace("?", r"\?")):
        settled(choices)
    with pytest.raises(ConformanceError, match=message.replace("?", r"\?")):
        check(PythonSubject(ReferenceSubject, About("x", choices=choices)))


def test_options_that_are_not_visible_may_be_declared():
    """They change nothing, and are no error."""
    run = check(PythonSubject(ReferenceSubject, About("x", choices={"attentions": "empty"})), only=["choices.order"])
    assert run.overall.code == 0


def test_several_options_at_once():
    """Options are held to together: a sliding context after a prompt that is cut, an end token dropped and reported as length."""
    for options in (
        ("context_end=slide", "prompt_too_long=cut", "default_length=16", "max_new_tokens_zero=no_tokens"),
        ("end_token_in_ids=dropped", "end_token_at_the_limit=length", "finish=stop_or_length"),
        ("gelu=erf", "epsilon=1e-5", "token_limit_counts=prompt_too"),
    ):
        subject = PythonSubject(partial(Follows, options=options), lab_of((), options).about)
        only = [
            "loop.*",
            "choices.default_length",
            "probe.clock.*",
            "probe.count.*",
            "forward.net-[de]*",
        ]
        run = check(subject, only=only)
        wrong = [(result.id, result.finding.message) for result in run.results if not result.verdict.good]
        assert wrong == [], options


def test_a_declaration_costs_what_it_hides():
    """refgen that declares what it does not do is wrong."""
    for option, question in (
        ("greedy_tie=highest_id", "probe.dice-ties.*"), ("end_token_at_the_limit=length", "probe.clock.*"),
        ("temperature_zero=error", "relations.temperature-zero"), ("context_end=slide", "probe.count.*"),
    ):  # fmt: skip
        name, _, value = option.partition("=")
        subject = PythonSubject(ReferenceSubject, About("says so", choices={name: value}))
        assert check(subject, only=[question]).overall.verdict == "wrong", option
