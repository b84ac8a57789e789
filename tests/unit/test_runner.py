"""conformance/runner.py: whole runs. refgen passes all of them; whoever lies does not."""

import time

import numpy as np
import pytest

import refgen
from refgen.cli import main
from refgen.conformance import assert_conformant, check
from refgen.conformance.judging.verdicts import LEVELS, KitError, Verdict
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.errors import ConformanceError
from refgen.oracle.formats import FORMATS, cast
from refgen.shipped import find_model
from tests.rounded import rounded


@pytest.fixture(scope="module")
def whole():
    """Everything there is to ask of refgen."""
    return check(ReferenceSubject)


def test_refgen_is_conformant(whole, figures):
    """Every check of every level but serving is good; one is skipped, whose choice refgen does not make."""
    assert whole.overall.verdict == "conformant"
    assert [result.id for result in whole.results if result.verdict.bad or result.verdict is Verdict.INCONCLUSIVE] == []
    skipped = [result.id for result in whole.results if result.verdict is Verdict.SKIP]
    assert len(skipped) <= 2, skipped
    assert set(whole.counts) == LEVELS.keys() - {"serving"}
    figures.append(f"refgen check of refgen: {len(whole.results)} checks, {whole.counts}, {whole.seconds:.0f} s")


def test_ids_are_unique_and_rules_exist(whole):
    """A check is found by its id, and cites rules that are there."""
    from tests.docs.test_spec import RULES

    ids = [result.id for result in whole.results]
    assert len(set(ids)) == len(ids)
    assert {rule for result in whole.results for rule in result.rules} <= RULES.keys()


def test_relations_are_many(whole):
    """There are at least 25 relations, and each found something to compare."""
    relations = [result for result in whole.results if result.level == "relations"]
    assert len(relations) >= 25
    assert all(result.verdict.good for result in relations)


def test_what_cannot_be_asked_for():
    """Levels and checks that there are not."""
    with pytest.raises(ConformanceError, match="There are smoke"):
        check(ReferenceSubject, levels=["fly"])
    with pytest.raises(ConformanceError, match="is none"):
        check(ReferenceSubject, only=["no.such"])


def test_a_level_and_a_check():
    """Smoke tests are always made; of a level only what was asked for."""
    run = check(ReferenceSubject, levels=["process"], only=["process.repetition.*"])
    assert {result.level for result in run.results} == {"smoke", "process"}
    assert all(result.id.startswith(("smoke", "process.repetition")) for result in run.results)


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
    ("liar", "levels", "only", "code", "rule"),
    [
        (SecondBest, ["loop"], ["loop.greedy.*"], 1, "GREEDY-01"),
        (ByHeart, ["forward"], ["forward.net-*", "forward.fresh.0"], 1, "FWD-03"),
        (Coarse, ["forward"], ["forward.net-plain.*"], 1, "FWD-21"),
        (Nan, ["forward"], ["forward.net-plain.*"], 1, None),
        (Shuffled, ["relations"], ["relations.order", "relations.batch", "relations.padded"], 1, "BATCH-01"),
        (Skips, ["forward"], ["forward.net-*"], 3, None),
    ],
)
def test_liars(liar, levels, only, code, rule):
    """Each gets the verdict it deserves, and the rule it breaks is the first suspect."""
    run = check(liar, levels=levels, only=only)
    assert run.overall.code == code, run.overall.sentence
    if rule is not None:
        assert rule in [suspect.rule for suspect in run.suspects][:2], run.suspects
    if code == 1:
        with pytest.raises(AssertionError, match="NOT CONFORMANT"):
            assert_conformant(liar, levels=levels, only=only)


def test_a_hanging_subject():
    """A question without an answer is a TIMEOUT, and the run goes on."""
    subject = PythonSubject(Endless, describe(Endless, find_model("shakespeare")), timeout=0.5)
    run = check(subject, levels=["loop"], only=["loop.greedy.*"])
    verdicts = [result.verdict for result in run.results if result.level == "loop"]
    assert verdicts[:4] == ["TIMEOUT"] * 3 + ["INCONCLUSIVE"]
    assert run.overall.code == 1


def test_a_broken_adapter():
    """A failing smoke test says so, and nothing is said of the model."""
    broken = PythonSubject(lambda folder: None, About("broken", can=frozenset({"forward"})))
    run = check(broken, levels=["forward"])
    assert (run.overall.verdict, run.overall.code) == ("adapter broken", 2)


def test_a_fault_of_the_kit_accuses_nobody(monkeypatch, capsys):
    """What the kit cannot do ends the run, with one line and exit code 4; it is no failure of the subject, and no verdict."""
    from refgen.conformance import runner
    from refgen.conformance.judging.verdicts import LabCheck

    def breaks(lab):
        raise KeyError("oops")

    check_ = LabCheck("loop.breaks", "loop", ("GREEDY-01",), "why", frozenset(), breaks)
    monkeypatch.setattr(runner, "SOURCES", (lambda lab: [check_],))
    with pytest.raises(
        KitError, match=r"loop.breaks: KeyError at test_runner.py:\d+ in breaks: 'oops'. This is a bug of refgen"
    ):
        check(ReferenceSubject)
    assert main(["check", "refgen.conformance.subjects.reference:ReferenceSubject"]) == 4
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("refgen: kit error: loop.breaks: KeyError at test_runner.py:")
