"""A question to a server, as a check of the claim "serving", and the verdicts it may come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from refgen.conformance.judging.choices import advice
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.serving.server_talk import ServerTalk

Question = Callable[[ServerTalk], Finding]
COUNT = 16  # tokens of most answers


@dataclass(frozen=True)
class ServingCheck:
    """One question to a server."""

    id: str
    rules: tuple[str, ...]
    why: str
    needs: frozenset[str]
    question: Question
    talk: ServerTalk | None = None
    claim: str = "serving"

    def run(self, lab: Lab) -> Finding:
        """Asks it."""
        talk = self.talk if self.talk is not None and self.talk.lab is lab else ServerTalk(lab)
        return self.question(talk)


QUESTIONS: list[ServingCheck] = []


def asks(name: str, *rules: str, why: str, needs: Sequence[str] = ()) -> Callable[[Question], Question]:
    """Makes a function a question of this claim."""

    def register(question: Question) -> Question:
        QUESTIONS.append(ServingCheck(f"serving.{name}", rules, why, frozenset({"complete", *needs}), question))
        return question

    return register


def passed(message: str = "", **facts: Any) -> Finding:
    """Right."""
    return Finding(Verdict.PASS, message, facts)


def failed(message: str, *rules: str, **facts: Any) -> Finding:
    """Wrong; `rules` if the evidence points at others than the check's."""
    return Finding(Verdict.FAIL, message, facts, rules)


def skipped(message: str) -> Finding:
    """This server, or this model, gives no occasion."""
    return Finding(Verdict.SKIP, message)


def compared(observed: Any, expected: Any, what: str, *rules: str) -> Finding:
    """PASS if they are equal."""
    if observed == expected:
        return passed()
    return failed(f"{what}: observed {observed!r}, expected {expected!r}", *rules)


def held_to(talk: ServerTalk, name: str, observed: str | None, wrong: Finding) -> Finding:
    """A choice that a server must declare: `observed` is the option it looks like, None if it looks like none, which is `wrong`."""
    option = talk.lab.choice(name)
    if observed == option:
        return chosen(talk, name, option) if name in talk.lab.about.choices else passed()
    if observed is None:
        return wrong
    if name in talk.lab.about.choices:
        return chosen(talk, name, observed)
    return replace(wrong, message=f"{wrong.message}{advice([f'{name}={observed}'])}")


def chosen(talk: ServerTalk, name: str, option: str) -> Finding:
    """CHOICE if this is one of several right answers, declared or not. FAIL if the subject declared another."""
    declared = talk.lab.about.choices.get(name)
    if declared is not None and declared != option:
        return failed(f"{name}: observed {option}, declared {declared}")
    return Finding(Verdict.CHOICE, f"{name}={option}", {"choice": name, "option": option})
