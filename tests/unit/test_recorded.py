"""Recorded traffic: the same answers again, and the same verdicts, without the subject."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refgen.cli import main
from refgen.conformance import runner
from refgen.conformance.reports.record import read_jsonl
from refgen.conformance.subjects.protocol import FINISHES, OPERATIONS, About, SkippedError
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.recorded import ERRORS, Recorded, Replayed, decoded, encoded
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.errors import ConformanceError
from refgen.names import find_model
from tests.strategies import JSON, abouts


class Scripted:
    """A subject that answers what it is told to, one after the other."""

    def __init__(self, about, outcomes):
        self.about, self._outcomes, self.closed = about, iter(outcomes), False

    def ask(self, op, model, request):
        """The next."""
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self):
        """Says that it was."""
        self.closed = True


def outcome_of(subject, op, model, request):
    """An answer, or the class and text of an error."""
    try:
        return subject.ask(op, Path("/somewhere") / model, request)
    except tuple(ERRORS.values()) as error:
        return type(error), str(error)


def same(a, b):
    """Equal in type, dtype and bits; NaN is NaN."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))  # noqa: PLR0124 - NaN


NUMBERS = st.floats() | st.integers() | st.none()
ARRAYS = arrays(np.float64, st.lists(st.integers(0, 3), max_size=3).map(tuple)) | arrays(">i2", 3)
INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.fixed_dictionaries(
    {"new_ids": st.lists(INT64, max_size=3)},
    optional={
        "finish": st.sampled_from(FINISHES),
        "logprobs": st.lists(st.floats(), max_size=3),
        "text": st.text(max_size=3),
        "chunks": st.lists(st.text(max_size=3), max_size=2),
    },
)
ASKED = {  # of every operation a request, and answers that pass the border as they are
    "encode": ({"text": "x"}, st.builds(dict, ids=st.lists(INT64, max_size=3))),
    "decode": ({"ids": [1]}, st.builds(dict, text=st.text(max_size=5))),
    "forward": ({"input_ids": [[1, 2]]}, st.builds(dict, logits=arrays(np.float64, (1, 2, 3)))),
    "process": ({"input_ids": [[1]], "logits": [[0.0, 1.0]]}, st.builds(dict, scores=arrays(np.float64, (1, 2)))),
    "generate": ({"input_ids": [[1], [2]]}, st.builds(dict, rows=st.lists(ROW, min_size=2, max_size=2))),
}
FAILURES = st.builds(lambda kind, text: kind(text), st.sampled_from(list(ERRORS.values())), st.text(max_size=5))


@st.composite
def exchanges(draw):
    """A question, and an answer or an error."""
    op = draw(st.sampled_from(OPERATIONS))
    request, answers = ASKED[op]
    more = draw(st.dictionaries(st.sampled_from("ab"), NUMBERS, max_size=2))
    return (op, draw(st.sampled_from(("tiny", "own"))), request | more), draw(answers | FAILURES)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("traffic") / "traffic.jsonl"


@given(abouts(), st.lists(exchanges(), max_size=6), st.integers(0, 9), st.randoms())
def test_what_was_answered_is_answered_again(path, about, asked, seed, random):
    """Every question has its outcomes in their order, answers to the bit and errors by class and text; then it is skipped."""
    subject = Scripted(about, [outcome for _, outcome in asked])
    recorded = Recorded(subject, path, seed, ("network", "loop.*"))
    assert recorded.about == about
    first = [(question, outcome_of(recorded, *question)) for question, _ in asked]
    recorded.close()
    assert subject.closed
    replayed = Replayed(path)
    assert (replayed.about, replayed.seed, replayed.only) == (about, seed, ["network", "loop.*"])
    order = sorted(range(len(first)), key=lambda place: json.dumps(encoded(first[place][0])))  # stable
    for place in order if random.random() < 0.5 and about.loads else range(len(first)):
        question, outcome = first[place]
        again = outcome_of(replayed, *question)
        assert same(again, outcome) if isinstance(outcome, dict) else again == outcome
    for question, _ in first:
        assert outcome_of(replayed, *question) == (SkippedError, "not in the recording")
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@given(JSON | ARRAYS | st.lists(NUMBERS, max_size=4))
def test_values_come_back(value):
    """What is written is strict JSON and is read as it was."""
    assert same(decoded(json.loads(json.dumps(encoded(value), allow_nan=False))), value)


