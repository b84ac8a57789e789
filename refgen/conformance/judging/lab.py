"""The lab: what a check may use. The subject to ask, the reference to compare with, chance that can be repeated.

The reference of a model is refgen's own: `exact` computes in float64 with weights rounded to what the subject stores them
in, so that its logits are those a correct subject comes near (oracle/noise.py).
"""

import hashlib
import shutil
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from refgen import checkpoints, spec
from refgen.auto import GPT2LMHeadModel
from refgen.conformance.planted.options import Taken, network_change
from refgen.conformance.subjects.protocol import About, Subject
from refgen.generation.config import GenerationConfig
from refgen.model import GPT2
from refgen.oracle.counterfactual import Pass
from refgen.oracle.formats import cast
from refgen.shipped import BUILT_IN
from refgen.tokenizer import Tokenizer

REMEMBERED = 4  # requests, to show how to reproduce a failure
KEPT = 256  # models with options that are kept loaded; most are tiny


@dataclass(frozen=True)
class Reference:
    """refgen's view of one model folder, for a subject that computes in `dtype` and has taken some `options`."""

    folder: Path
    dtype: str
    options: tuple[str, ...] = ()  # name=option, of SPEC.md

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

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer."""
        return Tokenizer.from_pretrained(self.folder)


class Lab:
    """A subject, the folders of the models it may be asked about, and a seed for everything that is drawn."""

    def __init__(self, subject: Subject, models: Mapping[str, Path], seed: int = 0) -> None:
        self.subject, self.models, self.seed = subject, models, seed
        self.asked: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.named: set[str] = set()  # faults of the forward pass that were recognised
        self.options_seen: list[str] = []  # options that explained a failure
        self._references: dict[str, Reference] = {}
        self._taken: dict[tuple[Path, tuple[str, ...]], Taken] = {}
        self._folder = Path(mkdtemp(prefix="refgen-"))  # of models that are made for this run
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._added: dict[str, Path] = {}

    @property
    def own(self) -> str:
        """The model that relations and fresh questions are asked of: the subject's own, or the one that comes with refgen."""
        return next(iter(self.models)) if not self.about.loads else BUILT_IN[0]

    @property
    def about(self) -> About:
        """What the subject says of itself."""
        return self.subject.about

    def choice(self, name: str) -> str:
        """The option that the subject has taken: the one it declares, or the rule's own."""
        return self.about.choices.get(name, spec.choices()[name].own)

    @property
    def noise(self) -> str:
        """The format whose rounding the subject's logits may show; one that computes in float64 is held to float32's."""
        if self.about.choices.get("gelu") == "tanh_float16_table" and self.about.dtype in ("float64", "float32"):
            return "float16"
        return "float32" if self.about.dtype == "float64" else self.about.dtype

    def with_options(self, model: str, options: Iterable[str]) -> Taken:
        """refgen with that model and these options, `name=option` each."""
        key = self.folder(model), tuple(options)
        if key not in self._taken:
            if len(self._taken) >= KEPT:
                self._taken.pop(next(iter(self._taken)))
            self._taken[key] = Taken(*key)
        return self._taken[key]

    def ask(self, op: str, model: str, **request: Any) -> dict[str, Any]:
        """The subject's answer, with arrays; raises a `SubjectError`. Values must be what JSON can hold."""
        request = self.meant(request)
        self.asked.append({"op": op, "model": model, **request})
        return self.subject.ask(op, self.folder(model), request)

    def meant(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A request in the subject's words: where a limit counts the prompt, as it declares, it is asked for so (LEN-01)."""
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

    def chance(self, name: str) -> np.random.Generator:
        """Random numbers for one check, the same in every run with this seed, whatever else is checked."""
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))
