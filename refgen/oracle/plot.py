"""A picture of a comparison: stages down, positions across, colours for errors. Needs the extra `plot`."""

from pathlib import Path

import numpy as np

from refgen.oracle.compare import Comparison
from refgen.oracle.noise import POSITION


def save(found: Comparison, path: Path) -> None:
    """Writes the picture; the ending of the name says its format.

    On the left each stage against the exact run, on the right by itself; white is the limit of rounding, red above.
    """
    from matplotlib.colors import LogNorm  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = {
        ("compared with the exact run" if found.other is None else "compared with the other run"): found.stages,
        "each part by itself, on the input that it got": found.local,
    }
    shown = {title: stages for title, stages in panels.items() if stages}
    height = 1.2 + 0.16 * max(map(len, shown.values()))
    figure = Figure(figsize=(6.5 * len(shown), height), layout="constrained")
    for axes, (title, stages) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        values = np.array([stage.ratios.max(axis=0) for stage in stages])  # of all rows the worst
        norm = LogNorm(POSITION / 1e4, POSITION * 1e4)
        image = axes.imshow(np.clip(values, norm.vmin, norm.vmax), aspect="auto", cmap="RdBu_r", norm=norm)
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(stages)), [stage.name for stage in stages], fontsize=6)
        axes.set_xlabel("position")
        axes.tick_params(labelsize=6)
    figure.colorbar(image, label="error / expected rounding error")
    figure.savefig(path)