def test_a_subject_with_one_model_has_no_name_for_it(path):
    """Of a subject that loads no models, the folder's name does not matter."""
    for loads, outcome in ((False, {"ids": [1]}), (True, (SkippedError, "not in the recording"))):
        recorded = Recorded(Scripted(About("server", loads=loads), [{"ids": [1]}]), path)
        recorded.ask("encode", Path("/theirs/gpt2"), {"text": "a"})
        recorded.close()
        assert outcome_of(Replayed(path), "encode", "mine", {"text": "a"}) == outcome


@pytest.mark.parametrize(("lines", "message"), [
    ([], "FILE: is not a recording of refgen check: it has no header."),
    (['{"kind": "header", "format": 7}'], "FILE: format 7: is not known, must be 2."),
    (['{"kind": "header", "format": 2}', '{"kind": "footer", "exchanges": 0}'], "FILE: is not a recording of refgen check: KeyError('subject')."),
    (["HEADER", '{"op": "encode"', "FOOTER"], "FILE, line 2: is not JSON."),
    (["HEADER", '{"kind": "exchange", "op": "encode", "model": "m", "request": {}, "error": "KeyError", "message": ""}', "FOOTER"],
     "FILE: is not a recording of refgen check: KeyError('KeyError')."),
    (["HEADER", '{"kind": "exchange", "op": "encode", "model": "m", "request": {}, "answer": {"dtype": "<f8", "shape": [2], "b64": "AAAA"}}',
      "FOOTER"],
     "FILE: is not a recording of refgen check: ValueError('buffer size must be a multiple of element size')."),
    (["HEADER", f'{{"kind": "exchange", "op": "encode", "answer": {"[" * 900}{"]" * 900}}}', "FOOTER"],
     "FILE: is not a recording of refgen check: RecursionError('maximum recursion depth exceeded')."),
    (["HEADER", '{"kind": "exchange"}', '{"kind": "exchange"}', "FOOTER"],
     "FILE: has 2 lines between header and footer, which names 1. It was cut or changed."),
    (["HEADER", "FOOTER", "FOOTER"], "FILE: has 1 line between header and footer, which names 1. It was cut or changed."),
    (["HEADER", "FOOTER", '{"kind": "exchange"}'], "FILE: is cut off after 2 exchanges. The run did not end, so there is no verdict on the subject."),
    (["HEADER"], "FILE: is cut off after 0 exchanges. The run did not end, so there is no verdict on the subject."),
    (["HEADER", '{"kind": "exch'], "FILE, line 2: is cut off. The run did not end, so there is no verdict on the subject."),
])  # fmt: skip
def test_what_is_no_recording(tmp_path, lines, message):
    """Each refusal says which file and what is wrong."""
    path = tmp_path / "traffic.jsonl"
    Recorded(Scripted(About("mine"), ()), path).close()
    header, _ = path.read_text().strip().splitlines()
    footer = '{"kind": "footer", "exchanges": 1}'
    path.write_text("\n".join(lines).replace("HEADER", header).replace("FOOTER", footer))
    with pytest.raises(ConformanceError) as caught:
        Replayed(path)
    assert str(caught.value).replace(str(path), "FILE") == message


# --- The command ------------------------------------------------------------------------------------------


class Shifted(ReferenceSubject):
    """Ids that are one too high."""

    def encode(self, text):
        """Wrong."""
        return [each + 1 for each in super().encode(text)]


def results(run):
    """What a run found, but for the time it took."""
    return [(each.id, each.verdict, each.finding.message, each.rules) for each in run.results]


