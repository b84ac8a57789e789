"""Traffic: what a subject was asked and what it answered, to be judged again without it.

`Recorded` writes it beside another subject, `Replayed` answers from it. A recording is a file of JSON lines: a header with
what the subject says of itself, then a line an exchange. In it an array is {dtype, shape, b64} with its bytes in C order,
and a number that is not finite is {float: "nan"}, "inf" or "-inf".
"""

import base64
import json
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import refgen
from refgen.conformance.subjects.json_lines import about_entry, about_of, read_lines
from refgen.conformance.subjects.protocol import About, SkippedError, Subject, SubjectError
from refgen.errors import ConformanceError

FORMAT = 2
ERRORS = {each.__name__: each for each in SubjectError.__subclasses__()}


class Recorded:
    """The same subject; every exchange goes into the file as soon as it has happened.

    `seed` and `only` are those of the run, for the one that judges again.
    """

    def __init__(self, subject: Subject, path: Path, seed: int = 0, only: Iterable[str] = ()) -> None:
        self._subject, self._lock = subject, threading.Lock()
        self._file = path.open("w", encoding="utf-8")
        asked = {"seed": seed, "only": [*only]}
        self._write(
            {
                "kind": "header",
                "format": FORMAT,
                "refgen": refgen.__version__,
                "subject": about_entry(subject.about),
                **asked,
            }
        )

    @property
    def about(self) -> About:
        """The subject's."""
        return self._subject.about

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """The subject's answer, or its error."""
        exchange = {"kind": "exchange", "op": op, "model": model.name, "request": encoded(request)}
        began = time.perf_counter()
        try:
            answer = self._subject.ask(op, model, request)
        except SubjectError as error:
            outcome: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
            self._write(exchange | outcome | {"seconds": time.perf_counter() - began})
            raise
        self._write(exchange | {"answer": encoded(answer), "seconds": time.perf_counter() - began})
        return answer

    def _write(self, entry: Mapping[str, Any]) -> None:
        """One line, whole even if several threads ask."""
        with self._lock:
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()

    def restart(self) -> None:
        """The subject's."""
        self._subject.restart()

    def close(self) -> None:
        """Closes both."""
        self._subject.close()
        self._file.close()


class Replayed:
    """Answers as the recording has it: the first time that a question is asked as it was answered the first time, and so on.

    A question that is not there, or not that often, is skipped.
    """

    def __init__(self, path: Path) -> None:
        header, *exchanges = read_lines(path, "a recording of refgen check", FORMAT)
        self._outcomes: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._lock = threading.Lock()
        try:
            self.about, self.seed = about_of(header["subject"]), int(header["seed"])
            self.only = [*header["only"]]
            for each in exchanges:
                check(each)
                self._outcomes[self._key(each["op"], each["model"], each["request"])].append(each)
        except (KeyError, TypeError, ValueError) as error:
            raise ConformanceError(str(path), f"is no recording of refgen check: {error!r}") from None

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next outcome of that question."""
        with self._lock:
            outcomes = self._outcomes.get(self._key(op, model.name, encoded(request)))
            if not outcomes:
                raise SkippedError("not in the recording")
            outcome = outcomes.popleft()
        if "error" in outcome:
            raise ERRORS[outcome["error"]](outcome["message"])
        answer: dict[str, Any] = decoded(outcome["answer"])
        return answer

    def _key(self, op: str, model: str, request: Any) -> str:
        """What makes two questions one; a subject that loads no models has one, whatever its folder is called."""
        return json.dumps([op, model if self.about.loads else "", request], sort_keys=True)

    def restart(self) -> None:
        """Nothing: answers come as they were given."""

    def close(self) -> None:
        """Nothing to close."""


def check(exchange: Mapping[str, Any]) -> None:
    """Raises what is wrong with a line."""
    if "error" in exchange:
        ERRORS[exchange["error"]](exchange["message"])
    elif not isinstance(decoded(exchange["answer"]), dict):
        raise TypeError(f"an answer to {exchange['op']} is no object")


# --- Values -----------------------------------------------------------------------------------------------


def encoded(value: Any) -> Any:
    """A value as strict JSON, from which `decoded` makes the same again; tuples come back as lists."""
    if isinstance(value, np.ndarray):
        raw = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "b64": raw}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): encoded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def decoded(value: Any) -> Any:
    """The value again."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"dtype", "shape", "b64"}:
        flat = np.frombuffer(base64.b64decode(value["b64"]), dtype=np.dtype(value["dtype"]))
        return flat.reshape(value["shape"]).copy()
    if value.keys() == {"float"}:
        return float(value["float"])
    return {name: decoded(each) for name, each in value.items()}
