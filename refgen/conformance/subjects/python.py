"""A subject that is a Python object: methods with the names of the operations, and perhaps `dtype`, `name`, `choices`.

`factory(folder)` gives the object for a model folder. Methods take the request's entries by name: `generate(input_ids,
max_new_tokens=5)`; any of them may be missing, and a NotImplementedError says that something is not there yet.
"""

import inspect
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.protocol import OPERATIONS, About, RefusedError, SkippedError, TimedOutError, checked

Factory = Callable[[Path], Any]
KEY = {"encode": "ids", "decode": "text", "forward": "logits", "process": "scores", "generate": "rows"}


class PythonSubject:
    """Asks in a thread, so that a method that hangs is given up after `timeout` seconds."""

    def __init__(self, factory: Factory, about: About, timeout: float = 60.0) -> None:
        self.about = about
        self._factory, self._timeout = factory, timeout
        self._loaded: tuple[Path, Any] | None = None

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """Calls the method in a thread of its own."""
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put((self._call(op, model, request), None))
            except BaseException as error:  # noqa: BLE001 - whatever the subject raises is its answer
                answers.put((None, error))

        threading.Thread(target=call, daemon=True).start()
        try:
            value, error = answers.get(timeout=self._timeout)
        except queue.Empty:
            self._loaded = None
            raise TimedOutError(f"no answer to {op} after {self._timeout:g} s") from None
        if isinstance(error, NotImplementedError):
            raise SkippedError(str(error) or f"no {op} yet")
        if error is not None:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        return checked(op, request, value if isinstance(value, Mapping) else {KEY[op]: value})

    def _call(self, op: str, model: Path, request: Mapping[str, Any]) -> Any:
        """The method's own answer."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = model, self._factory(model)
        method = getattr(self._loaded[1], op, None)
        if method is None:
            raise NotImplementedError(f"has no {op}")
        if foreign := [name for name in request if not takes(method, name)]:
            raise NotImplementedError(f"{op} takes no {foreign[0]}")
        return method(**request)

    def close(self) -> None:
        """Forgets the object."""
        self._loaded = None


def takes(method: Callable[..., Any], name: str) -> bool:
    """Whether it has that argument; what cannot be asked is thought to have any."""
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def describe(factory: Factory, folder: Path) -> About:
    """What the object for `folder` says of itself."""
    thing = factory(folder)
    return About(
        name=str(getattr(thing, "name", type(thing).__name__)),
        version=str(getattr(thing, "version", "")),
        dtype=getattr(thing, "dtype", "float32"),
        can=frozenset(op for op in OPERATIONS if callable(getattr(thing, op, None))),
        choices=dict(getattr(thing, "choices", {})),
    )
