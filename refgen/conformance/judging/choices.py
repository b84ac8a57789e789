"""Choices: what a subject declares where implementations differ, and the right answer of one that has declared it.

The table of names and options is SPEC.md's *Stacks*, read by spec.py. planted/options.py defines the effect of an
option: refgen with that option gives the right answer. So a subject is judged by the options it declares. If a wrong
answer would be right under another option, the message names that option.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen import spec
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.planted.options import CHANGES, PERMISSIVE, AnyAnswerError, forward_change
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.protocol import RefusedError
from refgen.conformance.subjects.values import shown
from refgen.errors import ConformanceError, RefgenError
from refgen.oracle.counterfactual import Pass

# --- What may be declared -----------------------------------------------------------------------------------


def settled(choices: Mapping[str, Any]) -> dict[str, str]:
    """The choices that a subject declares, by `--choice` or in its `about`. Raises `ConformanceError` for unknown names and options."""
    for name, option in choices.items():
        if name not in spec.choices():
            close = difflib.get_close_matches(str(name), spec.choices(), n=1)
            nearest = f"Did you mean {close[0]}?" if close else "docs/choices.md lists them."
            raise ConformanceError(f"choice {name}={option}", "unknown name", remedy=nearest)
        options = [each.name for each in spec.choices()[name].options]
        if option not in options:
            close = difflib.get_close_matches(str(option), options, n=1)
            remedy = f"Did you mean {name}={close[0]}?" if close else f"{name} is one of {', '.join(options)}."
            raise ConformanceError(f"choice {name}={option}", f"unknown option of {name}", remedy=remedy)
    return {name: str(option) for name, option in choices.items()}


def taken(choices: Mapping[str, str]) -> tuple[str, ...]:
    """Declared options that are not the rule's own, as `name=option`."""
    known = spec.choices()
    return tuple(f"{name}={option}" for name, option in choices.items() if name in known and option != known[name].own)


def advice(options: Iterable[str], after: str = "") -> str:
    """The remedy if an answer was intended, to be added to a message. Empty without options."""
    found = list(options)[:2]
    if not found:
        return ""
    flags = " or ".join(f"--choice {option}" for option in found)
    start = " This" if after.endswith((".", ".)")) else "; this"
    return f"{start} is the option {' or '.join(found)}. If you intend it, declare it with {flags}"


# --- Right answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Right:
    """The expected answer, or None for a refusal. `kind` is "exact", or that of an `AnyAnswerError`."""

    answer: Mapping[str, Any] | None
    kind: str = "exact"

    def is_like(self, other: "Right") -> bool:
        """Whether the two ask for the same."""
        if self.kind != other.kind or (self.answer is None) != (other.answer is None):
            return False
        return self.answer is None or other.answer is None or alike(self.answer, other.answer)


