"""conformance/subjects/border.py and values.py: what may be returned, what may not, and what is said of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from refgen.cli import main
from refgen.conformance import runner
from refgen.conformance.judging.lab import Lab
from refgen.conformance.subjects.border import BODY, checked, read_events, read_json
from refgen.conformance.subjects.protocol import About, CrashedError, GarbledError, RefusedError
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.conformance.subjects.values import shown, words
from refgen.conformance.subjects.wire import Wire, waiting
from refgen.names import find_model

ONE, TWO = {"input_ids": [[1, 2]]}, {"input_ids": [[1, 2], [3, 4]]}


class Tensor:
    """What a tensor of another library is like: an array or a list, if asked."""

    def __init__(self, values, gradient=False):
        self.array, self.gradient = np.asarray(values), gradient
        self.shape, self.ndim = self.array.shape, self.array.ndim

    def __array__(self, *_, **__):
        if self.gradient:
            raise RuntimeError("call detach() first")
        return self.array

    def tolist(self):
        """Nested lists."""
        return self.array.tolist()


# --- What is taken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        [5, 6], (5, 6), np.array([5, 6]), np.array([5, 6], dtype=np.int32), Tensor([5, 6]), Tensor([5, 6], gradient=True), [np.int64(5), np.int64(6)],
        [np.array(5), np.array(6)], [Tensor(5), Tensor(6)], np.array([[5, 6]]), [[5, 6]], [np.array([5, 6])], Tensor([[5, 6]]),
    ],
)  # fmt: skip
def test_ids_of_one_row(ids):
    """A list, an array or a tensor, with or without the axis of rows; all become a list of int."""
    for answer in ({"rows": ids}, {"rows": [{"new_ids": ids}]}, {"new_ids": ids}, {"rows": {"new_ids": ids}}):
        (row,) = checked("generate", ONE, answer)["rows"]
        assert row == {"new_ids": [5, 6]}
        assert {*map(type, row["new_ids"])} == {int}
    assert checked("encode", {"text": "x"}, {"ids": ids}) == {"ids": [5, 6]}


@pytest.mark.parametrize(
    "rows",
    [
        [[5, 6], [7, 8]], np.array([[5, 6], [7, 8]]), Tensor([[5, 6], [7, 8]]), [np.array([5, 6]), np.array([7, 8])], [Tensor([5, 6]), (7, 8)],
        [{"new_ids": np.array([5, 6])}, {"new_ids": Tensor([[7, 8]])}],
    ],
)  # fmt: skip
def test_ids_of_two_rows(rows):
    """One array, a list of arrays, or objects."""
    assert [row["new_ids"] for row in checked("generate", TWO, {"rows": rows})["rows"]] == [[5, 6], [7, 8]]


LOGITS = [[[0.5, 1.0, 2.0], [3.0, 4.0, 5.0]]]


@pytest.mark.parametrize(
    "logits",
    [
        LOGITS, np.array(LOGITS), np.array(LOGITS, dtype=np.float16), Tensor(LOGITS), Tensor(LOGITS, gradient=True), LOGITS[0], np.array(LOGITS[0]),
        [np.array(LOGITS[0])], [[np.array(each) for each in LOGITS[0]]], [[list(map(np.float32, each)) for each in LOGITS[0]]],
        [[[np.array(x) for x in each] for each in LOGITS[0]]], Tensor(LOGITS[0]),
    ],
)  # fmt: skip
def test_logits(logits):
    """Lists of arrays, tensors, a single row without its axis: float64 of class ndarray, a copy."""
    array = checked("forward", ONE, {"logits": logits})["logits"]
    assert (type(array), array.dtype, array.tolist()) == (np.ndarray, np.float64, LOGITS)
    assert not np.shares_memory(array, getattr(logits, "array", logits) if not isinstance(logits, list) else array[:0])


def test_numbers_that_are_not_finite_come_as_they_are():
    """Whether a NaN is wrong is for the judge to say."""
    logits = checked("forward", ONE, {"logits": [[[np.nan, np.inf], [-np.inf, 1]]]})["logits"]
    np.testing.assert_array_equal(logits, [[[np.nan, np.inf], [-np.inf, 1]]])


# --- What is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "answer", "message"),
    [
        ("encode", {}, "ids must be a list of whole numbers; got None"),
        ("encode", {"ids": [1, True]}, "ids must be a list of whole numbers: each must be a whole number; got True"),
        ("encode", {"ids": [np.bool_(True)]}, "ids must be a list of whole numbers: each must be a whole number; got an array of booleans of shape []"),
        ("encode", {"ids": [1.0]}, "ids must be a list of whole numbers: each must be a whole number; got 1.0"),
        ("encode", {"ids": [float("inf")]}, "ids must be a list of whole numbers: each must be a whole number; got inf"),
        ("encode", {"ids": [10**400]}, "ids must be a list of whole numbers; got an integer of 401 digits"),
        ("encode", {"ids": (x for x in [1])}, "ids must be a list of whole numbers; got a value of type generator"),
        ("encode", {"ids": {1, 2}}, "ids must be a list of whole numbers; got a value of type set"),
        ("encode", {"ids": b"12"}, "ids must be a list of whole numbers; got b'12'"),
        ("encode", {"ids": [1] * 70_000}, "ids must be a list of whole numbers; got a list of 70000"),
        ("decode", {"text": b"a"}, "text must be a text; got b'a'"),
        ("decode", {"text": "a\ud800"}, "text must be a text of whole characters; got half of one, '\\ud800'"),
        ("decode", {"text": "x" * 2**21}, "text must be a text of at most 1048576 characters; got 2097152"),
        ("forward", {"logits": np.array([[None, 1]])}, "logits must be numbers of shape [1, 2, any]; got an array of objects of shape [1, 2]"),
        ("forward", {"logits": np.zeros((1, 2, 3), complex)}, "logits must be numbers of shape [1, 2, any]; got an array of complex numbers of shape [1, 2, 3]"),
        ("forward", {"logits": [[[True, 1], [1, 1]]]}, "logits must be numbers of shape [1, 2, any]; got True"),
        ("forward", {"logits": [[[10**400], [1]]]}, "logits must be numbers of shape [1, 2, any]; got an integer of 401 digits"),
        ("forward", {"logits": [[[[1]]]]}, "logits must be numbers of shape [1, 2, any]; got lists that are nested deeper"),
        ("forward", {"logits": [[[1], [1, 2]]]}, "logits must be numbers of shape [1, 2, any]; got rows of shapes [1] and [2]"),
        ("forward", {"logits": np.broadcast_to(1.0, (1, 2, 10**12))}, "logits must be numbers of shape [1, 2, any]; got an array of numbers of shape [1, 2, 1000000000000]"),
        ("forward", {"logits": np.ma.masked_array([[[1.0], [2.0]]], mask=True)}, "logits must be numbers of shape [1, 2, any]; got a masked array"),
        ("generate", {"rows": [[1], [2]]}, "rows must be a list of 1, each a list of ids or an object with new_ids; got [[1], [2]]"),
        ("generate", {"rows": [{"finish": "eos"}]}, "row 0 has neither new_ids nor text"),
        ("generate", {"new_ids": [1], "finish": "stop"}, "row 0: finish must be one of eos, length, stop_string, context; got 'stop'"),
        ("generate", {"new_ids": [1], "logprobs": [10**400]}, "row 0: logprobs must be numbers of shape [any]; got an integer of 401 digits"),
        ("generate", {"new_ids": [1, 5000]}, "row 0: token 5000 is not one of the model's 1024"),
        ("generate", {"new_ids": [-1]}, "row 0: token -1 is not one of the model's 1024"),
        ("process", {"scores": np.array([["2020-01-01", "2020-01-02"]], dtype="M8[D]")}, "scores must be numbers of shape [1, 2]; got an array of dates of shape [1, 2]"),
    ],
)  # fmt: skip
def test_what_is_refused(op, answer, message):
    """One line says what was expected, and what came."""
    vocabulary = 1024 if op == "generate" else None
    with pytest.raises(GarbledError) as caught:
        checked(op, ONE | {"logits": [[0.0, 1.0]]}, answer, vocabulary)
    assert str(caught.value) == message


def test_the_shape_of_logits_names_the_vocabulary():
    """Where the model is known, so is V."""
    with pytest.raises(GarbledError, match=r"logits must be numbers of shape \[1, 2, 40\]; got shape \[1, 2, 3\]"):
        checked("forward", ONE, {"logits": LOGITS}, 40)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[" * 100_000, "the answer is nested too deep"),
        (b'{"ids": [' + b"9" * 400 + b"]}", "the answer holds an integer of 400 digits"),
        (b"9" * 5000, "the answer holds an integer of 5000 digits"),
        (b'{"text": "\xff"}', "the answer is not UTF-8: byte 10 is 0xff"),
        (b"hm\x1b[31m", "the answer is no JSON: 'hm\\x1b[31m'"),
        (b"", "the answer is no JSON: ''"),
        (b" " * (BODY + 1), f"the answer is longer than {BODY} bytes"),
    ],
)
def test_what_is_no_json(raw, message):
    """Errors of Python's own reader are failures of the subject."""
    with pytest.raises(GarbledError) as caught:
        read_json(raw, "the answer")
    assert str(caught.value) == message


