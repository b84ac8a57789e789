"""Cases: questions with stored answers, as JSON that any language can read. docs/cases.md describes the files.

A case names a model folder, an operation of subjects/protocol.py and its request, and what must come back. What `expected` holds
goes by the operation:

    encode    {ids}
    decode    {text}
    forward   {logits}: a key of the safetensors file beside, with `.scale.float32` and others for the expected rounding errors
    process   {scores}: [B V], null for what is removed
    generate  {rows: [{new_ids, finish, text?}]}

With result `must_reject` there is nothing expected: the subject has to refuse. With `choice` there are several answers, by the
names of the options of that choice in SPEC.md, its own first, null for a refusal. Whatever the result, a subject that
declares an option must give the answer of refgen with that option (judging/choices.py).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from refgen.config import GPT2Config
from refgen.conformance.judging.choices import Asked, Right
from refgen.conformance.judging.claims import claim_of_rule
from refgen.conformance.judging.judge import judge_equal, judge_ids, judge_logits, judge_rows, judge_scores
from refgen.conformance.judging.lab import Lab, several
from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.questions.designed import DESIGNED, SMALL
from refgen.conformance.subjects.arguments import fitted, padded
from refgen.conformance.subjects.border import filled
from refgen.conformance.subjects.protocol import SkippedError
from refgen.errors import ConformanceError
from refgen.json_files import read_object

MUST, MUST_REJECT, CHOICE = "must", "must_reject", "choice"
BUGS = ("BASIC", "EDGE_CASE", "MISSING_STEP", "MODIFIED_PARAMETER", "CONVENTION", "LEGACY")  # classes of faults


@dataclass(frozen=True)
class Case:
    """One question, as data. `kills` are the planted faults (planted/) that must not survive it."""

    id: str  # dotted, such as stop.eos.first; never used again for something else
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
    ties: bool = True  # whether rounding may change its tokens; in probes it may not


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
    """One case per line, with tensors in a file of the same name."""
    head: dict[str, Any] = {"schema": SCHEMA, "suite": path.stem}
    if tensors is not None:
        beside = path.with_suffix(".safetensors")
        save_file(dict(tensors), beside)
        head["tensors"] = {"file": beside.name, "sha256": hashlib.sha256(beside.read_bytes()).hexdigest()}
    lines = [json.dumps(as_dict(case), ensure_ascii=False) for case in cases]
    opening = json.dumps(head)[:-1]
    path.write_text(f'{opening}, "cases": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


# --- Which claim a case belongs to --------------------------------------------------------------------------

RELEASED = {  # what all GPT-2s that OpenAI released have in common
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
PROCESSING = frozenset(  # settings that change the scores of greedy text
    {
        "sequence_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens",
        "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "guidance_scale",
        "exponential_decay_length_penalty", "min_length", "min_new_tokens",
    }
)  # fmt: skip


def is_released(config: GPT2Config) -> bool:
    """Whether a configuration is that of a released GPT-2, whatever its sizes."""
    return config.inner == 4 * config.n_embd and all(getattr(config, name) == value for name, value in RELEASED.items())


def claim_of(case: Case, config: GPT2Config) -> str:
    """The claim that a question is about: the first thing in it that not every GPT-2 can do."""
    request = case.request
    if case.result == MUST_REJECT:
        return "refusals"
    if case.op in ("encode", "decode", "process"):
        return "processors" if case.op == "process" else "tokenizer"
    mask = request.get("attention_mask")
    for claim, is_asked in (
        ("configurations", not is_released(config)),
        ("beams", (request.get("num_beams") or 1) > 1),
        ("sampling", request.get("do_sample")),
        ("processors", PROCESSING & request.keys()),
        ("padding", mask is not None and not np.all(mask)),
        ("batch", len(request["input_ids"]) > 1),
        ("cache", "prefill" in request or "use_cache" in request),
        ("ending", {"eos_token_id", "stop_strings"} & request.keys() or ends_early(case)),
        ("network", case.op == "forward"),
    ):
        if is_asked:
            return claim
    return "greedy" if case.rules[0].startswith("TOK") else claim_of_rule(case.rules[0])  # text of ids is no tokenizer


def ends_early(case: Case) -> bool:
    """Whether a right answer ends before the requested limit, or for another reason."""
    options = case.expected.values() if case.result == CHOICE else (case.expected,)
    return any(row.get("finish", "length") != "length" for right in options if right for row in right.get("rows", ()))


def config_of(folder: Path) -> GPT2Config:
    """The configuration of a model folder."""
    return GPT2Config.from_dict(read_object(folder / "config.json", ConformanceError, ""))


# --- A case as a check ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaseCheck:
    """A case that can be run, of a model of this configuration; `tensors` are those beside its file."""

    case: Case
    config: GPT2Config
    tensors: Mapping[str, ndarray] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The case's."""
        return self.case.id

    @property
    def claim(self) -> str:
        """As the question says."""
        return claim_of(self.case, self.config)

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
        return Asked(lab, case.op, case.model, self.request(lab), own, judge, stored, case.rules).held()

    def request(self, lab: Lab) -> dict[str, Any]:
        """The request to the subject. If the answer meets the model's own end token, a subject with an argument for
        that gets it.

        Raises `SkippedError` for one without: nobody knows whether its text should end there.
        """
        case, request = self.case, dict(self.case.request)
        if case.op == "generate" and lab.named_end is not None and meets(case, own := lab.reference(case.model).ends):
            if not lab.named_end:
                raise SkippedError("generate takes no eos_token_id")
            request.setdefault("eos_token_id", own[0] if len(own) == 1 else list(own))
        return request

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
            return judge_ids(answer["ids"], right["ids"])
        if case.op == "decode":
            return judge_equal("text", answer["text"], right["text"])
        if case.op == "process":
            return judge_scores(answer["scores"], right["scores"])
        if case.op == "generate":
            return judge_rows(lab, case.model, case.request, answer["rows"], right["rows"], case.ties)
        scale = self.tensors[f"{case.expected['logits']}.scale.{lab.noise}"]  # rounding is as large under any option
        return judge_logits(lab, case.model, case.request, answer["logits"], right["logits"], scale)


