"""Cases in which implementations differ and no other case shows it. Each is a request whose answer depends on the
option of a choice.

The file stores the answer of SPEC.md's own option. The answer for another option is refgen's with that option
(planted/options.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refgen.conformance.judging.choices import KEY
from refgen.conformance.planted.options import Taken
from refgen.conformance.questions.cases import MUST_REJECT, Case
from refgen.conformance.questions.models import Models
from refgen.conformance.subjects.border import checked
from refgen.errors import RefgenError
from refgen.spec import choices

PROMPT, LOGITS = [3, 14, 15, 9, 26], [2.0, -1.0, 3.5, 0.5, 3.0, -2.5, 1.0, 0.0]
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4}
ALONE: dict[str, Any] = {"input_ids": [PROMPT], **GREEDY}
SCORES: dict[str, Any] = {"input_ids": [[1]], "logits": [LOGITS]}
SAMPLING: dict[str, Any] = {"do_sample": True, "top_k": 0}
WIDE = [(-i * 37 % 128) / 16 for i in range(128)]
SLOPE = [2.0, 1.75, 1.5, 1.25, 1.0, 0.5, 0.0, -1.0]
EVEN = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

# name of the choice, why, model, op, request
TABLE: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    # Forward pass and text
    ("odd_mask", "a mask that does not fit the ids is silently cut or filled", "net-plain", "forward",
     {"input_ids": [[1, 2]], "attention_mask": [[1, 1, 1]]}),
    ("unknown_id", "an id without a token decodes to nothing, or is an error", "shakespeare", "decode",
     {"ids": [39, 72, 99_999], "skip_special_tokens": False}),
    # Values of settings
    ("none_in_call", "null for a number means that it is off, or is an error", "net-plain", "generate", {**ALONE, "num_beams": None}),
    ("value_check", "a value that cannot be is an error, or only when it is used", "net-plain", "generate", {**ALONE, "top_p": 1.5}),
    ("truthy_flag", "1 for True is an error, or something comes", "net-plain", "generate", {**ALONE, "do_sample": 1, "seed": 1}),
    ("encoder_setting", "a setting of models with an encoder is an error, or does nothing", "net-plain", "generate",
     {**ALONE, "encoder_no_repeat_ngram_size": 2}),
    ("whole_penalty", "a whole number for a penalty is taken, or an error", "net-plain", "process",
     {"input_ids": [[0, 1, 7]], "logits": [LOGITS], "repetition_penalty": 2}),
    ("whole_temperature", "a whole number for a temperature is taken, or an error", "net-plain", "process",
     {**SCORES, **SAMPLING, "temperature": 2}),
    ("tiny_temperature", "scores overflow, or the temperature is raised", "dice-dyadic", "generate",
     {"input_ids": [[0]], "max_new_tokens": 4, **SAMPLING, "temperature": 1e-44, "seed": 1}),
    ("temperature_zero", "a temperature of 0 is greedy, or an error", "dice-dyadic", "generate",
     {"input_ids": [[0]], "max_new_tokens": 4, **SAMPLING, "temperature": 0.0, "seed": 1}),
    ("top_p_above_one", "a top_p above 1 is an error, or off", "net-plain", "process", {**SCORES, **SAMPLING, "top_p": 1.5}),
    ("top_p_zero", "a top_p of 0 leaves one token, or is an error", "net-plain", "process", {**SCORES, **SAMPLING, "top_p": 0.0}),
    ("cutoff_out_of_range", "a cutoff outside of 0 to 1 is an error, or off", "net-plain", "process",
     {**SCORES, **SAMPLING, "epsilon_cutoff": 1.5}),
    # Prompts and masks
    ("pad_id_in_text", "a pad id inside the text is masked, and another text is continued", "net-plain", "generate",
     {**ALONE, "pad_token_id": 14}),
    ("pad_is_eos_unmasked", "where the pad id is the end token nobody can tell padding from text", "net-plain", "generate",
     {"input_ids": [[9, 9, 3, 14]], **GREEDY, "pad_token_id": 9, "eos_token_id": 9}),
    ("right_padding", "padding on the right stands where new tokens belong", "net-plain", "generate",
     {**ALONE, "attention_mask": [[1, 1, 1, 1, 0]], "pad_token_id": 0}),
    ("wide_mask", "a mask wider than the prompt is not what was meant", "net-plain", "generate",
     {**ALONE, "attention_mask": [[1, 1, 1, 1, 1, 1]]}),
    # Lengths and ends
    ("length_precedence", "two limits that contradict each other", "net-plain", "generate", {**ALONE, "max_length": 20}),
    ("default_length", "how long a text is if nobody says", "net-plain", "generate", {"input_ids": [[3, 14]], "do_sample": False}),
    ("unreachable_minimum", "a minimum above the limit is an error, or the limit", "clock", "generate",
     {"input_ids": [[0]], **GREEDY, "min_new_tokens": 9}),
    ("odd_end_id", "a negative end token is an error, or never comes", "net-plain", "generate", {**ALONE, "eos_token_id": -1}),
    ("foreign_end_or_pad", "an end token that the model does not have is an error, or never comes", "net-plain", "generate",
     {**ALONE, "eos_token_id": 99}),
    ("stopped_row_without_end_tokens", "a row ended by a stop string is filled, or runs on until all have ended", "clock-stop",
     "generate", {"input_ids": [[0, 0, 0], [1, 1, 1]], "do_sample": False, "max_new_tokens": 12, "stop_strings": "bd",
                  "eos_token_id": None, "pad_token_id": 0, "attention_mask": [[0, 0, 1], [1, 1, 1]]}),
    ("stop_string_in_output", "the text ends with the stop string, or before it", "clock-stop", "generate",
     {"input_ids": [[0]], "do_sample": False, "max_new_tokens": 12, "stop_strings": "bd", "stream": True}),
    ("empty_stop_string", "an empty stop string is an error, or found at once", "clock-stop", "generate",
     {"input_ids": [[0]], "do_sample": False, "max_new_tokens": 12, "stop_strings": ""}),
    ("draft_at_the_end_of_the_context", "a draft is cut at the end of the context, or fed after it", "count", "generate",
     {"input_ids": [[0, 1] * 14], "do_sample": False, "max_new_tokens": 12, "prompt_lookup_num_tokens": 4}),
    ("drafts_with_beams", "drafts and beams exclude each other", "beam", "generate",
     {"input_ids": [[0]], "max_new_tokens": 4, "num_beams": 2, "prompt_lookup_num_tokens": 2}),
    ("streamed_bytes", "the bytes of a character wait for each other while streaming, or do not", "clock-utf8", "generate",
     {"input_ids": [[0]], "do_sample": False, "max_new_tokens": 9, "stream": True}),
    # Processors and picks
    ("order", "min_p comes before top_p, which then sees other tokens, or after it", "net-plain", "process",
     {"input_ids": [[1]], "logits": [SLOPE], **SAMPLING, "min_p": 0.4, "top_p": 0.7}),
    ("nan_or_nothing", "settings that leave no token are an error, or give id 0", "dice-dyadic", "generate",
     {"input_ids": [[0]], **GREEDY, "suppress_tokens": list(range(9))}),
    ("default_mode", "a request that says nothing is greedy, or drawn", "dice-dyadic", "generate",
     {"input_ids": [[0]], "max_new_tokens": 4, "top_k": 0, "uniforms": [[0.9, 0.9, 0.9, 0.9]]}),
    ("default_min_p", "a hidden min_p removes what was not asked to be removed", "net-plain", "process", {**SCORES, **SAMPLING}),
    ("bias_longer_than_the_text", "the bias of a sequence longer than the text counts, or does not", "net-plain", "process",
     {**SCORES, "sequence_bias": [[[1, 3], 4.0]]}),
    ("padding_as_context", "padding counts as text that must not be repeated", "dice-dyadic", "generate",
     {"input_ids": [[1, 1, 1, 0], [2, 3, 0, 4]], "attention_mask": [[0, 0, 0, 1], [1, 1, 1, 1]], "pad_token_id": 1,
      "no_repeat_ngram_size": 1, **GREEDY}),
    ("banned_end_token", "a ban of the end token is an error, or dropped", "clock", "generate",
     {"input_ids": [[0]], **GREEDY, "bad_words_ids": [[16]]}),
    ("penalty_scope", "a penalty looks at the whole text, or at its last 64 tokens", "net-plain", "process",
     {"input_ids": [[2, *[0, 1] * 35]], "logits": [LOGITS], "repetition_penalty": 2.0}),
    ("top_p_reached", "mass that is exactly top_p is enough, or asks for one token more", "net-plain", "process",
     {"input_ids": [[1]], "logits": [EVEN], **SAMPLING, "top_p": 0.5}),
    ("top_h_entropy", "the entropy is that of all, or of what is kept", "net-plain", "process",
     {"input_ids": [[1]], "logits": [WIDE], **SAMPLING, "top_h": 0.5}),
    ("typical_ties", "of equally surprising tokens all stay, or as many as are needed", "net-plain", "process",
     {"input_ids": [[1]], "logits": [EVEN], **SAMPLING, "typical_p": 0.3}),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Each with what refgen answers, or to be refused."""
    models = Models()
    for name, why, model, op, request in TABLE:
        expected = answer(Taken(models[model], ()), op, request)
        result: dict[str, Any] = {"result": MUST_REJECT} if expected is None else {"expected": expected}
        rule = choices()[name].rule
        yield Case(f"choices.{name}", (rule,), why, model, op, request, bug="CONVENTION", **result)


def answer(subject: Taken, op: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """What it answers, as JSON has it; None for a refusal."""
    try:
        value = checked(op, request, {KEY[op]: getattr(subject, op)(**request)})
    except RefgenError:
        return None
    if op == "process":
        return {"scores": [[None if np.isneginf(x) else float(x) for x in row] for row in value["scores"]]}
    if op == "generate":
        return {"rows": [{name: each for name, each in row.items() if name != "logprobs"} for row in value["rows"]]}
    return value
