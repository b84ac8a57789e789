"""Adapts a request to a subject that lists its arguments: the request shrinks, or is skipped.

An entry that changes nothing is left out for a subject that has no such argument. One that changes the answer cannot be left
out, so the request is skipped: a subject that does not take `temperature` does not claim it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from refgen.conformance.subjects.protocol import About, SkippedError

NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "attention_mask": lambda mask: all(all(row) for row in mask),
    "do_sample": lambda value: not value,
    "eos_token_id": lambda value: (
        value is None
    ),  # whether an end can come is looked at by whoever asks (judging/lab.py)
    "num_return_sequences": lambda value: value == 1,
    "pad_token_id": lambda value: True,  # noqa: ARG005 - rows come back without filling
    "skip_special_tokens": lambda value: not value,
}
MEANT: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {  # by a request that does not name them
    "attention_mask": lambda request: [[1] * len(row) for row in request["input_ids"]],
    "do_sample": lambda request: False,  # noqa: ARG005
    "eos_token_id": lambda request: None,  # noqa: ARG005 - where an end can come it is named
    "num_return_sequences": lambda request: 1,  # noqa: ARG005
    "pad_token_id": lambda request: 0,  # noqa: ARG005
    "skip_special_tokens": lambda request: False,  # noqa: ARG005
    "temperature": lambda request: 1.0,  # noqa: ARG005
    "top_p": lambda request: 1.0,  # noqa: ARG005
}


def fitted(about: About, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as that subject can take it. Raises `SkippedError`."""
    taken = about.takes.get(op)
    return dict(request) if taken is None else without(op, request, taken)


def without(op: str, request: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """The request without neutral entries that are not taken. Raises `SkippedError` for others that are not."""
    foreign = [name for name in request if name not in taken]
    if changing := [name for name in foreign if name not in NEUTRAL or not NEUTRAL[name](request[name])]:
        raise SkippedError(f"{op} takes no {changing[0]}")
    return {name: value for name, value in request.items() if name not in foreign}


def with_needed(op: str, request: Mapping[str, Any], needed: Iterable[str]) -> dict[str, Any]:
    """The request with what a method cannot be called without. Raises `SkippedError` for what nobody can fill in."""
    missing = [name for name in needed if name not in request]
    if unknown := [name for name in missing if name not in MEANT]:
        raise SkippedError(f"{op} needs {unknown[0]}, which this question leaves open")
    return {**request, **{name: MEANT[name](request) for name in missing}}


def padded(request: Mapping[str, Any]) -> bool:
    """Whether some row has padding."""
    return not NEUTRAL["attention_mask"](request.get("attention_mask") or ())
