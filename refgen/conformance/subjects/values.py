"""Values of any kind, read one level at a time, and shown in a message. What the border (border.py) is built of.

A value may be an object of a Python subject with its own methods. Builtin types are read by the methods of the builtin
type, whatever a subclass does; only `__array__`, `tolist` and the methods of a Mapping are called, all in `foreign`.
The caller limits their time (python.py).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NoReturn, TypeVar

import numpy as np

from refgen.conformance.subjects.protocol import GarbledError

T = TypeVar("T")

ENTRIES = 256  # of an object
NAME = 500  # characters of a name or of a message
KINDS = {
    "O": "objects", "c": "complex numbers", "b": "booleans", "M": "dates", "m": "times", "V": "records", "S": "bytes",
    "U": "texts", "T": "texts", "f": "numbers", "i": "whole numbers", "u": "whole numbers",
}  # fmt: skip
PLAIN = (int, float, str, bytes, bytearray, complex, type(None), range, set, frozenset)  # without axes, or no answer


def unwrapped(value: Any, must: str, room: int) -> Any:  # noqa: C901, PLR0911 - one line for each kind of value
    """One level of a value as a plain one: ndarray, list, dict with keys of str, str, int, float, bool or None.

    Lists and arrays of more than `room` elements are refused, and so is a value of any other type.
    """
    kind = type(value)
    if value is None or any(kind is each for each in (bool, int, float, str)):
        return value
    if issubclass(kind, np.ndarray):
        if issubclass(kind, np.ma.MaskedArray):
            refuse(must, value)
        value = np.ndarray.view(value, np.ndarray)
        return value if value.size <= room else refuse(must, value)
    if issubclass(kind, list | tuple):
        base: Any = list if issubclass(kind, list) else tuple
        if base.__len__(value) > room:
            raise GarbledError(f"{must}; got a list of {base.__len__(value)}")
        return list(base.__getitem__(value, slice(None)))
    if issubclass(kind, dict):
        return named(dict.items(value))
    for plain, convert in ((str, str.__str__), (int, int.__int__), (float, float.__float__)):
        if issubclass(kind, plain):  # an IntEnum, a numpy.float64, a numpy.str_
            return convert(value)
    if issubclass(kind, np.generic):
        return np.generic.__array__(value)
    if issubclass(kind, PLAIN):
        refuse(must, value)
    return foreign(must, lambda: opened(value, must, room))


def opened(value: Any, must: str, room: int) -> Any:
    """A tensor or a Mapping as a plain value. Runs code of the value's own."""
    kind = type(value)
    if issubclass(kind, Mapping):
        return named((name, value[name]) for name in iter(value))
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and math.prod(int(n) for n in shape[:8]) > room:
        raise GarbledError(f"{must}; got {shown(value)} of shape {shown(tuple(int(n) for n in shape[:8]))}")
    for convert in ("__array__", "tolist"):
        method = getattr(value, convert, None)
        try:
            made = None if method is None else method()
        except Exception:  # noqa: BLE001, S112 - a tensor that wants a gradient has no array, and a list all the same
            continue
        if issubclass(type(made), np.ndarray | list | int | float):
            return unwrapped(made, must, room)
    return refuse(must, value)


def named(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Entries with names that are plain texts; others have no meaning here."""
    return {name: each for name, each in islice(pairs, ENTRIES) if type(name) is str}


def is_scalar(value: Any) -> bool:
    """Whether it is one number and no list of any kind."""
    kind = type(value)
    if issubclass(kind, np.ndarray):
        return bool(np.ndarray.ndim.__get__(value) == 0)
    if issubclass(kind, int | float | np.generic):
        return True
    if issubclass(kind, (*PLAIN, list, tuple, dict)):
        return False
    ndim = foreign("ids must be whole numbers", lambda: getattr(value, "ndim", None))
    return type(ndim) is int and ndim == 0


def foreign(must: str, call: Callable[[], T]) -> T:
    """What code of the subject's own gives. Anything that it raises, even SystemExit, is not an answer."""
    try:
        return call()
    except GarbledError:
        raise
    except BaseException as error:  # noqa: BLE001 - it may be anything
        raise GarbledError(f"{must}; got a value whose own code raises {class_name(error)}") from None


def refuse(must: str, value: Any) -> NoReturn:
    """The message: what must be, and what is there."""
    raise GarbledError(f"{must}; got {shown(value)}")


# --- Words ---------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value in a message: one line of at most 80 characters. Runs no code of the value's own."""
    line = sketched(value, 3)
    return line if len(line) <= 80 else f"{line[:77]}..."


def sketched(value: Any, depth: int) -> str:  # noqa: PLR0911 - one line for each kind of value
    """A value down to some depth, its first elements."""
    kind = type(value)
    if kind is str:
        return repr(value[:80])
    if kind is int:
        return (
            repr(value) if value.bit_length() <= 64 else f"an integer of {int(value.bit_length() * 0.30103) + 1} digits"
        )
    if value is None or kind is float or kind is bool:
        return repr(value)
    if kind is bytes:
        return repr(value[:40])
    if kind is list or kind is tuple:
        first = [sketched(each, depth - 1) for each in value[:12]] if depth else ["…"] * bool(value)
        brackets = "[]" if kind is list else "()"
        return f"{brackets[0]}{', '.join(first)}{', …' * (len(value) > 12 and depth > 0)}{brackets[1]}"
    if kind is dict:
        items = (
            [f"{sketched(name, 1)}: {sketched(each, depth - 1)}" for name, each in islice(value.items(), 8)]
            if depth
            else ["…"]
        )
        return f"{{{', '.join(items)}}}"
    if issubclass(kind, np.ma.MaskedArray):
        return "a masked array"
    if issubclass(kind, np.ndarray):
        array = np.ndarray.view(value, np.ndarray)
        return f"an array of {KINDS.get(array.dtype.kind, 'something')} of shape {list(array.shape)}"
    return f"a value of type {class_name(value)}"


def class_name(value: Any) -> str:
    """The name of its class, also of one whose own class lies."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return words(name, 60)


def words(value: Any, most: int = NAME) -> str:
    """A text of the subject's own on one line, for people: escape codes and other invisible characters are spelled out."""
    if not issubclass(type(value), str):
        return shown(value)
    plain = " ".join(str.__str__(value)[: most + 1].split())
    safe = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in plain)
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"
