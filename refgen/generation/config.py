"""`GenerationConfig`: every knob of `generate()`, checked once. Rules CFG-03 to CFG-11 and LEN-01 to LEN-08 of SPEC.md.

A field that is None is unset. `settle` lays the sources over each other, the call over a passed configuration
over the model's own over the defaults, and refuses what contradicts itself.
"""

import difflib
import json
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from refgen.errors import GenerationError, IgnoredSettingWarning
from refgen.json_files import read_object

# --- What each field may hold -----------------------------------------------------------------------------


def whole(least: int) -> Callable[[Any], int]:
    """Whole numbers from `least` on; bool is refused."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or (number := operator.index(value)) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return number

    return check


def real(allowed: Callable[[float], bool], must: str) -> Callable[[Any], float]:
    """Numbers for which `allowed` holds; NaN, bool and text are refused."""

    def check(value: Any) -> float:
        if isinstance(value, bool | str) or not allowed(number := float(value)):
            raise ValueError(must)
        return number

    return check


def flag(value: Any) -> bool:
    """True or False, nothing that merely counts as one (CFG-11)."""
    if type(value) is not bool:
        raise ValueError("must be True or False")
    return value


def true_false_never(value: Any) -> bool | str:
    """True, False or "never" (BEAM-07)."""
    if value != "never" and type(value) is not bool:
        raise ValueError('must be True, False or "never"')
    return bool(value) if type(value) is bool else "never"


def token(value: Any) -> int:
    """One token id; -1, the field's old word for no token, is refused."""
    return whole(0)(value)


def tokens(value: Any) -> tuple[int, ...]:
    """One token id or several (STOP-03)."""
    several = value.tolist() if hasattr(value, "tolist") else value
    several = tuple(several) if isinstance(several, list | tuple | set) else (several,)
    if not several:
        raise ValueError("must name at least one id")
    return tuple(map(token, several))


def sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    """Several sequences of token ids, none of them empty (BAD-01)."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, list | tuple) for each in value):
        raise ValueError("must be a list of lists of ids, such as [[5], [7, 8]]")
    return tuple(tokens(each) for each in value)


def biases(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Sequences of token ids with the number to add: {(5,): 1.0} or, as JSON has it, [[[5], 1.0]] (BIAS-01)."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list | tuple) or not pairs or not all(len(pair) == 2 for pair in pairs):
        raise ValueError("must be {(ids): bias} or [[ids, bias]], and not empty")
    check = real(lambda bias: not math.isnan(bias) and bias < math.inf, "must have biases that are numbers")
    return tuple((tokens(list(ids)), check(bias)) for ids, bias in pairs)


def texts(value: Any) -> tuple[str, ...]:
    """One text or several, none of them empty (SSTR-04)."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several or not all(isinstance(t, str) and t for t in several):
        raise ValueError("must be a text or a list of texts, none of them empty")
    return tuple(several)