def test_events():
    """Data lines, comments, other fields, all ends of lines; the last event may lack its blank line."""
    raw = b": hi\r\ndata: {\r\ndata: 1}\r\n\r\nevent: x\ndata:2\n\nid: 5\n\ndata: [DONE]"
    assert read_events(raw) == ["{\n1}", "2", "[DONE]"]


def test_words():
    """What a subject says reaches a terminal without escape codes, on one line, cut."""
    assert words("a\nb\x1b[31mc\u202ed") == "a b\\x1b[31mc\\u202ed"
    assert len(words("x" * 10**6)) == 500
    assert words(10**400) == "an integer of 401 digits"
    assert shown({"a": [1, [2, [3, [4]]]]}) == "{'a': [1, [2, […]]]}"


# --- Subjects ---------------------------------------------------------------------------------------------------------

FOLDER = find_model("shakespeare")


def subject_that(does, op="encode", timeout=5.0):
    """A subject one of whose methods does this."""
    subject = type("Mine", (), {op: lambda self, **request: does()})()
    return PythonSubject(lambda folder: subject, About("mine", can=frozenset({op})), timeout)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_the_kit_is_a_crash_of_the_subject(error):
    """SystemExit raised by a method, or by the value it returned."""

    def quits():
        raise error

    with pytest.raises(CrashedError, match=f"{error.__name__} while answering encode"):
        subject_that(quits).ask("encode", FOLDER, {"text": "x"})

    class Value:
        def __array__(self, *_, **__):
            raise error

    with pytest.raises(GarbledError, match=f"got a value whose own code raises {error.__name__}"):
        subject_that(lambda: {"ids": Value()}).ask("encode", FOLDER, {"text": "x"})


