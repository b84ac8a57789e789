"""Compares a model that is called gpt2 with published facts about the released one: sizes, weights, losses, continuations.

released.json has the facts, as printed in code and documents of others, each with its source. A fact holds or it differs.
Numbers may differ by `within`, which is half of the last printed digit or the tolerance of the source.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.checkpoints import disassemble
from refgen.config import GPT2Config
from refgen.generation.scores import log_softmax
from refgen.names import short_name
from refgen.tokenizer import Tokenizer

FACTS: tuple[Mapping[str, Any], ...] = tuple(
    json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
)


@dataclass(frozen=True)
class Finding:
    """One fact, the model's own value, and whether they agree."""

    fact: Mapping[str, Any]
    observed: Any
    holds: bool

    @property
    def line(self) -> str:
        """A line for a report: whether the fact holds, what differs, and the source."""
        name, source = f"{self.fact['model']} {self.fact['id']}", self.fact["source"]
        if self.holds:
            return f"{name}: as published [{source}]"
        within = f" within {self.fact['within']:g}" if "within" in self.fact else ""
        return f"{name}: {shown(self.observed)}, published {shown(self.fact['expected'])}{within} [{source}]"


def released_name(folder: Path, config: GPT2Config) -> str | None:
    """The released model that a folder claims to be, by its own name or by the name in config.json."""
    known = {fact["model"] for fact in FACTS}
    names = (short_name(folder), str(config.other.get("_name_or_path", "")).rpartition("/")[2])
    return next((name for name in names if name in known), None)


def compare(model: GPT2LMHeadModel, name: str, tokenizer: Tokenizer | None) -> Iterator[Finding]:
    """Compares every fact of that released model. Facts about texts need a tokenizer. If the sizes differ, it stops there."""
    for fact in FACTS:
        if fact["model"] != name or (fact["kind"] == "text" and tokenizer is None):
            continue
        finding = ASK[fact["kind"]](model, tokenizer, fact)
        yield finding
        if fact["kind"] == "sizes" and not finding.holds:
            return


def sizes(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """Sizes, switches and the number of parameters."""
    count = sum(tensor.size for tensor in disassemble(model.gpt2).values())
    found = {name: getattr(model.config, name, count) for name in fact["expected"]}
    return Finding(fact, found, found == fact["expected"])


def continuation(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """Greedy tokens after a prompt of ids."""
    new = len(fact["expected"])
    ids = model.generate([fact["ids"]], max_new_tokens=new, do_sample=False)[0, len(fact["ids"]) :].tolist()
    return Finding(fact, ids, ids == fact["expected"])


def text(model: GPT2LMHeadModel, tokenizer: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The continuation of a text."""
    if tokenizer is None:
        raise ValueError("a fact about a text needs a tokenizer")
    ids = tokenizer([fact["prompt"]], return_tensors="np")["input_ids"]
    found = tokenizer.decode(model.generate(ids, do_sample=False, **fact["settings"])[0])
    return Finding(fact, found, found == fact["expected"])


def close(fact: Mapping[str, Any], found: ndarray) -> Finding:
    """Compares numbers with the published ones."""
    holds = bool(np.all(np.abs(found - np.asarray(fact["expected"])) <= fact["within"]))
    return Finding(fact, found.tolist(), holds)


def logprobs_of(model: GPT2LMHeadModel, ids: list[int]) -> ndarray:
    """The log-probability of each id but the first, given those before it, `[T-1]` float64."""
    scores = log_softmax(model([ids[:-1]]).logits[0].astype(np.float64))
    return scores[np.arange(len(ids) - 1), ids[1:]]


def logprobs(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The log-probability of each id after a context."""
    return close(fact, logprobs_of(model, [*fact["context"], *fact["ids"]])[len(fact["context"]) - 1 :])


def logprob_sum(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The log-probability of all ids after a context."""
    return close(fact, logprobs_of(model, [*fact["context"], *fact["ids"]])[len(fact["context"]) - 1 :].sum())


def loss(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The mean loss over all positions of several rows."""
    return close(fact, -np.concatenate([logprobs_of(model, row) for row in fact["rows"]]).mean())


def values(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The first numbers of a tensor."""
    tensor = disassemble(model.gpt2)[fact["tensor"]]
    return close(fact, tensor.ravel()[: len(fact["expected"])])


def hidden(model: GPT2LMHeadModel, _: Tokenizer | None, fact: Mapping[str, Any]) -> Finding:
    """The first numbers of the last layer norm's output."""
    seen: dict[str, ndarray] = {}
    model([fact["ids"]], note=seen.setdefault)
    return close(fact, seen["ln_f"][0, 0, : len(fact["expected"])])


ASK: Mapping[str, Callable[[GPT2LMHeadModel, Tokenizer | None, Mapping[str, Any]], Finding]] = {
    "sizes": sizes, "continuation": continuation, "text": text, "logprobs": logprobs, "logprob-sum": logprob_sum,
    "loss": loss, "values": values, "hidden": hidden,
}  # fmt: skip


def shown(value: Any) -> str:
    """A value for a line, shortened if it is long."""
    words = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return words if len(words) <= 120 else f"{words[:117]}..."
