"""SPEC.md, code and tests speak of the same rules."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAMILIES = (
    "FWD CKPT CFG IN LEN LOOP GREEDY SAMP TEMP TOPK TOPP TOPH MINP TYP EPS ETA WARP PROC REP BIAS NGRAM BAD PREF FORCE INV "
    "EXPD SUP CFGG WMARK BEAM ASSIST STOP SSTR PAD BATCH CACHE OUT STREAM TOK"
)
ID = rf"\b(?:{FAMILIES.replace(' ', '|')})-\d\d\b"
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
RULES = dict(re.findall(rf"^### ({ID}) [^\n]+\n(.*?)(?=^##|\Z)", SPEC, re.MULTILINE | re.DOTALL))


def cited(folder):
    """The rules that Python files name; "FWD-05 to FWD-08" names all of them."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))
    found = set(re.findall(ID, text))
    for family, first, last in re.findall(r"\b([A-Z]+)-(\d\d) to \1-(\d\d)\b", text):
        found |= {f"{family}-{number:02}" for number in range(int(first), int(last) + 1)} & RULES.keys()
    return found


def test_every_rule_is_whole():
    """A rule has a sentence, an example that is run, and a source; no id is given twice."""
    assert len(RULES) == len(re.findall(r"^### ", SPEC, re.MULTILINE)) >= 150
    for name, body in RULES.items():
        assert re.match(r"\S.+?\.", body, re.DOTALL), f"{name} has no sentence"
        assert ">>>" in body, f"{name} has no example"
        assert re.search(r"^Source: [RPD(]", body, re.MULTILINE), f"{name} has no source"


def test_code_cites_only_rules():
    """An id in code, docstring or error message is a rule of SPEC.md."""
    assert cited("refgen") - RULES.keys() == set()


def test_every_rule_has_code():
    """Every rule is cited where it is implemented."""
    assert RULES.keys() - cited("refgen") == set()


def test_every_rule_has_a_test():
    """Every rule is cited by a test that checks it."""
    assert RULES.keys() - cited("tests") == set()