def test_a_value_that_hangs_is_out_of_time():
    """Its own code runs within the time of the answer."""
    from refgen.conformance.subjects.protocol import TimedOutError

    class Value:
        def __array__(self, *_, **__):
            threading.Event().wait(60)

    with pytest.raises(TimedOutError, match=r"no answer to encode after 0.2 s"):
        subject_that(lambda: {"ids": Value()}, timeout=0.2).ask("encode", FOLDER, {"text": "x"})


def test_an_answer_cannot_be_changed_afterwards():
    """The subject may go on writing into its array; the judge has another."""
    mine = np.zeros((1, 2, 3))
    answer = subject_that(lambda: mine, op="forward").ask("forward", FOLDER, ONE)
    mine[:] = 5
    assert not answer["logits"].any()


def test_ids_that_are_no_tokens_fail(shakespeare):
    """TOK-14. They are a failure with a sentence, before anything is decoded."""

    class Foreign(ReferenceSubject):
        def generate(self, input_ids, **arguments):
            return [[5000] * arguments["max_new_tokens"] for _ in input_ids]

    subject = PythonSubject(Foreign, describe(Foreign, FOLDER))
    run = runner.check(subject, only=["relations.stop-string"])
    assert {result.finding.message for result in run.results if result.verdict.bad} == {
        "row 0: token 5000 is not one of the model's 1024"
    }
    assert Lab(subject, {}).about.name == "refgen"


