"""Writes docs/rules.md and docs/fields.md, which show that no rule and no setting is forgotten: `scripts/tables`.

rules.md    every rule of SPEC.md: the code that cites it, the tests that check it, the faults planted for it
fields.md   every setting of transformers' generate(): implemented, refused or not applicable, and why

A rule or a setting without an entry is an error here, not an empty cell.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen.generation.call import CALL_ARGUMENTS  # noqa: E402
from refgen.generation.config import METADATA, SETTINGS  # noqa: E402
from refgen.generation.refused import REFUSED  # noqa: E402
from refgen.oracle.faults import FAULTS as FORWARD_FAULTS  # noqa: E402
from refgen.spec import rules  # noqa: E402
from tests.meta.faults import FAULTS, FORWARD_RULES, WITHOUT  # noqa: E402

ID = re.compile(r"\b([A-Z]{2,})-(\d\d)\b(?: to \1-(\d\d)\b)?")  # "FWD-05 to FWD-08" names all of them
NO_TESTS = ("tests/meta", "tests/docs", "tests/unit/test_spec.py")  # they speak of rules and check none
MARK = "<!-- made by scripts/tables -->\n"

# Arguments of generate() that are no fields of GenerationConfig, and their rules.
ARGUMENTS = {
    "input_ids": "IN-01",
    "attention_mask": "PAD-07",
    "past_key_values": "CACHE-04",
    "seed": "SAMP-05",
    "uniforms": "SAMP-10",
    "generation_config": "CFG-04",
    "tokenizer": "SSTR-01",
    "assistant_model": "ASSIST-01",
    "negative_prompt_ids": "CFGG-01",
    "negative_prompt_attention_mask": "CFGG-01",
    "prefix_allowed_tokens_fn": "PREF-01",
    "logits_processor": "PROC-03",
    "stopping_criteria": "STOP-09",
    "streamer": "STREAM-01",
}
NOT_APPLICABLE = dict.fromkeys(METADATA, "describes the file and sets nothing; it is read and dropped")


class HoleError(Exception):
    """A rule or a setting that nothing stands for."""


def named(text: str) -> set[str]:
    """The rules that a text cites."""
    found: set[str] = set()
    for match in ID.finditer(text):
        first, last = int(match[2]), int(match[3] or match[2])
        found |= {f"{match[1]}-{number:02}" for number in range(first, last + 1)}
    return found & rules().keys()


def places(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """First line, last line and name of functions, classes and top-level constants; what is inside comes later."""
    for constant in tree.body:
        targets = constant.targets if isinstance(constant, ast.Assign) else [getattr(constant, "target", None)]
        if isinstance(targets[0], ast.Name):
            yield constant.lineno, constant.end_lineno or constant.lineno, targets[0].id
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        parent, prefix = waiting.pop(0)
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                yield first, node.end_lineno or node.lineno, prefix + node.name
                waiting.append((node, f"{prefix}{node.name}."))
            else:
                waiting.append((node, prefix))


def citations(path: Path) -> dict[str, list[str]]:
    """For each rule that a file cites, where: innermost functions, or "" if only outside of all of them."""
    text = path.read_text(encoding="utf-8")
    spans = list(places(ast.parse(text)))
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        around = [name for first, last, name in spans if first <= number <= last]
        for rule in named(line):
            found.setdefault(rule, []).append(around[-1] if around else "")
    return {rule: sorted({name for name in names if name}) or [""] for rule, names in found.items()}


def cited_in(folder: str, below: str = "") -> dict[str, list[str]]:
    """For each rule, the `file:function`s of a folder that cite it; bare files only where no function does."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        if not str(path.relative_to(ROOT)).startswith(NO_TESTS):
            for rule, names in citations(path).items():
                file = str(path.relative_to(ROOT / folder / below))
                found.setdefault(rule, []).extend(f"{file}:{name}" if name else file for name in names)
    return {rule: [name for name in names if ":" in name] or names for rule, names in found.items()}


def tests_by_rule() -> dict[str, list[str]]:
    """Tests that cite a rule, or that catch a fault planted for it."""
    found = cited_in("tests")
    for fault in FAULTS:
        name = fault.test.partition("[")[0].removeprefix("tests/").replace("::", ":")
        if not f"tests/{name}".startswith(NO_TESTS):
            found[fault.rule] = sorted({*found.get(fault.rule, []), name})
    return found


def faults_by_rule() -> dict[str, list[str]]:
    """How many faults are planted in which files, or the reason for having none."""
    found = {rule: [f"none: {reason}"] for rule, reason in WITHOUT.items()}
    for rule in {fault.rule for fault in FAULTS}:
        files = [fault.file for fault in FAULTS if fault.rule == rule]
        found[rule] = [f"{files.count(file)} in {file}" for file in sorted(set(files))]
    for rule in FORWARD_RULES:
        count = sum(rule in fault.rules for fault in FORWARD_FAULTS)
        found.setdefault(rule, []).append(f"{count} of forward passes")
    return found


