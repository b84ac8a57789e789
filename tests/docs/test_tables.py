"""docs/rules.md and docs/choices.md are what the rules, the code, the tests, the faults and the kit's questions make of them."""

import ast
from dataclasses import replace

import pytest

from refgen import spec
from scripts import make_choices, make_tables

STALE = "docs/{} is out of date: run scripts/tables"


def test_rules_page_is_up_to_date():
    """Every rule has code, tests and a fault or a reason, and the page says which they are today."""
    written = (make_tables.ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert written == make_tables.rules_page(), STALE.format("rules.md")
    assert all(f"\n| {name} | " in written for name in spec.rules())


def test_choices_page_is_up_to_date():
    """Every choice has the checks that change with it today, or says that there are none."""
    written = (make_tables.ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    assert written == make_choices.page(), STALE.format("choices.md")
    assert all(f"\n| `{name}` | " in written for name in spec.choices())


def test_a_rule_without_code_is_a_hole(monkeypatch):
    """The tester tested: a rule that nothing cites makes no page."""
    orphan = replace(spec.rules()["TOPP-01"], id="TOPP-99")
    monkeypatch.setattr(make_tables, "rules", lambda: {**spec.rules(), "TOPP-99": orphan})
    with pytest.raises(make_tables.HoleError, match="no code for TOPP-99"):
        make_tables.rules_page()


def test_citations_are_found_where_they_stand(tmp_path):
    """A rule is cited by the innermost function, class or constant around it; outside of all, by the file."""
    file = tmp_path / "sample.py"
    file.write_text(
        '"""FWD-01 to FWD-03 and FWD-04."""\n'
        'TABLE = {\n    "a": "FWD-05",\n}\n\n'
        "class Thing:\n"
        '    """FWD-06."""\n\n'
        '    @mark("FWD-07")\n'
        "    def method(self):\n"
        '        return "FWD-04 FWD-99"\n'
    )
    assert make_tables.citations(file) == {
        **{f"FWD-0{number}": [""] for number in (1, 2, 3)},
        "FWD-04": ["Thing.method"],
        "FWD-05": ["TABLE"],
        "FWD-06": ["Thing"],
        "FWD-07": ["Thing.method"],
    }
    assert sorted(name for _, _, name in make_tables.places(ast.parse(file.read_text()))) == [
        "TABLE",
        "Thing",
        "Thing.method",
    ]
