"""The border (conformance/subjects/border.py): nothing a subject sends raises in the kit, hangs it, or makes a verdict milder."""

import json
import time
from collections import OrderedDict, UserDict
from itertools import count, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from refgen.conformance import runner
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Verdict
from refgen.conformance.questions import fresh, relations, serving, smoke
from refgen.conformance.subjects.border import checked, read_events, read_json
from refgen.conformance.subjects.dialects import Vocabulary, join_stream, read_completion
from refgen.conformance.subjects.http import HttpSubject, connect
from refgen.conformance.subjects.process import described
from refgen.conformance.subjects.protocol import FINISHES, OPERATIONS, GarbledError, RefusedError
from refgen.conformance.subjects.python import KEY, PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.conformance.subjects.values import shown, words
from refgen.conformance.subjects.wire import decode_events, decode_json
from refgen.names import find_model
from tests.openai_server import Server

FOLDER = find_model("shakespeare")
SECONDS = 2.0  # for one value on a busy machine; most take some microseconds
INT64 = 2**63
REQUESTS = {
    "encode": {"text": "x"},
    "decode": {"ids": [1]},
    "forward": {"input_ids": [[1, 2]]},
    "process": {"input_ids": [[1]], "logits": [[0.0, 1.0]]},
    "generate": {"input_ids": [[1]], "num_return_sequences": 2},
    "complete": {"body": {"prompt": [1]}},
    "complete_together": {"bodies": [{"prompt": [1]}]},
}
ONE_ROW = {"input_ids": [[1]]}
KEYS = (
    "ids", "text", "logits", "scores", "rows", "new_ids", "finish", "logprobs", "chunks", "dtype", "shape", "b64", "choices", "usage",
    "answers", "index", "finish_reason", "ids_from", "tokens", "top_logprobs", "deltas", "done", "seconds", "prompt_tokens", "id",
    "token_ids", "token_logprobs", "content", "token", "logprob", "skipped", "error", "message", "garbled", "protocol", "can", "name",
)  # fmt: skip

# --- Values -----------------------------------------------------------------------------------------------------


class Hostile:
    """Every method it has raises, and its class lies."""

    def __init__(self, error=RuntimeError):
        object.__setattr__(self, "error", error)

    def __getattribute__(self, name):
        raise object.__getattribute__(self, "error")(name)

    def _raise(self, *_):
        raise object.__getattribute__(self, "error")

    __array__ = tolist = __len__ = __iter__ = __eq__ = __repr__ = __str__ = __bool__ = __index__ = __float__ = _raise
    __getitem__ = __hash__ = __int__ = __class__ = property(_raise)


class Meta(type):
    """A class whose class raises."""

    def _raise(cls, *_):
        raise RuntimeError

    __eq__ = __hash__ = __instancecheck__ = _raise
    __name__ = property(_raise)


class OddClass(metaclass=Meta):
    """One of those."""


class Lying:
    """Looks like a tensor: `made` is what its methods give."""

    def __init__(self, made, shape=(2,), error=None):
        self.made, self.shape, self.error, self.ndim = made, shape, error, len(shape)

    def __array__(self, *_, **__):
        if self.error is not None:
            raise self.error
        return self.made

    def tolist(self):
        """What it was given."""
        return self.made


class Growing(list):
    """A list that is longer than it is, and never ends."""

    def __len__(self):
        return 2

    def __iter__(self):
        return count()

    def __getitem__(self, place):
        return Growing([1, 2])

    def __eq__(self, other):
        return True

    __hash__ = None


class Liar(dict):
    """A dict that has every key."""

    def __getitem__(self, key):
        return Growing()

    def get(self, key, default=None):
        """Anything."""
        return Growing()

    def items(self):
        """For ever."""
        return zip(count(), count(), strict=False)

    def __iter__(self):
        return count()


