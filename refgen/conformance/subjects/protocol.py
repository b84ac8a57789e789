"""The subject: an implementation under test, as the kit sees it, whatever it is written in. docs/subjects.md has the protocol.

A subject is asked by operation, with the name of a model folder, and answers with plain data. Names are those of `generate()`:

    encode    {text} -> {ids}
    decode    {ids, skip_special_tokens} -> {text}
    forward   {input_ids [B T], attention_mask?, prefill?} -> {logits [B T V]}
    process   {input_ids [B S], logits [B V], settings…} -> {scores [B V]}, -inf for what is removed
    generate  {input_ids [B P], attention_mask?, seed?, uniforms?, settings…} -> {rows: [{new_ids, finish?, logprobs?, text?, chunks?}]}
    stages    {input_ids [B T]} -> {stages: {name: array}}, any of those that `refgen trace` lists; asked only after a wrong forward pass

`prefill` = n asks for the first n positions in one pass and the others one by one through a cache. `settings` are
the fields of GenerationConfig. Ids, masks and numbers of a request are nested lists. A row has the new tokens up to and with its end token, no filling. Whatever else happens
is an exception of this file: the subject refuses, says it cannot, dies, hangs, or answers what is no answer.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

OPERATIONS = ("encode", "decode", "forward", "process", "generate")
EXPLAINING = ("stages",)  # operations that no verdict needs: they tell where a failure begins
FINISHES = ("eos", "length", "stop_string", "context")
DTYPES = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class About:
    """What a subject says of itself. `choices` are options it has taken where stacks differ, by SPEC.md's names."""

    name: str
    version: str = ""
    dtype: str = "float32"
    can: frozenset[str] = frozenset(OPERATIONS)
    choices: Mapping[str, str] = field(default_factory=dict)
    loads: bool = True  # whether it can be given model folders; a server has one
    claims: frozenset[str] = frozenset()  # that it makes, and must answer for
    takes: Mapping[str, frozenset[str]] = field(
        default_factory=dict
    )  # arguments by operation; any, if it is not listed


class Subject(Protocol):
    """Anything that can be asked."""

    @property
    def about(self) -> About:
        """Known before the first question."""

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, checked by `checked`. Raises one of the exceptions below."""

    def restart(self) -> None:
        """Begins anew, as if nothing had been asked, where that can be done; a server cannot."""

    def close(self) -> None:
        """No more questions."""


class SubjectError(Exception):
    """Something else than an answer; `rules` are those of SPEC.md that it breaks, if it is clear which."""

    def __init__(self, message: str, rules: tuple[str, ...] = ()) -> None:
        self.rules = rules
        super().__init__(message)


CRASHES = frozenset(  # errors that no program raises to refuse a request; others, such as ValueError, refuse it
    {
        "ArithmeticError", "AttributeError", "BufferError", "FloatingPointError", "IndexError", "KeyError", "LookupError",
        "MemoryError", "NameError", "OSError", "RecursionError", "RuntimeError", "SystemError", "SystemExit",
        "UnboundLocalError", "UnicodeDecodeError", "UnicodeEncodeError", "ZeroDivisionError",
    }
)  # fmt: skip


class RefusedError(SubjectError):
    """The subject answered with an error. It refuses the request, unless no program raises such an error on purpose."""

    @property
    def is_crash(self) -> bool:
        """Whether the error's name, which stands before the colon, is one of CRASHES."""
        return str(self).partition(":")[0] in CRASHES


class SkippedError(SubjectError):
    """The subject says that it cannot do this (yet)."""


class CrashedError(SubjectError):
    """The subject died or closed its end."""


class TimedOutError(SubjectError):
    """No answer in time."""


class GarbledError(SubjectError):
    """An answer that is none: not JSON, another request's, of a wrong shape."""


# --- Answers ----------------------------------------------------------------------------------------------


