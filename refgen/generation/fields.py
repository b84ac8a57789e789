"""The fields of `generate()`: what each may hold, its default, and those of transformers that refgen refuses.

A check turns what a caller wrote into what the code uses, or raises ValueError with what it must be. A new setting
is a line in CHECKS, a field in `config.py` and a rule in SPEC.md.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any


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


def one_of(*words: str) -> Callable[[Any], str]:
    """One of these words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return check


def entries(value: Any, checks: Mapping[str, Callable[[Any], Any]], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Named entries, each checked; those without a default must be there."""
    for name in value.keys() - checks.keys():
        raise ValueError(f"holds {name!r}, which is none of {', '.join(checks)}")
    for name in checks.keys() - defaults.keys() - value.keys():
        raise ValueError(f"must hold {name}")
    checked = {}
    for name, entry in ({**defaults} | {**value}).items():
        try:
            checked[name] = checks[name](entry)
        except (TypeError, ValueError) as error:
            raise ValueError(f"holds {name}={entry!r}, which {error}") from None
    return checked


GREEN_LIST: Mapping[str, Callable[[Any], Any]] = {
    "greenlist_ratio": real(lambda r: 0 < r < 1, "must be a number above 0, below 1"),
    "bias": real(math.isfinite, "must be a finite number"),
    "hashing_key": whole(0),
    "seeding_scheme": one_of("lefthash", "selfhash"),
    "context_width": whole(1),
}
SYNTHID: Mapping[str, Callable[[Any], Any]] = {
    "ngram_len": whole(2),
    "keys": tokens,
    "context_history_size": whole(1),
    "sampling_table_seed": whole(0),
    "sampling_table_size": whole(1),
    "skip_first_ngram_calls": flag,
}


def watermarking(value: Any) -> dict[str, Any]:
    """The settings of one of the two watermarks, all of them (WMARK-01, WMARK-03)."""
    if not isinstance(value, Mapping):
        raise ValueError("must be {name: value}")  # noqa: TRY004 - its text is the message
    value = {name: entry for name, entry in value.items() if (name, entry) != ("debug_mode", False)}
    if value.keys() & {"ngram_len", "keys"}:
        defaults: dict[str, Any] = {
            "context_history_size": 1024,
            "sampling_table_seed": 0,
            "sampling_table_size": 2**16,
        }
        return entries(value, SYNTHID, defaults | {"skip_first_ngram_calls": False})
    defaults = {"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": 15485863, "seeding_scheme": "lefthash"}
    return entries(value, GREEN_LIST, defaults | {"context_width": 1})


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
    "prefill_chunk_size": (whole(1), "CACHE-03", "None takes the prompt in one pass."),
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
    "guidance_scale": (real(math.isfinite, "must be a finite number"), "CFGG-01", "1 is no guidance."),
    "watermarking_config": (watermarking, "WMARK-01", "For instance {'greenlist_ratio': 0.25, 'bias': 2.0}."),
    "prompt_lookup_num_tokens": (whole(1), "ASSIST-07", "None is no lookup."),
    "max_matching_ngram_size": (whole(1), "ASSIST-07", "Default: 2."),
    "num_assistant_tokens": (whole(1), "ASSIST-03", "Default: 20."),
    "num_assistant_tokens_schedule": (one_of("constant", "heuristic", "heuristic_transient"), "ASSIST-03", ""),
    "assistant_confidence_threshold": (real(lambda c: 0 <= c <= 1, "must be a number from 0 to 1"), "ASSIST-03", "0 never stops a draft."),
    "repetition_penalty": (real(lambda r: 0 < r < math.inf, "must be a finite number above 0"), "REP-03", "1 is no penalty."),
    "bos_token_id": (token, "IN-02", ""),
    "eos_token_id": (tokens, "STOP-03", "Pass None to stop at the length limit only."),
    "pad_token_id": (token, "STOP-07", "Usual: pad_token_id=tokenizer.eos_token_id."),
    "return_dict_in_generate": (flag, "OUT-01", ""),
    "output_scores": (flag, "OUT-02", ""),
    "output_logits": (flag, "OUT-02", ""),
    "output_hidden_states": (flag, "OUT-04", ""),
    "output_attentions": (flag, "OUT-04", ""),
}  # fmt: skip

DEFAULTS: Mapping[str, Any] = {
    "min_length": 0, "min_new_tokens": 0, "do_sample": False, "use_cache": True, "num_return_sequences": 1,
    "num_beams": 1, "length_penalty": 1.0, "early_stopping": False,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "remove_invalid_values": False, "renormalize_logits": False,
    "return_dict_in_generate": False, "output_scores": False, "output_logits": False,
    "output_hidden_states": False, "output_attentions": False, "guidance_scale": 1.0, "max_matching_ngram_size": 2,
    "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.4,
}  # fmt: skip

# Settings of transformers that refgen refuses unless their value asks for nothing: (such values, why, remedy).
# docs/fields.md lists them; `None` asks for nothing everywhere.
Refused = tuple[tuple[Any, ...], str, str]


def removed(mode: str, *neutral: Any) -> Refused:
    """CFG-12. A mode that transformers 5 has removed."""
    return neutral, f"asks for {mode}, which transformers has removed from generate()", "Use num_beams or do_sample."


NO_ENCODER = "is for models with an encoder, which GPT-2 has not"
ONE_CACHE = "has no counterpart: refgen has one cache, which grows"
OTHER_DRAFTS = "is for drafts that GPT-2 does not make"
RUNTIME = "is about how torch runs, not about what is generated"
LEAVE_OUT = "Leave it out."

REFUSED: Mapping[str, Refused] = {
    "penalty_alpha": removed("contrastive search", 0.0),
    "low_memory": removed("contrastive search", False),
    "dola_layers": removed("DoLa"),
    "num_beam_groups": removed("group beam search", 1),
    "diversity_penalty": removed("group beam search", 0.0),
    "constraints": removed("constrained beam search"),
    "force_words_ids": removed("constrained beam search"),
    "custom_generate": ((), "runs somebody else's code", LEAVE_OUT),
    "encoder_repetition_penalty": ((1.0,), NO_ENCODER, "Use repetition_penalty."),
    "encoder_no_repeat_ngram_size": ((0,), NO_ENCODER, "Use no_repeat_ngram_size."),
    "decoder_start_token_id": ((), NO_ENCODER, "Use bos_token_id."),
    "cache_implementation": (("dynamic",), ONE_CACHE, "Leave it out, or use use_cache=False."),
    "cache_config": ((), ONE_CACHE, LEAVE_OUT),
    "max_cache_len": ((), ONE_CACHE, LEAVE_OUT),
    "token_healing": ((False,), "rewrites the prompt, so the result would not begin with it", "End the prompt at a token."),
    "inputs_embeds": ((), "has no ids to penalise, to ban or to return", "Pass input_ids."),
    "inputs": ((), "is called input_ids here", "Pass input_ids."),
    "position_ids": ((), "follow from attention_mask", "Pass attention_mask."),
    "token_type_ids": ((), "is not a part of GPT-2 as it was trained", LEAVE_OUT),
    "assistant_tokenizer": ((), "is for a draft model with another vocabulary", "Use one with the same vocabulary."),
    "assistant_lookbehind": ((10,), "is for a draft model with another vocabulary", LEAVE_OUT),
    "target_lookbehind": ((10,), "is for a draft model with another vocabulary", LEAVE_OUT),
    "assistant_ensemble_weight": ((), "lets the draft change the result", "Use assistant_model alone."),  # ASSIST-06
    "assistant_early_exit": ((), OTHER_DRAFTS, "Use assistant_model or prompt_lookup_num_tokens."),
    "speculation_type": ((), OTHER_DRAFTS, "Use assistant_model or prompt_lookup_num_tokens."),
    "use_mtp": ((False,), OTHER_DRAFTS, "Use assistant_model or prompt_lookup_num_tokens."),
    "is_assistant": ((False,), "is what transformers tells itself about the draft model", LEAVE_OUT),
    "compile_config": ((), RUNTIME, LEAVE_OUT),
    "disable_compile": ((False, True), RUNTIME, LEAVE_OUT),
    "continuous_batching_config": ((), RUNTIME, LEAVE_OUT),
    "synced_gpus": ((False,), RUNTIME, LEAVE_OUT),
    "use_model_defaults": ((True,), "is always so (CFG-04)", LEAVE_OUT),
    "trust_remote_code": ((False,), "runs somebody else's code", LEAVE_OUT),
}  # fmt: skip