class Sayer(str):
    """A text that says something else."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __str__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError

    encode = __repr__ = __str__
    __hash__ = str.__hash__


class One(int):
    """A whole number that is every number."""

    def __eq__(self, other):
        return True

    def __lt__(self, other):
        raise RuntimeError

    __le__ = __gt__ = __ge__ = __int__ = __index__ = __repr__ = __float__ = __lt__
    __hash__ = int.__hash__


class Endless(UserDict):
    """A Mapping whose keys never end."""

    def __iter__(self):
        return map(str, count())

    def __getitem__(self, key):
        return Endless()


def objects(*several):
    """An array of objects."""
    array = np.empty(len(several), dtype=object)
    for place, each in enumerate(several):
        array[place] = each
    return array


def looped():
    """A list that holds itself."""
    several = [1]
    several.append(several)
    several[0] = several
    return several


def deep(depth=20_000, kind=list):
    """A list in a list in a list."""
    value = kind([1])
    for _ in range(depth):
        value = kind([value])
    return value


def circle():
    """A dict that holds itself."""
    value = {}
    value.update(dict.fromkeys(KEYS, value))
    return value


SAMPLES = (
    lambda: 10**400, lambda: -(10**100_000), lambda: 10**20, lambda: float("nan"), lambda: float("inf"), lambda: -0.0,
    lambda: "\ud800", lambda: "a\udfff", lambda: "x" * 2**21, lambda: b"\xff\x00", lambda: bytearray(b"12"), lambda: {1, 2}, frozenset,
    lambda: range(3), lambda: range(10**18), lambda: 1j, object, lambda: int, lambda: Hostile, lambda: OddClass, OddClass,
    lambda: iter([1, 2]), lambda: repeat(1), count, lambda: (x for x in [1]), lambda: memoryview(b"12"), lambda: np.bool_(True), lambda: True,
    lambda: [True, False], lambda: [np.bool_(True)], lambda: [None], lambda: [float("inf")], lambda: [1.0], lambda: [10**400], lambda: [[10**400]],
    lambda: [[[10**400, 1.0], [1.0, 1.0]]], lambda: [[[1.0, 1.0], [1.0]]], lambda: [[[None, 1.0], [1.0, 1.0]]], looped, deep, circle,
    lambda: deep(5000, tuple), lambda: [looped()], lambda: [[1] * 10**6] * 10**6, lambda: [[[0.0] * 10**5] * 10**5] * 10**5, lambda: "9" * 10**6,
    Hostile, lambda: [Hostile()], lambda: {"ids": Hostile()}, lambda: Hostile(SystemExit), lambda: Hostile(KeyboardInterrupt),
    lambda: Hostile(MemoryError), lambda: Hostile(RecursionError), lambda: Hostile(GeneratorExit), lambda: [OddClass()],
    Growing, lambda: [Growing([1])], Liar, lambda: Liar(ids=[1], rows=[Liar(new_ids=[1])] * 2), Endless, lambda: UserDict(ids=[1]),
    lambda: Sayer("eos"), lambda: {"new_ids": [1], "finish": Sayer("eos")}, lambda: {Sayer("ids"): [1]}, lambda: [One(1), One(2)], lambda: {One(1): 1},
    lambda: Lying(None), lambda: Lying([1, 2]), lambda: Lying(np.array([1, 2])), lambda: Lying(objects(Hostile())),
    lambda: Lying(looped()), lambda: Lying(deep()), lambda: Lying(Lying([1])), lambda: Lying([1], shape=(10**18,)), lambda: Lying([1], shape=(Hostile(),)),
    lambda: Lying([1], error=SystemExit()), lambda: Lying([1, 2], error=TypeError()), lambda: Lying("12"), lambda: Lying(Growing([1])),
    lambda: objects(Hostile(), 1), lambda: objects(1, 2), lambda: objects(looped()),
    lambda: np.array([[[1.0, 2.0], [3.0, 4.0]]]), lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), lambda: np.recarray(2, dtype=[("a", "f8")]),
    lambda: np.array([1j]), lambda: np.array([["2020-01-01"]], dtype="M8[D]"), lambda: np.array([1], dtype="m8[s]"), lambda: np.array([b"1"]),
    lambda: np.array(["1"]), lambda: np.ma.masked_array([[[1.0, 2.0], [3.0, 4.0]]], mask=True), lambda: np.array([[1, 2]]).view(np.matrix), lambda: np.array(5),
    lambda: np.array(5.0), lambda: np.zeros((1, 2, 0)), lambda: np.zeros((0, 0)), lambda: np.broadcast_to(1.0, (1, 2, 10**12)),
    lambda: np.broadcast_to(1, (2, 10**12)), lambda: np.broadcast_to(np.int8(1), 10**15), lambda: np.array([2**63], dtype=np.uint64),
    lambda: np.array([[[1e400, -1e400], [np.nan, 0]]], dtype=np.longdouble), lambda: np.longdouble("1e4000"), lambda: np.array([True, False]),
    lambda: np.frombuffer(b"\x01\x00\xf0\x7f" * 4, "<f4").reshape(1, 2, 2), lambda: np.array([[[1, 2], [3, 4]]], dtype=">f2"),
    lambda: {"dtype": "F32", "shape": [1, 2, 10**18], "b64": ""}, lambda: {"dtype": "F32", "shape": [-1, -2, 2], "b64": "AAAAAAAAAAAAAAAAAAAAAA=="},
    lambda: {"dtype": "F64", "shape": [0, 2**62, 2**62], "b64": ""}, lambda: {"dtype": [], "shape": {}, "b64": 5}, lambda: OrderedDict(ids=[1]),
    lambda: {"dtype": "F32", "shape": [True, 2, 0], "b64": ""}, lambda: {"logits": deep()}, lambda: {"rows": deep()}, lambda: {"rows": looped()},
    lambda: {"rows": [{"new_ids": [1], "logprobs": [10**400]}] * 2}, lambda: {"rows": [{"new_ids": [1], "chunks": "abc"}] * 2},
    lambda: {"rows": [{"new_ids": [1], "chunks": ["x" * 2**20] * 2}] * 2}, lambda: {"rows": [{"text": "\ud800"}] * 2},
    lambda: {"choices": [{"text": "a", "index": Hostile()}]}, lambda: {"choices": [{"text": "a", "ids": [10**30]}], "usage": {"prompt_tokens": 10**30}},
    lambda: {"choices": [{"text": "a", "logprobs": [float("nan")]}]}, lambda: {"choices": [{"text": "a", "top_logprobs": [[[1]]]}]},
)  # fmt: skip
INTS = st.integers() | st.sampled_from((INT64 - 1, INT64, -INT64, -INT64 - 1, 10**19, 10**20, 10**400))
TEXTS = st.text(st.characters(codec=None), max_size=4) | st.sampled_from(
    (*FINISHES, "F32", "AAAA", "\ud800", "token_id:" + "9" * 5000)
)
LEAVES = st.none() | st.booleans() | INTS | st.floats() | TEXTS
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4)
        | st.integers(0, 200).flatmap(lambda depth: inner.map(lambda value: nested(value, depth)))
    ),
    max_leaves=10,
)


def nested(value, depth):
    """The value in so many lists."""
    for _ in range(depth):
        value = [value]
    return value


class Subclass(np.ndarray):
    """An array with methods of its own."""

    def __array__(self, *_, **__):
        raise RuntimeError

    def tolist(self):
        """Nothing."""
        raise RuntimeError

    __len__ = __iter__ = __getitem__ = __eq__ = __repr__ = astype = tolist
    shape = property(lambda self: (1, 2, 2))
    __hash__ = None


DTYPES = ("f8", "<f4", ">f2", "g", "i1", ">i8", "u8", "?", "c8", "M8[s]", "m8[D]", "S2", "U2", "O", "i4,f8", "V3")
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3) | st.sampled_from(
    ((1, 2, 2), (1, 2), (2,), (2, 3))
)
ARRAYS = st.builds(
    lambda *drawn: Box(lambda: made(*drawn)),
    st.sampled_from(DTYPES), SHAPES, st.binary(min_size=8, max_size=64), st.booleans(),
)  # fmt: skip
FLOATS = arrays(np.float64, SHAPES, elements=st.floats(width=64))


class Box:
    """A value that Hypothesis must not touch: `make` makes it."""

    def __init__(self, make):
        self.make = make

    def __repr__(self):
        return shown(self.make())


def made(dtype, shape, raw, as_subclass):
    """An array of any bits: a NaN may have any payload."""
    array = any_bits(dtype, shape, raw)
    return array.view(Subclass) if as_subclass else array


def any_bits(dtype, shape, raw):
    """The same of class ndarray."""
    kind = np.dtype(dtype)
    if kind.hasobject:
        return objects(*[Hostile() for _ in range(int(np.prod(shape)))]).reshape(shape)
    size = int(np.prod(shape)) * kind.itemsize
    return np.frombuffer((raw * (size // len(raw) + 1))[:size], kind).reshape(shape)


VALUES = (
    (JSON | FLOATS).map(lambda value: Box(lambda: value))
    | ARRAYS
    | st.sampled_from(range(len(SAMPLES))).map(lambda number: Box(SAMPLES[number]))
)


def plain(value):
    """Whether a judge may see it."""
    if type(value) is np.ndarray:
        return value.dtype == np.float64 and value.flags.owndata | (value.base is not None)
    if type(value) is dict:
        return all(type(name) is str and plain(each) for name, each in value.items())
    if type(value) is list:
        return all(map(plain, value))
    if type(value) is str:
        return value.encode("utf-8") is not None and len(value) <= 2**20
    return value is None or type(value) in (float, bool) or (type(value) is int and -INT64 <= value < INT64)


def passes(read, what):
    """`read` gives a plain value or says in one line why not, in time."""
    start = time.monotonic()
    try:
        value = read()
        assert plain(value), what
    except GarbledError as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 2000
    assert time.monotonic() - start < SECONDS, what


# --- One value ----------------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(REQUESTS)), VALUES, st.sampled_from((None, 2, 1024)))
def test_any_value_is_a_typed_answer_or_garbled(op, box, vocabulary):
    """Whatever comes as an answer, as its entry, or inside a row, is plain behind the border, or refused in one line."""
    value = box.make()
    requests = [REQUESTS[op]] + [ONE_ROW] * (op == "generate")
    answers = [
        value,
        {name: value for name in KEYS},  # noqa: C420 - it may be of any type
        {"rows": [value] * 2},
        {"rows": [{"new_ids": value}] * 2},
        {"new_ids": [1], "logprobs": value, "chunks": value, "text": value},
        {"answers": [value]},
        {"choices": [value]},
        {"choices": [{name: value for name in KEYS} | {"text": "a"}]},  # noqa: C420
    ]
    for request in requests:
        for answer in answers:
            passes(lambda request=request, answer=answer: checked(op, request, answer, vocabulary), op)


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_each_sample(number):
    """The same for each hostile value that was ever met, so that none is left to chance."""
    make = SAMPLES[number]
    for op, request in REQUESTS.items():
        value = make()
        for answer in (value, {name: value for name in KEYS}, {"rows": [value, value]}, {"choices": [value]}):  # noqa: C420
            passes(lambda op=op, request=request, answer=answer: checked(op, request, answer), number)
    assert shown(make()).isprintable()
    assert words(make()).isprintable()


def lines():
    """Bytes that a program or a server may send."""
    texts = JSON.map(lambda value: json.dumps(value).encode())
    raw = st.sampled_from((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"id": 1, "ids": [' + b"9" * 400 + b"]}", b"NaN", b"-Infinity",
                           b'{"id": 1, "id": 1, "ids": [1], "ids": "x"}', b'"\\ud800"', b"\xff\xfe", b"", b"1e999", b'{"id": 1e0}', b"\x00", b"-"))  # fmt: skip
    return raw | texts | st.binary(max_size=40) | st.tuples(texts, st.binary(max_size=3)).map(b"".join)


@given(lines(), st.sampled_from(sorted(REQUESTS)))
@settings(max_examples=settings().max_examples * 3)
def test_any_bytes_are_an_answer_or_garbled(vocabulary, raw, op):
    """A line of a program, the body of a server, the data of an event stream, a greeting: each is read, or refused in one line."""

    def said():
        return read_json(raw, "the answer")

    for read in (
        lambda: checked(op, REQUESTS[op], said()),
        lambda: read_completion(said(), vocabulary),
        lambda: read_completion({"choices": [{"text": "a", "logprobs": said(), "token_ids": said()}]}, vocabulary),
        lambda: join_stream(read_events(b"data: " + raw + b"\r\n\r\n" + raw), vocabulary),
        lambda: join_stream(
            [json.dumps({"choices": [{"text": "a", "index": said(), "logprobs": {"tokens": said()}}]})], vocabulary
        ),
        lambda: described({"protocol": 1, "can": ["encode"], **said()} if isinstance(said(), dict) else {}) and None,
        lambda: described({"protocol": 1, "can": said(), "choices": said(), "name": said()}) and None,
    ):
        passes(read, raw)


@pytest.fixture(scope="module")
def vocabulary(shakespeare):
    """That of the built-in model."""
    return Vocabulary(shakespeare[1])


# --- A whole run ----------------------------------------------------------------------------------------------------

CHECKS = {  # of each operation checks of every kind
    "encode": ("tokenizer.encode.c*", "relations.round-trip"),
    "decode": ("tokenizer.decode.*", "relations.round-trip"),
    "forward": ("forward.net-plain.*", "forward.fresh.0*", "relations.causal", "relations.forward-*", "relations.logprobs-forward"),
    "process": ("process.repetition.*", "process.top_k.*"),
    "generate": ("loop.greedy.net-plain", "loop.own", "loop.fresh.0", "stop.*", "relations.b*", "relations.e*", "relations.st*", "relations.lo*",
                 "relations.s*", "relations.n*", "relations.m*", "relations.o*", "sampling.plain", "sampling.seed.*", "sampling.uniforms.plain",
                 "sampling.text.*.cut", "loop.rejects.*", "probe.copy-1.*", "relations.greedy-is-best"),
}  # fmt: skip


class Replaced:
    """A subject that is right, but for one operation's answers behind the first few: those are `value`, whatever was asked."""

    reference = None

    def __init__(self, op, value, after):
        about = describe(ReferenceSubject, find_model("shakespeare"))
        if Replaced.reference is None:
            Replaced.reference = PythonSubject(Kept, about)
        self.about, self.op, self.value, self.left, self.wrong = about, op, value, after, 0
        subject = PythonSubject(lambda folder: self, about, timeout=20.0)
        self.subject = subject

    def __getattr__(self, name):
        if name == self.op:
            return lambda **_: self.value
        raise AttributeError(name)

    def ask(self, op, model, request):
        """Right, or the value."""
        if op == self.op:
            self.left -= 1
            if self.left < 0:
                self.wrong += 1
                return self.subject.ask(op, model, request)
        return Replaced.reference.ask(op, model, request)

    def restart(self):
        """Goes on."""

    def close(self):
        """Nothing to do."""


