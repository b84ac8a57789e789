"""`GenerationConfig`: every knob of `generate()`, checked once. Rules CFG-03 to CFG-11 and LEN-01 to LEN-08 of SPEC.md.

A field that is None is unset. `settle` lays the sources over each other, the call over a passed configuration
over the model's own over the defaults, and refuses what contradicts itself.
"""

import difflib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from refgen.errors import GenerationError, IgnoredSettingWarning
from refgen.generation.fields import CHECKS, DEFAULTS, REFUSED, tokens
from refgen.json_files import read_object

METADATA = ("_from_model_config", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of `generate()`; None is unset. Raises `GenerationError` for a value outside its rule.

    To change one that exists: `dataclasses.replace(config, top_k=10)`.
    """

    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    max_time: float | None = None  # seconds
    stop_strings: Any = None  # a text or several
    do_sample: bool | None = None
    use_cache: bool | None = None
    prefill_chunk_size: int | None = None  # columns
    num_return_sequences: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: Any = None  # True, False or "never"
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    sequence_bias: Any = None  # {(ids): bias} or [[ids, bias]]
    no_repeat_ngram_size: int | None = None
    bad_words_ids: Any = None  # [[ids]]
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Any = None  # an id or several
    remove_invalid_values: bool | None = None
    exponential_decay_length_penalty: Any = None  # (start, factor)
    suppress_tokens: Any = None  # ids
    begin_suppress_tokens: Any = None  # ids
    renormalize_logits: bool | None = None
    guidance_scale: float | None = None
    watermarking_config: Any = None  # {name: value}, of a green list or of SynthID
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None
    num_assistant_tokens: int | None = None
    num_assistant_tokens_schedule: str | None = None
    assistant_confidence_threshold: float | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    return_dict_in_generate: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    output_hidden_states: bool | None = None
    output_attentions: bool | None = None

    def __post_init__(self) -> None:
        for name, (check, rule, remedy) in CHECKS.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                object.__setattr__(self, name, check(value))
            except (TypeError, OverflowError):  # what operator.index and float say of things that are no numbers
                raise GenerationError(f"{name}={value!r}", "is of the wrong type", rule, remedy) from None
            except ValueError as error:
                raise GenerationError(f"{name}={value!r}", str(error), rule, remedy) from None

    @property
    def samples(self) -> bool:
        """TEMP-02. Whether tokens are drawn; temperature 0 puts all probability on the best, which is greedy."""
        return bool(self.do_sample) and self.temperature != 0

    @property
    def beams(self) -> int:
        """The number of beams, 1 for none."""
        return self.num_beams or 1

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a row, possibly none."""
        return tokens(self.eos_token_id) if self.eos_token_id is not None else ()

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """From the object in a `generation_config.json`; raises `GenerationError` for names nobody knows (CFG-08)."""
        return cls(**known({name: value for name, value in entries.items() if name not in METADATA}))

    @classmethod
    def from_model_config(cls, entries: Mapping[str, Any]) -> Self:
        """CKPT-11. The generation settings that a `config.json` without a `generation_config.json` carries."""
        names = {f.name for f in fields(cls)} | REFUSED.keys()
        return cls.from_dict({name: value for name, value in entries.items() if name in names})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """From the `generation_config.json` in a folder."""
        return cls.from_dict(read_object(Path(folder) / "generation_config.json", GenerationError, "CKPT-11"))

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `generation_config.json`, which transformers reads too."""
        entries = self.to_dict()
        if len(self.eos_ids) == 1:
            entries["eos_token_id"] = self.eos_ids[0]
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "generation_config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


ID_FIELDS = (
    "eos_token_id", "pad_token_id", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "bad_words_ids", "sequence_bias",
)  # fmt: skip


def ids_of(config: GenerationConfig, name: str) -> list[int]:
    """All token ids that a field holds, however deep."""
    value = getattr(config, name)
    if name == "sequence_bias":
        value = [ids for ids, _ in value or ()]
    if value is None or isinstance(value, int):
        return [] if value is None else [value]
    return [token_id for each in value for token_id in (each if isinstance(each, tuple) else (each,))]


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CFG-08, CFG-12. Of `settings` the ones refgen has; raises `GenerationError` for others, unless they ask for nothing."""
    own = {f.name for f in fields(GenerationConfig)}
    for name, value in settings.items():
        if name in own or value is None:
            continue
        if name in REFUSED:
            asks_for_nothing, why, remedy = REFUSED[name]
            if value not in asks_for_nothing:
                raise GenerationError(f"{name}={value!r}", why, "CFG-12", remedy)
            continue
        close = difflib.get_close_matches(name, own, n=1)
        raise GenerationError(
            f"{name}={value!r}",
            "is not a setting of generate()",
            "CFG-08",
            f"Did you mean {close[0]}?" if close else "See help(refgen.GenerationConfig).",
        )
    return {name: value for name, value in settings.items() if name in own}


def settle(model: GenerationConfig, passed: GenerationConfig | None, call: Mapping[str, Any]) -> GenerationConfig:
    """CFG-04, CFG-05. The one configuration that a call means.

    `call` over `passed` over `model` over `DEFAULTS`. None in `call` switches a setting off; None in a
    configuration leaves it to the next source. The later of `max_length` and `max_new_tokens` counts (LEN-01).
    """
    call = known(call)
    checked = GenerationConfig(**call)
    sources = [dict(DEFAULTS), model.to_dict(), passed.to_dict() if passed else {}, call | checked.to_dict()]
    settled: dict[str, Any] = {}
    for source in sources:
        for one, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            one_set, other_set = source.get(one) is not None, source.get(other) is not None
            if one_set != other_set:
                settled.pop(other if one_set else one, None)
        settled |= source
    config = GenerationConfig(**settled)
    refuse_contradictions(config)
    warn_of_ignored(config, checked)
    return config


def refuse_contradictions(config: GenerationConfig) -> None:
    """Settings that cannot be meant together."""
    for one, other, rule, remedy in (
        ("max_length", "max_new_tokens", "LEN-01", "Keep max_new_tokens, which does not count the prompt."),
        ("min_length", "min_new_tokens", "LEN-01", "Keep min_new_tokens, which does not count the prompt."),
        ("prefill_chunk_size", "output_hidden_states", "CACHE-03", "States are kept of whole passes."),
        ("prefill_chunk_size", "output_attentions", "CACHE-03", "States are kept of whole passes."),
    ):
        if getattr(config, one) and getattr(config, other):
            values = f"{one}={getattr(config, one)}, {other}={getattr(config, other)}"
            raise GenerationError(values, "contradict each other", rule, remedy)
    if config.prefill_chunk_size and config.use_cache is False:
        values = f"prefill_chunk_size={config.prefill_chunk_size}, use_cache=False"
        raise GenerationError(values, "contradict each other", "CACHE-03")
    refuse_impossible_numbers(config)
    refuse_contradicting_ids(config)


def refuse_impossible_numbers(config: GenerationConfig) -> None:
    """BEAM-09, GREEDY-07. More results than there can be."""
    n = config.num_return_sequences or 1
    if config.beams > 1 and n > config.beams:
        raise GenerationError(f"num_return_sequences={n}", f"there are num_beams={config.beams}", "BEAM-09")
    if n > 1 and not config.samples and config.beams == 1:
        raise GenerationError(
            f"num_return_sequences={n}",
            "greedy decoding has one result",
            "GREEDY-07",
            "Use do_sample=True with a temperature above 0, or num_beams.",
        )


def refuse_contradicting_ids(config: GenerationConfig) -> None:
    """SUP-01, BAD-01, EXPD-01. Tokens that are asked for and forbidden, or asked for and not named."""
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        both = set(ids_of(config, name)) & set(ids_of(config, "suppress_tokens"))
        if both:
            raise GenerationError(
                f"{name} and suppress_tokens both hold {min(both)}", "contradict each other", "SUP-01"
            )
    for sequence in config.bad_words_ids or ():
        if len(sequence) == 1 and sequence[0] in config.eos_ids:
            raise GenerationError(
                f"bad_words_ids hold the end token {list(sequence)}",
                "transformers drops it without a word",
                "BAD-01",
                "To never end early use eos_token_id=None.",
            )
    if config.exponential_decay_length_penalty is not None and not config.eos_ids:
        raise GenerationError(
            f"exponential_decay_length_penalty={config.exponential_decay_length_penalty}",
            "needs an end token to make likelier",
            "EXPD-01",
            "Set eos_token_id.",
        )


def warn_of_ignored(config: GenerationConfig, call: GenerationConfig) -> None:
    """CFG-09. A setting of this call that changes nothing is said, not passed over."""
    shapes_chance = ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
    neutral: dict[str, tuple[Any, ...]] = {name: (None, 0, DEFAULTS.get(name)) for name in shapes_chance}
    neutral |= {name: (None, DEFAULTS[name]) for name in ("length_penalty", "early_stopping")}
    sampling = "do_sample=True" if not config.do_sample else "a temperature above 0"
    needs = {} if config.samples else dict.fromkeys(shapes_chance, sampling)
    if config.beams == 1:
        needs |= dict.fromkeys(("length_penalty", "early_stopping"), "num_beams above 1")
    if not config.return_dict_in_generate:
        outputs = ("output_scores", "output_logits", "output_hidden_states", "output_attentions")
        needs |= dict.fromkeys(outputs, "return_dict_in_generate=True")
    if config.prompt_lookup_num_tokens is None:
        needs["max_matching_ngram_size"] = "prompt_lookup_num_tokens"
    ignored = [
        (name, needed) for name, needed in needs.items() if getattr(call, name) not in neutral.get(name, (None, False))
    ]
    for name, needed in ignored:
        warnings.warn(
            f"{name}={getattr(call, name)!r} has no effect without {needed} [CFG-09]",
            IgnoredSettingWarning,
            stacklevel=6,
        )


# --- What the model's vocabulary allows -----------------------------------------------------------------------


def refuse_foreign_ids(config: GenerationConfig, vocab_size: int) -> None:
    """STOP-08. Every id in a setting is one of the model's tokens."""
    for name in ID_FIELDS:
        for token_id in ids_of(config, name):
            if token_id >= vocab_size:
                raise GenerationError(
                    f"{name}={token_id}",
                    f"token ids of this model run from 0 to {vocab_size - 1}",
                    "STOP-08",
                    f"Pass {name}=None to do without.",
                )


def without_foreign_ids(model_config: GenerationConfig, vocab_size: int) -> GenerationConfig:
    """STOP-08. Small models often carry GPT-2's end id, 50256, which they cannot say: left out, with a warning."""
    eos_ids = tuple(token_id for token_id in model_config.eos_ids if token_id < vocab_size)
    pad = model_config.pad_token_id
    kept_pad = pad if pad is None or pad < vocab_size else None
    if eos_ids == model_config.eos_ids and kept_pad == pad:
        return model_config
    warnings.warn(
        f"the model's own eos_token_id={list(model_config.eos_ids)} or pad_token_id={pad} is outside its vocabulary of "
        f"{vocab_size} and is left out [STOP-08]",
        IgnoredSettingWarning,
        stacklevel=5,
    )
    return replace(model_config, eos_token_id=eos_ids or None, pad_token_id=kept_pad)