@pytest.mark.parametrize(("factory", "code"), [(ReferenceSubject, 0), (Shifted, 1)])
def test_replay_judges_the_same(tmp_path, capsys, factory, code):
    """`refgen check` comes to the verdicts of the run that was recorded, with its exit code, seed and choice of checks."""
    traffic, record = tmp_path / "traffic.jsonl", tmp_path / "again.jsonl"
    about = describe(factory, find_model("shakespeare"))
    subject = Recorded(PythonSubject(factory, about), traffic, seed=3, only=("tokenizer",))
    first = runner.check(subject, only=("tokenizer",), seed=3)
    subject.close()
    assert main(["check", str(traffic), "--record", str(record)]) == first.overall.code == code
    out, err = capsys.readouterr()
    assert (first.overall.sentences[0] in out, err) == (True, "")
    again = read_jsonl(record)
    assert results(again) == results(first)
    assert (again.seed, again.only, again.about) == (3, ("tokenizer",), first.about)
    assert main(["check", str(traffic), "--json"]) == code
    assert len(capsys.readouterr().out.splitlines()) == len(first.results) + 2
    for repeat in [line.removeprefix("  $ refgen ") for line in out.splitlines() if line.startswith("  $ ")][:1]:
        assert main(shlex.split(repeat)) == code
        assert repeat.split()[3] in capsys.readouterr().out  # the check, which fails again


def test_a_recording_that_was_cut_off(tmp_path, capsys):
    """Wherever a recording ends before its end, replay gives no verdict, and exit code 3; so does one that was interrupted."""
    traffic = tmp_path / "traffic.jsonl"
    subject = Recorded(PythonSubject(ReferenceSubject, describe(ReferenceSubject, find_model("shakespeare"))), traffic)
    runner.check(subject, only=("tokenizer",))
    subject.interrupted = True
    subject.close()
    whole = traffic.read_bytes()
    for size in (len(whole), len(whole) - 1, len(whole) - 30, whole.rindex(b"\n", 0, -1) + 1, whole.index(b"\n") + 1):
        traffic.write_bytes(whole[:size])
        assert main(["check", str(traffic), "--only", "tokenizer"]) == 3, size
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), "is cut off" in err) == ("", 1, True)
    traffic.write_bytes(whole + b'{"kind": "footer", "exchanges": %d}\n' % (whole.count(b"\n") - 1))
    assert main(["check", str(traffic), "--only", "tokenizer"]) == 0
    lines = (whole + b'{"kind": "footer", "exchanges": %d}\n' % (whole.count(b"\n") - 1)).splitlines(keepends=True)
    traffic.write_bytes(b"".join(lines[:9] + lines[10:]))
    assert main(["check", str(traffic), "--only", "tokenizer"]) == 2
    assert "It was cut or changed" in capsys.readouterr().err


def test_replay_asks_for_the_model(tmp_path, capsys):
    """A subject with a model of its own was asked about one that the recording does not hold."""
    path = tmp_path / "traffic.jsonl"
    Recorded(Scripted(About("server", can=frozenset(), loads=False), ()), path).close()
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == "refgen: error: --model: missing. server had its own model. Name it.\n"
    assert main(["check", str(path), "--model", "shakespeare"]) == 3
    assert "Not claimed: tokenizer, network" in capsys.readouterr().out


def test_reports_that_cannot_be_written(tmp_path, capsys):
    """They are refused before anything is asked."""
    path = tmp_path / "traffic.jsonl"
    Recorded(Scripted(About("mine"), ()), path).close()
    assert main(["check", str(path), "--junit", str(tmp_path / "no" / "where.xml")]) == 2
    assert "no does not exist" in capsys.readouterr().err


def test_all_reports_at_once(tmp_path, capsys):
    """Each option writes its file."""
    path = tmp_path / "traffic.jsonl"
    Recorded(Scripted(About("mine", can=frozenset()), ()), path).close()
    names = ("record", "html", "junit", "badge")
    assert main(["check", str(path), *(each for name in names for each in (f"--{name}", str(tmp_path / name)))]) == 3
    assert all((tmp_path / name).stat().st_size for name in names)
    assert capsys.readouterr().out.startswith("mine in float32")
