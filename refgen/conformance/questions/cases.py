"""Cases: questions with stored answers, as JSON that any language can read. docs/cases.md describes the files.

A case names a model folder, an operation of subjects/protocol.py and its request, and what must come back. What `expected` holds
goes by the operation:

    encode    {ids}
    decode    {text}
    forward   {logits}: a key of the safetensors file beside, with `.scale.float32` and others for the expected rounding errors
    process   {scores}: [B V], null for what is removed
    generate  {rows: [{new_ids, finish, text?}]}

With result `must_reject` there is nothing expected: the subject has to refuse. With `choice` there are several answers, by the
names of the options of that choice in SPEC.md, its own first, null for a refusal. Whatever the result, a subject that declares an
option is held to what refgen with that option answers (judging/choices.py).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from refgen.conformance.judging.choices import Asked, Right
from refgen.conformance.judging.judge import judge_equal, judge_logits, judge_rows, judge_scores
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.subjects.protocol import filled
from refgen.errors import ConformanceError
from refgen.json_files import read_object

MUST, MUST_REJECT, CHOICE = "must", "must_reject", "choice"
BUGS = ("BASIC", "EDGE_CASE", "MISSING_STEP", "MODIFIED_PARAMETER", "CONVENTION", "LEGACY")  # classes of faults


@dataclass(frozen=True)
class Case:
    """One question, as data. `kills` are the planted faults (planted/) that must not survive it."""

    id: str  # dotted, such as stop.eos.first; never used again for something else
    level: str  # of verdicts.LEVELS
    rules: tuple[str, ...]  # of SPEC.md, the one it is about first
    why: str  # what a user sees if it goes wrong
    model: str  # the name of a model of the kit (models.py)
    op: str
    request: Mapping[str, Any]  # JSON values
    expected: Mapping[str, Any] = field(default_factory=dict)
    bug: str = "BASIC"
    result: str = MUST
    choice: str | None = None  # its name in SPEC.md
    kills: tuple[str, ...] = ()
    seen_in: tuple[str, ...] = ()  # public reports of such a fault, owner/project#number


# --- Files ------------------------------------------------------------------------------------------------

VECTORS = Path(__file__).parent / "vectors"
SCHEMA = "refgen-cases-1"


def suites() -> list[Path]:
    """The files of cases that come with refgen."""
    return sorted(path for path in VECTORS.glob("*.json") if path.name != "schema.json")


def read(path: Path) -> list[Case]:
    """The cases of one file; raises `ConformanceError`."""
    entries = read_object(path, ConformanceError, "", "docs/cases.md says what a file of cases holds.")
    if entries.get("schema") != SCHEMA:
        raise ConformanceError(f"{path}: schema={entries.get('schema')!r}", f"must be {SCHEMA!r}")
    return [from_dict(case) for case in entries["cases"]]


def from_dict(entries: Mapping[str, Any]) -> Case:
    """A case as a file has it."""
    tuples = ("rules", "kills", "seen_in")
    values: dict[str, Any] = {name: tuple(value) if name in tuples else value for name, value in entries.items()}
    return Case(**values)


def as_dict(case: Case) -> dict[str, Any]:
    """What a file says of a case: nothing that is at its default."""
    defaults = {field.name: field.default for field in fields(case)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(case).items()
        if value != defaults[name] and not (name == "expected" and not value)
    }


def write(path: Path, cases: Sequence[Case], tensors: Mapping[str, ndarray] | None = None) -> None:
    """One case a line; tensors beside it, under the same name."""
    head: dict[str, Any] = {"schema": SCHEMA, "suite": path.stem}
    if tensors is not None:
        beside = path.with_suffix(".safetensors")
        save_file(dict(tensors), beside)
        head["tensors"] = {"file": beside.name, "sha256": hashlib.sha256(beside.read_bytes()).hexdigest()}
    lines = [json.dumps(as_dict(case), ensure_ascii=False) for case in cases]
    opening = json.dumps(head)[:-1]
    path.write_text(f'{opening}, "cases": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


# --- A case as a check ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaseCheck:
    """A case that can be run; `tensors` are those beside its file."""

    case: Case
    tensors: Mapping[str, ndarray] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The case's."""
        return self.case.id

    @property
    def level(self) -> str:
        """The case's."""
        return self.case.level

    @property
    def rules(self) -> tuple[str, ...]:
        """The case's."""
        return self.case.rules

    @property
    def why(self) -> str:
        """The case's."""
        return self.case.why

    @property
    def needs(self) -> frozenset[str]:
        """Its operation."""
        return frozenset({self.case.op})

    def run(self, lab: Lab) -> Finding:
        """Asks, and compares with what is expected of a subject that declares what this one does."""
        case = self.case
        options = case.expected if case.result == CHOICE else {}
        stored = {f"{case.choice}={option}": self.read(answer) for option, answer in options.items()}
        own = self.read(None if case.result in (MUST_REJECT, CHOICE) else case.expected)
        judge = partial(self.judged, lab)
        return Asked(lab, case.op, case.model, case.request, own, judge, stored, case.rules).held()

    def read(self, expected: Mapping[str, Any] | None) -> Right:
        """A stored answer with arrays; None is a refusal."""
        if expected is not None and self.case.op == "process":
            expected = {"scores": np.array(filled(expected["scores"], -math.inf), dtype=np.float64)}
        if expected is not None and self.case.op == "forward":
            expected = {"logits": self.tensors[expected["logits"]]}
        return Right(expected)

    def judged(self, lab: Lab, answer: Mapping[str, Any], right: Mapping[str, Any]) -> Finding:
        """By operation."""
        case = self.case
        if case.op == "encode":
            return judge_equal("ids", answer["ids"], right["ids"])
        if case.op == "decode":
            return judge_equal("text", answer["text"], right["text"])
        if case.op == "process":
            return judge_scores(answer["scores"], right["scores"])
        if case.op == "generate":
            return judge_rows(lab, case.model, case.request, answer["rows"], right["rows"], case.level != "probes")
        scale = self.tensors[f"{case.expected['logits']}.scale.{lab.noise}"]  # rounding is as large under any option
        return judge_logits(lab, case.model, case.request, answer["logits"], right["logits"], scale)


def checks(lab: Lab) -> list[CaseCheck]:
    """All cases that come with refgen, in the order of their files; none for a subject with a model of its own."""
    if not lab.about.loads:
        return []
    found = []
    for path in suites():
        beside = path.with_suffix(".safetensors")
        tensors = load_file(beside) if beside.exists() else {}
        found += [CaseCheck(case, tensors) for case in read(path)]
    return found
