"""Tables as text and as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from refgen.bench.rounds import Spread, ratios, spread
from refgen.bench.sections import Table

MEANING = {
    "tokens/s": "ratio: its time over that of {base}, so above 1 it is slower",
    "ms/token": "ratio: its time over that of {base}, so above 1 it is slower",
    "s": "ratio: its time over that of {base}, so above 1 it is slower",
    "MiB": "ratio: its memory over {base}",
}


def shown(table: Table, value: float) -> float:
    """A value in the table's unit."""
    if table.unit == "tokens/s":
        return table.work / value
    return {"ms/token": 1000 * value / table.work, "s": value, "MiB": value / 2**20}[table.unit]


def figures(table: Table) -> dict[str, dict[str, Spread]]:
    """Of each subject: `value` in the table's unit, `ratio` to the base, `share` of the read bandwidth."""
    found = {}
    base = table.values.get(table.base)
    for name, values in table.values.items():
        own = {"value": spread([shown(table, value) for value in values])}
        if base is not None and name != table.base:
            own["ratio"] = spread(ratios(values, base))
        if table.reads:
            rates = [table.bytes_read * table.work / seconds for seconds in values]
            own["share"] = spread(ratios(rates, table.reads))
        found[name] = own
    return found


def as_json(
    machine: Mapping[str, Any], settings: Mapping[str, Any], tables: Iterable[Table], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Everything, every single timing too."""
    told = [
        asdict(table)
        | {
            "figures": {
                name: {key: each._asdict() for key, each in own.items()} for name, own in figures(table).items()
            }
        }
        for table in tables
    ]
    return {"machine": dict(machine), "settings": dict(settings), "skipped": dict(skipped), "tables": told}


def tables_of(entries: Mapping[str, Any]) -> list[Table]:
    """The tables in what `as_json` made."""
    return [Table(**{name: value for name, value in told.items() if name != "figures"}) for told in entries["tables"]]


# --- Text -------------------------------------------------------------------------------------------------


def render(entries: Mapping[str, Any]) -> str:
    """The whole report: the tables, then what they were measured on."""
    return "\n\n".join([*map(render_table, tables_of(entries)), render_machine(entries)])


def render_machine(entries: Mapping[str, Any]) -> str:
    """The machine, the options, and the peers that are missing."""
    facts = [f"{name:<10} {value}" for name, value in entries["machine"].items() if value and name != "versions"]
    facts += [f"{name:<10} {value}" for name, value in entries["machine"].get("versions", {}).items()]
    facts += [f"{'rounds':<10} {entries['settings']['rounds']}"]
    return "\n".join(facts + [f"skipped: {name}: {reason}" for name, reason in entries["skipped"].items()])


def render_table(table: Table) -> str:
    """One table: title, one line for each subject, failures, notes."""
    compared = any("ratio" in own for own in figures(table).values())
    head = ["", table.unit, "quartiles"] + ["ratio", "quartiles"] * compared
    lines = []
    for name, own in figures(table).items():
        value, ratio = own["value"], own.get("ratio")
        line = [name, number(value.median), f"{number(value.low)} … {number(value.high)}"]
        line += [number(ratio.median), f"{number(ratio.low)} … {number(ratio.high)}"] if ratio else ["", ""] * compared
        if table.reads:
            line.append(f"{own['share'].median:.0%}")
        if table.same:
            line.append(table.same.get(name, ""))
        lines.append(line)
    head += ["of bandwidth"] * bool(table.reads) + ["same tokens"] * bool(table.same)
    told = [f"{table.model}: {table.title}"] + [MEANING[table.unit].format(base=table.base)] * compared
    if table.reads:
        told.append(
            f"bandwidth: {number(spread(table.reads).median / 1e9)} GB/s read; a token reads {table.bytes_read / 1e6:,.0f} MB of weights"
        )
    told += aligned([head, *lines])
    told += [f"failed: {reason}" for reason in table.failed.values()]
    return "\n".join(told + table.notes)


def number(value: float) -> str:
    """Three digits or more."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
