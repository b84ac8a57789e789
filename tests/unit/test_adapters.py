"""What an adapter has to have: subjects with few arguments, one row at a time, one size, or stages. docs/subjects.md."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refgen
from refgen.activations import gelu
from refgen.cli import main
from refgen.conformance import check
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.layers import commands, first_difference
from refgen.conformance.judging.verdicts import Verdict
from refgen.conformance.questions import fresh
from refgen.conformance.questions.cases import CaseCheck, RowCheck, checks, rows_of, with_rows
from refgen.conformance.questions.models import Models, only
from refgen.conformance.questions.probes import PROBES, find
from refgen.conformance.reports.terminal import lines
from refgen.conformance.subjects.arguments import NEUTRAL, with_needed, without
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.process import ProcessSubject, described
from refgen.conformance.subjects.protocol import GarbledError, SkippedError
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.names import find_model
from refgen.oracle import trace


class Plain:
    """A GPT-2 as a beginner has it: a forward pass and greedy text, one row at a time."""

    name, choices = "plain", {"context_end": "error"}

    def __init__(self, folder):
        self.model = refgen.AutoModelForCausalLM.from_pretrained(folder)

    def forward(self, input_ids):
        """Of one row."""
        if len(input_ids) > 1:
            raise NotImplementedError("one row at a time")
        return self.model(np.array(input_ids)).logits

    def generate(self, input_ids, max_new_tokens):
        """Appends to the very list that it was given."""
        if max_new_tokens < 1:
            raise ValueError("nothing to do")
        (ids,) = input_ids
        P = len(ids)
        for _ in range(max_new_tokens):
            ids.append(int(self.forward([ids])[0, -1].argmax()))
        return [ids[P:]]


class Ending(Plain):
    """The same with end tokens, by an argument whose default is None."""

    name = "ending"

    def generate(self, input_ids, max_new_tokens, eos_token_id=None):
        """One id at most."""
        if isinstance(eos_token_id, list):
            raise NotImplementedError("one end token")
        (row,) = super().generate(input_ids, max_new_tokens)
        end = row.index(eos_token_id) + 1 if eos_token_id in row else len(row)
        return [row[:end]]


class Erf(Plain):
    """The exact GELU where the tanh form is asked for."""

    name = "erf"

    def __init__(self, folder):
        super().__init__(folder)
        if self.model.config.activation_function == "gelu_new":
            h = tuple(replace(block, mlp=replace(block.mlp, act=gelu)) for block in self.model.gpt2.h)
            self.model = refgen.GPT2LMHeadModel(replace(self.model.gpt2, h=h), engine="plain")


class Explaining(Erf):
    """And it gives its stages, under the names of transformers' modules."""

    name = "explaining"

    def stages(self, input_ids):
        """Some of them, of one row."""
        found = trace.record(self.model.engine, np.array(input_ids), stages=["drop", "h.*.mlp.*", "h.?", "lm_head"])
        return {f"transformer.{name}": array for name, array in found.stages.items()}