def alike(a: Any, b: Any) -> bool:
    """Whether two answers are the same, arrays up to rounding."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and all(alike(a[name], b.get(name)) for name in a)
    if isinstance(a, ndarray):
        return bool(np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-5, atol=1e-7, equal_nan=True))
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return bool(a == b)


def right(lab: Lab, op: str, model: str, request: Mapping[str, Any], options: Iterable[str]) -> Right:
    """What refgen with these options answers; logits in float64."""
    options = tuple(sorted(options))
    try:
        if op == "forward" and np.shape(request.get("attention_mask", request["input_ids"])) == np.shape(
            request["input_ids"]
        ):
            return Right({"logits": exact_logits(lab, model, request, options)})
        answer = getattr(lab.with_options(model, options), op)(**request)
        if op == "generate":  # log-probabilities are no part of what is compared
            answer = [{name: value for name, value in row.items() if name != "logprobs"} for row in answer]
        return Right(checked(op, request, answer if isinstance(answer, Mapping) else {KEY[op]: answer}))
    except AnyAnswerError as error:
        if error.kind != "same size":
            return Right({}, error.kind)
        usual = right(lab, op, model, request, [option for option in options if option != "top_p_ties=any"])
        return usual if usual.answer is None else replace(usual, kind=error.kind)
    except (RefgenError, IndexError, OverflowError):
        return Right(None)


IN_VAIN = 3  # searches of a kind for an option that explains a failure, before they are given up
KEY = {"encode": "ids", "decode": "text", "forward": "logits", "process": "scores", "generate": "rows"}


def exact_logits(lab: Lab, model: str, request: Mapping[str, Any], options: Iterable[str]) -> ndarray:
    """Logits `[B T V]` of the network in float64, with what options change about it; 0 at padding, which means nothing."""
    ids = np.asarray(request["input_ids"], dtype=np.int64)
    mask = np.asarray(request.get("attention_mask", np.ones_like(ids)), dtype=np.int64)
    given = Pass(lab.plain_reference(model).exact, ids, mask, prefill=request.get("prefill"))
    change = forward_change(options)
    return np.where(mask[..., None], (given if change is None else change(given)).run(), 0.0)


# --- Being held to them -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A question to the subject of a lab. `own` is right for one that declares nothing; `stored` has answers for options, if there are any."""

    lab: Lab
    op: str
    model: str
    request: Mapping[str, Any]
    own: Right
    judge: Callable[[Mapping[str, Any], Mapping[str, Any]], Finding]  # (answer, what is right) -> finding
    stored: Mapping[str, Right] = field(default_factory=dict)  # by name=option, of one name
    rules: tuple[str, ...] = ()  # that the question is about: their choices are the likeliest to explain a failure
    ask: Callable[[Lab, str, Mapping[str, Any]], dict[str, Any]] | None = None  # another way to ask than the lab's

    def held(self) -> Finding:
        """Asks, and judges the answer by what the subject declares."""
        expected, changing = self.expected()
        answer: Mapping[str, Any] | None = None
        try:
            given = answer = self.given()
        except RefusedError as error:
            finding = self.refused(error, expected)
        else:
            finding = self.judged(given, expected)
        if not finding.verdict.good:
            return finding if self.lab.repeating else self.advised(answer, finding, expected, changing)
        if not changing or finding.verdict is Verdict.TIE:
            return finding
        name, _, option = changing[0].partition("=")
        facts = {**finding.facts, "choice": name, "option": option}
        return replace(finding, verdict=Verdict.CHOICE, message=", ".join(changing), facts=facts)

    def given(self) -> dict[str, Any]:
        """The subject's answer."""
        if self.ask is not None:
            return self.ask(self.lab, self.model, self.request)
        return self.lab.ask(self.op, self.model, **self.request)

    def refused(self, error: RefusedError, expected: Right) -> Finding:
        """A refusal: right where nothing may be answered, wrong where the subject declares that it answers what others refuse.

        Elsewhere the subject just cannot do it, which is left to the runner, with the option that would be right so.
        """
        if expected.answer is None or expected.kind == "answer or refusal":
            return Finding(Verdict.PASS, f"refused: {error}", rules=error.rules)
        usual = next(iter(self.stored.values()), self.own)
        if usual.answer is None:
            return Finding(Verdict.FAIL, f"refused: {error}", rules=error.rules)
        raise RefusedError(
            f"{error}{advice(self.fitting(None, expected, near=True), str(error))}", error.rules
        ) from error

    def expected(self) -> tuple[Right, list[str]]:
        """The right answer under the declared options, and the options that matter here."""
        declared = taken(self.lab.about.choices)
        own, base = self.own, [option for option in declared if option in self.stored]
        if self.stored:
            chosen = base[0] if base else next(iter(self.stored))
            own, shown_option = self.stored[chosen], [chosen]
        else:
            shown_option = []
        several = [option for option in declared if option not in base and self.concerns(option)]
        if not several:
            return own, shown_option
        plain, together = self.right(base), self.right([*base, *several])
        if together.is_like(plain):
            return own, shown_option
        changing = [option for option in several if not self.right([*base, option]).is_like(plain)]
        return together, [*base, *(changing or several)]

    def right(self, options: Iterable[str]) -> Right:
        """What refgen answers with these options."""
        return right(self.lab, self.op, self.model, self.lab.meant(self.request), options)

    def concerns(self, option: str) -> bool:
        """Whether an option can change the answer at all."""
        change = CHANGES.get(option)
        return change is not None and (not change.settings or bool(change.settings & self.request.keys()))

    def judged(self, answer: Mapping[str, Any], expected: Right) -> Finding:
        """An answer by what is right."""
        if expected.answer is None:
            return Finding(Verdict.FAIL, f"answered {shown(answer)}, must refuse")
        if expected.kind == "same size" and "scores" in answer:
            both = (answer, expected.answer)
            mine, other = ({"scores": np.sort(each["scores"])} for each in both)
            return self.judge(mine, other)
        return Finding(Verdict.PASS) if expected.kind != "exact" else self.judge(answer, expected.answer)

    # --- What it would be right for ---

    def advised(
        self, answer: Mapping[str, Any] | None, finding: Finding, expected: Right, changing: list[str]
    ) -> Finding:
        """The same failure, with the options under which it would be none."""
        broken = [spec.choices()[option.partition("=")[0]].rule for option in changing]
        if broken and taken(self.lab.about.choices):  # what it declares and does not do
            finding = replace(finding, rules=tuple(dict.fromkeys([*broken, *finding.rules])))
        kind = (self.op, self.rules[:1], finding.fault)
        found = list(self.fitting(answer, expected)) if self.lab.in_vain[kind] < IN_VAIN else []
        found.sort(key=lambda option: option in PERMISSIVE)
        if not found:
            self.lab.in_vain[kind] += 1
            declared = f" for {', '.join(changing)}" if changing else ""
            return replace(finding, message=f"{finding.message}{declared}")
        known, declared_options = spec.choices(), self.lab.about.choices
        own = [option for option in found if option.partition("=")[2] == known[option.partition("=")[0]].own]
        declares = (
            f"; this is {own[0]}, but the subject declares {declared_options[own[0].partition('=')[0]]}"
            if own
            else advice(found, finding.message)
        )
        return replace(finding, message=f"{finding.message}{declares}", facts={**finding.facts, "options": found})

    def fitting(self, answer: Mapping[str, Any] | None, expected: Right, *, near: bool = False) -> Iterator[str]:
        """Options under which the answer, or the refusal (None), would be right, the likeliest first; `near` are those of its rules."""
        declared, known = dict(self.lab.about.choices), spec.choices()
        for option in dict.fromkeys([*self.stored, *alternatives(declared, self.rules, self.lab.options_seen)]):
            name, _, value = option.partition("=")
            if near and known[name].rule not in self.rules:
                continue
            if declared.get(name, known[name].own) == value:
                continue
            if option in self.stored:
                other = self.stored[option]
            elif value == known[name].own or self.concerns(option):
                other = self.right(taken(declared | {name: value}))
            else:
                continue
            if not other.is_like(expected) and self.fits(answer, other, expected):
                self.lab.options_seen.append(option)
                yield option

    def fits(self, answer: Mapping[str, Any] | None, other: Right, expected: Right) -> bool:
        """Whether an answer, or a refusal, would be right. Logits are first looked at from afar, for to judge them takes time."""
        if answer is None:
            return other.answer is None or other.kind == "answer or refusal"
        if self.op == "forward" and other.answer and not nearer(answer["logits"], other.answer["logits"], expected):
            return False
        return self.judged(answer, other).verdict.good


def nearer(logits: ndarray, other: ndarray, expected: Right) -> bool:
    """Whether logits are much nearer to other ones than to those that are expected, as far as these are known."""
    if logits.shape != other.shape or not expected.answer:
        return logits.shape == other.shape
    right_logits = expected.answer["logits"]
    real = np.abs(other).max(axis=-1, keepdims=True) > 0  # padding is all 0
    off, before = (float(np.square(np.where(real, logits - each, 0)).sum()) for each in (other, right_logits))
    return off < before / 10


def alternatives(declared: Mapping[str, str], rules: Sequence[str], seen: Sequence[str]) -> Iterator[str]:
    """Every visible option that is not taken: first of what is declared, then of these rules, then what explained something before."""
    known = spec.choices()

    def place(name: str) -> tuple[bool, bool, bool]:
        before = {option.partition("=")[0] for option in seen}
        return name not in declared, known[name].rule not in rules, name not in before

    for name in sorted(known, key=place):
        choice = known[name]
        if declared.get(name, choice.own) != choice.own:
            yield f"{name}={choice.own}"
        yield from (f"{name}={option}" for option in choice.others if option != declared.get(name))
