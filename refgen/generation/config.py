"""`GenerationConfig`: every setting of `generate()`, one line each. Rules CFG-08 to CFG-12 of SPEC.md.

A line has the check of the value (from `checks.py`), its rule, its default, the remedy for a wrong value, and the
conditions for the setting to have an effect. None means unset. `settle.py` combines everything in a call
into one configuration.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from refgen.errors import GenerationError
from refgen.generation.checks import (
    above_0_to_1,
    biases,
    finite,
    finite_above_0,
    finite_from_0,
    flag,
    from_0_below_1,
    from_0_to_1,
    one_of,
    seconds,
    sequences,
    start_and_factor,
    texts,
    token,
    tokens,
    true_false_never,
    watermarking,
    whole,
)
from refgen.generation.refused import REFUSED
from refgen.json_files import read_object

METADATA = ("_from_model_config", "transformers_version")

SAMPLING, BEAMS = "do_sample=True", "num_beams above 1"
RESULT, LOOKUP = "return_dict_in_generate=True", "prompt_lookup_num_tokens"


@dataclass(frozen=True)
class Setting:
    """A field: `check`, its `rule`, `default`, a `remedy`, and what it `needs` to have an effect."""

    check: Callable[[Any], Any]
    rule: str
    default: Any
    remedy: str
    needs: str | None


def setting(
    check: Callable[[Any], Any], rule: str, default: Any = None, remedy: str = "", needs: str | None = None
) -> Any:
    """A field of `GenerationConfig`, unset, with its `Setting`."""
    return field(default=None, metadata={"setting": Setting(check, rule, default, remedy, needs)})


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of `generate()`; None is unset. Raises `GenerationError` for a value outside its rule.

    To change one that exists: `dataclasses.replace(config, top_k=10)`.
    """

    # fmt: off
    # Length and end
    max_length: int | None = setting(whole(1), "LEN-02", remedy="Pass None to leave it out.")
    max_new_tokens: int | None = setting(whole(1), "LEN-01", remedy="Pass None to leave it out.")
    min_length: int | None = setting(whole(0), "LEN-08", 0, "0 means no minimum.")
    min_new_tokens: int | None = setting(whole(0), "LEN-07", 0, "0 means no minimum.")
    max_time: float | None = setting(seconds, "LEN-09", remedy="None means no limit.")
    stop_strings: Any = setting(texts, "SSTR-04", remedy="None means no stop string.")  # a text or several
    # The way of decoding
    do_sample: bool | None = setting(flag, "CFG-11", default=False)
    use_cache: bool | None = setting(flag, "CACHE-02", default=True)
    prefill_chunk_size: int | None = setting(whole(1), "CACHE-03", remedy="None takes the prompt in one pass.")  # columns
    num_return_sequences: int | None = setting(whole(1), "SAMP-07", 1)
    num_beams: int | None = setting(whole(1), "BEAM-12", 1, "1 means no beam search.")
    length_penalty: float | None = setting(finite, "BEAM-06", 1.0, "0 means no penalty.", BEAMS)
    early_stopping: Any = setting(true_false_never, "BEAM-07", default=False, needs=BEAMS)  # True, False or "never"
    # Shapes of chance
    temperature: float | None = setting(finite_from_0, "TEMP-02", 1.0, "For greedy decoding use temperature=0 or do_sample=False.", SAMPLING)
    top_k: int | None = setting(whole(0), "TOPK-02", 50, "0 or None keeps every token.", SAMPLING)
    top_p: float | None = setting(from_0_to_1, "TOPP-04", 1.0, "1 or None keeps every token.", SAMPLING)
    min_p: float | None = setting(from_0_to_1, "MINP-01", None, "0 or None keeps every token.", SAMPLING)
    top_h: float | None = setting(above_0_to_1, "TOPH-01", None, "None keeps every token.", SAMPLING)
    typical_p: float | None = setting(above_0_to_1, "TYP-01", 1.0, "1 keeps every token.", SAMPLING)
    epsilon_cutoff: float | None = setting(from_0_below_1, "EPS-01", 0.0, "0 keeps every token.", SAMPLING)
    eta_cutoff: float | None = setting(from_0_below_1, "ETA-01", 0.0, "0 keeps every token.", SAMPLING)
    # Penalties, bans, guidance, marks
    repetition_penalty: float | None = setting(finite_above_0, "REP-03", 1.0, "1 means no penalty.")
    sequence_bias: Any = setting(biases, "BIAS-01")  # {(ids): bias} or [[ids, bias]]
    no_repeat_ngram_size: int | None = setting(whole(0), "NGRAM-01", 0, "0 bans nothing.")
    bad_words_ids: Any = setting(sequences, "BAD-01")  # [[ids]]
    forced_bos_token_id: int | None = setting(token, "FORCE-01")
    forced_eos_token_id: Any = setting(tokens, "FORCE-02")  # an id or several
    remove_invalid_values: bool | None = setting(flag, "INV-01", default=False)
    exponential_decay_length_penalty: Any = setting(start_and_factor, "EXPD-01", remedy="For instance (20, 1.05).")
    suppress_tokens: Any = setting(tokens, "SUP-01")  # ids
    begin_suppress_tokens: Any = setting(tokens, "SUP-02")  # ids
    renormalize_logits: bool | None = setting(flag, "PROC-04", default=False)
    guidance_scale: float | None = setting(finite, "CFGG-01", 1.0, "1 is no guidance.")
    watermarking_config: Any = setting(watermarking, "WMARK-01", remedy="For instance {'greenlist_ratio': 0.25, 'bias': 2.0}.")
    # Drafts
    prompt_lookup_num_tokens: int | None = setting(whole(1), "ASSIST-07", remedy="None means no lookup.")
    max_matching_ngram_size: int | None = setting(whole(1), "ASSIST-07", 2, "Default: 2.", LOOKUP)
    num_assistant_tokens: int | None = setting(whole(1), "ASSIST-03", 20, "Default: 20.")
    num_assistant_tokens_schedule: str | None = setting(one_of("constant", "heuristic", "heuristic_transient"), "ASSIST-03", "constant")
    assistant_confidence_threshold: float | None = setting(from_0_to_1, "ASSIST-03", 0.4, "0 never stops a draft.")
    # Special tokens
    bos_token_id: int | None = setting(token, "IN-02")
    eos_token_id: int | list[int] | tuple[int, ...] | None = setting(tokens, "STOP-03", remedy="Pass None to stop at the length limit only.")
    pad_token_id: int | None = setting(token, "STOP-07", remedy="Usual: pad_token_id=tokenizer.eos_token_id.")
    # The result
    return_dict_in_generate: bool | None = setting(flag, "OUT-01", default=False)
    output_scores: bool | None = setting(flag, "OUT-02", default=False, needs=RESULT)
    output_logits: bool | None = setting(flag, "OUT-02", default=False, needs=RESULT)
    output_hidden_states: bool | None = setting(flag, "OUT-04", default=False, needs=RESULT)
    output_attentions: bool | None = setting(flag, "OUT-04", default=False, needs=RESULT)
    # fmt: on

    def __post_init__(self) -> None:
        for name, known in SETTINGS.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                object.__setattr__(self, name, known.check(value))
            except (TypeError, OverflowError):  # from operator.index and float, for values that are not numbers
                raise GenerationError(f"{name}={value!r}", "is of the wrong type", known.rule, known.remedy) from None
            except ValueError as error:
                raise GenerationError(f"{name}={value!r}", str(error), known.rule, known.remedy) from None

    @property
    def samples(self) -> bool:
        """TEMP-02. Whether tokens are drawn; temperature 0 puts all probability on the best, which is greedy."""
        return bool(self.do_sample) and self.temperature != 0

    @property
    def beams(self) -> int:
        """The number of beams; 1 means no beam search."""
        return self.num_beams or 1

    @property
    def rows_per_prompt(self) -> int:
        """How many rows of a run go on from one prompt: its beams, or the sequences to return."""
        return self.beams if self.beams > 1 else self.num_return_sequences or 1

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a row, possibly none."""
        return tokens(self.eos_token_id) if self.eos_token_id is not None else ()

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """From the object in a `generation_config.json`; raises `GenerationError` for unknown names (CFG-08)."""
        return cls(**known({name: value for name, value in entries.items() if name not in METADATA}))

    @classmethod
    def from_model_config(cls, entries: Mapping[str, Any]) -> Self:
        """CKPT-11. The generation settings that a `config.json` without a `generation_config.json` carries."""
        return cls.from_dict(
            {name: value for name, value in entries.items() if name in SETTINGS.keys() | REFUSED.keys()}
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """From the `generation_config.json` in a folder."""
        return cls.from_dict(read_object(Path(folder) / "generation_config.json", GenerationError, "CKPT-11"))

    @classmethod
    def of_model(cls, folder: Path) -> Self | None:
        """CKPT-11. Those of a model folder; None if it has no `generation_config.json`. A link to nothing is an error."""
        path = folder / "generation_config.json"
        return cls.from_pretrained(folder) if path.exists() or path.is_symlink() else None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `generation_config.json`, which transformers reads too."""
        entries = self.to_dict()
        if len(self.eos_ids) == 1:
            entries["eos_token_id"] = self.eos_ids[0]
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "generation_config.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


SETTINGS: Mapping[str, Setting] = {each.name: each.metadata["setting"] for each in fields(GenerationConfig)}
DEFAULTS: Mapping[str, Any] = {name: each.default for name, each in SETTINGS.items() if each.default is not None}


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """CFG-08, CFG-12. The settings that refgen has; raises `GenerationError` for others, unless they ask for nothing."""
    for name, value in settings.items():
        if name in SETTINGS or value is None:
            continue
        if name in REFUSED:
            asks_for_nothing, why, remedy = REFUSED[name]
            if value not in asks_for_nothing:
                raise GenerationError(f"{name}={value!r}", why, "CFG-12", remedy)
            continue
        close = difflib.get_close_matches(name, SETTINGS, n=1)
        raise GenerationError(
            f"{name}={value!r}",
            "is not a setting of generate()",
            "CFG-08",
            f"Did you mean {close[0]}?" if close else "See help(refgen.GenerationConfig).",
        )
    return {name: value for name, value in settings.items() if name in SETTINGS}
