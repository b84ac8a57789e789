"""Probes to look at: what one is asked, its weights as text, and a picture of them. The picture needs the extra `plot`."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from refgen.bpe import BYTE_OF, END
from refgen.conformance.questions.cases import Case
from refgen.conformance.questions.probes.probe import Probe
from refgen.errors import ConformanceError


def spelled(probe: Probe, ids: Sequence[int]) -> str:
    """The text of ids, the end token by its name."""
    pieces = list(probe.tokenizer["model"]["vocab"])
    parts = [END.encode() if pieces[i] == END else bytes(BYTE_OF[each] for each in pieces[i]) for i in ids]
    return b"".join(parts).decode(errors="replace")


def about(probe: Probe) -> list[str]:
    """Lines: the sentence, the sizes, and every question with its answer."""
    c = probe.config
    sizes = (
        f"{c.n_layer} x ({c.n_head} heads of {c.n_embd // c.n_head}), {c.vocab_size} tokens, {c.n_positions} positions"
    )
    lines = [
        f"{probe.name}: {probe.sentence}",
        f"{sizes}; rules {', '.join(probe.rules)}; for {', '.join(probe.dtypes)}",
    ]
    for case in probe.cases:
        lines += ["", f"{case.id}  [{', '.join(case.rules)}]  else: {case.why}", *asked(probe, case)]
    return lines


def asked(probe: Probe, case: Case) -> list[str]:
    """One line for each row, and the settings that are not the defaults."""
    request = dict(case.request)
    ids = request.pop("input_ids")
    masks = request.pop("attention_mask", [[1] * len(row) for row in ids])
    settings = {key: value for key, value in request.items() if (key, value) != ("do_sample", False)}
    lines = [f"    {', '.join(f'{key}={value}' for key, value in settings.items())}"]
    answers = case.expected if "rows" in case.expected else {"rows": []}
    prompts = [
        [each for each, real in zip(row, mask, strict=True) if real] for row, mask in zip(ids, masks, strict=True)
    ]
    for number, answer in enumerate(answers["rows"]):
        prompt = prompts[number * len(prompts) // len(answers["rows"])]
        lines.append(f"    {spelled(probe, prompt)!r} -> {spelled(probe, answer['new_ids'])!r}, {answer['finish']}")
    for option, answer in case.expected.items():
        if option != "rows":
            said = "refused" if answer is None else repr(spelled(probe, answer["rows"][0]["new_ids"]))
            lines.append(f"    {spelled(probe, prompts[0])!r} -> {said} ({case.choice}={option})")
    return lines


def tensor(probe: Probe, name: str) -> ndarray:
    """A tensor by its name in the file, the prefix left out or not."""
    found = probe.tensors.get(name.removeprefix("transformer."))
    if found is None:
        raise ConformanceError(
            f"tensor {name!r}", f"is not in {probe.name}", remedy=f"It has {', '.join(probe.tensors)}."
        )
    return found


def matrix(numbers: ndarray) -> list[str]:
    """The part that is not 0 everywhere, one line for each row, with dots for zeros. The heading gives its place."""
    table = np.atleast_2d(numbers)
    rows, columns = np.nonzero(table)
    shape = " x ".join(map(str, numbers.shape))
    if not rows.size:
        return [f"{shape}, all 0"]
    part = table[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    cells = [["." if each == 0 else f"{each:g}" for each in row] for row in part]
    width = max(len(cell) for row in cells for cell in row)
    where = f"columns {columns.min()} to {columns.max()}"
    if numbers.ndim == 2:
        where = f"rows {rows.min()} to {rows.max()}, {where}"
    return [f"{shape}; {where}:", *(" ".join(cell.rjust(width) for cell in row) for row in cells)]


def save(probe: Probe, path: Path) -> None:
    """Draws every tensor that is not trivial; blue is positive, red negative, and the scale is logarithmic."""
    from matplotlib.colors import SymLogNorm  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = {name: np.atleast_2d(each) for name, each in probe.tensors.items() if len(np.unique(each)) > 1}
    across = 3
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(4 * across, 2.6 * down), layout="constrained")
    figure.suptitle(f"{probe.name}: {probe.sentence}", fontsize=10)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, numbers) in zip(panels, shown.items(), strict=False):
        limit = float(np.abs(numbers).max())
        norm = SymLogNorm(limit / 64, vmin=-limit, vmax=limit)
        image = axes.imshow(numbers, aspect="auto", cmap="RdBu", norm=norm, interpolation="nearest")
        axes.set_title(f"{name}  {' x '.join(map(str, probe.tensors[name].shape))}", fontsize=8)
        axes.tick_params(labelsize=6)
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=6)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.savefig(path)