def checked(op: str, request: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """The answer with arrays as float64, lists of ids as lists of int; raises `GarbledError`, which says what is wrong."""
    if not isinstance(answer, Mapping):
        raise GarbledError(f"the answer to {op} is {shown(answer)}, must be an object")
    answer = dict(answer)
    if op == "encode":
        return {"ids": ids(answer.get("ids"), "ids")}
    if op == "decode":
        if not isinstance(answer.get("text"), str):
            raise GarbledError(f"text is {shown(answer.get('text'))}, must be a text")
        return answer
    B = len(request["input_ids"])
    if op == "stages":
        return {"stages": stages(answer.get("stages"))}
    if op == "forward":
        T = len(request["input_ids"][0])
        return {"logits": numbers(answer.get("logits"), "logits", (B, T, -1))}
    if op == "process":
        scores = numbers(answer.get("scores"), "scores", (B, len(request["logits"][0])), nothing=-math.inf)
        return {"scores": scores}
    n = request.get("num_return_sequences") or 1
    return answer | {"rows": rows(answer.get("rows"), B * n)}


def rows(value: Any, count: int) -> list[dict[str, Any]]:
    """The rows of `generate`; a row may be a bare list of ids."""
    several = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(several, list | tuple) or len(several) != count:
        raise GarbledError(f"rows are {shown(value)}, must be a list of {count}")
    checked_rows = []
    for number, row in enumerate(several):
        entry = dict(row) if isinstance(row, Mapping) else {"new_ids": row}
        where = f"row {number}"
        if "new_ids" not in entry and not isinstance(entry.get("text"), str):
            raise GarbledError(f"{where} has neither new_ids nor text")
        if "new_ids" in entry:
            entry["new_ids"] = ids(entry["new_ids"], f"{where}: new_ids")
        if entry.get("logprobs") is not None:
            entry["logprobs"] = numbers(entry["logprobs"], f"{where}: logprobs", (-1,), nothing=math.nan).tolist()
        if entry.get("finish") is not None and entry["finish"] not in FINISHES:
            raise GarbledError(f"{where}: finish is {shown(entry['finish'])}, must be one of {', '.join(FINISHES)}")
        checked_rows.append(entry)
    return checked_rows


def stages(value: Any) -> dict[str, np.ndarray]:
    """The arrays of `stages` as float64; which of them fit the model is looked at when they are compared (judging/layers.py)."""
    if not isinstance(value, Mapping) or not value:
        raise GarbledError(f"stages are {shown(value)}, must be an object of arrays by name")
    return {str(name): numbers(array, f"stage {shown(str(name))}", None) for name, array in value.items()}


def ids(value: Any, name: str) -> list[int]:
    """A flat list of whole numbers."""
    flat = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(flat, list | tuple) or not all(type(each) is int for each in flat):
        raise GarbledError(f"{name} are {shown(value)}, must be a list of whole numbers")
    return list(flat)


def numbers(value: Any, name: str, shape: Sequence[int] | None, nothing: float | None = None) -> np.ndarray:
    """float64 in that shape, -1 for any length, or in any shape for None; None inside a list is `nothing`."""
    if isinstance(value, Mapping):
        value = unpacked(value, name)
    if isinstance(value, list | tuple) and nothing is not None:
        value = filled(value, nothing)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise GarbledError(f"{name} are {shown(value)}, must be numbers") from None
    if shape is None:
        return array
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ["any" if each == -1 else each for each in shape]
        raise GarbledError(f"{name} have shape {list(array.shape)}, must have {wanted}")
    return array


def unpacked(value: Mapping[str, Any], name: str) -> np.ndarray:
    """An array as {"dtype": "F32" or "F64", "shape": […], "b64": its numbers in base64, little-endian}."""
    try:
        dtype = {"F32": "<f4", "F64": "<f8"}[value["dtype"]]
        return np.frombuffer(base64.b64decode(value["b64"], validate=True), dtype).reshape(value["shape"])
    except (KeyError, TypeError, ValueError):
        raise GarbledError(f"{name} are {shown(value)}, must be lists or dtype, shape and b64 that fit") from None


def filled(value: Any, nothing: float) -> Any:
    """The same lists with numbers for null."""
    if isinstance(value, list | tuple):
        return [filled(each, nothing) for each in value]
    return nothing if value is None else value


def shown(value: Any) -> str:
    """A value in a message, not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
