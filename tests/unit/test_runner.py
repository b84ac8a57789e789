"""conformance/runner.py: whole runs. refgen passes all of them; whoever lies does not."""

import time

import numpy as np
import pytest

import refgen
from refgen.cli import main
from refgen.conformance import assert_conformant, check, runner
from refgen.conformance.judging.claims import CLAIMS
from refgen.conformance.judging.verdicts import Finding, KitError, LabCheck, Verdict
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.errors import ConformanceError
from refgen.names import find_model
from refgen.oracle.formats import FORMATS, cast
from tests.rounded import rounded


@pytest.fixture(scope="module")
def whole():
    """Everything there is to ask of refgen."""
    return check(ReferenceSubject)


def test_refgen_is_right(whole, figures):
    """Every check of every claim but serving is good; one is skipped, whose choice refgen does not make."""
    assert (whole.overall.verdict, whole.overall.code) == ("right", 0)
    assert [result.id for result in whole.results if result.verdict.bad or result.verdict is Verdict.INCONCLUSIVE] == []
    skipped = [result.id for result in whole.results if result.verdict is Verdict.SKIP]
    assert len(skipped) <= 2, skipped
    assert set(whole.counts) == CLAIMS.keys() - {"serving"}
    said = {name: each.verdict for name, each in whole.claims.items()}
    assert said.pop("serving") == "not asked"
    assert said.pop("refusals") == "not claimed"
    assert set(said.values()) == {"right"}
    figures.append(f"refgen check of refgen: {len(whole.results)} checks, {whole.counts}, {whole.seconds:.0f} s")


def test_ids_are_unique_and_rules_exist(whole):
    """A check is found by its id, and cites rules that are there."""
    from tests.docs.test_spec import RULES

    ids = [result.id for result in whole.results]
    assert len(set(ids)) == len(ids)
    assert {rule for result in whole.results for rule in result.rules} <= RULES.keys()


def test_relations_are_many(whole):
    """There are at least 25 relations, and each found something to compare."""
    relations = [result for result in whole.results if result.id.startswith("relations.")]
    assert len(relations) >= 25
    assert all(result.verdict.good for result in relations)


@pytest.mark.parametrize(("options", "message"), [
    ({"only": ["fly"]}, "^--only fly: is neither a claim nor the id of a check. Such as network or 'forward.\\*'.$"),
    ({"only": ["netwrok"]}, "^--only netwrok: is neither .* Did you mean network"),
    ({"only": ["network", "no.such.*"]}, "^--only no.such"),
    ({"claims": ["btach"]}, "^claim 'btach': does not exist. Did you mean batch"),
])  # fmt: skip
def test_what_cannot_be_asked_for(options, message):
    """Claims and checks that do not exist are refused, with the nearest that does."""
    with pytest.raises(ConformanceError, match=message):
        check(ReferenceSubject, **options)


def test_a_claim_and_a_check():
    """Smoke tests are always made; else what one of the claims or ids in `only` names."""
    run = check(ReferenceSubject, only=["tokenizer", "process.repetition.*"])
    assert {result.claim for result in run.results} == {"smoke", "tokenizer", "processors"}
    processors = [result.id for result in run.results if result.claim == "processors"]
    assert processors
    assert all(each.startswith("process.repetition") for each in processors)
    assert run.only == ("tokenizer", "process.repetition.*")


def test_claims_come_in_their_order(whole):
    """The smoke tests first, and what rests on a claim after it."""
    order = [list(CLAIMS).index(result.claim) for result in whole.results]
    assert order == sorted(order)


# --- Liars --------------------------------------------------------------------------------------------------


class SecondBest(ReferenceSubject):
    """Always says the second best token."""

    name = "second best"
    logits_processor = (
        lambda ids, scores: np.where(scores == scores.max(axis=1, keepdims=True), np.float32(-1e9), scores),
    )


class ByHeart(ReferenceSubject):
    """Knows the forward cases by heart, and computes nothing else right."""

    name = "by heart"

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """Right on the networks of the kit."""
        logits = super().forward(input_ids, attention_mask, prefill)
        known = self.folder.name.startswith("net-") or self.folder.name == "shakespeare"
        return logits if known else logits[..., ::-1]


