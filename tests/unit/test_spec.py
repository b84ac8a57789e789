"""The rules as data, and how they are shown."""

import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from refgen import SpecError, spec
from refgen.cli import main

RULE = """\
## A section

Words.

### ABC-01 A title
Two sentences that end `here`. And
there.

```python
>>> 1 + 1
2

```
Source: P (A b. 2019; c), R. Since: 0.1. *Stacks*: side=left (we) |
right (they).
"""


def run(capsys, *arguments):
    """Exit code, stdout and stderr of one command."""
    code = main(["spec", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def words(text):
    """The same text, however its lines are broken."""
    return " ".join(text.split())


def test_a_rule_is_read():
    """Every part of a rule becomes a field; lines that only wrap are joined."""
    (rule,) = spec.parse(RULE).values()
    assert asdict(rule) == {
        "id": "ABC-01",
        "title": "A title",
        "sentence": "Two sentences that end `here`. And there.",
        "example": ">>> 1 + 1\n2",
        "source": "P (A b. 2019; c), R",
        "since": "0.1",
        "stacks": "side=left (we) | right (they).",
        "section": "A section",
    }
    assert rule.family == "ABC"
    with pytest.raises(FrozenInstanceError):
        rule.id = "ABC-02"


@pytest.mark.parametrize(("part", "instead"), [
    (" A title", ""),
    ("Two sentences that end `here`. And\nthere.\n\n", ""),
    (">>> 1 + 1\n2\n\n", ""),
    ("Source: P", "Source: Q"),
    (" Since: 0.1.", ""),
    (" Since: 0.1.", " Since: soon."),
    ("*Stacks*", "Stacks"),
    ("right (they).", "right (they).\n\nMore words."),
    ("```python\n", "```\n"),
])  # fmt: skip
def test_a_rule_that_is_not_whole_is_refused(part, instead):
    """A rule without one of its parts, or with others, is an error that names it, not a rule left out."""
    assert RULE.count(part) == 1
    with pytest.raises(SpecError, match="ABC-01: must have a title"):
        spec.parse(RULE.replace(part, instead))


def test_stacks_are_read():
    """A choice has its options, who takes them, and which of them no question shows."""
    (rule,) = spec.parse(RULE.replace("right (they).", "right (they) | 1e-5 (o) (not visible).")).values()
    (choice,) = rule.choices
    assert (choice.name, choice.rule, choice.own, choice.others) == ("side", "ABC-01", "left", ("right",))
    assert [(option.name, option.who, option.visible) for option in choice.options] == [
        ("left", "we", True), ("right", "they", True), ("1e-5", "o", False)
    ]  # fmt: skip
    (plain,) = spec.parse(RULE.partition(" *Stacks*")[0] + "\n").values()
    assert plain.choices == ()


@pytest.mark.parametrize("stacks", ["side=left (we)", "side=left | right (they)", "side=left (we) | right (they) (hidden)",
                                    "SIDE=left (we) | right (they)", "side=left (we), right (they)"])  # fmt: skip
def test_stacks_that_are_not_written_so(stacks):
    """What is no list of options is an error that names the rule."""
    text = RULE.partition(" *Stacks*")[0] + f" *Stacks*: {stacks}.\n"
    (rule,) = spec.parse(text).values()
    with pytest.raises(SpecError, match="ABC-01, Stacks"):
        assert rule.choices


def test_an_option_that_is_not_visible_is_shown_so(capsys):
    """`refgen spec` prints the mark."""
    assert "(not visible)" in run(capsys, "FWD-22")[1]


def test_an_id_stands_once():
    """Two rules of one id are an error."""
    with pytest.raises(SpecError, match="ABC-01: stands there twice"):
        spec.parse(RULE + RULE)


@pytest.mark.parametrize("rule", spec.rules().values(), ids=spec.rules())
def test_every_rule_is_shown_whole(capsys, rule):
    """Law: what `refgen spec ID` prints holds id, title, sentences, example, source, since and stacks."""
    code, out, err = run(capsys, rule.id)
    assert (code, err) == (0, "")
    for text in (rule.id, rule.title, rule.sentence, rule.example, rule.source, rule.since, rule.stacks):
        assert words(text) in words(out)


def test_json_gives_every_field(capsys):
    """Law: from `refgen spec --json` the rules can be built again, all, in order."""
    _, out, _ = run(capsys, "--json")
    assert [spec.Rule(**entries) for entries in json.loads(out)] == list(spec.rules().values())
    _, out, _ = run(capsys, "TOPP-01", "--json")
    assert [entries["title"] for entries in json.loads(out)] == ["top_p"]


def test_the_index_names_every_rule(capsys):
    """Without an id the rules are listed, a line each, under their sections."""
    _, out, _ = run(capsys)
    lines = out.splitlines()
    sections = dict.fromkeys(rule.section for rule in spec.rules().values())
    assert [line for line in lines if line and not line.startswith(" ")] == list(sections)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(spec.rules())


def test_a_family(capsys):
    """A family's name shows all its rules and no other; upper and lower case are one."""
    _, out, _ = run(capsys, "topk")
    heads = [line.split()[0] for line in out.splitlines() if line.startswith("TOP")]
    assert heads == ["TOPK-01", "TOPK-02", "TOPK-03"]
    assert run(capsys, "topk-02")[1] == run(capsys, "TOPK-02")[1]


@pytest.mark.parametrize(("name", "message"), [
    ("TOPP-99", "TOPP-99: is neither a rule nor a family of rules. Did you mean TOPP or TOPP-0"),
    ("topq", "topq: is neither a rule nor a family of rules. Did you mean TOPP or TOPK or TOPH?"),
    ("", ": is neither a rule nor a family of rules. `refgen spec` lists all rules."),
    ("öäü", "öäü: is neither a rule nor a family of rules. `refgen spec` lists all rules."),
])  # fmt: skip
def test_an_unknown_name(capsys, name, message):
    """A name that is no rule's is one line on stderr with the nearest ones, and exit code 2."""
    code, out, err = run(capsys, name)
    assert (code, out) == (2, "")
    assert err.startswith("refgen: error: " + message)
    assert err.count("\n") == 1
