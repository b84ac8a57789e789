"""Cases of process: what settings make of logits that are written down, so that every number can be followed.

Logits are small multiples of 1/4, which every format holds. No mass of a prefix lies within 1e-3 of a top-p, so no case
depends on how a sum is rounded. The exception is two equal logits, whose half is exact.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refgen.conformance.questions.cases import CHOICE, Case
from refgen.conformance.subjects.reference import ReferenceSubject

MODEL = "net-plain"  # the network does not matter here
LOGITS = [2.0, -1.0, 3.5, 0.5, 3.0, -2.5, 1.0, 0.0]  # no order, both signs
TIES = [1.0, 2.0, 1.0, 3.0, 1.0, 0.0, 2.0, 1.0]
HALVES = [2.0, -4.0, 2.0, -4.0, -4.0, -4.0, -4.0, -4.0]
SLOPE = [2.0, 1.75, 1.5, 1.25, 1.0, 0.5, 0.0, -1.0]
SAMPLING = {"do_sample": True, "top_k": 0}

# id, rule, why, history, logits, settings, planted faults it must kill
TABLE: tuple[tuple[str, str, str, list[int], list[float], dict[str, Any], tuple[str, ...]], ...] = (
    ("neutral.greedy", "PROC-05", "only the requested changes are made", [1, 2], LOGITS, {}, ("hidden-penalty",)),
    ("neutral.sampling", "PROC-05", "nor in sampling", [1, 2], LOGITS, SAMPLING | {"temperature": 1.0, "top_p": 1.0}, ()),
    ("greedy.knows-no-chance", "GREEDY-05", "temperature and top-k do nothing to greedy text", [1], LOGITS,
     {"temperature": 0.5, "top_k": 2, "top_p": 0.5}, ("greedy-warped",)),
    ("temperature.half", "TEMP-01", "0.5 sharpens", [1], LOGITS, SAMPLING | {"temperature": 0.5},
     ("temperature-ignored", "temperature-multiplied", "temperature-twice")),
    ("temperature.two", "TEMP-01", "2 flattens", [1], LOGITS, SAMPLING | {"temperature": 2.0}, ("temperature-ignored", "temperature-multiplied")),
    ("temperature.cold", "TEMP-01", "a small one does not overflow", [1], LOGITS, SAMPLING | {"temperature": 0.015625}, ()),
    ("top_k.three", "TOPK-01", "three are kept, not two or four", [1], LOGITS, SAMPLING | {"top_k": 3}, ("top-k-one-more", "top-k-one-less", "top-k-ignored")),
    ("top_k.one", "TOPK-03", "one is greedy", [1], LOGITS, SAMPLING | {"top_k": 1}, ("top-k-one-more",)),
    ("top_k.more-than-all", "TOPK-02", "more than the vocabulary means no limit", [1], LOGITS, SAMPLING | {"top_k": 100}, ()),
    ("top_k.zero", "TOPK-02", "0 is off, not one", [1], LOGITS, SAMPLING, ("top-k-zero-keeps-one",)),
    ("top_k.default", "CFG-01", "sampling without a top_k keeps 50 in transformers", [1], [(-i * 37 % 64) / 4 for i in range(64)], {"do_sample": True}, ()),
    ("top_p.half", "TOPP-01", "the token that crosses p is kept", [1], LOGITS, SAMPLING | {"top_p": 0.5},
     ("top-p-crossing-dropped", "top-p-one-more", "top-p-ignored", "top-p-worst-first")),
    ("top_p.most", "TOPP-01", "the token that crosses p is kept", [1], LOGITS, SAMPLING | {"top_p": 0.9},
     ("top-p-crossing-dropped", "top-p-one-more", "top-p-ignored", "top-p-worst-first")),
    ("top_p.tiny", "TOPP-04", "one token is always left", [1], LOGITS, SAMPLING | {"top_p": 1e-6}, ()),
    ("min_p.tenth", "MINP-01", "a share of the best probability, not of the logit", [1], LOGITS, SAMPLING | {"min_p": 0.1}, ("min-p-ignored", "min-p-of-scores")),
    ("typical_p", "TYP-01", "the most typical, not the likeliest", [1], LOGITS, SAMPLING | {"typical_p": 0.5}, ()),
    ("epsilon_cutoff", "EPS-01", "a floor of the probability", [1], LOGITS, SAMPLING | {"epsilon_cutoff": 0.05}, ()),
    ("eta_cutoff", "ETA-01", "a floor that entropy lowers", [1], LOGITS, SAMPLING | {"eta_cutoff": 0.1}, ()),
    ("repetition.both-signs", "REP-01", "a positive score is divided, a negative one multiplied", [0, 1, 7], LOGITS, {"repetition_penalty": 1.5},
     ("penalty-divides-negatives", "penalty-ignored")),
    ("repetition.once", "REP-01", "however often a token came", [2, 2, 2, 2, 0], LOGITS, {"repetition_penalty": 1.25}, ("penalty-an-occurrence",)),
    ("repetition.prompt-too", "REP-01", "the prompt's tokens count", [2, 4], LOGITS, {"repetition_penalty": 2.0}, ("penalty-of-new-tokens",)),
    ("repetition.bonus", "REP-03", "below 1 it favours them", [3, 5], LOGITS, {"repetition_penalty": 0.5}, ("penalty-ignored",)),
    ("ngram.two", "NGRAM-01", "no pair comes twice", [1, 2, 3, 1], LOGITS, {"no_repeat_ngram_size": 2}, ("ngram-ignored", "ngram-one-longer")),
    ("ngram.one", "NGRAM-01", "no token comes twice", [2, 4, 4], LOGITS, {"no_repeat_ngram_size": 1}, ("ngram-ignored",)),
    ("ngram.longer-than-text", "NGRAM-01", "nothing is banned before there is anything to repeat", [1, 2], LOGITS, {"no_repeat_ngram_size": 4}, ()),
    ("bad_words.one", "BAD-01", "a word of one token never comes", [1], LOGITS, {"bad_words_ids": [[2]]}, ("bad-words-ignored",)),
    ("bad_words.completed", "BAD-01", "a longer one is not completed", [5, 4], LOGITS, {"bad_words_ids": [[4, 2]]}, ("bad-words-ignored",)),
    ("bad_words.not-begun", "BAD-01", "its last token alone is allowed", [5, 6], LOGITS, {"bad_words_ids": [[4, 2]]}, ("bad-words-last-token",)),
    ("bad_words.longer-than-text", "BAD-01", "a word longer than the text bans nothing", [4], LOGITS, {"bad_words_ids": [[1, 4, 2]]}, ("bad-words-last-token",)),
    ("bias.added", "BIAS-01", "a bias is added to the logit", [1], LOGITS, {"sequence_bias": [[[3], 4.0], [[2], -2.0]]}, ("bias-ignored",)),
    ("bias.sequence", "BIAS-01", "that of a sequence only after its beginning", [1, 6], LOGITS, {"sequence_bias": [[[6, 3], 4.0], [[5, 0], 4.0]]}, ("bias-ignored",)),
    ("bias.before-top_k", "PROC-01", "a bias comes before top-k", [1], LOGITS, SAMPLING | {"sequence_bias": [[[5], 8.0]], "top_k": 2}, ("bias-after-cuts",)),
    ("suppress.always", "SUP-01", "suppressed tokens never come", [1], LOGITS, {"suppress_tokens": [2, 4]}, ("suppress-ignored",)),
    ("suppress.begin", "SUP-02", "those of the beginning not as the first token", [1], LOGITS, {"begin_suppress_tokens": [2]}, ("suppress-ignored",)),
    ("suppress.not-later", "SUP-02", "but they may come later", [1, 3], LOGITS, {"begin_suppress_tokens": [2], "prompt_length": 1}, ("begin-suppress-always",)),
    ("min_new_tokens.kept", "LEN-07", "no end before its time", [1, 3, 4], LOGITS, {"min_new_tokens": 3, "eos_token_id": 2, "prompt_length": 1},
     ("minimum-ignored", "minimum-counts-prompt")),
    ("min_new_tokens.over", "LEN-07", "then the end may come", [1, 3, 4, 5], LOGITS, {"min_new_tokens": 3, "eos_token_id": 2, "prompt_length": 1}, ()),
    ("min_length.kept", "LEN-08", "the prompt counts", [1, 3], LOGITS, {"min_length": 3, "eos_token_id": [2, 4], "prompt_length": 1}, ("minimum-ignored", "minimum-first-end-only")),
    ("min_length.over", "LEN-08", "the prompt counts", [1, 3, 5], LOGITS, {"min_length": 3, "eos_token_id": 2, "prompt_length": 3}, ("min-length-counts-new",)),
    ("forced.end", "FORCE-02", "the last token is the end", [1, 3, 4], LOGITS, {"forced_eos_token_id": 5, "max_new_tokens": 3, "prompt_length": 1}, ("forced-end-ignored",)),
    ("forced.not-yet", "FORCE-02", "and only the last", [1, 3], LOGITS, {"forced_eos_token_id": 5, "max_new_tokens": 3, "prompt_length": 1}, ()),
    ("decay.after-start", "EXPD-01", "the end grows likelier from there on", [1, 2, 3, 4, 5], LOGITS,
     {"exponential_decay_length_penalty": [2, 1.5], "eos_token_id": 6, "prompt_length": 1}, ("decay-ignored",)),
    ("renormalize", "PROC-04", "the same probabilities", [1], LOGITS, SAMPLING | {"top_k": 3, "renormalize_logits": True}, ()),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Each with the scores that refgen's processors give."""
    for name, rule, why, history, logits, settings, kills in TABLE:
        request = {"input_ids": [history], "logits": [logits], **settings}
        yield Case(f"process.{name}", (rule,), why, MODEL, "process", request, scores_of(request), kills=kills)
    yield ties(
        "top_k",
        "top_k_ties",
        TIES,
        SAMPLING | {"top_k": 4},
        {"all_stay": [0, 1, 2, 3, 4, 6, 7], "exactly_k": [0, 1, 3, 6]},
    )
    yield ties("top_p", "top_p_ties", HALVES, SAMPLING | {"top_p": 0.4}, {"lowest_ids": [0], "all_stay": [0, 2]})
    yield from orders()


