"""SPEC.md, code and tests speak of the same rules."""

import re
from pathlib import Path

from refgen import __version__, spec

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
RULES = spec.parse(SPEC)
ID = r"\b[A-Z]{2,}-\d\d\b"


def cited(folder):
    """The rules that Python files name; "FWD-05 to FWD-08" names all of them."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))
    found = set(re.findall(ID, text))
    for family, first, last in re.findall(r"\b([A-Z]+)-(\d\d) to \1-(\d\d)\b", text):
        found |= {f"{family}-{number:02}" for number in range(int(first), int(last) + 1)} & RULES.keys()
    return found


def test_every_rule_is_read():
    """No heading of SPEC.md escapes the parser, which refuses a rule that is not whole; all belong to a section."""
    assert list(RULES) == re.findall(r"^### (\S+)", SPEC, re.MULTILINE)
    assert len(RULES) >= 150
    assert {rule.section for rule in RULES.values()} <= set(re.findall(r"^## (.+)$", SPEC, re.MULTILINE))


def test_no_rule_is_younger_than_the_specification():
    """`Since` names a version of refgen that there is."""
    present = tuple(map(int, __version__.split(".")[:2]))
    assert all(tuple(map(int, rule.since.split("."))) <= present for rule in RULES.values())


def test_stacks_name_options():
    """*Stacks* are read: each name once in SPEC.md, each option once under a name, the rule's own always visible."""
    found = [choice for rule in RULES.values() for choice in rule.choices]
    assert len({choice.name for choice in found}) == len(found) == len(spec.choices()) >= 115
    for choice in found:
        names = [option.name for option in choice.options]
        assert len(set(names)) == len(names) >= 2, choice
        assert choice.options[0].visible, choice
    assert all(rule.stacks.endswith(").") for rule in RULES.values() if rule.stacks)


def test_code_cites_only_rules():
    """An id in code, docstring or error message is a rule of SPEC.md."""
    assert cited("refgen") - RULES.keys() == set()


def test_every_rule_has_code():
    """Every rule is cited where it is implemented."""
    assert RULES.keys() - cited("refgen") == set()


def test_every_rule_has_a_test():
    """Every rule is cited by a test that checks it."""
    assert RULES.keys() - cited("tests") == set()
