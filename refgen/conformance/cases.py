"""Cases: questions with stored answers, as JSON that any language can read. docs/cases.md describes the files.

A case names a model folder, an operation of subject.py and its request, and what must come back. What `expected` holds
goes by the operation:

    encode    {ids}
    decode    {text}
    forward   {logits}: a key of the safetensors file beside, with `.scale.float32` and others for the expected rounding errors
    process   {scores}: [B V], null for what is removed
    generate  {rows: [{new_ids, finish, text?}]}

With result `must_reject` there is nothing expected: the subject has to refuse. With `choice` there are several answers, by the
names of the options of that choice in SPEC.md; a subject declares one of them and is held to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MUST, MUST_REJECT, CHOICE = "must", "must_reject", "choice"
BUGS = ("BASIC", "EDGE_CASE", "MISSING_STEP", "MODIFIED_PARAMETER", "CONVENTION", "LEGACY")  # classes of faults


@dataclass(frozen=True)
class Case:
    """One question, as data. `kills` are the planted faults (faults.py) that must not survive it."""

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
