"""refgen as a subject: the example of an adapter in Python, and the subject that must pass everything."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.errors import IgnoredSettingWarning
from refgen.generation.call import Call
from refgen.generation.config import GenerationConfig
from refgen.generation.generate import generate
from refgen.generation.next_logits import NextLogits
from refgen.generation.output import GenerateOutput
from refgen.generation.processors import Processor
from refgen.generation.processors.order import processors
from refgen.generation.prompt import Prompt
from refgen.generation.settle import settle
from refgen.generation.stopping import max_length
from refgen.generation.streaming import TextDecoder
from refgen.oracle.trace import record
from refgen.tokenizer import Tokenizer


@contextmanager
def unwarned() -> Iterator[None]:
    """Without the warnings of settings that have no effect: the kit asks for such on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredSettingWarning)
        yield


class ReferenceSubject:
    """refgen with one model folder."""

    name = "refgen"
    dtype = "float32"
    logits_processor: Sequence[Processor] = ()  # planted/subject_faults.py has some

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=self.dtype)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's; a network may come without."""
        return Tokenizer.from_pretrained(self.folder)

    def encode(self, text: str) -> list[int]:
        """Ids."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def forward(self, input_ids: Any, attention_mask: Any = None, prefill: int | None = None) -> ndarray:
        """Logits `[B T V]`."""
        ids = np.asarray(input_ids)
        mask = None if attention_mask is None else np.asarray(attention_mask)
        if prefill is None:
            return self.model.engine.forward(ids, mask)
        return record(self.model.engine, ids, mask, stages=("lm_head",), prefill=prefill).stages["lm_head"]

    def process(self, input_ids: Any, logits: Any, prompt_length: int | None = None, **settings: Any) -> ndarray:
        """Scores `[B V]` of the step after `input_ids` `[B S]`, of which the first `prompt_length` are the prompt."""
        ids, scores = np.asarray(input_ids), np.asarray(logits, dtype=np.float32)
        prompt = Prompt(ids[:, :prompt_length], np.ones_like(ids[:, :prompt_length]))
        with unwarned():
            config = settle(GenerationConfig(), None, settings)
        for processor in processors(config, prompt, max_length(config, prompt, n_positions=2**20)):
            scores = processor(ids, scores)
        return scores

    def generate(
        self, input_ids: Any, attention_mask: Any = None, stream: bool = False, **arguments: Any
    ) -> list[dict[str, Any]]:
        """New tokens of every row, why it ended, the log-probabilities that the model gave them, and its text if `stream`."""
        P = np.shape(input_ids)[1]
        result = self.run(input_ids, attention_mask, P, arguments)
        logprobs = result.logprobs("logits") if result.sequences_scores is None else None
        rows = []
        for row, (ids, length, finish) in enumerate(zip(result.sequences, result.lengths, result.finish, strict=True)):
            new = ids[P:length].tolist()
            entry: dict[str, Any] = {"new_ids": new, "finish": finish}
            if logprobs is not None:
                entry["logprobs"] = logprobs[row, : len(new)].tolist()
            rows.append(entry | (self.streamed(new) if stream else {}))
        return rows

    def run(self, input_ids: Any, attention_mask: Any, P: int, arguments: dict[str, Any]) -> GenerateOutput:
        """`generate()` with everything it has to tell."""
        arguments = dict(arguments)
        own: dict[str, Any] = {name: arguments.pop(name) for name in ("seed", "uniforms") if name in arguments}
        if "stop_strings" in arguments:
            own["tokenizer"] = self.tokenizer
        arguments |= {"return_dict_in_generate": True, "output_logits": True}
        call = Call(
            input_ids=input_ids,
            logits_processor=self.logits_processor,
            attention_mask=attention_mask,
            next_logits=self.next_logits(P),
            **own,
            settings=arguments,
        )
        with unwarned():
            result: Any = generate(self.model.engine, self.model.generation_config, call)
        return result

    def next_logits(self, P: int) -> NextLogits | None:  # noqa: ARG002 - planted/subject_faults.py has another
        """The model as the loop sees it, after a prompt of `P` columns; None for the network itself."""
        return None

    def streamed(self, new: list[int]) -> dict[str, Any]:
        """The text in the pieces in which it came, and whole."""
        decoder = TextDecoder(self.tokenizer, skip_special_tokens=True)
        chunks = [*map(decoder.push, new), decoder.flush()]
        return {"chunks": [chunk for chunk in chunks if chunk], "text": self.decode(new, skip_special_tokens=True)}
