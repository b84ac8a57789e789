"""conformance/subjects/process.py and worker.py: programs that answer, and programs that lie, die, hang or babble."""

import sys
from pathlib import Path

import pytest

from refgen.conformance.runner import check
from refgen.conformance.subjects.process import ProcessSubject
from refgen.conformance.subjects.protocol import CrashedError, GarbledError, RefusedError, SkippedError, TimedOutError

PROGRAM = """
import json, os, sys, time
def say(**answer): print(json.dumps({{"id": n, **answer}}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    n, op = request.get("id"), request["op"]
    if op == "hello": say(protocol=1, name="liar", dtype="float32", can=["encode", "generate"])
    elif op == "load": say()
    elif op == "bye": break
    else:
        {does}
"""


@pytest.fixture
def program(tmp_path):
    """Makes a subject of a program that says hello and then does something."""
    subjects = []

    def make(does, timeout=20.0):
        path = tmp_path / "liar.py"
        path.write_text(PROGRAM.format(does=does))
        subjects.append(ProcessSubject([sys.executable, str(path)], timeout))
        return subjects[-1]

    yield make
    for subject in subjects:
        subject.close()


FOLDER = Path("a-folder")
ASKED = ("encode", FOLDER, {"text": "x"})


@pytest.mark.parametrize(
    ("does", "error", "message"),
    [
        ("os._exit(3)", CrashedError, r"exited \(code 3\) before answering encode"),
        ("os.kill(os.getpid(), 11)", CrashedError, "signal 11"),
        ("os.close(1)", CrashedError, "closed its output"),
        ("time.sleep(60)", TimedOutError, "no answer to encode after 0.5 s"),
        ("print('thinking…', flush=True)", GarbledError, "no JSON"),
        ("print('[1]', flush=True)", GarbledError, "must be an object"),
        ("print('{}', flush=True)", GarbledError, "does not have the request's id"),
        ("n -= 1; say(ids=[1])", GarbledError, "does not have the request's id"),
        ("say(ids='abc')", GarbledError, "whole numbers"),
        ("say(error='ValueError', message='not that')", RefusedError, "ValueError: not that"),
        ("say(skipped='no tokenizer yet')", SkippedError, "no tokenizer yet"),
    ],
)
def test_what_is_no_answer(program, does, error, message):
    """Each is an exception of its own, and the next question is asked all the same."""
    subject = program(does, timeout=0.5 if "sleep" in does else 20.0)
    assert subject.about.name == "liar"
    for _ in range(2):
        with pytest.raises(error, match=message):
            subject.ask(*ASKED)


def test_a_program_that_dies_once_is_started_again(program, tmp_path):
    """The answer after a crash is the new program's."""
    flag = tmp_path / "flag"
    subject = program(
        f"p = {str(flag)!r}\n        if not os.path.exists(p): open(p, 'w'); os._exit(1)\n        say(ids=[7])"
    )
    with pytest.raises(CrashedError):
        subject.ask(*ASKED)
    assert subject.ask(*ASKED) == {"ids": [7]}


@pytest.mark.parametrize(
    ("hello", "message"),
    [
        ({"protocol": 2}, "must be 1"),
        ({"can": ["fly"]}, "list of some of encode"),
        ({"can": []}, "list of some of encode"),
        ({"dtype": "int4"}, "must be one of float64"),
        ({"choices": []}, "must be an object"),
    ],
)
def test_a_bad_hello(tmp_path, hello, message):
    """What a program says of itself is checked before anything else."""
    path = tmp_path / "liar.py"
    good = {"protocol": 1, "name": "x", "can": ["encode"], "dtype": "float32", "choices": {}}
    path.write_text(
        f"import json\nn = json.loads(input())['id']\nprint(json.dumps({{'id': n, **{good | hello!r}}}), flush=True)"
    )
    with pytest.raises(GarbledError, match=message):
        _ = ProcessSubject([sys.executable, str(path)]).about


def test_a_program_that_is_not_there():
    """Is a crash, said in words."""
    with pytest.raises(CrashedError, match="cannot be started"):
        _ = ProcessSubject(["no-such-program-anywhere"]).about


