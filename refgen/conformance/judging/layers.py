"""Where a wrong forward pass begins: the first stage that rounding does not explain, by the comparison that `refgen compare` makes.

A subject that provides its stages gives them once for each known fault that findings name, and once for findings that
name no fault. For other subjects the report prints the commands that make the same comparison by hand.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.subjects.protocol import SubjectError
from refgen.errors import OracleError
from refgen.oracle import trace
from refgen.oracle.compare import compare
from refgen.oracle.faults import Fault
from refgen.shipped import BUILT_IN

RIGHT, MINE, VECTORS = "right.safetensors", "mine.safetensors", "vectors"  # names in commands


@dataclass(frozen=True)
class Beginning:
    """Where a failure begins."""

    sentence: str
    stage: str | None = None  # the first that differs
    fault: Fault | None = None  # what it looks like


def located(lab: Lab, model: str, request: Mapping[str, Any], finding: Finding) -> Finding:
    """A failed forward check, with the place where the error begins, or the commands that find it. A repeated failure
    stays as it is.
    """
    key = finding.fault or ""
    if not finding.verdict.bad or key in lab.located:
        return finding
    lab.located.add(key)
    row = int(finding.facts.get("row", 0))
    ids = [int(each) for each in real_ids(request, row)]
    if "stages" not in lab.about.can:
        return replace(finding, facts={**finding.facts, "commands": commands(lab, model, ids)})
    found = first_difference(lab, model, ids, diagnosing=finding.fault is None)
    if found.stage is None:
        found = replace(found, sentence=f"{found.sentence} {left_over(request)}".strip())
    facts = {**finding.facts, "layers": found.sentence, "first_stage": found.stage}
    if found.fault is None or finding.fault is not None:
        return replace(finding, facts=facts)
    return replace(finding, facts=facts, rules=found.fault.rules, fault=found.fault.name)


def real_ids(request: Mapping[str, Any], row: int) -> list[int]:
    """A row without its padding."""
    ids = list(request["input_ids"][row])
    mask = request.get("attention_mask")
    return ids if mask is None else [token for token, real in zip(ids, mask[row], strict=True) if real]


def left_over(request: Mapping[str, Any]) -> str:
    """Possible causes of a wrong answer whose row is right by itself."""
    ways = {
        "padding": request.get("attention_mask"),
        "the cache": request.get("prefill"),
        "the batch": request["input_ids"][1:],
    }
    present = [name for name, there in ways.items() if there]
    return f"So what differs comes with {' or '.join(present)}." if present else ""


def first_difference(lab: Lab, model: str, ids: Sequence[int], *, diagnosing: bool = True) -> Beginning:
    """The first stage of the subject's that differs on one row of ids, and what it looks like if `diagnosing`; asks for its stages."""
    reference = lab.reference(model)
    rows = np.array([ids], dtype=np.int64)
    try:
        given = lab.ask("stages", model, input_ids=rows.tolist())["stages"]
        own = trace.of(given, rows, np.ones_like(rows), reference.gpt2.config, reference.noise_format)
        found = compare(reference.gpt2, own, diagnosing=diagnosing)
    except (SubjectError, OracleError) as error:
        return Beginning(f"Its stages cannot be compared: {error}")
    if found.first is None:
        last = found.stages[-1].name
        return Beginning(f"Of this row by itself no stage differs, up to {last}, which is the last that it gave.")
    named = None if found.diagnosis is None else found.diagnosis.named
    sentence = found.sentence.partition(". ")[2] or found.sentence
    return Beginning(sentence, found.first.name, named)


def commands(lab: Lab, model: str, ids: Sequence[int]) -> list[str]:
    """What to type to see where it begins: the model, refgen's own stages of these ids, and the comparison with yours."""
    made: list[list[str]] = []
    folder = f"{VECTORS}/models/{model}"
    if lab.one_model:
        folder = str(lab.folder(model))
    elif model in BUILT_IN:
        folder = model
    else:
        made.append(
            [
                "refgen",
                "export",
                "vectors",
                VECTORS,
                "--force",
                *([] if model in lab.models else ["--seed", str(lab.seed)]),
            ]
        )
    made.append(
        ["refgen", "explain", "--ids", ",".join(map(str, ids)), "--model", folder, "--output", RIGHT, "--force"]
    )
    made.append(["refgen", "compare", MINE, "--model", folder, "--dtype", lab.reference(model).noise_format])
    return [shlex.join(each) for each in made]
