"""The rules of SPEC.md as data: `rules()` reads them, `choices()` their *Stacks*, `find` looks some up, `show` prints one.

SPEC.md is the contract. Its head defines the form of a rule, and `RULE` and `OPTION` are the same form as patterns. A
rule in another form is an error, and is never skipped.
"""

import difflib
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from refgen.errors import SpecError
from refgen.shipped import shipped

RULE = re.compile(
    r"""
    (?P<id>[A-Z]+-\d\d)\ (?P<title>[^\n]+)\n
    (?P<sentence>[^\n`].*?|`[^`].*?)\n\n
    ```python\n(?P<example>>>>.*?)\n+```\n
    Source:\ (?P<source>[RPD](?:\ \([^)]+\))?(?:,\ [RPD](?:\ \([^)]+\))?)*)\.
    \sSince:\ (?P<since>\d+\.\d+)\.
    (?:\s\*Stacks\*:\ (?P<stacks>\S(?:[^\n]|\n(?!\n))*))?
    """,
    re.VERBOSE | re.DOTALL,
)
OPTION = re.compile(r"(?P<name>[a-z0-9_.]*[a-z0-9]+(?:-\d+)?) \((?P<who>[^();|]+)\)(?P<hidden> \(not visible\))?")
STACKS = "must be `name=option (who) | option (who); …`, each perhaps with `(not visible)` after it"
WIDTH = 88
FORM = "must have a title, sentences, one block of Python with an example, and a last line with its source and version"


@dataclass(frozen=True)
class Option:
    """One way to make a choice, and who takes it. One that is not `visible` answers every question of the kit as the rule's own does."""

    name: str
    who: str
    visible: bool


@dataclass(frozen=True)
class Choice:
    """A point where implementations differ. The first option is the rule's own."""

    name: str
    rule: str
    options: tuple[Option, ...]

    @property
    def own(self) -> str:
        """The option expected from a subject that declares nothing."""
        return self.options[0].name

    @property
    def others(self) -> tuple[str, ...]:
        """The visible options that are not the rule's own."""
        return tuple(option.name for option in self.options[1:] if option.visible)


@dataclass(frozen=True)
class Rule:
    """One rule. `source` are the letters of SPEC.md's head; `stacks` is empty where implementations agree."""

    id: str
    title: str
    sentence: str  # one or more
    example: str  # a doctest, in the session that SPEC.md begins with
    source: str
    since: str  # the version of the specification in which the rule took its present form
    stacks: str  # name=option (who) | option (who); …
    section: str

    @property
    def family(self) -> str:
        """What the id begins with, such as TOPP."""
        return self.id.partition("-")[0]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Its *Stacks*, read. Raises `SpecError`."""
        if not self.stacks:
            return ()
        return tuple(self._choice(text) for text in self.stacks.removesuffix(".").split("; "))

    def _choice(self, text: str) -> Choice:
        """One `name=option (who) | option (who)`."""
        name, _, rest = text.partition("=")
        found = [OPTION.fullmatch(each) for each in rest.split(" | ")]
        if not re.fullmatch("[a-z_]+", name) or len(found) < 2 or None in found:
            raise SpecError(f"SPEC.md, {self.id}, Stacks {text[:60]!r}", STACKS)
        options = tuple(Option(each["name"], each["who"], each["hidden"] is None) for each in found if each)
        return Choice(name, self.id, options)


def parse(text: str) -> dict[str, Rule]:
    """The rules of a document by id, in its order; raises `SpecError` for one not written as rules are."""
    found: dict[str, Rule] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        section, *chunks = re.split(r"^### ", part, flags=re.MULTILINE)
        for chunk in chunks:
            match = RULE.fullmatch(chunk.rstrip())
            if match is None:
                raise SpecError(f"SPEC.md, {chunk.split(maxsplit=1)[0]}", FORM)
            if match["id"] in found:
                raise SpecError(f"SPEC.md, {match['id']}", "stands there twice")
            entries = {name: value or "" for name, value in match.groupdict().items()}
            for name in ("sentence", "source", "stacks"):
                entries[name] = " ".join(entries[name].split())
            found[match["id"]] = Rule(**entries, section=section.partition("\n")[0])
    return found


@cache
def rules() -> Mapping[str, Rule]:
    """All rules of this version, by id."""
    return parse(shipped("SPEC.md").read_text(encoding="utf-8"))


@cache
def choices() -> Mapping[str, Choice]:
    """Where implementations differ, by name. A name stands once in SPEC.md."""
    return {choice.name: choice for rule in rules().values() for choice in rule.choices}


def find(name: str | None = None) -> list[Rule]:
    """The rule with this id, the rules of this family, or all; upper and lower case are one."""
    if name is None:
        return list(rules().values())
    found = [rule for rule in rules().values() if name.upper() in (rule.id, rule.family)]
    if not found:
        names = [*rules(), *dict.fromkeys(rule.family for rule in rules().values())]
        close = difflib.get_close_matches(name.upper(), names, n=3)
        nearest = f"Did you mean {' or '.join(close)}?" if close else "`refgen spec` lists all rules."
        raise SpecError(name[:200], "is neither a rule nor a family of rules", remedy=nearest)
    return found


def show(rule: Rule, width: int = WIDTH) -> str:
    """A rule in full, in lines of up to `width` characters, but for its example."""
    tail = f"Source: {rule.source}. Since: {rule.since}."
    parts = [
        f"{rule.id} {rule.title}",
        fill(rule.sentence, width),
        textwrap.indent(rule.example, "    "),
        fill(tail, width),
    ]
    return "\n\n".join([*parts, fill(f"Stacks: {rule.stacks}", width)] if rule.stacks else parts)


def index(several: list[Rule]) -> str:
    """Ids and titles under the names of their sections."""
    lines: list[str] = []
    section = ""
    for rule in several:
        if rule.section != section:
            section = rule.section
            lines += [""] * bool(lines) + [section]
        lines.append(f"  {rule.id:<9} {rule.title}")
    return "\n".join(lines)


def fill(text: str, width: int) -> str:
    """Lines of up to `width` characters."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
