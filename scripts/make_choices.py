"""Writes docs/choices.md: every choice of SPEC.md, its options, and the checks that change with it. `scripts/tables` runs it.

The questions of the kit are data. So the script computes which checks depend on an option: those whose right answer
changes with it. Checks that look an option up themselves (relations, laws of sampling, questions to servers) are found
by its name in their code.
"""

import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen.conformance.judging.choices import Asked, Right, right  # noqa: E402
from refgen.conformance.judging.lab import Lab  # noqa: E402
from refgen.conformance.judging.token_law import Rows, Sampler  # noqa: E402
from refgen.conformance.judging.verdicts import Finding, Verdict  # noqa: E402
from refgen.conformance.planted.options import CHANGES, NOT_YET  # noqa: E402
from refgen.conformance.questions import cases, relations, sampling  # noqa: E402
from refgen.conformance.questions.models import Models  # noqa: E402
from refgen.conformance.questions.serving.question import QUESTIONS  # noqa: E402
from refgen.conformance.runner import probe_checks  # noqa: E402
from refgen.conformance.subjects.protocol import About  # noqa: E402
from refgen.conformance.subjects.python import PythonSubject  # noqa: E402
from refgen.conformance.subjects.reference import ReferenceSubject  # noqa: E402
from refgen.errors import IgnoredSettingWarning  # noqa: E402
from refgen.model import forward  # noqa: E402
from refgen.spec import Choice, choices  # noqa: E402

MARK = "<!-- made by scripts/tables -->\n"
MOST = 4  # checks named in a cell
HEAD = """# Where implementations differ

This page lists the choices of [SPEC.md](../SPEC.md)'s *Stacks*. A subject declares its options with
`--choice NAME=OPTION`, or in its attribute `choices`. The kit then expects these options, and without a declaration the
first one. Names and options that are not listed here are an error. If another option would explain a failure, the
message names it.

*Checks* are those whose right answer changes with the choice. *Not visible* means that no question of the kit can show
the choice. It concerns a Python interface, allowed rounding, or optional parts of an answer. *Not yet asked* means that
a subject could show it, but no check looks, so a declaration changes nothing so far. Options in italics are not
visible.
"""


@cache
def lab() -> Lab:
    """refgen, with all models of the kit."""
    return Lab(PythonSubject(ReferenceSubject, About("refgen")), Models())


@cache
def questions() -> tuple[cases.CaseCheck, ...]:
    """All cases, those made for choices first."""
    every = [*cases.checks(lab()), *probe_checks(lab())]
    return tuple(sorted(every, key=lambda check: not check.id.startswith("choices.")))


@cache
def plain(number: int) -> Right:
    """What refgen answers to a case."""
    case = questions()[number].case
    return right(lab(), case.op, case.model, case.request, ())


def depending(option: str) -> Iterator[cases.CaseCheck]:
    """The cases whose right answer is another with an option, `name=option`."""
    name = option.partition("=")[0]
    numbers = sorted(range(len(questions())), key=lambda number: questions()[number].case.choice != name)
    numbers.sort(key=lambda number: questions()[number].id != f"choices.{name}")
    for number in numbers:
        check = questions()[number]
        case = check.case
        asked = Asked(lab(), case.op, case.model, case.request, Right(None), lambda *_: Finding(Verdict.PASS))
        if asked.concerns(option) and not asked.right([option]).is_like(plain(number)):
            yield check


def cases_of(option: str, most: int) -> list[cases.CaseCheck]:
    """The first cases that depend on an option."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredSettingWarning)
        return [check for _, check in zip(range(most), depending(option), strict=False)]


def looking_up(name: str) -> Iterator[str]:
    """The relations and questions to servers whose code names the choice."""
    found = re.compile(rf"\"{name}[\"=]")
    for id_, _, _, _, find in relations.RELATIONS:
        if found.search(inspect.getsource(find)) or (
            name == "end_token_in_ids" and "shown(talk" in inspect.getsource(find)
        ):
            yield f"relations.{id_}"
    for question in QUESTIONS:
        code = inspect.getsource(question.question)
        if found.search(code) or (name == "stop_string_in_text" and re.search(r"judged_stop|stopped\(", code)):
            yield question.id


def laws(choice: Choice) -> Iterator[str]:
    """The checks of sampling whose law is another with one of the options."""
    for check in sampling.LAWS:
        exact = lab().reference(check.model).exact
        rows = Rows(np.array([[*check.prompt, 0]]), len(check.prompt), forward(exact, np.array([check.prompt]))[:, -1:])
        usual = Sampler(check.settings, {}).law(rows)
        for option in choice.others:
            law = Sampler(check.settings, {choice.name: option}).law(rows)
            if np.abs(law.most - usual.most).max() > 1e-9 or (choice.name, check.settings.get("temperature")) == (
                "temperature_zero",
                0,
            ):
                yield check.id
                break


@cache
def dependents() -> Mapping[str, tuple[str, ...]]:
    """For every choice the ids of the checks that change with it."""
    found: dict[str, tuple[str, ...]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for choice in choices().values():
            options = [f"{choice.name}={option}" for option in choice.others]
            ids: list[str] = [check.id for option in options if option in CHANGES for check in depending(option)]
            if "gelu=tanh_float16_table" in options:
                ids += ["forward.*", "relations.forward-*"]
            ids += ["sampling.seed.torch"] if choice.name == "random_numbers" else []
            found[choice.name] = tuple(dict.fromkeys([*ids, *looking_up(choice.name), *laws(choice)]))
    return found


def cell(names: Iterable[str]) -> str:
    """Some ids, and how many more there are."""
    several = list(names)
    more = f" and {len(several) - MOST} more" if len(several) > MOST else ""
    return ", ".join(f"`{name}`" for name in several[:MOST]) + more


def row(choice: Choice) -> str:
    """One line of the table."""
    options = [
        f"{f'`{option.name}`' if option.visible else f'*{option.name}*'} ({option.who})" for option in choice.options
    ]
    checks = dependents()[choice.name]
    status = cell(checks) if checks else f"not yet asked: {NOT_YET[choice.name]}" if choice.others else "not visible"
    return f"| `{choice.name}` | {choice.rule} | {'<br>'.join(options)} | {status} |"


def page() -> str:
    """docs/choices.md."""
    every = choices().values()
    visible = [choice for choice in every if choice.others]
    asked = [choice for choice in visible if dependents()[choice.name]]
    counts = (
        f"{len(every)} choices with {sum(len(choice.options) for choice in every)} options. {len(asked)} are tested, "
        f"{len(visible) - len(asked)} not yet, {len(every) - len(visible)} are not visible."
    )
    head = ["| choice | rule | options (who takes them) | checks |", "|---|---|---|---|"]
    return "\n".join([counts, "", MARK, HEAD, *head, *map(row, every)]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "choices.md").write_text(page(), encoding="utf-8")