class Fixed(ReferenceSubject):
    """Knows one size only."""

    name = "fixed"

    def __init__(self, folder):
        if (size := json.loads((Path(folder) / "config.json").read_text())["n_embd"]) != 24:
            raise ValueError(f"24 columns, not {size}")
        super().__init__(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders, written once."""
    return Models(tmp_path_factory.mktemp("models"))


def lab(factory, models, model="shakespeare"):
    """A lab with such a subject."""
    return Lab(PythonSubject(factory, describe(factory, models[model])), models)


def verdicts(run):
    """By id."""
    return {result.id: result.verdict for result in run.results}


# --- Arguments --------------------------------------------------------------------------------------------


def test_a_beginners_class_passes_what_it_is_asked(figures):
    """Two arguments are enough: greedy text is asked for row by row, and nothing that it cannot say is held against it."""
    run = check(Plain, only=["forward.*", "loop.*", "probe.*"])
    bad = [(result.id, result.finding.message) for result in run.results if result.verdict.bad]
    good = [result.id for result in run.results if result.verdict.good and result.claim != "smoke"]
    assert not bad
    assert len(good) > 200
    rows = {"probe.gelu.minus-two", "probe.gelu-tanh.tail", "probe.variance.both", "probe.epsilon.both", "probe.layers.all",
            "probe.untied.alphabet", "probe.mlp-biases.all", "probe.narrow.greedy"}  # fmt: skip
    assert {f"{each}.row0" for each in rows} <= set(good)
    figures.append(f"a plain GPT-2, one row at a time: {len(good)} checks beyond smoke are asked and pass")


def test_a_neutral_entry_is_left_out_and_another_one_is_a_skip():
    """Whoever takes no mask can still be asked without padding."""
    request = {"input_ids": [[1, 2]], "attention_mask": [[1, 1]], "do_sample": False, "eos_token_id": None,
               "pad_token_id": 7, "num_return_sequences": 1}  # fmt: skip
    assert without("generate", request, {"input_ids"}) == {"input_ids": [[1, 2]]}
    assert without("generate", request, request.keys()) == request
    for name, value in (("attention_mask", [[0, 1]]), ("do_sample", True), ("eos_token_id", 5), ("temperature", 1.0)):
        with pytest.raises(SkippedError, match=f"generate takes no {name}"):
            without("generate", request | {name: value}, {"input_ids"})
    assert NEUTRAL.keys() <= {*request, "skip_special_tokens"}


def test_what_a_method_cannot_be_called_without_is_filled_in():
    """An argument without a default gets what the question means; what nobody knows is a skip."""
    full = with_needed("generate", {"input_ids": [[1, 2]]}, ["input_ids", "attention_mask", "do_sample", "temperature"])
    assert full == {"input_ids": [[1, 2]], "attention_mask": [[1, 1]], "do_sample": False, "temperature": 1.0}
    with pytest.raises(SkippedError, match="generate needs mirostat"):
        with_needed("generate", {"input_ids": [[1]]}, ["mirostat"])


class Curious:
    """Says what arrives."""

    def __init__(self, folder):
        pass

    def generate(self, input_ids, max_new_tokens, do_sample):
        """Refuses with it."""
        raise ValueError(f"{input_ids!r} {max_new_tokens!r} {do_sample!r}")


@pytest.mark.parametrize("apart", [False, True])
def test_what_arrives(apart, models, tmp_path, monkeypatch):
    """Lists of lists of int, in this process and in another one."""
    (tmp_path / "curious.py").write_text("from tests.unit.test_adapters import Curious\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    if apart:
        import sys

        subject = ProcessSubject([sys.executable, "-m", "refgen.conformance.subjects.worker", "curious:Curious"], 60)
    else:
        subject = PythonSubject(Curious, describe(Curious, models["shakespeare"]))
    with pytest.raises(Exception, match=r"ValueError: \[\[1, 2\]\] 3 False"):
        subject.ask("generate", models["shakespeare"], {"input_ids": [[1, 2]], "max_new_tokens": 3})
    assert subject.about.takes == {"generate": {"input_ids", "max_new_tokens", "do_sample"}}
    subject.close()


def test_a_question_stays_what_it_is(models):
    """A subject that appends to the caller's list changes its own list alone."""
    request = {"input_ids": [[1, 2, 3]], "max_new_tokens": 2}
    lab(Plain, models).ask("generate", "shakespeare", **request)
    assert request["input_ids"] == [[1, 2, 3]]


def test_a_program_may_say_what_it_takes():
    """In hello; the kit then spares it the rest."""
    hello = {"protocol": 1, "can": ["generate", "stages"], "takes": {"generate": ["input_ids", "max_new_tokens"]}}
    assert described(hello).takes == {"generate": {"input_ids", "max_new_tokens"}}
    for takes in ([], {"generate": "input_ids"}, {"generate": [3]}):
        with pytest.raises(GarbledError, match="takes"):
            described(hello | {"takes": takes})


def test_ends(models):
    """One that names the argument is told the model's own end token where it matters; of one that does not nobody knows."""
    for factory, first, off in ((Plain, "SKIP", "SKIP"), (Ending, "PASS", "PASS"), (ReferenceSubject, "PASS", "PASS")):
        cases = {case.id: CaseCheck(case, find("dice-end").config) for case in find("dice-end").cases}
        run = {name: verdict(each, lab(factory, models)) for name, each in cases.items()}
        assert (run["probe.dice-end.first-step"], run["probe.dice-end.no-end"]) == (first, off), factory


def verdict(check, lab):
    """Of one check, as the runner has it."""
    try:
        return str(check.run(lab).verdict)
    except SkippedError:
        return "SKIP"


# --- Row by row -------------------------------------------------------------------------------------------


def test_rows_of_every_batch(models):
    """Every batch of the kit also exists as its rows, which refgen answers as expected; none of them is asked of refgen."""
    place = lab(ReferenceSubject, models)
    every = [check for check in checks(place) if isinstance(check, RowCheck)]
    every += [
        row for build in PROBES.values() for case in build().cases for row in with_rows(case, build().config, {})[1:]
    ]
    assert len({each.id for each in every}) == len(every) > 150
    for each in every:
        assert each.id.rpartition(".row")[0]
        assert len(each.case.request["input_ids"]) == 1
        assert "attention_mask" not in each.case.request
        assert each.rules
        assert not any(rule.startswith(("PAD", "BATCH")) for rule in each.rules)
        assert not each.applies(place)
    for each in every[::5]:
        assert each.run(place).verdict.good, each.id


def test_padding_is_cut_off():
    """The row alone, what it is asked and what must come back; limits that count columns count fewer."""
    (case,) = [each for each in find("table").cases if each.id == "probe.table.only-the-row"]
    one, two, three = rows_of(replace(case, request={**case.request, "max_length": 8}))
    assert [len(each.request["input_ids"][0]) for each in (one, two, three)] == [4, 1, 2]
    assert [each.request["max_length"] for each in (one, two, three)] == [8, 5, 6]
    assert [len(each.expected["rows"]) for each in (one, two, three)] == [1, 1, 1]
    assert two.expected["rows"][0] == case.expected["rows"][1]
    assert two.id == "probe.table.only-the-row.row1"
    assert rows_of(two) == []


def test_the_gelu_shows_without_padding(models):
    """A wrong GELU that takes one row at a time is seen by the probe of the GELU."""
    run = check(Erf, only=["probe.gelu-tanh.*"], models=models)
    assert verdicts(run)["probe.gelu-tanh.tail"] is Verdict.SKIP
    assert verdicts(run)["probe.gelu-tanh.tail.row1"] is Verdict.FAIL


class Fragile(ReferenceSubject):
    """Takes batches, and fails when they are padded by more than two columns."""

    def generate(self, input_ids, attention_mask=None, **settings):
        """Loudly."""
        if attention_mask is not None and np.min(np.sum(attention_mask, axis=1)) < len(input_ids[0]) - 2:
            raise IndexError("too wide")
        return super().generate(input_ids, attention_mask, **settings)


class Stumbling(ReferenceSubject):
    """Falls over every padded batch."""

    def generate(self, input_ids, attention_mask=None, **settings):
        """By an error that is no refusal."""
        if attention_mask is not None:
            raise IndexError("list index out of range")
        return super().generate(input_ids, attention_mask, **settings)


class Narrow(ReferenceSubject):
    """Refuses every batch."""

    def generate(self, input_ids, **settings):
        """By an exception of its own."""
        if len(input_ids) > 1:
            raise ValueError("batch size 1 only")
        return super().generate(input_ids, **settings)


def test_what_is_refused_in_its_simplest_form_is_not_taken(models):
    """Whoever refuses two equal rows takes none; whoever takes them and fails at others has failed."""
    only_ = ["probe.count.padded*"]
    assert verdicts(check(Fragile, only=only_, models=models))["probe.count.padded"] is Verdict.CRASH
    run = verdicts(check(Narrow, only=only_, models=models))
    assert run["probe.count.padded"] is Verdict.SKIP
    assert run["probe.count.padded.row0"] is run["probe.count.padded.row1"] is Verdict.PASS
    run = verdicts(
        check(Stumbling, only=only_, models=models)
    )  # a crash is charged to padding, and its rows still tell
    assert run["probe.count.padded"] is Verdict.CRASH
    assert run["probe.count.padded.row0"] is run["probe.count.padded.row1"] is Verdict.PASS


# --- A model of its own -----------------------------------------------------------------------------------


def test_a_program_of_one_size(models, tmp_path, capsys, monkeypatch):
    """It cannot load the kit's model, and is examined on its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    subject = "tests.unit.test_adapters:Fixed"
    assert main(["check", subject]) == 2
    assert "--model DIR" in capsys.readouterr().err
    mine = tmp_path / "mine"
    refgen.AutoModelForCausalLM.from_pretrained(models["net-plain"]).save_pretrained(mine)
    assert main(["check", subject, "--model", str(mine)]) == 0
    out = capsys.readouterr().out
    assert "models mine" in out
    assert "The network is right" in out
    run = check(Fixed, model=mine)
    ids = set(verdicts(run))
    assert {"forward.own", "forward.drawn", "loop.own", "loop.rejects.foreign-token", "process.repetition.once"} <= ids
    assert not [each for each in ids if each.startswith(("probe.", "forward.net", "sampling.top-k"))]
    assert run.overall.verdict == "right"


def test_a_wrong_program_of_one_size(models):
    """Its own model shows the fault."""
    run = check(Erf, model="shakespeare", only=["network"])
    assert verdicts(run)["forward.own"] is Verdict.FAIL
    assert run.suspects[0].faults == ("gelu-erf",)


def test_the_name_of_a_model_of_ones_own(models, tmp_path):
    """A probe keeps its name, so that its questions are asked; another model of that name is another model."""
    assert only(models["gelu"]) == {"gelu": models["gelu"].resolve()}
    assert only("shakespeare").keys() == {"shakespeare"}
    refgen.AutoModelForCausalLM.from_pretrained(models["net-relu"]).save_pretrained(tmp_path / "gelu")
    assert only(tmp_path / "gelu").keys() == {"gelu-own"}


# --- Stages -----------------------------------------------------------------------------------------------


def test_from_a_failure_to_its_layer():
    """With stages the report names the first one that differs."""
    run = check(Explaining, only=["forward.net-plain.full*", "forward.net-deep.full*"])
    first, *others = [result for result in run.results if result.verdict.bad]
    assert first.finding.facts["first_stage"] == "h.0.mlp.act"
    assert all("first_stage" not in each.finding.facts for each in others)  # once for each fault
    report = " ".join(" ".join(lines(run)).split())
    assert "where it begins: The first stage off is h.0.mlp.act, at row 0, position 0" in report
    assert "At fault by itself: h.0, h.1" in report
    assert "looks like gelu-erf" in report.lower()


def test_a_right_row_says_that_it_is_right(models):
    """Where no stage differs, the row by itself is right."""

    class Right(Plain):
        def stages(self, input_ids):
            return trace.record(self.model.engine, np.array(input_ids)).stages

    found = first_difference(lab(Right, models), "net-plain", [1, 2, 3])
    assert found.stage is None
    assert "no stage differs, up to lm_head" in found.sentence


@pytest.mark.parametrize(
    ("stages", "message"), [({}, "object of arrays"), ({"h.9": [[1.0]]}, "does not know"), ({"drop": [1.0]}, "shape")]
)
def test_stages_that_cannot_be_compared(stages, message, models):
    """It says so, and the verdict stays."""

    class Odd(Erf):
        def stages(self, input_ids):
            return stages

    found = first_difference(lab(Odd, models), "net-plain", [1, 2, 3])
    assert found.stage is None
    assert message in found.sentence
    run = check(Odd, only=["forward.net-plain.short*"], models=models)
    assert run.overall.verdict == "wrong"


def test_stages_on_the_wire():
    """Arrays by name, as lists or packed."""
    packed = {"dtype": "F32", "shape": [1], "b64": "AACAPw=="}
    found = checked("stages", {"input_ids": [[1]]}, {"stages": {"drop": [[1, 2]], "ln_f": packed}})["stages"]
    assert (found["drop"].tolist(), found["ln_f"].tolist()) == ([[1, 2]], [1])
    for wrong in (None, [], {}, {"drop": "x"}):
        with pytest.raises(GarbledError):
            checked("stages", {"input_ids": [[1]]}, {"stages": wrong})


@pytest.mark.parametrize("model", ["shakespeare", "net-plain", "fresh-3-1", "own"])
def test_the_commands_run(model, models, tmp_path, monkeypatch, capsys):
    """Without stages the report has commands, which run as they stand and give the verdict of `refgen compare`."""
    import shlex

    monkeypatch.chdir(tmp_path)
    refgen.AutoModelForCausalLM.from_pretrained(models["net-plain"]).save_pretrained(tmp_path / "own")
    subject = PythonSubject(Erf, describe(Erf, find_model("shakespeare")))
    place = Lab(subject, only(tmp_path / "own") if model == "own" else models, 3)
    if model.startswith("fresh"):
        fresh.network(place, 1)
    told = commands(place, model, [3, 1, 4, 1])
    *before, last = [shlex.split(each)[1:] for each in told]
    for command in before:
        assert not main(command)
    folder = find_model(before[-1][before[-1].index("--model") + 1])
    trace.save(trace.record(Erf(folder).model.engine, np.array([[3, 1, 4, 1]])), Path("mine.safetensors"))
    assert main(last) in (0, 1)
    right = trace.load(Path("right.safetensors"), refgen.AutoModelForCausalLM.from_pretrained(folder).config)
    assert right.input_ids.tolist() == [[3, 1, 4, 1]]
    out = capsys.readouterr().out
    assert ("FAIL" in out) == (Erf(folder).model.config.activation_function == "gelu_new")
    np.testing.assert_array_equal(
        refgen.AutoModelForCausalLM.from_pretrained(folder).gpt2.wte, place.reference(model).gpt2.wte
    )
