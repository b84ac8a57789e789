"""Where refgen means to differ from transformers, each with the call it shows in and what is then expected.

A difference is known from the call, before anything runs. Either refgen refuses, by the rule named; or transformers
is asked differently, by `reworded` settings or with one of its parts `patched` (of LEN-04, STOP-05 and BEAM-10 `ask.py`
knows how), and then both must answer alike.
docs/differences.md tells the reader; SPEC.md has the rules.

Axes    B rows, P prompt columns, M candidates, V tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from transformers.generation import logits_process
from transformers.generation import utils as theirs

from tests.cross.calls import INVALID, OTHER_KINDS, Request, pair


class Difference(NamedTuple):
    """One entry: the rule, when it holds, and what is expected."""

    rule: str
    holds: Callable[[Request], Any]
    refused_there: bool = False  # the call as it is
    perhaps: bool = False  # transformers may also answer alike
    reworded: Callable[[Request], Request] | None = None
    patched: Callable[[Request], AbstractContextManager[Any]] | None = None


# --- Lengths ----------------------------------------------------------------------------------------------


def lasting(request: Request, one: str, other: str) -> dict[str, int]:
    """LEN-01. Of two ways to say a length those that the last source to say any has said."""
    found: dict[str, int] = {}
    for layer in request.layers:
        given = {name: layer[name] for name in (one, other) if layer.get(name) is not None}
        found = given or {
            name: value for name, value in found.items() if name not in layer or layer is not request.call
        }
    return found


def limits(request: Request) -> dict[str, int]:
    """What ends the text."""
    return lasting(request, "max_length", "max_new_tokens")


def minima(request: Request) -> dict[str, int]:
    """What it must reach; a `min_new_tokens` of 0 beside a `min_length` says nothing."""
    found = lasting(request, "min_length", "min_new_tokens")
    silent = len(found) == 2 and not found["min_new_tokens"]
    return {"min_length": found["min_length"]} if silent else found


def columns(request: Request) -> int:
    """LEN-01 to LEN-03. The number of columns at which the batch is full."""
    found = limits(request)
    if "max_new_tokens" in found:
        return request.width + int(found["max_new_tokens"])
    return found.get("max_length") or min(request.width + 20, request.n_positions)


def with_lasting_lengths(request: Request) -> Request:
    """The lengths that count, all in the call; None there stays, for CFG-05 to see."""
    four = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
    own, passed, call = (
        {name: v for name, v in layer.items() if name not in four or v is None} for layer in request.layers
    )
    call |= limits(request) | minima(request)
    return replace(request, own=own, passed=None if request.passed is None else passed, call=call)


def overruled_length(request: Request) -> bool:
    """Whether the length that counts in transformers, new tokens before columns from wherever they come, does not here."""
    for new, all_columns, found in (
        ("max_new_tokens", "max_length", limits(request)),
        ("min_new_tokens", "min_length", minima(request)),
    ):
        counts = new if request.get(new) is not None else all_columns
        if request.get(counts) is not None and counts not in found:
            return True
    return False


# --- Prompts ----------------------------------------------------------------------------------------------


def pads(request: Request) -> np.ndarray:
    """Where pad ids stand in a prompt without a mask."""
    pad = request.get("pad_token_id")
    unknown = pad is None or request.mask is not None or request.prompt is None
    return np.zeros(request.ids.shape, dtype=bool) if unknown else request.ids == pad


def pads_in_the_text(request: Request) -> bool:
    """PAD-02. A pad id behind a token, or nothing but pad ids."""
    padding = pads(request)
    behind = padding[:, 1:] & ~np.logical_and.accumulate(padding, axis=1)[:, 1:]
    return request.get("pad_token_id") not in request.ends and (behind.any() or padding.all(axis=1).any())


def padding_or_text(request: Request) -> bool:
    """PAD-03. End tokens that are pad ids too, at the beginning or end of some rows but not of all, or several of them."""
    padding = pads(request)
    leading = np.logical_and.accumulate(padding, axis=1).sum(axis=1)
    trailing = np.logical_and.accumulate(padding[:, ::-1], axis=1).sum(axis=1)
    unclear = len(set(leading)) > 1 or len(set(trailing)) > 1 or leading.max(initial=0) > 1
    return request.get("pad_token_id") in request.ends and unclear


def odd_mask(request: Request, rule: str) -> bool:
    """PAD-06, PAD-07. A mask of another shape, or a row of padding only; or one that ends with padding."""
    if request.mask is None:
        return False
    mask = np.array(request.mask)
    if mask.shape != request.ids.shape or 0 in mask.shape:
        return rule == "PAD-07"
    return bool(((mask[:, -1] == 0) & (mask.any(axis=1) == (rule == "PAD-06"))).any())


def padded(request: Request) -> bool:
    """Whether a row begins with padding."""
    return request.seen.shape == request.ids.shape and bool((request.seen == 0).any())


# --- Settings ---------------------------------------------------------------------------------------------


def holds_invalid(request: Request, rule: str) -> bool:
    """CFG-10. Whether any source holds a value that this rule forbids; of ids that the model has not, only those that count."""
    return any(
        named == rule and type(layer[name]) is type(value) and layer[name] == value
        for layer in ((request.settings,) if rule == "STOP-08" else request.layers)
        for name, entries in INVALID.items()
        if name in layer
        for value, named in entries
    )


def each(value: Any) -> set[int]:
    """The ids in a field that holds one or several."""
    return set() if value is None else set(value) if isinstance(value, list | tuple) else {value}


def forced_and_suppressed(settings: dict[str, Any], whole: bool) -> bool:
    """SUP-01. Whether a token is both; `whole`: whether all that could be forced are."""
    suppressed = each(settings.get("suppress_tokens"))
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = each(settings.get(name))
        if forced and (forced <= suppressed if whole else forced & suppressed):
            return True
    return False


def contradicts_itself(settings: dict[str, Any]) -> bool:
    """What transformers refuses in a configuration even before the call completes it."""
    n, K = settings.get("num_return_sequences") or 1, settings.get("num_beams") or 1
    too_many = n > K and (K > 1 or not settings.get("do_sample"))
    return (n > 1 and too_many) or forced_and_suppressed(settings, whole=True)


def half_a_contradiction(request: Request) -> bool:
    """CFG-10. Whether a configuration contradicts itself where the call as a whole does not."""
    own, passed, _ = request.layers
    return any(map(contradicts_itself, (own, passed, own | passed))) and not contradicts_itself(request.settings)


def in_the_call(request: Request) -> Request:
    """All settings that count, said in the call."""
    return replace(request, own={}, passed=None, call=request.settings)


def other_kinds(request: Request) -> dict[str, Any]:
    """TEMP-02, TOPK-02, REP-03, BIAS-01. Numbers of a kind that transformers does not take, as the kind it takes."""
    plain = {"top_k": int, "sequence_bias": lambda biases: {ids: float(bias) for ids, bias in biases.items()}}
    found = {}
    for name, entries in OTHER_KINDS.items():
        value = request.get(name)
        if name in ("temperature", "top_k") and not request.samples:
            continue
        if any(type(value) is type(entry) and value == entry for entry in entries) and value != 0:
            found[name] = plain.get(name, float)(value)
    return found


COUNTED = {"num_beams": 1, "num_return_sequences": 1, "length_penalty": 1.0}


def counts_switched_off(request: Request) -> dict[str, Any]:
    """CFG-05. None where transformers needs a number, and the number that None means."""
    off = {name: value for name, value in COUNTED.items() if name in request.call and request.call[name] is None}
    if request.beams == 1:
        off.pop("length_penalty", None)
    if "max_length" in request.call and request.call["max_length"] is None and not limits(request):
        off["max_length"] = columns(request)
    return off


# --- Nothing left -----------------------------------------------------------------------------------------

REMOVES = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "no_repeat_ngram_size", "min_length",
           "min_new_tokens", "prefix_allowed_tokens_fn", "logits_processor", "forced_eos_token_id",
           "forced_bos_token_id", "exponential_decay_length_penalty", "repetition_penalty", "sequence_bias",
           "temperature")  # fmt: skip


def may_remove_all(request: Request) -> bool:
    """SAMP-08. Whether settings remove tokens, or can make scores overflow."""
    return not set(REMOVES).isdisjoint(request.active())


# --- transformers with one part corrected -----------------------------------------------------------------


def without_padding(request: Request) -> AbstractContextManager[Any]:
    """NGRAM-02. n-grams, biases and bans that are told each row without the padding before it."""
    firsts = request.seen.argmax(axis=1)

    def told(processor: Any) -> Any:
        class Told(processor):  # type: ignore[misc]
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                repeats = len(scores) // len(firsts)
                rows = [
                    processor.__call__(self, input_ids[row : row + 1, firsts[row // repeats] :], scores[row : row + 1])
                    for row in range(len(scores))
                ]
                return torch.cat(rows)

        return Told

    names = ("NoRepeatNGramLogitsProcessor", "NoBadWordsLogitsProcessor", "SequenceBiasLogitsProcessor")
    return patch.multiple(theirs, **{name: told(getattr(theirs, name)) for name in names})


@contextmanager
def equal_sums_in_order(request: Request) -> Iterator[None]:
    """BEAM-03, BEAM-11. The lowest index first where torch takes equal values in any order."""

    def topk(values: torch.Tensor, k: int, dim: int = -1, **_: Any) -> Any:
        if k > values.shape[dim]:
            raise RuntimeError("selected index k out of range")
        ordered, indices = torch.sort(values, dim=dim, descending=True, stable=True)
        return torch.return_types.topk((ordered[..., :k], indices[..., :k]))

    def multinomial(p: torch.Tensor, num_samples: int) -> torch.Tensor:
        if not torch.isfinite(p).all():
            raise RuntimeError("probability tensor contains either inf, nan or element < 0")
        if num_samples == 1:
            return plain(p, 1)
        return topk(p / torch.empty_like(p).exponential_(1), num_samples)[1]

    class Normalization(logits_process.LogitNormalization):  # of a beam that has nothing left, and cannot win
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return super().__call__(input_ids, scores).nan_to_num(nan=-torch.inf, neginf=-torch.inf)

    plain = torch.multinomial
    with (
        patch.object(torch, "topk", topk),
        patch.object(torch, "multinomial", multinomial),
        patch.object(theirs, "LogitNormalization", Normalization),
    ):
        yield


@contextmanager
def equal_scores_in_order(request: Request) -> Iterator[None]:
    """TOPP-03. Processors that keep the lowest ids where torch keeps any."""

    class TopP(logits_process.TopPLogitsWarper):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            with patch.object(torch, "sort", partial(torch.sort, stable=True)):
                return super().__call__(input_ids, scores.flip(-1)).flip(-1)

    def in_order(warper: Any) -> Any:
        class InOrder(warper):  # type: ignore[misc]
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                stable = {name: partial(getattr(torch, name), stable=True) for name in ("sort", "argsort")}
                with patch.multiple(torch, **stable):
                    return super().__call__(input_ids, scores)

        return InOrder

    others = {name: in_order(getattr(theirs, name)) for name in ("MinPLogitsWarper", "TypicalLogitsWarper")}
    with equal_sums_in_order(request), patch.multiple(theirs, TopPLogitsWarper=TopP, **others):
        yield


def entropy_of_shifted_scores(request: Request) -> AbstractContextManager[Any]:
    """TOPH-01. top_h told scores whose largest is 0; there the entropy is off by the rounding of the largest score."""

    class TopH(logits_process.TopHLogitsWarper):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            kept = super().__call__(input_ids, scores - scores.max(dim=-1, keepdim=True).values).isfinite()
            return scores.masked_fill(~kept, -torch.inf)

    return patch.object(theirs, "TopHLogitsWarper", TopH)


def growing_without_end(request: Request) -> bool:
    """SAMP-08. Whether end tokens may come to score infinity, in a batch where some rows have had theirs."""
    grows = {"remove_invalid_values", "exponential_decay_length_penalty"} <= set(request.active())
    return request.samples and grows and request.beams == 1


def decay_of_running_rows(request: Request) -> AbstractContextManager[Any]:
    """SAMP-08. A decay that leaves finished rows alone; there it takes them to infinity, and drawing for them fails."""

    class Decay(logits_process.ExponentialDecayLengthPenalty):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            ended = torch.isin(input_ids[:, request.width :], torch.tensor(request.ends)).any(dim=1, keepdim=True)
            return torch.where(ended, scores, super().__call__(input_ids, scores))

    return patch.object(theirs, "ExponentialDecayLengthPenalty", Decay)


def sums_may_overflow(request: Request) -> bool:
    """SAMP-08, TEMP-03. Whether two scores of a beam may be too large to add."""
    return request.samples and request.beams > 1 and 0 < (request.get("temperature") or 1) < 1e-30


def empty_rows(request: Request) -> bool:
    """SAMP-08. Whether a finished row, or a beam that cannot win, may have nothing left, or no numbers for scores."""
    return request.samples and may_remove_all(request)


@contextmanager
def draws_for_empty_rows(request: Request) -> Iterator[None]:
    """SAMP-08. Rows without numbers draw anything: they are finished or cannot win, or refgen would have refused; there they fail."""
    draw = torch.multinomial

    def multinomial(p: torch.Tensor, num_samples: int) -> torch.Tensor:
        return draw(p.where(p.isfinite().all(dim=-1, keepdim=True), torch.ones_like(p)), num_samples)

    unchecked = patch.object(torch.distributions.Distribution, "_validate_args", False)  # with which entropies are made
    with patch.object(torch, "multinomial", multinomial), unchecked:
        yield


def guided_beams(request: Request) -> AbstractContextManager[Any]:
    """CFGG-01. Guidance that computes the negative prompt anew for every beam; there its cache does not follow them."""

    class Guidance(logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor):
        def get_unconditional_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids[:, request.width - 1 :], use_cache=False).logits

    return patch.object(theirs, "UnbatchedClassifierFreeGuidanceLogitsProcessor", Guidance)


def drafts_cannot(request: Request) -> bool:
    """ASSIST-05. A draft for several rows, for beams, or without a cache."""
    rows = len(request.ids) * request.get("num_return_sequences", 1)
    no_cache = request.settings.get("use_cache", True) is False
    return request.get("prompt_lookup_num_tokens") is not None and (rows > 1 or request.beams > 1 or no_cache)


def drafts_beyond_the_end(request: Request) -> bool:
    """ASSIST-04. Whether a draft of full length may go on where the positions end; only the last token is said without one."""
    if request.samples or request.seen.shape != request.ids.shape:
        return False
    tokens = int(request.seen.sum()) + columns(request) - request.width - 2
    return tokens + (request.get("prompt_lookup_num_tokens") or -np.inf) > request.n_positions


def unassisted(request: Request) -> Request:
    """ASSIST-01, ASSIST-02. Without a draft, which there may change what chance gives, where a criterion ends a row, and guidance.

    ASSIST-04. The end of the context is a criterion there, of `ask.py`.
    """
    own, passed, call = (
        {name: value for name, value in layer.items() if name != "prompt_lookup_num_tokens"} for layer in request.layers
    )
    return replace(request, own=own, passed=None if request.passed is None else passed, call=call)


def room_to_spare(request: Request) -> AbstractContextManager[Any]:
    """LEN-04. Rows that are full keep being fed there; here are positions for it. A criterion ends them in time."""
    wpe = pair(request.model)[1].transformer.wpe
    larger = torch.nn.Embedding(wpe.num_embeddings + 40, wpe.embedding_dim)
    larger.weight.data[: wpe.num_embeddings] = wpe.weight.data
    return patch.object(pair(request.model)[1].transformer, "wpe", larger)


def overfull(request: Request) -> bool:
    """LEN-04. Whether the positions end before the limit; the last token needs none."""
    if request.seen.shape != request.ids.shape:
        return False
    tokens = int(request.seen.sum(axis=1).max())
    return tokens <= request.n_positions < tokens + columns(request) - request.width - 1


def without_filling(request: Request) -> bool:
    """STOP-07. Rows that can end at different steps, and nothing to fill them with."""
    tokens = request.seen.sum(axis=1)
    rows = len(tokens) * request.get("num_return_sequences", 1)
    uneven = overfull(request) and len(set(tokens.tolist())) > 1
    unfilled = request.get("pad_token_id") is None and not request.ends
    return request.beams == 1 and rows > 1 and unfilled and (uneven or "stopping_criteria" in request.functions)


def filled_otherwise(request: Request) -> bool:
    """BEAM-10. Whether transformers fills with an end token instead of pad id 0, or without end tokens with -1."""
    return request.beams > 1 and (request.get("pad_token_id") == 0 if request.ends else sums_may_tie(request))


def sums_may_tie(request: Request) -> bool:
    """BEAM-03. Whether fewer than M candidates may be real: then the rest have -inf or -1e9, all alike."""
    M = max(2, 1 + len(request.ends)) * request.beams
    narrow = {"logits_processor", "prefix_allowed_tokens_fn", "stopping_criteria", "max_time", "remove_invalid_values",
              *REMOVES, "top_k", "top_h", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"}  # fmt: skip
    return request.beams > 1 and (
        request.vocab_size < M or overfull(request) or not narrow.isdisjoint(request.active())
    )


def scores_may_tie(request: Request) -> bool:
    """TOPP-03. Whether tokens are made to score alike: all forced ones 0, allowed ones of which none is left too, all
    removed ones the smallest number.
    """
    alike = len(each(request.get("forced_eos_token_id"))) > 1 or request.get("remove_invalid_values")
    alike = alike or "prefix_allowed_tokens_fn" in request.functions
    cut = {"top_p", "top_h", "min_p", "typical_p"}
    return request.samples and bool(alike) and not cut.isdisjoint(request.active())


# --- The table --------------------------------------------------------------------------------------------

REFUSED_HERE: tuple[tuple[str, Callable[[Request], Any]], ...] = (
    *(
        (rule, lambda request, rule=rule: holds_invalid(request, rule))
        for rule in sorted({rule for entries in INVALID.values() for _, rule in entries})
    ),
    (
        "LEN-01",
        lambda request: any(len(found) == 2 and all(found.values()) for found in (limits(request), minima(request))),
    ),
    ("LEN-07", lambda request: request.width + (minima(request).get("min_new_tokens") or 0) > columns(request)),
    ("LEN-08", lambda request: (minima(request).get("min_length") or 0) > columns(request)),
    ("SUP-01", lambda request: forced_and_suppressed(request.settings, whole=False)),
    ("BAD-01", lambda request: any([end] in request.get("bad_words_ids", []) for end in request.ends)),
    ("PAD-02", pads_in_the_text),
    ("PAD-03", padding_or_text),
    ("PAD-06", lambda request: odd_mask(request, "PAD-06")),
    ("PAD-07", lambda request: odd_mask(request, "PAD-07")),
    ("STOP-07", without_filling),
    ("ASSIST-05", drafts_cannot),
)

DIFFERENCES: tuple[Difference, ...] = (
    Difference("IN-02", lambda request: request.prompt is None and request.get("bos_token_id") is not None
               and request.get("bos_token_id") == request.get("pad_token_id") and request.mask is None,
               reworded=lambda request: replace(request, prompt=request.ids.tolist(), mask=[[1]])),
    Difference("LEN-01", overruled_length, reworded=with_lasting_lengths),
    Difference("STOP-08", lambda request: request.sayable != request.own,
               reworded=lambda request: replace(request, own=request.sayable)),
    Difference("CFG-10", half_a_contradiction, refused_there=True, reworded=in_the_call),
    Difference("CFG-05", counts_switched_off, refused_there=True,
               reworded=lambda request: replace(request, call=request.call | counts_switched_off(request))),
    Difference("CACHE-02", lambda request: "use_cache" in request.call and request.call["use_cache"] is None,
               reworded=lambda request: replace(request, call=request.call | {"use_cache": True})),
    Difference("TEMP-02", lambda request: request.samples and request.get("temperature") == 0, refused_there=True,
               reworded=lambda request: replace(request, call=request.call | {"do_sample": False})),
    Difference("IN-01", other_kinds, refused_there=True,
               reworded=lambda request: replace(request, call=request.call | other_kinds(request))),
    Difference("LEN-04", overfull, patched=room_to_spare),
    Difference("STOP-05", lambda request: "stopping_criteria" in request.functions
               and not request.ends and request.beams == 1),
    Difference("BEAM-10", filled_otherwise),
    Difference("NGRAM-02", lambda request: padded(request) and {
        "no_repeat_ngram_size", "bad_words_ids", "sequence_bias"}.intersection(request.active()), patched=without_padding),
    Difference("CFGG-01", lambda request: request.get("guidance_scale", 1.0) != 1.0 and request.beams > 1, patched=guided_beams),
    Difference("ASSIST-02", lambda request: request.get("prompt_lookup_num_tokens") is not None and request.samples,
               reworded=unassisted),
    Difference("ASSIST-04", lambda request: drafts_beyond_the_end(request) and not overfull(request), perhaps=True, patched=room_to_spare),
    Difference("ASSIST-04", lambda request: drafts_beyond_the_end(request) and overfull(request), perhaps=True, reworded=unassisted),
    Difference("ASSIST-01", lambda request: request.get("prompt_lookup_num_tokens") is not None and not request.samples and
               {"stopping_criteria", "max_time", "guidance_scale"}.intersection(request.active()), reworded=unassisted),
    Difference("BEAM-03", sums_may_tie, perhaps=True, patched=equal_sums_in_order),
    Difference("SAMP-08", growing_without_end, perhaps=True, patched=decay_of_running_rows),
    Difference("TOPH-01", lambda request: request.samples and "top_h" in request.active(), perhaps=True,
               patched=entropy_of_shifted_scores),
    Difference("TOPP-03", scores_may_tie, perhaps=True, patched=equal_scores_in_order),
    Difference("SAMP-08", empty_rows, perhaps=True, patched=draws_for_empty_rows),  # the last to replace multinomial
)  # fmt: skip
