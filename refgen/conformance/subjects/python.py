"""A subject that is a Python object: methods with the names of the operations, and perhaps `dtype`, `name`, `choices`.

`factory(folder)` gives the object for a model folder. Methods take the request's entries by name: `generate(input_ids,
max_new_tokens=5)`; any of them may be missing, and a NotImplementedError says that something is not there yet.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.border import checked, hello
from refgen.conformance.subjects.deadline import within
from refgen.conformance.subjects.protocol import (
    OPERATIONS,
    About,
    CrashedError,
    RefusedError,
    SkippedError,
    SubjectError,
    TimedOutError,
)
from refgen.conformance.subjects.values import class_name, words

Factory = Callable[[Path], Any]
KEY = {"encode": "ids", "decode": "text", "forward": "logits", "process": "scores", "generate": "rows"}


class PythonSubject:
    """Asks by calling methods; one that takes longer than `timeout` seconds is given up."""

    def __init__(self, factory: Factory, about: About, timeout: float = 60.0) -> None:
        self.about = about
        self._factory, self._timeout = factory, timeout
        self._loaded: tuple[Path, Any] | None = None

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the method returns, past the border. All code of the object's own runs in a thread, and in time."""
        try:
            answer, error = within(self._timeout, lambda: self._answer(op, model, request))
        except TimeoutError:
            self._loaded = None
            raise TimedOutError(f"no answer to {op} after {self._timeout:g} s") from None
        if isinstance(error, SubjectError):
            raise error
        if error is not None or answer is None:
            raise CrashedError(f"{class_name(error)} while the answer to {op} was read") from error
        return answer

    def _answer(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """The method's own answer, or the `SubjectError` that its exception means."""
        try:
            if self._loaded is None or self._loaded[0] != model:
                self._loaded = model, self._factory(model)
            value = call(self._loaded[1], op, request)
        except NotImplementedError as error:
            raise SkippedError(words(str(error)) or f"no {op} yet") from error
        except Exception as error:
            raise RefusedError(f"{class_name(error)}: {words(str(error))}") from error
        except BaseException as error:  # SystemExit ends a program, and so it would this one
            self._loaded = None
            raise CrashedError(f"{class_name(error)} when it was asked to {op}") from error
        return checked(op, request, value)

    def close(self) -> None:
        """Forgets the object."""
        self._loaded = None


def call(thing: Any, op: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer, as it is, of the object's method `op`. Raises `NotImplementedError` for a method or an argument that it does not have."""
    method = getattr(thing, op, None)
    if method is None:
        raise NotImplementedError(f"has no {op}")
    if foreign := [name for name in request if not takes(method, name)]:
        raise NotImplementedError(f"{op} takes no {foreign[0]}")
    value = method(**request)
    return value if issubclass(type(value), Mapping) else {KEY[op]: value}


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
    return hello(
        name=words(getattr(thing, "name", type(thing).__name__)),
        version=words(getattr(thing, "version", "")),
        dtype=getattr(thing, "dtype", "float32"),
        can=[op for op in OPERATIONS if callable(getattr(thing, op, None))],
        choices=getattr(thing, "choices", {}),
    )
