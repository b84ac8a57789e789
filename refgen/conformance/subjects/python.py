"""A subject that is a Python object: methods with the names of the operations, and perhaps `dtype`, `name`, `choices`.

`factory(folder)` gives the object for a model folder. Methods take the request's entries by name, as JSON has them:
`generate(input_ids=[[1, 2, 3]], max_new_tokens=5)`. Any method may be missing and any argument (arguments.py says what then
happens), and a NotImplementedError says that something is not there yet.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refgen.conformance.subjects.arguments import with_needed, without
from refgen.conformance.subjects.border import checked, hello
from refgen.conformance.subjects.deadline import within
from refgen.conformance.subjects.protocol import (
    EXPLAINING,
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
KEY = {
    "encode": "ids", "decode": "text", "forward": "logits", "process": "scores", "generate": "rows", "stages": "stages"
}  # fmt: skip


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
            raise CrashedError(f"{class_name(error)} while answering {op}") from error
        return checked(op, request, value)

    def restart(self) -> None:
        """Forgets the object, so that another is made."""
        self._loaded = None

    def close(self) -> None:
        """Forgets the object."""
        self._loaded = None


def call(thing: Any, op: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of the object's method `op`. Raises `SkippedError` for a method or an argument that it does not have.

    The method gets its own lists, so it cannot change the question.
    """
    method = getattr(thing, op, None)
    if method is None:
        raise SkippedError(f"has no {op}")
    taken = arguments(method)
    if taken is not None:
        request = without(op, request, taken.keys())
        request = with_needed(op, request, (name for name, needed in taken.items() if needed))
    value = method(**copy.deepcopy(dict(request)))
    if op == "stages":
        return value if issubclass(type(value), Mapping) and value.keys() == {"stages"} else {KEY[op]: value}
    return value if issubclass(type(value), Mapping) else {KEY[op]: value}


def arguments(method: Callable[..., Any]) -> dict[str, bool] | None:
    """Its arguments by name, and whether it needs them; None if it takes any, or nobody can tell."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {each.name: each.default is each.empty for each in named}


def describe(factory: Factory, folder: Path) -> About:
    """What the object for `folder` says of itself."""
    thing = factory(folder)
    methods = {op: method for op in (*OPERATIONS, *EXPLAINING) if callable(method := getattr(thing, op, None))}
    taken = {op: arguments(method) for op, method in methods.items()}
    return hello(
        name=words(getattr(thing, "name", type(thing).__name__)),
        version=words(getattr(thing, "version", "")),
        dtype=getattr(thing, "dtype", "float32"),
        can=list(methods),
        choices=getattr(thing, "choices", {}),
        takes={op: sorted(names) for op, names in taken.items() if names is not None},
        claims=list(getattr(thing, "claims", ())),
    )