@dataclass(frozen=True)
class RowCheck(CaseCheck):
    """A row of a batch by itself, for a subject that does not take the `batch`: other subjects are not asked."""

    batch: Mapping[str, Any] = field(default_factory=dict)  # its request

    def applies(self, lab: Lab) -> bool:
        """Whether the subject is asked: not if it would be spared the row as well."""
        try:
            fitted(lab.about, self.case.op, self.case.request)
        except SkippedError:
            return False
        return not lab.answers(self.case.op, self.batch)


def checks(lab: Lab) -> list[CaseCheck]:
    """All cases that come with refgen, in the order of their files, and their rows; none for a server.

    A subject with its own model is asked those that have the same answer there.
    """
    if not lab.about.loads:
        return []
    found: list[CaseCheck] = []
    configs: dict[str, GPT2Config] = {}
    for path in suites():
        beside = path.with_suffix(".safetensors")
        tensors = load_file(beside) if beside.exists() else {}
        for case in read(path):
            asked = case if case.model in lab.models else elsewhere(case, lab)
            if asked is not None:
                if asked.model not in configs:
                    configs[asked.model] = config_of(lab.folder(asked.model))
                found += with_rows(asked, configs[asked.model], tensors)
    return found


def elsewhere(case: Case, lab: Lab) -> Case | None:
    """The case, asked of the subject's own model: settings do the same to any logits, and what is too much for a model follows from its sizes.

    None for a case whose answer is another one there.
    """
    if case.op == "process":
        return replace(case, model=lab.own)
    if case.result != MUST_REJECT or case.op not in ("forward", "generate") or case.model not in DESIGNED:
        return None
    V, N = SMALL["vocab_size"], SMALL["n_positions"]  # of the network that it names
    if any(each >= V for name in ("eos_token_id", "pad_token_id") for each in several(case.request.get(name))):
        return None
    config = lab.reference(lab.own).gpt2.config
    prompts = [
        [each + config.vocab_size - V if each >= V else each for each in row] for row in case.request["input_ids"]
    ]
    prompts = [
        (row * config.n_positions)[: len(row) + config.n_positions - N] if len(row) > N else row for row in prompts
    ]
    return replace(case, model=lab.own, request={**case.request, "input_ids": prompts})