def scores_of(request: dict[str, Any]) -> dict[str, Any]:
    """The expected answer."""
    arguments = {name: value for name, value in request.items() if name not in ("input_ids", "logits")}
    scores = ReferenceSubject.process(None, request["input_ids"], request["logits"], **arguments)  # type: ignore[arg-type]
    return {"scores": [[None if np.isneginf(x) else float(x) for x in row] for row in scores]}


def ties(name: str, choice: str, logits: list[float], settings: dict[str, Any], options: dict[str, list[int]]) -> Case:
    """Where correct stacks differ: which of equal tokens are kept."""
    request = {"input_ids": [[1]], "logits": [logits], **settings}
    expected = {
        option: {"scores": [[x if token in kept else None for token, x in enumerate(logits)]]}
        for option, kept in options.items()
    }
    rule = {"top_k_ties": "TOPK-01", "top_p_ties": "TOPP-03"}[choice]
    why = "which of equal tokens are kept differs between stacks; a subject has one way"
    return Case(
        f"process.ties.{name}",
        (rule,),
        why,
        MODEL,
        "process",
        request,
        expected,
        "CONVENTION",
        CHOICE,
        choice,
    )


# id, rule, why, settings, faults
ORDERED: tuple[tuple[str, str, str, dict[str, Any], tuple[str, ...]], ...] = (
    ("temperature-then-top_p", "TOPP-05", "top-p looks at what temperature made",
     {"temperature": 2.0, "top_p": 0.7}, ("temperature-last",)),
    ("top_k-then-top_p", "TOPP-05", "top-p looks at what top-k left", {"top_k": 3, "top_p": 0.71}, ("top-p-before-top-k",)),
    ("temperature-then-min_p", "PROC-01", "min-p looks at what temperature made",
     {"temperature": 2.0, "min_p": 0.3}, ("min-p-before-temperature",)),
)  # fmt: skip
ORDERS = {  # by the names of SPEC.md
    "penalties_temperature_top_k_top_p_min_p": ("temperature", "top_k", "top_p", "min_p"),
    "penalties_temperature_min_p_top_k_top_p": ("temperature", "min_p", "top_k", "top_p"),
    "penalties_top_k_typical_p_top_p_min_p_temperature": ("top_k", "top_p", "min_p", "temperature"),
    "temperature_top_k_top_p": ("temperature", "top_k", "top_p", "min_p"),
    "temperature_top_p_top_k": ("temperature", "top_p", "top_k", "min_p"),
    "top_p_top_k_temperature": ("top_p", "top_k", "min_p", "temperature"),
}


def orders() -> Iterator[Case]:
    """Processors one after the other, as each stack has them."""
    for name, rule, why, settings, kills in ORDERED:
        request = {"input_ids": [[1]], "logits": [SLOPE], **SAMPLING, **settings}
        expected = {option: in_order(order, settings) for option, order in ORDERS.items()}
        yield Case(
            f"process.order.{name}", (rule,), why, MODEL, "process", request, expected, "CONVENTION", CHOICE,
            "order", kills=kills,
        )  # fmt: skip


def in_order(order: tuple[str, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """The scores when each setting is applied by itself, in that order."""
    scores: list[list[float | None]] = [list(SLOPE)]
    for setting in order:
        if setting in settings:
            logits = [[-np.inf if x is None else x for x in row] for row in scores]
            scores = scores_of({"input_ids": [[1]], "logits": logits, **SAMPLING, setting: settings[setting]})["scores"]
    return {"scores": scores}