LOADED = {}


class Kept(ReferenceSubject):
    """Models are loaded once."""

    def __new__(cls, folder):
        """The one of this folder."""
        return LOADED.setdefault(folder, super().__new__(cls))

    def __init__(self, folder):
        if "folder" not in self.__dict__:
            super().__init__(folder)


def judged(op, value, after, only):
    """The verdicts of the checks that met the value, and the exit code of the run."""
    subject = Replaced(op, value, after)
    met = []
    lab_make = runner.make

    def make(lab, check):
        before = subject.wrong
        result = lab_make(lab, check)
        if subject.wrong > before:
            met.append(result)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "make", make)
        patch.setattr(runner, "DEATHS", 10**9)
        run = runner.check(subject, only=only)
    return met, run


def selected(op):
    """Ids of the checks of an operation, those that there are."""
    return [pattern for pattern in CHECKS[op] if pattern in known()]


def known():
    """All patterns that match something."""
    if not KNOWN:
        from fnmatch import fnmatchcase

        from refgen.conformance.questions.models import Models

        lab = Lab(Replaced("encode", None, 0), Models())
        ids = [check.id for source in runner.SOURCES for check in source(lab)]
        KNOWN.update(
            each for several in CHECKS.values() for each in several if any(fnmatchcase(name, each) for name in ids)
        )
    return KNOWN