# --- Row by row -------------------------------------------------------------------------------------------

COUNTED = ("max_length", "min_length")  # settings that count the columns of the prompt, padding too
OF_BATCHES = ("PAD-", "BATCH-")  # rules that a row by itself says nothing of


def with_rows(case: Case, config: GPT2Config, tensors: Mapping[str, ndarray]) -> list[CaseCheck]:
    """The check of a case, and those of its rows if it is a batch."""
    rows = [
        RowCheck(row, config, row_tensors(case, number, tensors), case.request)
        for number, row in enumerate(rows_of(case))
    ]
    return [CaseCheck(case, config, tensors), *rows]


def rows_of(case: Case) -> list[Case]:
    """Each row of a batch as its own case, without its padding: `loop.x.row0` and so on. Nothing for a request that is
    not a batch.
    """
    prompts = case.request.get("input_ids", ())
    if case.result == MUST_REJECT or (len(prompts) < 2 and not padded(case.request)):
        return []
    rules = tuple(rule for rule in case.rules if not rule.startswith(OF_BATCHES))
    what = "has other logits" if case.op == "forward" else "is continued by other tokens"
    why = case.why if rules else f"a prompt by itself {what}"
    rules = rules or (("FWD-03",) if case.op == "forward" else ("GREEDY-01",))
    return [
        replace(
            case,
            id=f"{case.id}.row{number}",
            rules=rules,
            why=why,
            request=row_request(case.request, number),
            expected=row_expected(case, number),
            kills=(),
        )
        for number in range(len(prompts))
    ]


def padding(request: Mapping[str, Any], number: int) -> int:
    """How many columns of that row are padding."""
    mask = request.get("attention_mask")
    return 0 if mask is None else len(mask[number]) - sum(mask[number])


def row_request(request: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The request for that row."""
    gap = padding(request, number)
    own: dict[str, Any] = {
        name: value for name, value in request.items() if name not in ("attention_mask", "pad_token_id")
    }
    own["input_ids"] = [list(request["input_ids"][number][gap:])]
    own |= {name: [request[name][number]] for name in ("logits", "uniforms") if name in request}
    return own | {name: request[name] - gap for name in COUNTED if request.get(name) is not None}


def row_expected(case: Case, number: int) -> dict[str, Any]:
    """The expected answer for that row; for a choice, one for each option."""
    B = len(case.request["input_ids"])

    def part(right: Mapping[str, Any]) -> dict[str, Any]:
        several = {name: right[name] for name in ("rows", "scores") if name in right}
        return {
            **right,
            **{name: own[number * len(own) // B : (number + 1) * len(own) // B] for name, own in several.items()},
        }

    if case.result != CHOICE:
        return part(case.expected)
    return {option: right and part(right) for option, right in case.expected.items()}


def row_tensors(case: Case, number: int, tensors: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """The logits of that row, and their expected errors, under the names that they have."""
    key = case.expected.get("logits")
    if key is None:
        return {}
    gap = padding(case.request, number)
    own = (name for name in tensors if name == key or name.startswith(f"{key}.scale."))
    return {name: tensors[name][number : number + 1, gap:] for name in own}


def meets(case: Case, ends: Sequence[int]) -> bool:
    """Whether an expected row has one of these tokens."""
    options = case.expected.values() if case.result == CHOICE else (case.expected,)
    rows = (row for right in options if right for row in right.get("rows", ()))
    return any(set(ends) & set(row["new_ids"]) for row in rows)