def test_a_program_with_hostile_lines(tmp_path, capsys):
    """Integers of 400 digits and JSON 100,000 deep are failures, and the exit code is 2 or 1, never 0 or 3."""
    for number, line in enumerate(
        (
            "'{\"id\": %d, \"ids\": [' % n + '9' * 400 + ']}'",
            "'['*100000",
            "'{\"id\": %d, \"ids\": ' % n + '['*900 + ']'*900 + '}'",
        )
    ):
        path = tmp_path / f"liar{number}.py"
        path.write_text(
            "import json, sys\nfor line in sys.stdin:\n    request = json.loads(line)\n    n, op = request.get('id'), request['op']\n"
            "    if op == 'hello': print(json.dumps({'id': n, 'protocol': 1, 'name': 'liar', 'can': ['encode']}), flush=True)\n"
            "    elif op == 'load': print(json.dumps({'id': n}), flush=True)\n"
            f"    elif op == 'encode': print({line}, flush=True)\n"
        )
        assert main(["check", f"python {path}", "--only", "tokenizer"]) == 2
        assert "smoke.encode is a FAIL" in capsys.readouterr().out


def test_names_that_are_no_texts(tmp_path, capsys):
    """A greeting of the wrong kind is an error on one line."""
    for number, entries in enumerate(
        ({"can": [[]]}, {"choices": {"a": 5}}, {"can": "encode"}, {"dtype": []}, {"dtype": {}})
    ):
        path = tmp_path / f"liar{number}.py"
        hello = {"protocol": 1, "name": "x", "can": ["encode"], **entries}
        path.write_text(
            f"import json\nn = json.loads(input())['id']\nprint(json.dumps({{'id': n, **{hello!r}}}), flush=True)"
        )
        assert main(["check", f"python {path}"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


# --- Servers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A server that answers any request with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))  # closing with bytes unread would reset the connection
            self.send_response(self.server.code)
            self.send_header("Content-Type", self.server.kind)
            self.end_headers()
            try:
                for _ in range(self.server.times):
                    self.wfile.write(self.server.body)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.code, http.kind, http.times = 200, "application/json", 1
    threading.Thread(target=http.serve_forever, args=[0.01], daemon=True).start()
    http.wire = Wire(f"http://127.0.0.1:{http.server_address[1]}/v1", timeout=20.0)
    yield http
    http.wire.close()
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (200, b"[" * 100_000, GarbledError),
        (200, b'{"choices": [{"text": "a", "index": ' + b"9" * 400 + b"}]}", GarbledError),
        (200, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", RefusedError),
        (400, b"[" * 100_000, RefusedError),
        (400, b'{"error": {"message": ' + b"9" * 5000 + b"}}", RefusedError),
        (500, b"\xff\x1b[31m", CrashedError),
    ],
)
def test_hostile_bodies(server, code, body, error):
    """They are what their code says, or no answer; never an exception of another kind."""
    server.code, server.body = code, body
    with pytest.raises(error) as caught:
        server.wire.post("/completions", {})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("stream", [False, True])
def test_endless_bodies(server, stream):
    """No more is read than any answer can have."""
    server.body, server.times = b"data: {}\n\n" * 10**5, 10**4
    server.kind = "text/event-stream" if stream else "application/json"
    ask = server.wire.stream if stream else server.wire.post
    with pytest.raises(GarbledError, match=r"longer than|more than"):
        ask("/completions", {})


def test_waiting():
    """What a busy server asks for, if it is a number of seconds."""
    assert [waiting(each) for each in ("1", "nan", "inf", "-3", "x", None, "1e9")] == [
        1.0,
        0.5,
        0.5,
        0.0,
        0.5,
        0.5,
        5.0,
    ]


def test_the_traffic_is_json(tmp_path):
    """Answers are typed before they are recorded, so any of them can be written."""
    from refgen.conformance.subjects.recorded import Recorded, Replayed

    path = tmp_path / "traffic.jsonl"
    recorded = Recorded(subject_that(lambda: [10**400]), path)
    with pytest.raises(GarbledError):
        recorded.ask("encode", FOLDER, {"text": "x"})
    recorded.close()
    with pytest.raises(GarbledError, match="an integer of 401 digits"):
        Replayed(path).ask("encode", Path("shakespeare"), {"text": "x"})
    assert all(json.loads(line) for line in path.read_text().splitlines())
