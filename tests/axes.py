"""Checks the shapes that annotations promise: wraps every function of a module that says `Float[ndarray, "B T C"]`.

A letter must stand for one size throughout a call, `...` for any leading axes, a digit for itself; every Float
that comes out has the dtype of the Floats that went in.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin

import numpy as np


def promised_axes(annotation: Any) -> str | None:
    """The axes in an annotation, also behind `| None`."""
    for each in (annotation, *get_args(annotation)):
        if get_origin(each) is Annotated:
            return get_args(each)[1]
    return None


def check_axes(where: str, axes: str, array: np.ndarray, sizes: dict[str, int]) -> None:
    """One array against its axes, given what the letters stand for so far."""
    letters, shape = axes.split(), array.shape
    if letters and letters[0] == "...":
        letters, shape = letters[1:], shape[len(shape) - len(letters) + 1 :]
    assert len(letters) == len(shape), f"{where}: shape {array.shape}, promised [{axes}]"
    for letter, size in zip(letters, shape, strict=True):
        expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
        assert size == expected, f"{where}: axis {letter} is {size}, elsewhere {expected}"


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with its promises checked on every call."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        sizes: dict[str, int] = {}
        dtypes = set()
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            axes = promised_axes(signature.parameters[name].annotation)
            if axes and isinstance(value, np.ndarray):
                check_axes(f"{function.__name__}({name})", axes, value, sizes)
                dtypes |= {value.dtype} if value.dtype.kind == "f" else set()
        result = function(*args, **kwargs)
        axes = promised_axes(signature.return_annotation)
        if axes:
            check_axes(f"{function.__name__} ->", axes, result, sizes)
            if result.dtype.kind == "f" and dtypes:
                assert dtypes == {result.dtype}, f"{function.__name__}: {dtypes} in, {result.dtype} out"
        return result

    return wrapper


@contextmanager
def axes_checked(module: ModuleType) -> Iterator[list[str]]:
    """All functions of `module` checked, while it lasts; yields their names."""
    functions = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and any(promised_axes(a) for a in inspect.get_annotations(value).values())
    }
    try:
        for name, function in functions.items():
            setattr(module, name, checked(function))
        yield list(functions)
    finally:
        for name, function in functions.items():
            setattr(module, name, function)
