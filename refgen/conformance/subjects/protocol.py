"""The subject: an implementation under test, as the kit sees it, whatever it is written in. docs/subjects.md has the protocol.

A subject is asked by operation, with the name of a model folder, and answers with plain data. Names are those of `generate()`:

    encode    {text} -> {ids}
    decode    {ids, skip_special_tokens} -> {text}
    forward   {input_ids [B T], attention_mask?, prefill?} -> {logits [B T V]}
    process   {input_ids [B S], logits [B V], settings…} -> {scores [B V]}, -inf for what is removed
    generate  {input_ids [B P], attention_mask?, seed?, uniforms?, settings…} -> {rows: [{new_ids, finish?, logprobs?, text?, chunks?}]}
    stages    {input_ids [B T]} -> {stages: {name: array}}, any of those that `refgen explain` lists; asked only after a wrong forward pass

`prefill` = n asks for the first n positions in one pass and the others one by one through a cache. `settings` are
the fields of GenerationConfig. Ids, masks and numbers of a request are nested lists. A row has the new tokens up to and
with its end token, no filling. Everything else is an exception of this file: the subject refuses, does not support the
request, dies, hangs, or sends something that is not an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
        """The answer, as `checked` (border.py) lets it through. Raises one of the exceptions below."""

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
    """An answer that does not pass the border (border.py): not JSON, another request's, of a wrong shape."""