KNOWN = set()


def passes_the_border(op, value):
    """Whether it is an answer to some question."""
    answer = value if issubclass(type(value), dict) else {KEY[op]: value}
    for width in range(1, 4):
        requests = {"forward": {"input_ids": [[1] * width]}, "process": {"input_ids": [[1]], "logits": [[0.0] * width]}}
        try:
            checked(op, requests.get(op, {"input_ids": [[1]] * width}), answer)
        except GarbledError:
            continue
        return True
    return False


@given(st.sampled_from(OPERATIONS), VALUES, st.sampled_from((1, 1, 2, 3, 5)), st.data())
@settings(max_examples=max(25, settings().max_examples // 2))
@example("generate", Box(lambda: [{"new_ids": [10**400]}]), 1, None)
@example("forward", Box(lambda: np.full((1, 3, 1024), 1e300)), 1, None)
@example("generate", Box(lambda: {"new_ids": [5] * 60_000}), 1, None)
@example("generate", Box(lambda: {"new_ids": [1061]}), 1, None)
@example("generate", Box(lambda: {"new_ids": [-1]}), 1, None)
@example("generate", Box(lambda: {"text": "\u2603" * 9}), 1, None)
@example("generate", Box(lambda: {"new_ids": [], "logprobs": []}), 1, None)
@example("forward", Box(lambda: np.zeros((1, 1, 7))), 1, None)
@example("decode", Box(lambda: "\ud800"), 1, None)
def test_no_value_makes_a_verdict_milder(op, box, after, data):
    """A subject that is right but for one operation's answers fails every check that meets them; the run ends, with 1 or 2."""
    patterns, value = selected(op), box.make()
    only = patterns if data is None else [data.draw(st.sampled_from(patterns))]
    met, run = judged(op, value, after, only)
    typed = passes_the_border(op, value)  # then it may be the right answer to a question, or the same wrong one to each
    spared = {Verdict.PASS, Verdict.SKIP, Verdict.INCONCLUSIVE} if typed else set()
    mild = [
        (result.id, result.verdict, result.finding.message)
        for result in met
        if not result.verdict.bad
        and not (result.id.startswith(("relations.", "sampling.")) and result.verdict in spared)
    ]
    assert not mild, mild[:3]
    if typed and data is not None:
        return
    held = [result for result in met if result.claim != "refusals"]  # which nobody claims unless he says so
    assert not held or run.overall.code in (1, 2), run.overall.sentence


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_what_ends_programs_ends_only_the_subject(raised):
    """An exception that is none of Exception, raised by the subject's own code, is a crash of it."""

    class Quits(ReferenceSubject):
        def encode(self, text):
            raise raised

    run = runner.check(PythonSubject(Quits, describe(Quits, find_model("shakespeare"))), only=["tokenizer"])
    (result,) = [each for each in run.results if each.id == "smoke.encode"]
    assert result.verdict.bad
    assert run.overall.code == 2
    assert Path().exists()


# --- Servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served():
    """A server that is right, asked once what it can."""
    with Server(FOLDER) as url:
        subject = connect(url, FOLDER)
        lab = Lab(subject, {"shakespeare": FOLDER})
        sources = (serving.checks, relations.checks, fresh.checks, smoke.checks)
        checks = [each for source in sources for each in source(lab) if each.needs <= subject.about.can]
        yield subject, lab, checks
        subject.close()


class Corrupted:
    """A wire to a right server, some of whose answers are other bytes."""

    def __init__(self, wire, raw, after):
        self.wire, self.raw, self.left, self.wrong = wire, raw, after, 0
        self.url, self.timeout = wire.url, wire.timeout

    def changed(self, right, read):
        """What is read in place of a right answer."""
        self.left -= 1
        if self.left >= 0:
            return right()
        self.wrong += 1
        return read(SimpleNamespace(iter_bytes=lambda: [self.raw], headers={"content-type": "text/event-stream"}))

    def post(self, path, body):
        """One answer."""
        return self.changed(lambda: self.wire.post(path, body), decode_json)

    def stream(self, path, body):
        """Its events."""
        return self.changed(lambda: self.wire.stream(path, body), decode_events)


COMPLETIONS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4).map(lambda more: {"text": "the"} | more),
            max_size=3,
        )
    },
    optional={"usage": JSON},
)


