"""A subject that is any program: a JSON object a line on its stdin, an answer a line on its stdout. docs/subjects.md has the protocol.

The program is started with the first question, and again after it died, hung or sent something that is not an answer.
Its stderr is its own.
"""

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.border import BODY, checked, entries, hello, read_json
from refgen.conformance.subjects.protocol import (
    OPERATIONS,
    About,
    CrashedError,
    GarbledError,
    RefusedError,
    SkippedError,
    TimedOutError,
)
from refgen.conformance.subjects.values import NAME, shown, words

PROTOCOL = 1
HELLO: dict[str, Any] = {"op": "hello", "protocol": PROTOCOL}
AHEAD = 4  # lines that are read before they are asked for


class Program:
    """A running program that answers lines with lines."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._timeout, self._number = timeout, 0
        self.model: Path | None = None  # what it has loaded
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise CrashedError(f"{command[0]} cannot be started: {error.strerror}") from None
        self._stdin, self._stdout = (pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None)
        self._lines: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """In a thread: lines as they come, None at the end."""
        with contextlib.suppress(ValueError, OSError):
            while line := self._stdout.readline(BODY + 1):
                self._lines.put(line)
        self._lines.put(None)

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """One line out, one line in."""
        self._number += 1
        op = request["op"]
        try:
            self._stdin.write(json.dumps({"id": self._number, **request}).encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):
            raise CrashedError(f"{self._ended()} before answering {op}") from None
        try:
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            raise TimedOutError(f"no answer to {op} after {self._timeout:g} s") from None
        if line is None:
            raise CrashedError(f"{self._ended()} before answering {op}")
        return self._understood(op, line)

    def _understood(self, op: str, line: bytes) -> dict[str, Any]:
        """A line as an answer to the last request."""
        what = f"the answer to {op}"
        answer = entries(read_json(line, what), what)
        number = answer.pop("id", None)
        if type(number) is not int or number != self._number:
            raise GarbledError(
                f"{what} does not have the request's id {self._number}: {shown(line[:NAME].decode('utf-8', 'replace').strip())}"
            )
        if "skipped" in answer:
            raise SkippedError(words(answer["skipped"]))
        if "error" in answer:
            raise RefusedError(": ".join(words(answer[name]) for name in ("error", "message") if answer.get(name)))
        return answer

    def _ended(self) -> str:
        """How the program ended."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the adapter closed its output"
        return f"the adapter was ended by signal {-code}" if code < 0 else f"the adapter exited (code {code})"

    def stop(self) -> None:
        """Says goodbye, and waits a second for it."""
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(b'{"op": "bye"}\n')
        with contextlib.suppress(OSError, ValueError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._process.kill()
        self._process.wait()
        for _ in range(10):  # it may wait for room in the queue
            with contextlib.suppress(queue.Empty):
                while True:
                    self._lines.get_nowait()
            self._reader.join(0.1)
            if not self._reader.is_alive():
                break
        if not self._reader.is_alive():  # a child of the program may still hold the pipe
            self._stdout.close()


class ProcessSubject:
    """Talks to the program of `command`; each answer has `timeout` seconds."""

    def __init__(self, command: Sequence[str], timeout: float = 20.0) -> None:
        self._command, self._timeout = list(command), timeout
        self._program: Program | None = None

    @cached_property
    def about(self) -> About:
        """What it answers to hello."""
        try:
            return described(self._asked(HELLO))
        except GarbledError:
            self.close()
            raise

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """Loads the model if it is another one, then asks."""
        if self._program is None:
            self._asked(HELLO)
        if self._program is not None and self._program.model != model:
            self._program.model = None
            self._asked({"op": "load", "model": str(model)})
            self._program.model = model
        answer = self._asked({"op": op, **request})
        if "garbled" in answer:  # worker.py has seen values that no JSON holds
            raise GarbledError(words(answer["garbled"]))
        return checked(op, request, answer)

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a program that runs; one that fails is ended, for whatever it says next belongs to nothing."""
        if self._program is None:
            self._program = Program(self._command, self._timeout)
        try:
            return self._program.exchange(request)
        except (CrashedError, TimedOutError, GarbledError):
            self.close()
            raise

    def restart(self) -> None:
        """Ends the program; it is started again with the next question."""
        self.close()

    def close(self) -> None:
        """Ends the program."""
        if self._program is not None:
            self._program.stop()
            self._program = None


def described(answer: Mapping[str, Any]) -> About:
    """The answer to hello. Raises `GarbledError`."""
    if answer.get("protocol") != PROTOCOL:
        raise GarbledError(f"hello: protocol must be {PROTOCOL}; got {shown(answer.get('protocol'))}")
    name, version = (words(answer.get(each) or "") for each in ("name", "version"))
    about = hello(
        name or "a program without a name",
        version,
        answer.get("dtype", "float32"),
        answer.get("can"),
        answer.get("choices", {}),
        takes=answer.get("takes"),
        claims=answer.get("claims"),
    )
    if not about.can:
        raise GarbledError(f"hello: can must be a list of some of {', '.join(OPERATIONS)}; got an empty one")
    return about
