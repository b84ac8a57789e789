"""Settings of transformers that refgen refuses, unless their value asks for nothing. Rule CFG-12 of SPEC.md.

`None` asks for nothing everywhere. docs/fields.md lists these beside the settings that refgen has.
"""

from collections.abc import Mapping
from typing import Any

Refused = tuple[tuple[Any, ...], str, str]  # (the values that ask for nothing, why, remedy)


def removed(mode: str, *neutral: Any) -> Refused:
    """CFG-12. A mode that transformers 5 has removed."""
    return neutral, f"asks for {mode}, which transformers has removed from generate()", "Use num_beams or do_sample."


NO_ENCODER = "is for models with an encoder, and GPT-2 has none"
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
    "is_assistant": ((False,), "is internal information of transformers about the draft model", LEAVE_OUT),
    "compile_config": ((), RUNTIME, LEAVE_OUT),
    "disable_compile": ((False, True), RUNTIME, LEAVE_OUT),
    "continuous_batching_config": ((), RUNTIME, LEAVE_OUT),
    "synced_gpus": ((False,), RUNTIME, LEAVE_OUT),
    "use_model_defaults": ((True,), "is always so (CFG-04)", LEAVE_OUT),
    "trust_remote_code": ((False,), "runs somebody else's code", LEAVE_OUT),
}  # fmt: skip