@st.composite
def bodies(draw):
    """Bytes, and answers of the right shape with a wrong part; the same as an event."""
    raw = draw(lines() | (JSON | COMPLETIONS).map(lambda value: json.dumps(value).encode()))
    return b"data: " + raw + b"\n\n" if draw(st.booleans()) else raw


@given(bodies(), st.sampled_from((0, 0, 1, 2)), st.data())
@settings(max_examples=max(25, settings().max_examples // 2))
def test_no_body_ends_the_kit(served, raw, after, data):
    """Whatever a server answers, each question that meets it has a verdict; none is a bug of refgen, none hangs."""
    right, lab, checks = served
    subject = HttpSubject(Corrupted(right.wire, raw, after), FOLDER, right.profile, right.tokenizer, "float32", {})
    lab.subject = subject
    check = checks[data.draw(st.integers(0, len(checks) - 1))]
    before = subject.wire.wrong
    result = runner.make(lab, check)
    nothing = result.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE)
    assert result.verdict.bad or nothing or subject.wire.wrong == before or is_completion(raw, right.vocabulary), result


def is_completion(raw, vocabulary):
    """Whether it passes the border, as one body or as events."""
    for read in (
        lambda: read_completion(read_json(raw, "it"), vocabulary),
        lambda: join_stream(read_events(raw), vocabulary),
        lambda: decode_json(SimpleNamespace(iter_bytes=lambda: [raw])),
    ):
        try:
            read()
        except RefusedError:  # an error with code 200, which is right where a request makes no sense
            return True
        except GarbledError:
            continue
        if "choices" in str(raw) or not read():
            return True
    return False
