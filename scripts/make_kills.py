"""Writes docs/kills.md: every planted fault, what the kit finds first, in float32 and, for forward passes, in bfloat16.

    python scripts/make_kills.py

The script plants each fault in refgen and runs all questions of the kit that can show it. In bfloat16 every operation
of the forward pass is rounded. It takes about twenty minutes on one processor.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import refgen  # noqa: E402
from refgen.auto import GPT2LMHeadModel  # noqa: E402
from refgen.conformance.planted.subject_faults import FAULTS, FaultyNetwork, SubjectFault  # noqa: E402
from refgen.conformance.questions.models import Models  # noqa: E402
from refgen.conformance.runner import check  # noqa: E402
from refgen.conformance.subjects.python import Factory, PythonSubject, describe  # noqa: E402
from refgen.generation.next_logits import NextLogits  # noqa: E402
from refgen.oracle import faults as forward_faults  # noqa: E402
from refgen.oracle.counterfactual import Pass  # noqa: E402
from refgen.oracle.formats import cast  # noqa: E402
from tests.rounded import run_in  # noqa: E402

ONLY = {  # the claims that the faults of a family can show in
    "tokenizer": ["tokenizer"],
    "forward": ["network", "greedy", "cache", "batch", "padding", "configurations", "ending"],
    "process": ["processors", "sampling"],
    "loop": ["greedy", "cache", "batch", "padding", "ending", "processors", "beams", "network", "sampling"],
    "sampling": ["processors", "sampling"],
}
HEAD = f"""# What the kit catches

Each fault of `refgen/conformance/planted/subject_faults.py` was planted in refgen, and `refgen check` tested the
result. The table shows how many checks failed, and the rule and known fault that the report suspects first.
`scripts/make_kills.py` writes this page. A * marks a first suspect that is not a rule of the fault. The last column
repeats the faults of forward passes in bfloat16, with every operation rounded and the dtype declared as bfloat16. This page
was made with refgen {refgen.__version__}.

"""


class InBfloat16(FaultyNetwork):
    """A forward pass with a fault, every operation rounded to bfloat16."""

    dtype = "bfloat16"

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, GPT2LMHeadModel.from_pretrained(folder)
        self.wide = cast(self.model.gpt2, "bfloat16")

    def forward(self, input_ids: Any, attention_mask: Any = None, prefill: int | None = None) -> ndarray:
        """Logits `[B T V]`."""
        ids = np.asarray(input_ids)
        mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
        return run_in("bfloat16", self.change(Pass(self.wide, ids, mask, prefill=prefill)))

    def next_logits(self, P: int) -> NextLogits | None:
        """The same for the loop."""
        return lambda ids, mask: run_in("bfloat16", self.change(Pass(self.wide, ids, mask, prefill=P)))[:, -1]


def in_bfloat16(name: str) -> Factory:
    """The forward fault of that name."""
    change = next(fault.change for fault in forward_faults.FAULTS if fault.name == name)

    def plant(folder: Path) -> InBfloat16:
        subject = InBfloat16(folder)
        subject.change = change
        return subject

    return plant


def verdict(fault: SubjectFault, factory: Factory, models: Models, only: list[str]) -> tuple[int, str, bool]:
    """How many checks failed, the first suspect in words, whether it is a rule of the fault."""
    subject = PythonSubject(factory, describe(factory, models["shakespeare"]))
    run = check(subject, models, only=only)
    bad = sum(result.verdict.bad for result in run.results)
    if not run.suspects:
        return bad, "nothing", False
    first = run.suspects[0]
    right = first.rule in fault.rules
    return bad, f"{first.rule}{'' if right else '*'}{' ' + ', '.join(first.faults) if first.faults else ''}", right


def rows(models: Models) -> Iterator[tuple[SubjectFault, tuple[int, str, bool], tuple[int, str, bool] | None]]:
    """Every fault."""
    for fault in FAULTS:
        found = verdict(fault, fault.plant, models, ONLY[fault.family])
        rounded = None
        if fault.family == "forward":
            rounded = verdict(fault, in_bfloat16(fault.name), models, ONLY["forward"])
        print(fault.name, found, rounded, file=sys.stderr)
        yield fault, found, rounded


def page(found: list[tuple[SubjectFault, tuple[int, str, bool], tuple[int, str, bool] | None]]) -> str:
    """The whole page."""
    wide = [each[1] for each in found]
    narrow = [each[2] for each in found if each[2] is not None]
    counts = (
        f"In float32 {sum(bad > 0 for bad, _, _ in wide)} of {len(wide)} are caught, {sum(right for _, _, right in wide)} with the rule first; "
        f"in bfloat16 {sum(bad > 0 for bad, _, _ in narrow)} of {len(narrow)}, {sum(right for _, _, right in narrow)} with the rule first.\n\n"
    )
    lines = ["| fault | what it is | checks that fail | first suspect | in bfloat16 |", "|---|---|---|---|---|"]
    for fault, (bad, first, _), rounded in found:
        last = "" if rounded is None else f"{rounded[0]}: {rounded[1]}" if rounded[0] else "not seen"
        lines.append(f"| {fault.name} | {fault.sentence} | {bad} | {first} | {last} |")
    return HEAD + counts + "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    (ROOT / "docs" / "kills.md").write_text(page(list(rows(Models()))), encoding="utf-8")