def start_and_factor(value: Any) -> tuple[int, float]:
    """A number of new tokens and a factor of at least 1 (EXPD-01)."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be (start, factor)")
    return whole(0)(value[0]), real(lambda factor: 1 <= factor < math.inf, "must have a factor of at least 1")(value[1])


NO_LIMIT = "Pass None to leave it out."
GREEDY = "For greedy decoding use temperature=0 or do_sample=False."

CHECKS: Mapping[str, tuple[Callable[[Any], Any], str, str]] = {
    # field: (check, rule, remedy)
    "max_length": (whole(1), "LEN-02", NO_LIMIT),
    "max_new_tokens": (whole(1), "LEN-01", NO_LIMIT),
    "min_length": (whole(0), "LEN-08", "0 is no minimum."),
    "min_new_tokens": (whole(0), "LEN-07", "0 is no minimum."),
    "max_time": (real(lambda s: 0 <= s < math.inf, "must be a number of seconds"), "LEN-09", "None is no limit."),
    "stop_strings": (texts, "SSTR-04", "None is no stop string."),
    "do_sample": (flag, "CFG-11", ""),
    "use_cache": (flag, "CACHE-02", ""),
    "num_return_sequences": (whole(1), "SAMP-07", ""),
    "num_beams": (whole(1), "BEAM-12", "1 is no beam search."),
    "length_penalty": (real(math.isfinite, "must be a finite number"), "BEAM-06", "0 is no penalty."),
    "early_stopping": (true_false_never, "BEAM-07", ""),
    "temperature": (real(lambda t: 0 <= t < math.inf, "must be a finite number of at least 0"), "TEMP-02", GREEDY),
    "top_k": (whole(0), "TOPK-02", "0 or None keeps every token."),
    "top_p": (real(lambda p: 0 <= p <= 1, "must be a number from 0 to 1"), "TOPP-04", "1 or None keeps every token."),
    "min_p": (real(lambda p: 0 <= p <= 1, "must be a number from 0 to 1"), "MINP-01", "0 or None keeps every token."),
    "top_h": (real(lambda h: 0 < h <= 1, "must be a number above 0, at most 1"), "TOPH-01", "None keeps every token."),
    "typical_p": (real(lambda p: 0 < p <= 1, "must be a number above 0, at most 1"), "TYP-01", "1 keeps every token."),
    "epsilon_cutoff": (real(lambda e: 0 <= e < 1, "must be a number from 0 to below 1"), "EPS-01", "0 keeps every token."),
    "eta_cutoff": (real(lambda e: 0 <= e < 1, "must be a number from 0 to below 1"), "ETA-01", "0 keeps every token."),
    "sequence_bias": (biases, "BIAS-01", ""),
    "no_repeat_ngram_size": (whole(0), "NGRAM-01", "0 bans nothing."),
    "bad_words_ids": (sequences, "BAD-01", ""),
    "forced_bos_token_id": (token, "FORCE-01", ""),
    "forced_eos_token_id": (tokens, "FORCE-02", ""),
    "remove_invalid_values": (flag, "INV-01", ""),
    "exponential_decay_length_penalty": (start_and_factor, "EXPD-01", "For instance (20, 1.05)."),
    "suppress_tokens": (tokens, "SUP-01", ""),
    "begin_suppress_tokens": (tokens, "SUP-02", ""),
    "renormalize_logits": (flag, "PROC-04", ""),
    "repetition_penalty": (real(lambda r: 0 < r < math.inf, "must be a finite number above 0"), "REP-03", "1 is no penalty."),
    "bos_token_id": (token, "IN-02", ""),
    "eos_token_id": (tokens, "STOP-03", "Pass None to stop at the length limit only."),
    "pad_token_id": (token, "STOP-07", "Usual: pad_token_id=tokenizer.eos_token_id."),
    "return_dict_in_generate": (flag, "OUT-01", ""),
    "output_scores": (flag, "OUT-02", ""),
    "output_logits": (flag, "OUT-02", ""),
}  # fmt: skip

DEFAULTS: Mapping[str, Any] = {
    "min_length": 0, "min_new_tokens": 0, "do_sample": False, "use_cache": True, "num_return_sequences": 1,
    "num_beams": 1, "length_penalty": 1.0, "early_stopping": False,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "remove_invalid_values": False, "renormalize_logits": False,
    "return_dict_in_generate": False, "output_scores": False, "output_logits": False,
}  # fmt: skip

# Fields of transformers that refgen has not got yet, with the values that ask for nothing.
NOT_YET: Mapping[str, tuple[Any, ...]] = {
    "cache_implementation": (), "cache_config": (), "max_cache_len": (), "prefill_chunk_size": (),
    "encoder_repetition_penalty": (1.0,), "encoder_no_repeat_ngram_size": (0,),
    "token_healing": (False,), "guidance_scale": (1.0,),
    "watermarking_config": (), "output_attentions": (False,), "output_hidden_states": (False,),
    "decoder_start_token_id": (), "is_assistant": (False,), "num_assistant_tokens": (20,),
    "num_assistant_tokens_schedule": ("constant",), "assistant_confidence_threshold": (0.4,),
    "prompt_lookup_num_tokens": (), "max_matching_ngram_size": (), "assistant_early_exit": (),
    "assistant_lookbehind": (10,), "target_lookbehind": (10,), "assistant_ensemble_weight": (), "speculation_type": (),
    "use_mtp": (False,), "compile_config": (), "disable_compile": (False,), "continuous_batching_config": (),
    "low_memory": (False,), "penalty_alpha": (0.0,), "dola_layers": (), "diversity_penalty": (0.0,),
    "num_beam_groups": (1,), "constraints": (), "force_words_ids": (),
}  # fmt: skip
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
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    return_dict_in_generate: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None

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
        names = {f.name for f in fields(cls)} | NOT_YET.keys()
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
    """CFG-08. Of `settings` the ones refgen has; raises `GenerationError` for those it has not, unless they ask for nothing."""
    own = {f.name for f in fields(GenerationConfig)}
    for name, value in settings.items():
        if name in own or value is None or (name in NOT_YET and value in NOT_YET[name]):
            continue
        if name in NOT_YET:
            raise GenerationError(
                f"{name}={value!r}",
                "is a setting of transformers that refgen does not have yet",
                "CFG-08",
                f"Leave {name} out.",
            )
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
    """Pairs of settings that cannot both be meant."""
    for one, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if getattr(config, one) and getattr(config, other):
            raise GenerationError(
                f"{one}={getattr(config, one)}, {other}={getattr(config, other)}",
                "contradict each other",
                "LEN-01",
                f"Keep {other}, which does not count the prompt.",
            )
    if config.beams > 1 and (config.num_return_sequences or 1) > config.beams:
        raise GenerationError(
            f"num_return_sequences={config.num_return_sequences}", f"there are num_beams={config.beams}", "BEAM-09"
        )
    if (config.num_return_sequences or 1) > 1 and not config.samples and config.beams == 1:
        raise GenerationError(
            f"num_return_sequences={config.num_return_sequences}",
            "greedy decoding has one result",
            "GREEDY-07",
            "Use do_sample=True with a temperature above 0, or num_beams.",
        )
    for forced, suppressed in (("forced_bos_token_id", "suppress_tokens"), ("forced_eos_token_id", "suppress_tokens")):
        both = set(ids_of(config, forced)) & set(ids_of(config, suppressed))
        if both:
            raise GenerationError(f"{forced} and {suppressed} both hold {min(both)}", "contradict each other", "SUP-01")
    banned_ends = [
        sequence for sequence in config.bad_words_ids or () if len(sequence) == 1 and sequence[0] in config.eos_ids
    ]
    if banned_ends:
        raise GenerationError(
            f"bad_words_ids hold the end token {list(banned_ends[0])}",
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
        needs |= dict.fromkeys(("output_scores", "output_logits"), "return_dict_in_generate=True")
    ignored = [
        (name, needed) for name, needed in needs.items() if getattr(call, name) not in neutral.get(name, (None, False))
    ]
    for name, needed in ignored:
        warnings.warn(
            f"{name}={getattr(call, name)!r} has no effect without {needed} [CFG-09]",
            IgnoredSettingWarning,
            stacklevel=5,
        )
