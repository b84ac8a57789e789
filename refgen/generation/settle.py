"""Settling: the one configuration that a call means. Rules CFG-03 to CFG-05, CFG-09, LEN-01 and STOP-08 of SPEC.md.

`settle` lays the sources over each other: the call over a passed configuration over the model's own over the
defaults. It refuses settings that contradict each other and warns of those without effect.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refgen.errors import GenerationError, IgnoredSettingWarning
from refgen.generation.checks import biases, sequences, token, tokens
from refgen.generation.config import BEAMS, DEFAULTS, LOOKUP, RESULT, SAMPLING, SETTINGS, GenerationConfig, known

CALLER = 6  # stacklevel of the line that calls a model's method: above settle_for_model, prepare, generate, the method


def settle_for_model(
    vocab_size: int, model: GenerationConfig, passed: GenerationConfig | None, call: Mapping[str, Any]
) -> GenerationConfig:
    """CFG-03, STOP-08. What `settle` returns, if all its ids are tokens of the model."""
    if passed is not None and not isinstance(passed, GenerationConfig):
        raise GenerationError(
            f"generation_config of type {type(passed).__name__}",
            "must be a refgen.GenerationConfig",
            "CFG-04",
            "Make one with GenerationConfig.from_dict(settings).",
        )
    config = settle(without_foreign_ids(model, vocab_size), passed, call)
    refuse_foreign_ids(config, vocab_size)
    return config


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
    """SUP-01, BAD-01, EXPD-01. Tokens that are required and forbidden, or required and not named."""
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
                "transformers silently drops it",
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
    """CFG-09. Warns of every setting of this call that changes nothing, unless its value is neutral."""
    has = {
        SAMPLING: config.samples,
        BEAMS: config.beams > 1,
        RESULT: config.return_dict_in_generate,
        LOOKUP: config.prompt_lookup_num_tokens is not None,
    }
    for name, setting in SETTINGS.items():
        value, needs = getattr(call, name), setting.needs
        if needs is None or has[needs]:
            continue
        if value in (None, setting.default) or (needs == SAMPLING and value == 0):
            continue
        missing = "a temperature above 0" if needs == SAMPLING and config.do_sample else needs
        warnings.warn(
            f"{name}={value!r} has no effect without {missing} [CFG-09]", IgnoredSettingWarning, stacklevel=CALLER + 1
        )


# --- What the model's vocabulary allows -----------------------------------------------------------------------


# bos_token_id is missing here: it is used only as a prompt, whose ids are checked too.
ID_FIELDS = [
    name
    for name, each in SETTINGS.items()
    if each.check in (token, tokens, sequences, biases) and name != "bos_token_id"
]


def ids_of(config: GenerationConfig, name: str) -> list[int]:
    """All token ids that a field holds, however deep."""
    value = getattr(config, name)
    if name == "sequence_bias":
        value = [ids for ids, _ in value or ()]
    if value is None or isinstance(value, int):
        return [] if value is None else [value]
    return [token_id for each in value for token_id in (each if isinstance(each, tuple) else (each,))]


def refuse_foreign_ids(config: GenerationConfig, vocab_size: int) -> None:
    """STOP-08. Refuses an id in a setting that is not one of the model's tokens."""
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
    """STOP-08. Small models often carry GPT-2's end id, 50256, outside their vocabulary: left out, with a warning."""
    eos_ids = tuple(token_id for token_id in model_config.eos_ids if token_id < vocab_size)
    pad = model_config.pad_token_id
    kept_pad = pad if pad is None or pad < vocab_size else None
    if eos_ids == model_config.eos_ids and kept_pad == pad:
        return model_config
    warnings.warn(
        f"the model's own eos_token_id={list(model_config.eos_ids)} or pad_token_id={pad} is outside its vocabulary of "
        f"{vocab_size} and is left out [STOP-08]",
        IgnoredSettingWarning,
        stacklevel=CALLER,
    )
    return replace(model_config, eos_token_id=eos_ids or None, pad_token_id=kept_pad)