def test_a_run_goes_on(program):
    """A subject that dies at nearly every question gets verdicts, and a claim is left after three deaths."""
    run = check(program("say(ids=[1]) if request.get('text') == 'Hello' else os._exit(1)"), only=["tokenizer"])
    assert run.overall.code == 2, "one smoke test fails, so the adapter is broken, and nothing else is asked"
    assert {result.verdict for result in run.results if result.claim == "tokenizer"} == {"INCONCLUSIVE"}
    alive = "say(ids=[1]) if request.get('text') == 'Hello' else say(rows=[[1]]) if op == 'generate' else os._exit(1)"
    run = check(program(alive), only=["tokenizer"])
    assert run.overall.code == 1
    verdicts = [result.verdict for result in run.results if result.claim == "tokenizer" and "encode" in result.id]
    assert verdicts[:4] == ["CRASH", "CRASH", "CRASH", "INCONCLUSIVE"]


def test_skipping_everything_shows_nothing(program):
    """Nothing shown beyond the smoke test is inconclusive."""
    smoke = "say(ids=[1]) if request.get('text') == 'Hello' else say(rows=[[1]]) if request.get('max_new_tokens') == 1 "
    run = check(program(smoke + "else say(skipped='later')"), only=["tokenizer"])
    assert (run.overall.verdict, run.overall.code) == ("inconclusive", 3)


@pytest.fixture(scope="module")
def worker():
    """refgen itself through the pipe."""
    name = "refgen.conformance.subjects.reference:ReferenceSubject"
    subject = ProcessSubject([sys.executable, "-m", "refgen.conformance.subjects.worker", name])
    yield subject
    subject.close()


def test_a_python_factory_in_its_own_process(worker):
    """Arrays, -inf, errors and what is missing come through the pipe."""
    assert worker.about.name == "refgen"
    run = check(
        worker,
        only=["tokenizer.*", "process.*", "loop.rejects.*", "loop.greedy.*"],
    )
    assert run.overall.verdict == "right", run.overall.sentence
    assert all(result.verdict.good for result in run.results)


def test_what_a_factory_prints_is_no_answer(tmp_path, monkeypatch):
    """A subject may print; that goes to stderr."""
    (tmp_path / "chatty.py").write_text(
        "class Chatty:\n    name = 'chatty'\n    def __init__(self, folder): print('loading')\n"
        "    def encode(self, text):\n        print('hm')\n        return [1]\n"
    )
    monkeypatch.chdir(tmp_path)
    subject = ProcessSubject([sys.executable, "-m", "refgen.conformance.subjects.worker", "chatty:Chatty"])
    try:
        assert subject.about.can == {"encode"}
        assert subject.ask(*ASKED) == {"ids": [1]}
    finally:
        subject.close()


def test_a_function_is_a_factory_too(tmp_path, monkeypatch):
    """What its objects can do is found out before anything is asked, so nothing else is claimed."""
    (tmp_path / "made.py").write_text(
        "class Thing:\n    name = 'thing'\n    def encode(self, text): return [1]\n"
        "def thing(folder):\n    return Thing()\n"
    )
    monkeypatch.chdir(tmp_path)
    subject = ProcessSubject([sys.executable, "-m", "refgen.conformance.subjects.worker", "made:thing"])
    try:
        assert (subject.about.name, subject.about.can) == ("thing", {"encode"})
    finally:
        subject.close()


@pytest.mark.parametrize("name", ["no.such:thing", "json:thing", "json", "refgen.conformance.runner:check"])
def test_a_factory_that_is_not_there(name, capfd):
    """Is told once, in the words for people: by what asked for it, and not by the worker too."""
    subject = ProcessSubject([sys.executable, "-m", "refgen.conformance.subjects.worker", name])
    with pytest.raises(
        RefusedError, match=r"^(no\.such:thing|json|json:thing): cannot be found|^the model \w+: was not taken"
    ):
        _ = subject.about
    subject.close()
    assert capfd.readouterr().err == ""
