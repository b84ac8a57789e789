"""The lab: what a check may use. The subject to ask, the reference to compare with, chance that can be repeated.

The reference of a model is refgen's own. `exact` computes in float64, with weights rounded to the format in which the
subject stores them. So a correct subject's logits are near these (oracle/noise.py).
"""

import hashlib
import shutil
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from refgen import checkpoints, spec
from refgen.auto import GPT2LMHeadModel
from refgen.config import GPT2Config
from refgen.conformance.planted.options import Taken, network_change
from refgen.conformance.subjects.arguments import fitted, padded
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.protocol import About, GarbledError, RefusedError, SkippedError, Subject, SubjectError
from refgen.conformance.subjects.values import shown
from refgen.errors import CheckpointError, TokenizerError
from refgen.generation.config import GenerationConfig
from refgen.json_files import read_object
from refgen.model import GPT2
from refgen.oracle.counterfactual import Pass
from refgen.oracle.formats import cast
from refgen.oracle.noise import Noise, expected_error
from refgen.shipped import BUILT_IN
from refgen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from refgen.oracle.faults import Fault

REMEMBERED = 4  # requests, to show how to reproduce a failure
PAIR, PAD = "several rows", "padding"  # what a request may have that not every subject takes
SIMPLEST: Mapping[str, Mapping[str, Mapping[str, Any]]] = {  # by operation the simplest request that has it
    "forward": {
        PAIR: {"input_ids": [[1, 2, 3], [1, 2, 3]]},
        PAD: {"input_ids": [[0, 1, 2, 3]], "attention_mask": [[0, 1, 1, 1]]},
    },
    "process": {PAIR: {"input_ids": [[1], [1]], "logits": [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]}},
    "generate": {
        PAIR: {"input_ids": [[1, 2, 3], [1, 2, 3]], "max_new_tokens": 1, "do_sample": False},
        PAD: {
            "input_ids": [[0, 1, 2, 3]], "attention_mask": [[0, 1, 1, 1]], "max_new_tokens": 1, "do_sample": False
        },
    },
}  # fmt: skip
NOISES = 16  # that are remembered: a failure is looked at several times
KEPT = 256  # models with options that are kept loaded; most are tiny


@dataclass(frozen=True)
class Reference:
    """refgen's view of one model folder, for a subject that computes in `dtype` and has taken some `options`."""

    folder: Path
    dtype: str
    options: tuple[str, ...] = ()  # name=option, of SPEC.md

    @cached_property
    def config(self) -> GPT2Config:
        """The network's sizes."""
        return GPT2Config.from_dict(read_object(self.folder / "config.json", CheckpointError, "CKPT-09"))

    @cached_property
    def gpt2(self) -> GPT2:
        """The network, its weights as stored."""
        return self.as_taken(checkpoints.load(self.folder, "float32"))

    @cached_property
    def exact(self) -> GPT2:
        """The network in float64, its weights rounded to the subject's dtype."""
        if self.dtype == "float64":
            return self.as_taken(checkpoints.load(self.folder, "float64"))
        return cast(self.gpt2, self.dtype)

    def as_taken(self, gpt2: GPT2) -> GPT2:
        """The network with what options change about it, such as its activation."""
        change, one = network_change(self.options), np.ones((1, 1), dtype=np.int64)
        return gpt2 if change is None else change(Pass(gpt2, one, one)).gpt2

    @cached_property
    def model(self) -> GPT2LMHeadModel:
        """`exact`, with `generate()`."""
        own = self.folder / "generation_config.json"
        return GPT2LMHeadModel(self.exact, GenerationConfig.from_pretrained(self.folder) if own.exists() else None)

    @property
    def noise_format(self) -> str:
        """The format whose rounding the subject may show. A subject in float64 is judged by float32's rounding."""
        return "float32" if self.dtype == "float64" else self.dtype

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """STOP-02. The end tokens of a request that does not name any: the model's own."""
        own = self.folder / "generation_config.json"
        config = GenerationConfig.from_pretrained(self.folder) if own.exists() else None
        config = config or GenerationConfig.from_model_config(self.gpt2.config.to_dict())
        return several(config.eos_token_id)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer."""
        return Tokenizer.from_pretrained(self.folder)

    @cached_property
    def has_text(self) -> bool:
        """Whether there is a tokenizer."""
        try:
            return bool(self.tokenizer)
        except TokenizerError:
            return False

    # What a subject says may not fit the model. That is its failure, and must not look like one of refgen.

    def fits(self, prompt: Sequence[int], new_ids: Sequence[int]) -> None:
        """LEN-04. Raises `GarbledError` for more new tokens than the context has room for: the last needs no position."""
        if len(prompt) + len(new_ids) > self.config.n_positions + 1:
            message = (
                f"{len(new_ids)} new tokens after {len(prompt)}; the model has {self.config.n_positions} positions"
            )
            raise GarbledError(message, ("LEN-04",))

    def ids_of(self, text: str) -> list[int]:
        """A text of the subject's as ids. Raises `GarbledError` if no tokens give it."""
        try:
            return self.tokenizer.encode(text)
        except TokenizerError as error:
            raise GarbledError(f"the text {shown(text)} is not a text of this model: {error}") from None

    def text_of(self, ids: Sequence[int]) -> str:
        """Ids of the subject's as a text, without special tokens. Raises `GarbledError` for tokens without one."""
        try:
            text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        except TokenizerError as error:
            raise GarbledError(str(error), ("TOK-14",)) from None
        return text


