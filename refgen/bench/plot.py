"""A picture of a report: one panel a table, a bar a subject, quartiles as whiskers. Needs the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path

from refgen.bench.report import figures
from refgen.bench.sections import Table


def save(tables: Sequence[Table], path: Path) -> None:
    """Writes the picture; the ending of the name says its format."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    columns = min(2, len(tables))
    lines = -(-len(tables) // columns)
    figure = Figure(figsize=(7 * columns, 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, table in zip(panels, tables, strict=False):
        drawn = {name: own["value"] for name, own in figures(table).items()}
        middles = [value.median for value in drawn.values()]
        whiskers = [
            [value.median - value.low for value in drawn.values()],
            [value.high - value.median for value in drawn.values()],
        ]
        colours = ["C0" if name.startswith("refgen") else "C7" for name in drawn]
        panel.barh(list(drawn), middles, xerr=whiskers, color=colours)
        panel.invert_yaxis()
        panel.set_xlabel(table.unit)
        panel.set_title(f"{table.model}: {table.title}", fontsize=8)
        panel.tick_params(labelsize=8)
    for panel in panels[len(tables) :]:
        panel.set_visible(False)
    figure.savefig(path)