class Coarse(ReferenceSubject):
    """Says float32 and computes in bfloat16."""

    name = "coarse"

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """Every operation rounded."""
        gpt2 = cast(self.model.gpt2, "bfloat16")
        from dataclasses import replace

        network = replace(gpt2, wte=rounded(gpt2.wte, FORMATS["bfloat16"]))
        mask = None if attention_mask is None else np.asarray(attention_mask)
        return np.asarray(refgen.model.forward(network, np.asarray(input_ids), mask).view(np.ndarray))


class Nan(ReferenceSubject):
    """Says NaN."""

    name = "nan"

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """In one place."""
        logits = super().forward(input_ids, attention_mask, prefill)
        if logits.shape[1] > 5:
            logits[0, 5, 3] = np.nan
        return logits


class Endless(ReferenceSubject):
    """Hangs when a prompt is long."""

    name = "endless"

    def generate(self, input_ids, **arguments):
        """Not before it has answered the smoke test."""
        if len(input_ids[0]) > 3:
            time.sleep(3600)
        return super().generate(input_ids, **arguments)


class Shuffled(ReferenceSubject):
    """Answers rows in another order."""

    name = "shuffled"

    def generate(self, input_ids, **arguments):
        """Backwards."""
        return super().generate(input_ids, **arguments)[::-1]


class Skips(ReferenceSubject):
    """Does the smoke test, and nothing else yet."""

    name = "skips"
    asked = 0

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """Once."""
        if np.shape(input_ids) != (1, 3):
            raise NotImplementedError("later")
        return super().forward(input_ids)


@pytest.mark.parametrize(
    ("liar", "only", "code", "rule"),
    [
        (SecondBest, ["loop.greedy.*"], 1, "GREEDY-01"),
        (ByHeart, ["forward.net-*", "forward.fresh.0"], 1, "FWD-03"),
        (Coarse, ["forward.net-plain.*"], 1, "FWD-21"),
        (Nan, ["forward.net-plain.*"], 1, None),
        (Shuffled, ["relations.order", "relations.batch", "relations.padded"], 1, "BATCH-01"),
        (Skips, ["forward.net-*"], 3, None),
    ],
)
def test_liars(liar, only, code, rule):
    """Each gets the verdict it deserves, and the rule it breaks is the first suspect."""
    run = check(liar, only=only)
    assert run.overall.code == code, run.overall.sentence
    if rule is not None:
        assert rule in [suspect.rule for suspect in run.suspects][:2], run.suspects
    if code == 1:
        with pytest.raises(AssertionError, match=r"(is|are) wrong"):
            assert_conformant(liar, only=only)


def test_a_hanging_subject():
    """A question without an answer is a TIMEOUT, and the run goes on; after three in a claim the claim is left."""
    subject = PythonSubject(Endless, describe(Endless, find_model("shakespeare")), timeout=0.5)
    run = check(subject, only=["loop.greedy.*", "tokenizer"])
    verdicts = [result.verdict for result in run.results if result.claim == "configurations"]
    assert verdicts == ["TIMEOUT"] * 3 + ["INCONCLUSIVE"] * (len(verdicts) - 3)
    assert len(verdicts) > 3
    assert run.claims["tokenizer"].verdict == "right"
    assert run.overall.code == 1
    assert not [result.rules for result in run.results if result.verdict is Verdict.TIMEOUT and result.rules]


def test_a_broken_adapter():
    """A failing smoke test says so, and nothing is said of the model."""
    broken = PythonSubject(lambda folder: None, About("broken", can=frozenset({"forward"})))
    run = check(broken, only=["network"])
    assert (run.overall.verdict, run.overall.code) == ("adapter broken", 2)
    assert {result.verdict for result in run.results if result.claim == "network"} == {Verdict.INCONCLUSIVE}


# --- What else than an answer a subject gives ---------------------------------------------------------------


class Raises(ReferenceSubject):
    """Answers the smoke test, and raises after that."""

    error: Exception = ValueError("no such mask")

    def forward(self, input_ids, attention_mask=None, prefill=None):
        """Once."""
        if np.shape(input_ids) != (1, 3):
            raise self.error
        return super().forward(input_ids)


class ForeignError(Exception):
    """No error of Python's."""


