"""conformance/questions/cases.py and its files: their form, where they come from, and how an answer to a case is judged."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from refgen.conformance.judging.lab import Lab
from refgen.conformance.planted import subject_faults
from refgen.conformance.planted.sampler_faults import FAULTS as SAMPLER_FAULTS
from refgen.conformance.questions.cases import (
    CHOICE,
    MUST_REJECT,
    VECTORS,
    Case,
    CaseCheck,
    as_dict,
    config_of,
    from_dict,
    read,
    suites,
    write,
)
from refgen.conformance.questions.models import Models
from refgen.conformance.questions.probes import PROBES, cases_of
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.python import PythonSubject
from refgen.errors import ConformanceError
from refgen.oracle import faults as forward_faults
from scripts import make_vectors
from scripts.vectors import choices, forward, loop, process, tokenizer
from scripts.vectors.seen_in import SEEN_IN, with_reports
from tests.docs.test_spec import RULES

FILED = [case for path in suites() for case in read(path)]
ALL = [*FILED, *(case for name in PROBES for case in cases_of(name))]
FAULT_NAMES = {
    fault.name for family in (subject_faults.FAULTS, forward_faults.FAULTS, SAMPLER_FAULTS) for fault in family
}


@pytest.mark.parametrize("path", suites(), ids=lambda path: path.stem)
def test_files_have_the_form_of_the_schema(path):
    """Every file of cases is what schema.json says."""
    schema = json.loads((VECTORS / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(path.read_text()), schema)


@pytest.mark.parametrize(
    "change",
    [{"rules": []}, {"op": "think"}, {"id": "one"}, {"result": "choice"}, {"colour": "red"}, {"expected": None}],
)
def test_the_schema_refuses(change):
    """A case that is none does not fit the schema."""
    schema = json.loads((VECTORS / "schema.json").read_text())
    good = as_dict(next(case for case in FILED if case.expected))
    file = {"schema": "refgen-cases-1", "suite": "x", "cases": [good]}
    jsonschema.validate(file, schema)
    wrong = {name: value for name, value in (good | change).items() if value is not None}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file | {"cases": [wrong]}, schema)


def test_cases_name_what_there_is():
    """Ids are unique; rules, models and planted faults exist; every case says why it is there."""
    ids = [case.id for case in ALL]
    assert len(set(ids)) == len(ids)
    for case in ALL:
        assert set(case.rules) <= RULES.keys(), case.id
        assert set(case.kills) <= FAULT_NAMES, (case.id, set(case.kills) - FAULT_NAMES)
        assert case.model in Models(), case.id
        assert case.why, case.id
    assert SEEN_IN.keys() <= set(ids)


@pytest.mark.filterwarnings("ignore::refgen.IgnoredSettingWarning")
def test_files_are_what_their_makers_make(tmp_path):
    """Made again, files are the same bytes; of what takes proofs a sample is."""
    for kind in (tokenizer, process, choices):
        name = f"{kind.__name__.rpartition('.')[2]}.json"
        write(tmp_path / name, list(with_reports(kind.cases())))
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes()
    filed = {case.id: case for case in FILED}
    assert all(as_dict(case) == as_dict(filed[case.id]) for case in with_reports(loop.cases(("net-own-head",))))
    tensors, stored = {}, load_file(VECTORS / "forward.safetensors")
    assert all(
        as_dict(case) == as_dict(filed[case.id]) for case in with_reports(forward.cases(tensors, ("net-no-scale",)))
    )
    assert tensors
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, stored[name])
    assert make_vectors.VECTORS == VECTORS


@given(
    st.builds(
        Case,
        id=st.from_regex(r"[a-z]+\.[a-z]+", fullmatch=True),
        rules=st.lists(st.sampled_from(sorted(RULES)), min_size=1).map(tuple),
        why=st.text(min_size=1),
        model=st.text(),
        op=st.just("generate"),
        request=st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.none()),
        expected=st.dictionaries(st.text(), st.lists(st.integers())),
        kills=st.lists(st.text()).map(tuple),
    )
)
def test_cases_come_back_from_json(case):
    """Any case is what it was."""
    assert from_dict(json.loads(json.dumps(as_dict(case)))) == case


def test_files_that_are_none(tmp_path):
    """A file without the right schema is an error that says so."""
    path = tmp_path / "x.json"
    path.write_text('{"schema": "refgen-cases-9", "cases": []}')
    with pytest.raises(ConformanceError, match="must be 'refgen-cases-1'"):
        read(path)
    with pytest.raises(ConformanceError, match="does not exist"):
        read(tmp_path / "y.json")


# --- Judging one case ---------------------------------------------------------------------------------------


class Says:
    """Encodes every text as these ids, or refuses if there are none."""

    def __init__(self, ids):
        self.ids = ids

    def encode(self, text):
        """The ids."""
        if self.ids is None:
            raise ValueError("no")
        return self.ids


def verdict(case, ids, choices=()):
    """Of a subject that says `ids`."""
    about = About("says", can=frozenset({"encode"}), choices=dict(choices))
    lab = Lab(PythonSubject(lambda folder: Says(ids), about), Models())
    return CaseCheck(case, config_of(lab.folder(case.model))).run(lab)


PLAIN = Case("a.b", ("TOK-05",), "why", "shakespeare", "encode", {"text": "x"}, {"ids": [1, 2]})
CHOOSING = replace(
    PLAIN,
    result=CHOICE,
    choice="top_k_ties",
    expected={"all_stay": {"ids": [1]}, "exactly_k": {"ids": [2]}, "error": None},
)


def test_a_must():
    """Equal is right."""
    assert verdict(PLAIN, [1, 2]).verdict == "PASS"
    wrong = verdict(PLAIN, [1, 3])
    assert (wrong.verdict, wrong.facts["place"]) == ("FAIL", 1)
    assert "expected [1, 2]" in wrong.message


def test_a_must_reject():
    """An answer is wrong where there can be none."""
    case = replace(PLAIN, result=MUST_REJECT, expected={})
    assert verdict(case, None).verdict == "PASS"
    assert verdict(case, [1]).verdict == "FAIL"


@pytest.mark.parametrize(
    ("ids", "declared", "said"),
    [
        ([1], None, "CHOICE"), ([2], None, "FAIL"), ([3], None, "FAIL"), ([2], "exactly_k", "CHOICE"), ([1], "exactly_k", "FAIL"),
        (None, "error", "CHOICE"), ([1], "error", "FAIL"),
    ],
)  # fmt: skip
def test_a_choice(ids, declared, said):
    """A subject is held to the option it declares, without one to SPEC.md's own; another one that fits is named."""
    found = verdict(CHOOSING, ids, {} if declared is None else {"top_k_ties": declared})
    assert found.verdict == said
    if (ids, declared) == ([2], None):
        assert "this is the option top_k_ties=exactly_k. If you intend it, declare it" in found.message
