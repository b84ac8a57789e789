"""Traffic: what a subject was asked and what it answered, to be judged again without it.

`Recorded` writes it beside another subject, `Replayed` answers from it. A recording is a file of JSON lines: a header with
what the subject declares of itself, a line an exchange, and a footer with their number. One without its footer was cut
off, and gives no verdict on the subject: `CutOffError`. In it an array is {dtype, shape, b64} with its bytes in C
order, and a number that is not finite is {float: "nan"}, "inf" or "-inf".
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
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.json_lines import NOTHING, CutOffError, about_entry, about_of, read_lines
from refgen.conformance.subjects.protocol import About, SkippedError, Subject, SubjectError
from refgen.conformance.subjects.values import shown
from refgen.errors import ConformanceError

FORMAT = 2
ERRORS = {each.__name__: each for each in SubjectError.__subclasses__()}


class Recorded:
    """The same subject; every exchange goes into the file as soon as it has happened.

    `seed` and `only` are those of the run, for the one that judges again. `close` writes the end of the recording, unless
    `interrupted` says that the run did not come to its own.
    """

    def __init__(self, subject: Subject, path: Path, seed: int = 0, only: Iterable[str] = ()) -> None:
        self._subject, self._lock = subject, threading.Lock()
        self.interrupted, self._exchanges = False, 0
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
            answer = checked(op, request, self._subject.ask(op, model, request))
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
            self._exchanges += entry["kind"] == "exchange"

    def restart(self) -> None:
        """The subject's."""
        self._subject.restart()

    def close(self) -> None:
        """Closes both."""
        self._subject.close()
        if not self.interrupted and not self._file.closed:
            self._write({"kind": "footer", "exchanges": self._exchanges})
        self._file.close()


class Replayed:
    """Answers as the recording has it: the first time that a question is asked as it was answered the first time, and so on.

    A question that is not there, or not that often, is skipped.
    """

    def __init__(self, path: Path) -> None:
        header, *exchanges = whole_recording(path)
        self._outcomes: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._lock = threading.Lock()
        try:
            self.about, self.seed = about_of(header["subject"]), int(header["seed"])
            self.only = [*header["only"]]
            for each in exchanges:
                check(each)
                self._outcomes[self._key(each["op"], each["model"], each["request"])].append(each)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ConformanceError(str(path), f"is not a recording of refgen check: {error!r}") from None

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next outcome of that question."""
        with self._lock:
            outcomes = self._outcomes.get(self._key(op, model.name, encoded(request)))
            if not outcomes:
                raise SkippedError("not in the recording")
            outcome = outcomes.popleft()
        if "error" in outcome:
            raise ERRORS[outcome["error"]](outcome["message"])
        return checked(op, request, decoded(outcome["answer"]))

    def _key(self, op: str, model: str, request: Any) -> str:
        """What makes two questions one; a subject that loads no models has one, whatever its folder is called."""
        return json.dumps([op, model if self.about.loads else "", request], sort_keys=True)

    def restart(self) -> None:
        """Nothing: answers come as they were given."""

    def close(self) -> None:
        """Nothing to close."""


def whole_recording(path: Path) -> list[dict[str, Any]]:
    """The header and the exchanges. Raises `CutOffError` if the end is missing, another `ConformanceError` for a file
    that is not a recording.
    """
    header, *exchanges = read_lines(path, "a recording of refgen check", FORMAT)
    if not exchanges or exchanges[-1].get("kind") != "footer":
        raise CutOffError(str(path), f"is cut off after {counted(len(exchanges), 'exchange')}", remedy=NOTHING)
    footer = exchanges.pop()
    if footer.get("exchanges") != len(exchanges) or any(each.get("kind") != "exchange" for each in exchanges):
        said = f"has {counted(len(exchanges), 'line')} between header and footer, which names {shown(footer.get('exchanges'))}"
        raise ConformanceError(str(path), said, remedy="It was cut or changed.")
    return [header, *exchanges]


def counted(number: int, noun: str) -> str:
    """Such as "1 exchange" or "2 exchanges"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def check(exchange: Mapping[str, Any]) -> None:
    """Raises what is wrong with a line."""
    if "error" in exchange:
        ERRORS[exchange["error"]](exchange["message"])
    elif not isinstance(decoded(exchange["answer"]), dict):
        raise TypeError(f"an answer to {exchange['op']} is not an object")


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
