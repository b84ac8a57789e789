"""A subject that is a Python object: methods with the names of the operations, and perhaps `dtype`, `name`, `choices`.

`factory(folder)` gives the object for a model folder. Methods take the request's entries by name: `generate(input_ids,
max_new_tokens=5)`; any of them may be missing, and a NotImplementedError says that something is not there yet.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.deadline import within
from refgen.conformance.subjects.protocol import OPERATIONS, About, RefusedError, SkippedError, TimedOutError, checked

Factory = Callable[[Path], Any]
KEY = {"encode": "ids", "decode": "text", "forward": "logits", "process": "scores", "generate": "rows"}


class PythonSubject:
    """Asks by calling methods; one that takes longer than `timeout` seconds is given up."""

    def __init__(self, factory: Factory, about: About, timeout: float = 60.0) -> None:
        self.about = about
        self._factory, self._timeout = factory, timeout
        self._loaded: tuple[Path, Any] | None = None

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the method returns."""
        try:
            value, error = within(self._timeout, lambda: self._call(op, model, request))
        except TimeoutError:
            self._loaded = None
            raise TimedOutError(f"no answer to {op} after {self._timeout:g} s") from None
        if isinstance(error, NotImplementedError):
            raise SkippedError(str(error) or f"no {op} yet")
        if error is not None:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        return checked(op, request, value)

    def _call(self, op: str, model: Path, request: Mapping[str, Any]) -> Any:
        """The method's own answer."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = model, self._factory(model)
        return call(self._loaded[1], op, request)

    def restart(self) -> None:
        """Forgets the object, so that another is made."""
        self._loaded = None

    def close(self) -> None:
        """Forgets the object."""
        self._loaded = None


def call(thing: Any, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the object's method `op`. Raises `NotImplementedError` for a method or an argument that it does not have."""
    method = getattr(thing, op, None)
    if method is None:
        raise NotImplementedError(f"has no {op}")
    if foreign := [name for name in request if not takes(method, name)]:
        raise NotImplementedError(f"{op} takes no {foreign[0]}")
    value = method(**request)
    return dict(value) if isinstance(value, Mapping) else {KEY[op]: value}


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
        claims=frozenset(getattr(thing, "claims", ())),
    )
