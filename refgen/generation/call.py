"""The call: the arguments of `generate()`, named, typed and explained here and nowhere else.

Every other name is a setting; `config.py` lists those.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, cleandoc, signature
from typing import Any, Protocol, Self, TypeVar

from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine
from refgen.errors import GenerationError
from refgen.generation.chance import Seed
from refgen.generation.config import GenerationConfig
from refgen.generation.next_logits import NextLogits
from refgen.generation.processors import AllowedTokens, Processor
from refgen.generation.stopping import Criterion
from refgen.tokenizer import Tokenizer


class Streamer(Protocol):
    """STREAM-01. Gets the prompt `[B*n P]`, then each step's tokens `[B*n]`, then the end."""

    def put(self, ids: ndarray) -> None:
        """Takes the prompt, the first time, or the new tokens."""

    def end(self) -> None:
        """Called after the last token."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of `generate()`.

    input_ids            `[B P]` token ids, a row for each prompt; without them, one begin token (IN-01, IN-02)
    attention_mask       `[B P]` 1 at tokens, 0 at padding, which stands on the left (PAD-07)
    seed                 repeats what torch draws on a CPU: one for the batch or one for each row (SAMP-05, SAMP-09)
    uniforms             `[B*n, steps]` numbers in [0, 1) to draw with instead of a seed (SAMP-10)
    streamer             gets the tokens as they come (STREAM-01)
    generation_config    settings that take the place of the model's own (CFG-04)
    tokenizer            finds `stop_strings` in the text (SSTR-01)
    past_key_values      a cache of the beginning of the prompt; it grows (CACHE-04)
    assistant_model      a smaller model that drafts what this one checks (ASSIST-01)
    negative_prompt_ids  `[1 or B, P]` the prompt that `guidance_scale` moves away from (CFGG-01)
    negative_prompt_attention_mask  its mask
    prefix_allowed_tokens_fn        (row, ids) -> the ids that may come next (PREF-01)
    logits_processor     functions (ids, scores) -> new scores (PROC-03)
    stopping_criteria    functions (ids, None) -> True where to stop (STOP-09)

    All else are settings: the fields of `GenerationConfig` (max_new_tokens, do_sample, temperature, top_k, …).
    """

    input_ids: Any = None
    attention_mask: Any = None
    seed: Seed = None
    uniforms: Any = None
    streamer: Streamer | None = None
    generation_config: GenerationConfig | None = None
    tokenizer: Tokenizer | None = None
    past_key_values: Cache | None = None
    assistant_model: Any = None
    negative_prompt_ids: Any = None
    negative_prompt_attention_mask: Any = None
    prefix_allowed_tokens_fn: AllowedTokens | None = None
    logits_processor: Sequence[Processor] = ()
    stopping_criteria: Sequence[Criterion] = ()
    settings: Mapping[str, Any]
    next_logits: NextLogits | None = None  # LOOP-01. Somebody else's logits instead of the engine's

    def __post_init__(self) -> None:
        for name, rule in (("logits_processor", "PROC-03"), ("stopping_criteria", "STOP-09")):
            functions = getattr(self, name)
            if callable(functions) or not all(map(callable, functions := tuple(functions or ()))):
                raise GenerationError(f"{name}={functions!r}", "must be a list of functions", rule)
            object.__setattr__(self, name, functions)

    @classmethod
    def of(cls, input_ids: Any, attention_mask: Any, arguments: Mapping[str, Any]) -> Self:
        """Of the arguments, those that have a name here, and the settings."""
        own = {name: arguments[name] for name in CALL_ARGUMENTS & arguments.keys()}
        settings = {name: value for name, value in arguments.items() if name not in CALL_ARGUMENTS}
        return cls(input_ids=input_ids, attention_mask=attention_mask, **own, settings=settings)

    @property
    def assistant(self) -> Engine | None:
        """ASSIST-05. The engine of the draft model."""
        engine = getattr(self.assistant_model, "engine", None)
        if self.assistant_model is not None and not isinstance(engine, Engine):
            kind = type(self.assistant_model).__name__
            raise GenerationError(f"assistant_model of type {kind}", "must be a refgen.GPT2LMHeadModel", "ASSIST-05")
        return engine


CALL_ARGUMENTS = {field.name for field in fields(Call)} - {"settings", "next_logits"}  # of generate()

Method = TypeVar("Method", bound=Callable[..., Any])


def takes_call(method: Method) -> Method:
    """For `help()`: a method that passes its arguments on to `Call` shows the signature and the explanations of it."""
    me, *_ = signature(method).parameters.values()
    positional = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        each.replace(kind=positional) if each.name in ("input_ids", "attention_mask") else each
        for each in signature(Call).parameters.values()
        if each.name in CALL_ARGUMENTS
    ]
    settings = Parameter("settings", Parameter.VAR_KEYWORD, annotation=Any)
    method.__signature__ = signature(method).replace(parameters=[me, *parameters, settings])  # type: ignore[attr-defined]
    _, _, explanations = cleandoc(Call.__doc__ or "").partition("\n\n")
    method.__doc__ = f"{cleandoc(method.__doc__ or '')}\n\n{explanations}"
    return method