def rules_page() -> str:
    """docs/rules.md; raises `HoleError` for a rule without code, test or fault."""
    code, tests, faults = cited_in("refgen"), tests_by_rule(), faults_by_rule()
    for what, found in (("code", code), ("test", tests), ("planted fault", faults)):
        holes = [rule for rule in rules() if rule not in found]
        if holes:
            raise HoleError(f"no {what} for {', '.join(holes)}")
    several = {name for names in tests.values() for name in names}
    functions = {name for names in code.values() for name in names}
    planted = len(FAULTS) + len(FORWARD_FAULTS)
    lines = [
        f"{len(rules())} rules, {len(functions)} places in the code, {len(several)} tests, {planted} planted faults.",
        "",
        MARK,
        "# Where each rule lives",
        "",
        "The table has a line for every rule of [SPEC.md](../SPEC.md). *Code* cites the rule, in `refgen/`. *Tests* cite it or",
        "catch a fault planted for it, in `tests/`. The rule's own example is a test too. *Planted faults* counts those of",
        "`tests/meta/faults.py`, and those of forward passes in `oracle/faults.py`, which the comparison with torch detects.",
        "",
        *table(
            ("rule", "title", "code", "tests", "planted faults"),
            (
                (r.id, r.title, code_list(code[r.id]), code_list(tests[r.id]), ", ".join(faults[r.id]))
                for r in rules().values()
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


def fields_page(config_fields: Iterable[str], arguments: Iterable[str]) -> str:
    """docs/fields.md for these names of transformers; raises `HoleError` for one that refgen does not know."""
    config_fields, arguments = list(config_fields), list(arguments)
    rest = sorted((SETTINGS.keys() | REFUSED.keys() | CALL_ARGUMENTS) - {*config_fields, *arguments})
    heads = ("name", "in refgen", "rule", "how")
    parts = [table(heads, map(field, sorted(names))) for names in (config_fields, arguments, rest)]
    states = [field(name)[1].split()[0] for name in {*config_fields, *arguments, *rest}]
    lines = [
        f"{states.count('implemented')} settings implemented, {states.count('refused')} refused, {states.count('not')} not applicable.",
        "",
        MARK,
        "# Every setting of generate()",
        "",
        "The tables list every field of transformers' `GenerationConfig` and every argument of `generate()`, and whether refgen",
        "implements or refuses it. The ids are rules of [SPEC.md](../SPEC.md). The value None is always accepted, and so are the",
        "values after *unless*.",
        "",
        "## Fields of GenerationConfig",
        "",
        *parts[0],
        "",
        "## Arguments of generate()",
        "",
        *parts[1],
        "",
        "## Other arguments of a call",
        "",
        "Arguments that transformers reads from `**kwargs`, and refgen's own.",
        "",
        *parts[2],
    ]
    return "\n".join(lines) + "\n"


def field(name: str) -> tuple[str, str, str, str]:
    """One row of fields.md."""
    if name in SETTINGS:
        setting = SETTINGS[name]
        default = "" if setting.default is None else f"default {setting.default!r}. "
        hint = "" if setting.remedy.startswith("Default") else setting.remedy
        return f"`{name}`", "implemented", setting.rule, (default + hint).strip()
    if name in REFUSED:
        neutral, why, remedy = REFUSED[name]
        unless = f" unless {', '.join(map(repr, neutral))}" if neutral else ""
        return f"`{name}`", "refused" + unless, "CFG-12", f"{why}. {remedy}"
    if name in CALL_ARGUMENTS and name in ARGUMENTS:
        return f"`{name}`", "implemented", ARGUMENTS[name], f"{rules()[ARGUMENTS[name]].title}."
    if name in NOT_APPLICABLE:
        return f"`{name}`", "not applicable", "", NOT_APPLICABLE[name] + "."
    raise HoleError(
        f"{name}: refgen does not know it. Give it a line in refgen/generation/config.py, or refuse it in refused.py"
    )


def of_transformers() -> tuple[list[str], list[str]]:
    """The fields of the installed transformers' GenerationConfig, and the arguments of its generate()."""
    from transformers import GenerationConfig, GenerationMixin  # noqa: PLC0415 - the rules need none

    return list(vars(GenerationConfig.from_dict({}))), list(inspect.signature(GenerationMixin.generate).parameters)[
        1:-1
    ]


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (heads, ("---",) * len(heads), *rows)]


def code_list(names: list[str]) -> str:
    """Names in code style."""
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Both pages."""
    (ROOT / "docs" / "fields.md").write_text(fields_page(*of_transformers()), encoding="utf-8")
    (ROOT / "docs" / "rules.md").write_text(rules_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