@dataclass(frozen=True)
class Text:
    """One row that a subject gave: the prompt's `ids` and `mask`, and the new tokens, up to where they may end."""

    check: str
    model: str
    ids: tuple[int, ...]
    mask: tuple[int, ...]
    new_ids: tuple[int, ...]
    is_right: bool


def crash(error: SubjectError) -> bool:
    """Whether the subject fell over a request."""
    return isinstance(error, RefusedError) and error.is_crash


def several(ids: int | Sequence[int] | None) -> tuple[int, ...]:
    """End tokens as a request has them: an id, several, or none."""
    return () if ids is None else tuple(ids) if isinstance(ids, Sequence) else (ids,)


class Lab:
    """A subject, the folders of the models it may be asked about, and a seed for everything that is drawn."""

    def __init__(self, subject: Subject, models: Mapping[str, Path], seed: int = 0) -> None:
        self.subject, self.models, self.seed = subject, models, seed
        self.asked: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.named: dict[str, Fault] = {}  # faults of the forward pass that were recognised, by name
        self.unexplained = 0  # errors of the forward pass that were looked up in vain
        self.in_vain: Counter[Any] = Counter()  # searches for an option that explains a failure, by kind
        self.check = ""  # the id of the one that is made
        self.texts: list[Text] = []  # greedy rows that were judged
        self.repeating = False  # whether a check is made again, for its verdict alone
        self._noise: dict[Any, Noise] = {}
        self.located: set[str] = set()  # those of them, or "" for none of them, whose first stage was looked for
        self.options_seen: list[str] = []  # options that explained a failure
        self._references: dict[str, Reference] = {}
        self._refusals: dict[tuple[str, str], SubjectError | None] = {}
        self._taken: dict[tuple[Path, tuple[str, ...]], Taken] = {}
        self._folder = Path(mkdtemp(prefix="refgen-"))  # of models that are made for this run
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._added: dict[str, Path] = {}

    @property
    def own(self) -> str:
        """The model that relations and fresh questions are asked of: the one that comes with refgen, or the only one."""
        return next(iter(self.models)) if self.one_model else BUILT_IN[0]

    @property
    def one_model(self) -> bool:
        """Whether the subject is tested on its own model: a server's, or the one that --model names."""
        return not self.about.loads or len(self.models) == 1

    @property
    def about(self) -> About:
        """What the subject declares of itself."""
        return self.subject.about

    def choice(self, name: str) -> str:
        """The option that the subject has taken: the one it declares, or the rule's own."""
        return self.about.choices.get(name, spec.choices()[name].own)

    @property
    def noise(self) -> str:
        """The format whose rounding the subject's logits may show. A subject in float64 is judged by float32's
        rounding.
        """
        if self.about.choices.get("gelu") == "tanh_float16_table" and self.about.dtype in ("float64", "float32"):
            return "float16"
        return "float32" if self.about.dtype == "float64" else self.about.dtype

    def with_options(self, model: str, options: Iterable[str]) -> Taken:
        """refgen with that model and these options, `name=option` each."""
        key = self.folder(model), tuple(options)
        if key not in self._taken:
            if len(self._taken) >= KEPT:
                self._taken.pop(next(iter(self._taken)))
            self._taken[key] = Taken(
                *key, loaded=next((each for each in self._taken.values() if each.folder == key[0]), None)
            )
        return self._taken[key]

    def ask(self, op: str, model: str, **request: Any) -> dict[str, Any]:
        """The subject's answer, past the border; raises a `SubjectError`. Values must be what JSON can hold.

        What the subject declares that it does not take, or has refused in the simplest form there is, is not asked but skipped.
        """
        request = self.meant(request)
        fitting = self._fitted(op, request)
        self.asked.append({"op": op, "model": model, **request})
        reference = self.reference(model)
        answer = checked(op, request, self.subject.ask(op, self.folder(model), fitting), reference.config.vocab_size)
        for number, row in enumerate(answer.get("rows", ())):
            if "new_ids" not in row and not reference.has_text:
                raise GarbledError(f"row {number} has a text and no new_ids, and {model} has no tokenizer")
        return answer

    def _fitted(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request as the subject can take it. A check that goes beyond what it takes is spared, not asked in vain."""
        try:
            fitting, reason = fitted(self.about, op, request), self.refuses(op, request)
        except SkippedError as error:
            fitting, reason = {}, str(error)
        if reason:
            self.asked.clear()
            raise SkippedError(reason)
        return fitting

    def refuses(self, op: str, request: Mapping[str, Any]) -> str:
        """Why the subject cannot take as many rows as the request has, or padding; empty if it can, or falls over them."""
        told = (
            f"{op} does not take {what}: {error}" for what, error in self._refusals_of(op, request) if not crash(error)
        )
        return next(told, "")

    def answers(self, op: str, request: Mapping[str, Any]) -> bool:
        """Whether the subject answers the simplest request that has as many rows as this one, and the simplest with padding."""
        return not any(True for _ in self._refusals_of(op, request))

    def _refusals_of(self, op: str, request: Mapping[str, Any]) -> Iterator[tuple[str, SubjectError]]:
        """What the subject refuses of what the request has."""
        for what in [PAIR] * (len(request.get("input_ids", ())) > 1) + [PAD] * padded(request):
            if (error := self._refusal(op, what)) is not None:
                yield what, error

    def _refusal(self, op: str, what: str) -> SubjectError | None:
        """What the subject declares to the simplest request with several rows or padding, if it does not answer it.

        A death, a hang or an invalid answer decides nothing yet: the questions with it are asked later, and show it
        again.
        """
        simplest = SIMPLEST.get(op, {}).get(what)
        if simplest is None or not self.about.loads:
            return None
        if (op, what) not in self._refusals:
            self._refusals[op, what] = None
            try:
                model = self.own if self.own in self.models else next(iter(self.models))
                self.subject.ask(op, self.folder(model), fitted(self.about, op, self.meant(simplest)))
            except (RefusedError, SkippedError) as error:
                self._refusals[op, what] = error
            except SubjectError:
                pass
        return self._refusals[op, what]

    @property
    def named_end(self) -> bool | None:
        """Whether `generate` has an argument for end tokens, for a subject that lists its arguments; None for one that
        takes anything.

        A subject with this argument gets its end tokens where they matter. Without it, it is unknown whether the
        subject's text ends at all.
        """
        taken = self.about.takes.get("generate")
        return None if taken is None else "eos_token_id" in taken

    def meant(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A request in the subject's terms. If it declares that its limit counts the prompt, the limit does so
        (LEN-01).
        """
        if request.get("max_new_tokens") and self.about.choices.get("token_limit_counts") == "prompt_too":
            return {**request, "max_new_tokens": request["max_new_tokens"] + len(request["input_ids"][0])}
        return dict(request)

    def add(self, name: str, write: Callable[[Path], None]) -> None:
        """One more model, that `write` puts into its folder."""
        if name not in self._added:
            self._added[name] = self._folder / name
            write(self._added[name])

    def folder(self, model: str) -> Path:
        """Where a model lies."""
        return self._added[model] if model in self._added else self.models[model]

    def reference(self, model: str) -> Reference:
        """What refgen knows of the model."""
        if model not in self._references:
            options = tuple(f"{name}={option}" for name, option in self.about.choices.items())
            self._references[model] = Reference(self.folder(model), self.about.dtype, options)
        return self._references[model]

    def plain_reference(self, model: str) -> Reference:
        """The same of a subject that declares nothing."""
        key = f"{model} without options"
        if key not in self._references:
            self._references[key] = Reference(self.folder(model), self.about.dtype)
        return self._references[key]

    def expected_error(
        self, model: str, ids: ndarray, mask: ndarray, dtype: str = "", samples: int | None = None
    ) -> Noise:
        """What rounding of `dtype`, by default the subject's, does to the logits of a model: oracle/noise.py, remembered."""
        key = (self.folder(model), ids.tobytes(), ids.shape, mask.tobytes(), dtype or self.noise, samples)
        if key not in self._noise:
            if len(self._noise) >= NOISES:
                self._noise.pop(next(iter(self._noise)))
            self._noise[key] = expected_error(self.reference(model).gpt2, ids, mask, dtype or self.noise, samples)
        return self._noise[key]

    def chance(self, name: str) -> np.random.Generator:
        """Random numbers for one check, the same in every run with this seed, whatever else is checked."""
        return chance(self.seed, name)


def chance(seed: int, name: str) -> np.random.Generator:
    """Random numbers that go by a seed and a name."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