@pytest.mark.parametrize(("error", "verdict"), [
    (ValueError("no such mask"), "SKIP"), (TypeError("no such mask"), "SKIP"), (ForeignError("no such mask"), "SKIP"),
    (NotImplementedError("later"), "SKIP"), (RuntimeError("out of bounds"), "CRASH"), (IndexError("7"), "CRASH"),
    (KeyError("h.0"), "CRASH"), (MemoryError(), "CRASH"), (ZeroDivisionError("0"), "CRASH"), (SystemExit(1), "CRASH"),
])  # fmt: skip
def test_an_error_refuses_or_crashes(monkeypatch, error, verdict):
    """An error that a program raises to refuse a request is a SKIP; what no program raises on purpose is a CRASH of no rule."""
    monkeypatch.setattr(Raises, "error", error)
    run = check(Raises, only=["forward.net-plain.*"])
    found = [result for result in run.results if result.claim != "smoke"]
    assert {str(result.verdict) for result in found} <= {verdict, "INCONCLUSIVE"}
    assert str(found[0].verdict) == verdict
    assert all(result.rules == () for result in found if result.verdict is Verdict.CRASH)
    assert run.overall.code == (1 if verdict == "CRASH" else 3)


def test_a_refused_smoke_test_is_a_broken_adapter():
    """The simplest question there is has no right refusal."""

    class Refuses(ReferenceSubject):
        """Everything."""

        def encode(self, text):
            """Nothing."""
            raise ValueError("no")

    assert check(Refuses, only=["tokenizer"]).overall.code == 2


def test_what_is_declared_must_be_answered():
    """By the subject, or by who asks: a declared claim that is refused is wrong, and no other."""
    silent = check(Raises, only=["forward.own", "tokenizer"])
    assert (silent.overall.code, silent.claims["network"].verdict) == (0, "not claimed")
    asked = check(Raises, only=["forward.own", "tokenizer"], claims=["network"])

    class Says(Raises):
        """The same."""

        claims = ("network",)

    for run in (asked, check(Says, only=["forward.own", "tokenizer"])):
        assert (run.overall.code, run.claims["network"].verdict) == (1, "wrong")
        assert run.claims["tokenizer"].verdict == "right"
        assert run.declared == {"network"}


# --- Faults of the kit --------------------------------------------------------------------------------------


@pytest.fixture
def broken_kit(monkeypatch):
    """A kit of one check, which fails by itself."""

    def breaks(lab):
        lab.ask("encode", "shakespeare", text="a")
        raise KeyError("oops")

    check_ = LabCheck("loop.breaks", "greedy", ("GREEDY-01",), "why", frozenset(), breaks)
    monkeypatch.setattr(runner, "SOURCES", (lambda lab: [check_],))


def test_a_fault_of_the_kit_accuses_nobody(broken_kit):
    """It ends the run, and names the check and the error."""
    with pytest.raises(
        KitError, match=r"^loop\.breaks: KeyError at test_runner.py:\d+ in breaks: 'oops'. This is a bug"
    ) as caught:
        check(ReferenceSubject)
    assert caught.value.check == "loop.breaks"
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_fault_of_the_kit_has_a_code_of_its_own(broken_kit, capsys, tmp_path):
    """`refgen check` exits with 4, and says whose bug it is; what it has recorded until then is cut off."""
    traffic = tmp_path / "traffic.jsonl"
    name = "refgen.conformance.subjects.reference:ReferenceSubject"
    assert main(["check", name, "--traffic", str(traffic)]) == 4
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("refgen: kit error: loop.breaks: KeyError at test_runner.py:")
    assert main(["check", str(traffic)]) == 3


def test_death_in_one_claim_leaves_the_others(monkeypatch):
    """After three crashes the rest of the claim is not asked."""
    crash = Finding(Verdict.CRASH, "gone")
    several = [
        LabCheck(f"a.{claim}.{n}", claim, ("GREEDY-01",), "why", frozenset(), lambda lab: crash)
        for claim in ("greedy", "batch")
        for n in range(5)
    ]
    monkeypatch.setattr(runner, "SOURCES", (lambda lab: several,))
    verdicts = [str(result.verdict) for result in check(ReferenceSubject).results]
    assert verdicts == (["CRASH"] * 3 + ["INCONCLUSIVE"] * 2) * 2
