"""Options of SPEC.md's *Stacks*, each as what it changes about refgen: what a subject that declares them must answer.

An option is data in CHANGES, by `name=option`: it changes the meaning of the request, the answer, a step of the
sampler's chain, or the network. `Taken` is refgen with some of them. The kit asks it for the right answer to a question
(judging/choices.py), and the tests of the kit use it as the subject that follows an option.

An option after which there is no single right answer raises `AnyAnswerError`: the subject must answer, and that is all.

Axes    B rows, P prompt columns, S columns so far, N = n_positions, V tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.activations import gelu
from refgen.bpe import END
from refgen.conformance.planted import sampler_faults
from refgen.conformance.planted.sampler_faults import Chain, Plant, all_of, first_of, instead, with_keyword
from refgen.conformance.planted.subject_faults import (
    CHANCE,
    PROCESSED,
    Request,
    Rows,
    highest_of_ties,
    streamed_by_token,
)
from refgen.conformance.subjects.reference import ReferenceSubject, unwarned
from refgen.errors import GenerationError, TokenizerError
from refgen.generation.config import GenerationConfig
from refgen.generation.next_logits import NextLogits
from refgen.generation.processors.order import processors
from refgen.generation.processors.penalties import sequence_bias
from refgen.generation.prompt import Prompt
from refgen.generation.scores import entropy, log_softmax
from refgen.generation.settle import settle, settle_for_model
from refgen.generation.stopping import max_length
from refgen.model import Affine, softmax, visibility
from refgen.oracle import faults as forward_faults
from refgen.oracle.counterfactual import Norm, Pass

NetworkChange = forward_faults.Change


class AnyAnswerError(Exception):
    """Under this option the request has no single right answer: `kind` is "answer", "answer or refusal", or "same size"."""

    def __init__(self, kind: str = "answer") -> None:
        self.kind = kind
        super().__init__(kind)


@dataclass(frozen=True)
class Change:
    """The changes that an option makes. A field that is None changes nothing. `settings`: without one of these in a
    request it changes nothing.
    """

    asked: Callable[[Request, "Taken"], Request] | None = None
    answered: Callable[[Rows, Request, "Taken"], Rows] | None = None
    chain: Plant | None = None
    picked: Callable[[ndarray, ndarray], ndarray] | None = None  # greedy scores, just before the best is taken
    network: NetworkChange | None = None
    encoded: Callable[[str], None] | None = None  # may refuse a text
    decoded: Callable[[Sequence[int], "Taken"], list[int]] | None = None
    settings: frozenset[str] = frozenset()


class Taken(ReferenceSubject):
    """refgen with the options of somebody else, `name=option` each; those without a change are left out."""

    def __init__(self, folder: Path, options: Iterable[str], loaded: ReferenceSubject | None = None) -> None:
        if loaded is None:
            super().__init__(folder)
        else:
            self.folder, self.model = folder, loaded.model
        self.options = frozenset(options)
        self.asked_for: Request = {}  # the request as it came
        self.changes = [change for option, change in CHANGES.items() if option in self.options]

    @property
    def n_positions(self) -> int:
        """N."""
        return self.model.config.n_positions

    def ends(self, request: Request) -> list[int]:
        """The end tokens that a request means."""
        own = request.get("eos_token_id", self.model.generation_config.eos_token_id)
        return [each for each in (own if isinstance(own, list | tuple) else [own]) if each is not None]

    # --- Operations ---

    def encode(self, text: str) -> list[int]:
        """Ids."""
        for change in self.changes:
            if change.encoded is not None:
                change.encoded(text)
        return super().encode(text)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text."""
        for change in self.changes:
            if change.decoded is not None:
                ids = change.decoded(ids, self)
        return super().decode(ids, skip_special_tokens)

    def forward(self, input_ids: Any, attention_mask: Any = None, prefill: int | None = None) -> ndarray:
        """Logits `[B T V]`."""
        ids = np.asarray(input_ids)
        if (
            attention_mask is not None
            and np.shape(attention_mask) != ids.shape
            and "odd_mask=cut_or_filled" in self.options
        ):
            raise AnyAnswerError
        change = forward_change(self.options)
        if change is None:
            return super().forward(input_ids, attention_mask, prefill)
        mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
        return change(Pass(self.model.gpt2, ids, mask, prefill=prefill)).run()

    def process(self, input_ids: Any, logits: Any, prompt_length: int | None = None, **settings: Any) -> ndarray:
        """Scores `[B V]`."""
        request = self.meant({"input_ids": input_ids, **settings})
        settings = {name: value for name, value in request.items() if name != "input_ids"}
        if not self.plants:
            return super().process(input_ids, logits, prompt_length, **settings)
        ids = np.asarray(input_ids)
        before = ids[:, :prompt_length]
        scores: ndarray = np.asarray(logits, dtype=np.float32)
        with unwarned():
            config = settle(GenerationConfig(), None, settings)
        return self.scored(config, settings, Prompt(before, np.ones_like(before)), ids, scores)

    def generate(self, **request: Any) -> Rows:  # type: ignore[override]
        """Rows."""
        self.asked_for = request
        request = self.meant(request)
        rows = self.plain(**request)
        for change in self.changes:
            if change.answered is not None:
                rows = change.answered(rows, request, self)
        return rows

    # --- Parts ---

    def meant(self, request: Request) -> Request:
        """What a request means."""
        for change in self.changes:
            if change.asked is not None:
                request = change.asked(dict(request), self)
        return request

    def plain(self, **request: Any) -> Rows:
        """Rows of a request as it is meant, before answers are changed."""
        greedy = not request.get("do_sample") and "num_beams" not in request
        own: list[Any] = []
        if self.plants and "num_beams" not in request:
            settings, kept = split(request)
            own_config = self.model.generation_config
            with unwarned():
                config = settle_for_model(self.model.config.vocab_size, own_config, None, settings)
            mask = request.get("attention_mask")
            ids = np.asarray(request["input_ids"])
            prompt = Prompt(ids, np.ones_like(ids) if mask is None else np.asarray(mask))
            n = request.get("num_return_sequences") or 1
            own.append(partial(self.scored, config, settings, prompt.repeated(n)))
            request = kept
        if self.network is not None and request.get(
            "prompt_lookup_num_tokens"
        ):  # it has no passes to verify drafts with
            if (request.get("num_beams") or 1) > 1:
                raise refused("drafts with beams")
            request = {name: value for name, value in request.items() if name != "prompt_lookup_num_tokens"}
        own += [change.picked for change in self.changes if change.picked is not None and greedy]
        self.logits_processor = tuple(own)
        return super().generate(**request)

    def scored(
        self, config: GenerationConfig, settings: Request, prompt: Prompt, ids: ndarray, logits: ndarray
    ) -> ndarray:
        """What the chain of processors, as changed, makes of `logits` `[B V]`."""
        limit = max_length(config, prompt, n_positions=2**20)
        chain: Chain = [(getattr(each, "func", each).__name__, each) for each in processors(config, prompt, limit)]
        return sampler_faults.run(all_of(*self.plants)(chain, settings), ids, logits)

    @cached_property
    def plants(self) -> list[Plant]:
        """Changes to the chain."""
        return [change.chain for change in self.changes if change.chain is not None]

    @cached_property
    def network(self) -> NetworkChange | None:
        """The change to the forward pass."""
        return network_change(self.options)

    def next_logits(self, P: int) -> NextLogits | None:
        """The prompt at once, what comes after it one by one."""
        change = self.network
        if change is None:
            return None
        return lambda ids, mask: change(Pass(self.model.gpt2, ids, mask, prefill=P)).run()[:, -1]


def network_change(options: Iterable[str]) -> NetworkChange | None:
    """What options change about every forward pass, together; None if nothing."""
    return one_after_the_other([CHANGES[option].network for option in options if option in CHANGES])


def forward_change(options: Iterable[str]) -> NetworkChange | None:
    """The same for the operation `forward`, where positions may be others than in generation."""
    options = frozenset(options)
    own = columns if "plain_positions=columns" in options else None
    return one_after_the_other([network_change(options), own])


def one_after_the_other(changes: Iterable[NetworkChange | None]) -> NetworkChange | None:
    """Several changes as one, or None without changes."""
    found = [each for each in changes if each is not None]

    def change(p: Pass) -> Pass:
        for each in found:
            p = each(p)
        return p

    return change if found else None


def split(request: Request) -> tuple[Request, Request]:
    """The settings that the chain does the work of, and the request without them."""
    settings = {name: value for name, value in request.items() if name not in ARGUMENTS}
    kept = {name: value for name, value in request.items() if name not in CHANCE | PROCESSED}
    if kept.get("do_sample"):
        kept["top_k"] = 0
        kept["do_sample"] = request.get("temperature") != 0
    return settings, kept


FAR = 8  # contexts: text that slides farther is not followed
ARGUMENTS = {"input_ids", "attention_mask", "seed", "uniforms", "stream", "stop_strings"}

# --- What is asked ------------------------------------------------------------------------------------------


def refused(what: str) -> GenerationError:
    """The error of a subject that does not take this."""
    return GenerationError(what, "is refused")


def refuses(name: str, condition: Callable[[Any], bool]) -> Change:
    """A setting of some values is an error."""

    def asked(request: Request, subject: Taken) -> Request:
        if name in request and condition(request[name]):
            raise refused(f"{name}={request[name]!r}")
        return request

    return Change(asked, settings=frozenset({name}))


def drops(name: str, condition: Callable[[Any], bool]) -> Change:
    """A setting of some values counts as not set."""

    def asked(request: Request, subject: Taken) -> Request:
        if name in request and condition(request[name]):
            del request[name]
        return request

    return Change(asked, settings=frozenset({name}))


def silent(**settings: Any) -> Change:
    """What sampling means where the request says nothing."""
    return Change(lambda request, subject: {**settings, **request} if request.get("do_sample") else request)


def both(*changes: Change) -> Change:
    """Two changes of what is asked."""

    def asked(request: Request, subject: Taken) -> Request:
        for change in changes:
            request = change.asked(request, subject) if change.asked is not None else request
        return request

    return Change(asked, settings=frozenset().union(*(change.settings for change in changes)))


def whole_number(value: Any) -> bool:
    """An integer other than 1, where a float is meant."""
    return type(value) is int and value != 1


def type_error(request: Request, subject: Taken) -> Request:
    """None for a number."""
    for name in ("num_beams", "num_return_sequences", "max_length"):
        if name in request and request[name] is None:
            raise refused(f"{name}=None")
    return request


def unchecked(request: Request, subject: Taken) -> Request:
    """Settings of chance are not looked at when nothing is drawn."""
    if request.get("do_sample"):
        return request
    return {name: value for name, value in request.items() if name not in CHANCE}


def half_taken(request: Request, subject: Taken) -> Request:
    """1 for True: something comes."""
    if type(request.get("do_sample")) is int:
        raise AnyAnswerError
    return request


def without_encoder(request: Request, subject: Taken) -> Request:
    """Settings of an encoder do nothing."""
    return {name: value for name, value in request.items() if not name.startswith("encoder_")}


def pad_masked(request: Request, subject: Taken) -> Request:
    """Without a mask every pad id is padding."""
    pad = request.get("pad_token_id")
    if pad is None or "attention_mask" in request or pad in subject.ends(request):
        return request
    return {**request, "attention_mask": (np.asarray(request["input_ids"]) != pad).astype(int).tolist()}


def pad_is_text(request: Request, subject: Taken) -> Request:
    """Without a mask a pad id that is an end token is text."""
    pad = request.get("pad_token_id", subject.model.generation_config.pad_token_id)
    if "attention_mask" in request or pad not in subject.ends(request):
        return request
    return {**request, "attention_mask": np.ones_like(request["input_ids"]).tolist()}


def padded_right(request: Request, subject: Taken) -> Request:
    """Padding after the text: some tokens come."""
    mask = request.get("attention_mask")
    if mask is not None and any(row[-1] == 0 and any(row) for row in mask):
        raise AnyAnswerError
    return request


def wide_mask(request: Request, subject: Taken) -> Request:
    """A mask wider than the ids: some tokens come."""
    mask = request.get("attention_mask")
    if mask is not None and np.shape(mask) != np.shape(request["input_ids"]):
        raise AnyAnswerError
    return request


def new_tokens_win(request: Request, subject: Taken) -> Request:
    """max_new_tokens counts, max_length does not."""
    if request.get("max_new_tokens") is not None:
        request.pop("max_length", None)
    return request


def prompt_counted(request: Request, subject: Taken) -> Request:
    """The limit counts the prompt."""
    if request.get("max_new_tokens"):
        request["max_new_tokens"] -= len(request["input_ids"][0])
        if request["max_new_tokens"] < 1:
            raise AnyAnswerError("answer or refusal")
    return request


def by_default(limit: Callable[[Taken], int]) -> Change:
    """How long text is if nobody says."""

    def asked(request: Request, subject: Taken) -> Request:
        own = subject.model.generation_config
        if {"max_new_tokens", "max_length"} & request.keys() or own.max_length or own.max_new_tokens:
            return request
        return {**request, "max_new_tokens": limit(subject)} if "logits" not in request else request

    return Change(asked)


def clamped(request: Request, subject: Taken) -> Request:
    """A minimum that cannot be reached is the limit."""
    limit, P = request.get("max_new_tokens"), len(request["input_ids"][0])
    if limit is not None:
        for name, most in (("min_new_tokens", limit), ("min_length", P + limit)):
            if request.get(name) is not None:
                request[name] = min(request[name], most)
    return request


def odd_ends(request: Request, subject: Taken) -> Request:
    """Negative ids are ignored, and decimals are cut off."""
    ends = request.get("eos_token_id")
    several: list[Any] = ends if isinstance(ends, list) else [ends]
    if ends is None or not several:
        return request
    kept = [int(each) for each in several if each >= 0]
    return {**request, "eos_token_id": kept or None}


def foreign_ends(request: Request, subject: Taken) -> Request:
    """Ids outside of the vocabulary never come."""
    V = subject.model.config.vocab_size
    ends = request.get("eos_token_id")
    if ends is not None:
        kept = [each for each in (ends if isinstance(ends, list) else [ends]) if each < V]
        request["eos_token_id"] = kept or None
    if (request.get("pad_token_id") or 0) >= V:
        request["pad_token_id"] = None
    return request


def end_not_banned(request: Request, subject: Taken) -> Request:
    """A ban of the end token is dropped."""
    ends = subject.ends(request)
    if request.get("bad_words_ids"):
        kept = [word for word in request["bad_words_ids"] if list(word) not in [[end] for end in ends]]
        request["bad_words_ids"] = kept or None
    return request


def zero_divides(request: Request, subject: Taken) -> Request:
    """Infinite scores: an error, or any token."""
    if request.get("do_sample") and request.get("temperature") == 0:
        raise AnyAnswerError("answer or refusal")
    return request


def raised(request: Request, subject: Taken) -> Request:
    """vLLM's least temperature."""
    if 0 < (request.get("temperature") or 0) < 0.01:
        request["temperature"] = 0.01
    return request


def cut_prompt(request: Request, subject: Taken) -> Request:
    """The last N tokens of a prompt that is too long."""
    N = subject.n_positions
    for name in ("input_ids", "attention_mask"):
        if name in request and len(request[name][0]) > N:
            request[name] = [list(row)[-N:] for row in request[name]]
    return request


def drafts_dropped(request: Request, subject: Taken) -> Request:
    """Beam search without drafts."""
    if (request.get("num_beams") or 1) > 1:
        request.pop("prompt_lookup_num_tokens", None)
    return request


def any_of_equals(name: str) -> Change:
    """Which of equal tokens stay is nobody's rule: as many must stay."""

    def asked(request: Request, subject: Taken) -> Request:
        if request.get("do_sample") and name in request:
            raise AnyAnswerError("same size")
        return request

    return Change(asked, settings=frozenset({name}))


# --- What is answered ---------------------------------------------------------------------------------------


def each(change: Callable[[dict[str, Any], Request], dict[str, Any]]) -> Change:
    """Every row is another."""
    return Change(answered=lambda rows, request, subject: [change(dict(row), request) for row in rows])


def late_end(row: dict[str, Any], request: Request) -> dict[str, Any]:
    """An end token with the last allowed token is reported as length."""
    late = row["finish"] == "eos" and len(row["new_ids"]) == request.get("max_new_tokens")
    return {**row, "finish": "length"} if late else row


def end_dropped(rows: Rows, request: Request, subject: Taken) -> Rows:
    """Ids end before the end token."""
    ends = subject.ends(request)
    for row in rows:
        if row["new_ids"] and row["new_ids"][-1] in ends:
            row["new_ids"] = row["new_ids"][:-1]
            if row.get("logprobs") is not None:
                row["logprobs"] = row["logprobs"][: len(row["new_ids"])]
    return rows


def two_reasons(row: dict[str, Any], request: Request) -> dict[str, Any]:
    """Stopped, or cut off."""
    return {**row, "finish": {"stop_string": "eos", "context": "length"}.get(row["finish"], row["finish"])}


def text_cut(row: dict[str, Any], request: Request) -> dict[str, Any]:
    """The text ends before the stop string."""
    if row["finish"] == "stop_string" and "text" in row:
        strings = request["stop_strings"]
        places = [row["text"].find(each) for each in ([strings] if isinstance(strings, str) else strings)]
        row["text"] = row["text"][: min(place for place in places if place >= 0)] if max(places) >= 0 else row["text"]
        row.pop("chunks", None)
    return row


def at_the_context(rows: Rows, request: Request, subject: Taken) -> Rows:
    """An error at the end of the context."""
    if any(row["finish"] == "context" for row in rows):
        raise refused("the end of the context")
    return rows


def one_less(row: dict[str, Any], request: Request) -> dict[str, Any]:
    """The last position is not fed."""
    if row["finish"] == "context":
        row["new_ids"] = row["new_ids"][:-1]
    return row


def slid(rows: Rows, request: Request, subject: Taken) -> Rows:
    """Each further token comes after the last N tokens."""
    limit = request.get("max_new_tokens") or 0
    for number, row in enumerate(rows):
        if row["finish"] != "context" or len(row["new_ids"]) >= limit:
            row["finish"] = "length" if row["finish"] == "context" else row["finish"]
            continue
        if request.get("do_sample") or limit > FAR * subject.n_positions:
            raise AnyAnswerError
        prompt = request["input_ids"][number * len(request["input_ids"]) // len(rows)]
        step = {name: value for name, value in request.items() if name not in ("attention_mask", "min_new_tokens")}
        while row["finish"] == "context":
            window = [*prompt, *row["new_ids"]][-subject.n_positions :]
            (one,) = subject.plain(**step | {"input_ids": [window], "max_new_tokens": 1})
            row["new_ids"] = [*row["new_ids"], *one["new_ids"]]
            full = "length" if len(row["new_ids"]) >= limit else "context"
            row["finish"] = one["finish"] if one["finish"] in ("eos", "stop_string") else full
        respell(row, subject)
    return rows


def respell(row: dict[str, Any], subject: Taken) -> None:
    """What belongs to the ids, after they have changed."""
    row.pop("logprobs", None)
    if "text" in row:
        row |= subject.streamed(row["new_ids"])


def empty_among(strings: Any) -> bool:
    """Whether one of the stop strings is empty."""
    return strings is not None and "" in ([strings] if isinstance(strings, str) else strings)


def one_token(request: Request, subject: Taken) -> Request:
    """An empty stop string is found after one token."""
    if empty_among(request.get("stop_strings")):
        del request["stop_strings"]
        request["max_new_tokens"] = 1
    return request


def at_once(rows: Rows, request: Request, subject: Taken) -> Rows:
    """The other half of `one_token`."""
    if not empty_among(subject.asked_for.get("stop_strings")):
        return rows
    return [{**row, "finish": "eos" if row["finish"] == "eos" else "stop_string"} for row in rows]


def at_least_one(request: Request, subject: Taken) -> Request:
    """If no tokens are requested, one is made; `none_given` drops it."""
    return {**request, "max_new_tokens": 1} if request.get("max_new_tokens") == 0 else request


def none_given(rows: Rows, request: Request, subject: Taken) -> Rows:
    """The other half of `at_least_one`."""
    if subject.asked_for.get("max_new_tokens") != 0:
        return rows
    return [{"new_ids": [], "finish": "length"} for _ in rows]


def stopped(search: Callable[[bytes, bytes, bytes], bool]) -> Change:
    """Stop strings found another way: (prompt, new text, stop string), bytes each -> whether it is there."""

    def answered(rows: Rows, request: Request, subject: Taken) -> Rows:
        strings = request.get("stop_strings")
        if strings is None:
            return rows
        several = [each.encode() for each in ([strings] if isinstance(strings, str) else strings)]
        plain = subject.plain(**{name: value for name, value in request.items() if name != "stop_strings"})
        spell = subject.tokenizer.token_bytes
        for number, row in enumerate(plain):
            ids = request["input_ids"][number * len(request["input_ids"]) // len(plain)]
            mask = (request.get("attention_mask") or [[1] * len(ids)] * len(request["input_ids"]))[
                number * len(request["input_ids"]) // len(plain)
            ]
            prompt = b"".join(spell(token) for token, real in zip(ids, mask, strict=True) if real)
            new = b""
            for place, token in enumerate(row["new_ids"]):
                new += spell(token)
                if row["finish"] == "eos" and place == len(row["new_ids"]) - 1:
                    break
                if any(search(prompt, new, each) for each in several):
                    row |= {"new_ids": row["new_ids"][: place + 1], "finish": "stop_string"}
                    respell(row, subject)
                    break
        return plain

    return Change(answered=answered, settings=frozenset({"stop_strings"}))


def runs_on(rows: Rows, request: Request, subject: Taken) -> Rows:
    """Without end tokens a row that a stop string ended goes on until all have ended."""
    if "stop_strings" not in request or subject.ends(request) or len({len(row["new_ids"]) for row in rows}) == 1:
        return rows
    longest = max(len(row["new_ids"]) for row in rows)
    plain = subject.plain(**{name: value for name, value in request.items() if name != "stop_strings"})
    return [
        {"new_ids": other["new_ids"][:longest], "finish": row["finish"]} for row, other in zip(rows, plain, strict=True)
    ]


def lost_bytes(rows: Rows, request: Request, subject: Taken) -> Rows:
    """Tokens that are not a whole character by themselves show nothing while streaming."""
    for row in rows:
        if "chunks" in row:
            row["chunks"] = [text for token in row["new_ids"] if "\ufffd" not in (text := subject.decode([token]))]
    return rows


def fed_drafts(rows: Rows, request: Request, subject: Taken) -> Rows:
    """A draft is fed after the last position."""
    if "prompt_lookup_num_tokens" in request and any(row["finish"] == "context" for row in rows):
        raise refused("a draft at the end of the context")
    return rows


# --- Scores, the network, text ------------------------------------------------------------------------------


def highest_id(ids: ndarray, scores: ndarray) -> ndarray:
    """Of equal best tokens the last; where nothing is left, nothing."""
    left = np.isfinite(scores.max(axis=1, keepdims=True))
    return np.where(left, highest_of_ties(ids, scores), scores)


def first_id(ids: ndarray, scores: ndarray) -> ndarray:
    """GREEDY-03's other option: where nothing is left, id 0."""
    nothing = np.isneginf(scores).all(axis=1)
    scores[nothing, 0] = 0
    return scores


def short_enough(
    ids: ndarray, scores: ndarray, *, biases: Iterable[tuple[tuple[int, ...], float]], prompt_mask: ndarray
) -> ndarray:
    """Sequences longer than the text do nothing."""
    kept = [(sequence, bias) for sequence, bias in biases if len(sequence) <= ids.shape[1]]
    return sequence_bias(ids, scores, biases=kept, prompt_mask=prompt_mask)


def renormalised_top_h(ids: ndarray, scores: ndarray, *, share: float) -> ndarray:
    """The entropy is that of the kept tokens, renormalised, after each of them."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    top = np.take_along_axis(scores, best, axis=1)
    within = np.zeros(top.shape, dtype=bool)
    within[:, 0] = True
    limit = entropy(top)[:, 0] * np.float32(share)
    for n in range(2, top.shape[1] + 1):
        within[:, n - 1] = within[:, n - 2] & (entropy(top[:, :n])[:, 0] <= limit) & np.isfinite(top[:, n - 1])
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, best, within, axis=1)
    return np.where(kept, scores, -np.inf)


def typical_cut(ids: ndarray, scores: ndarray, *, mass: float, keep: int = 1) -> ndarray:
    """Of equally surprising tokens those of lowest id, until they hold `mass`."""
    deviation = np.abs(-log_softmax(scores) - entropy(scores))
    order = np.argsort(deviation, axis=1, kind="stable")
    held = softmax(np.take_along_axis(scores, order, axis=1)).cumsum(axis=1, dtype=np.float64).astype(np.float32)
    count = np.minimum((held < np.float32(mass)).sum(axis=1) + 1, scores.shape[1])
    return first_of(order, scores, np.maximum(count, keep))


def counting_padding(*names: str) -> Plant:
    """Steps that take padding for text."""
    return all_of(*(with_keyword(name, "prompt_mask", np.ones_like) for name in names))


def has_tanh(p: Pass) -> bool:
    """Whether the configuration asks for the tanh form."""
    return p.gpt2.config.activation_function in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def erf(p: Pass) -> Pass:
    """The exact GELU instead of the tanh form."""
    return forward_faults.activated(gelu)(p) if has_tanh(p) else p


def sample_outside(layer_norm: Norm, x: ndarray, f: Affine, epsilon: float) -> ndarray:
    """(x - mean) / (deviation by C - 1, plus epsilon)."""
    C = x.shape[-1]
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / (C - 1))
    return centred / (deviation + epsilon) * f.weight + f.bias


def columns(p: Pass) -> Pass:
    """Positions count columns, padding too."""
    return replace(p, position_ids=np.broadcast_to(np.arange(p.input_ids.shape[1]), p.input_ids.shape))


def hidden_by_1e4(p: Pass) -> Pass:
    """Hidden keys score 10000 less, which does not hide those that score more."""
    p = forward_faults.seeing(lambda p, visible, t, s: np.ones_like(visible))(p)
    far = np.where(visibility(p.attention_mask, p.input_ids.shape[1]), 0.0, -1e4)
    return replace(p, stages=(*p.stages, ("*.scores", lambda scores: scores + far.astype(scores.dtype))))


def no_special(text: str) -> None:
    """A special token spelled out in a text is an error, as in tiktoken."""
    if END in text:
        raise TokenizerError(END, "stands in the text")


def known_ids(ids: Sequence[int], subject: Taken) -> list[int]:
    """An id that no token has is an error, as in tiktoken."""
    for token in ids:
        if token >= len(subject.tokenizer):
            raise TokenizerError(f"id {token}", "is not one of the vocabulary")
    return list(ids)


# --- The table ----------------------------------------------------------------------------------------------

SETTING = {  # without which an option of the sampler's chain changes nothing
    "top_k_ties": ("top_k", "do_sample"), "top_p_boundary": ("top_p",), "top_p_reached": ("top_p",), "top_p_ties": ("top_p",),
    "penalty_scope": ("repetition_penalty",),
}  # fmt: skip
SAMPLERS: Mapping[str, Change] = {
    **{
        option: Change(chain=plant) for option, plant in sampler_faults.PLANTS.items() if "plain_sampling" not in option
    },
    **{option: silent(**settings) for option, settings in sampler_faults.SILENT.items()},
}

# In the order in which they are applied to an answer.
CHANGES: Mapping[str, Change] = {
    # The network
    "gelu=erf": Change(network=erf),
    "gelu=tanh_float16_table": Change(),  # allowed as much as float16's rounding: judging/lab.py
    "epsilon=1e-5": Change(network=lambda p: forward_faults.configured(p, layer_norm_epsilon=1e-5)),
    "layer_norm=sample_outside": Change(network=forward_faults.normed(sample_outside)),
    "hidden_score=minus_1e4": Change(network=hidden_by_1e4),
    "plain_positions=columns": Change(),  # of `forward` alone: `forward_change`
    "odd_mask=cut_or_filled": Change(),  # in `forward`
    # What a request means
    "none_in_call=type_error": Change(type_error, settings=frozenset({"num_beams", "num_return_sequences", "max_length"})),
    "value_check=when_used": Change(unchecked, settings=frozenset(CHANCE)),
    "truthy_flag=half_taken": Change(half_taken, settings=frozenset({"do_sample"})),
    "encoder_setting=passed_over": Change(without_encoder),
    "pad_id_in_text=masked": Change(pad_masked, settings=frozenset({"pad_token_id"})),
    "pad_is_eos_unmasked=text": Change(pad_is_text),
    "right_padding=wrong_tokens": Change(padded_right, settings=frozenset({"attention_mask"})),
    "wide_mask=wrong_tokens": Change(wide_mask, settings=frozenset({"attention_mask"})),
    "length_precedence=max_new_tokens": Change(new_tokens_win, settings=frozenset({"max_length"})),
    "token_limit_counts=prompt_too": Change(prompt_counted, settings=frozenset({"max_new_tokens"})),
    "default_length=16": by_default(lambda subject: 16),
    "default_length=unlimited": by_default(lambda subject: 10**6),
    "default_length=half_the_context": by_default(lambda subject: subject.n_positions // 2),
    "unreachable_minimum=warning": Change(clamped, settings=frozenset({"min_length", "min_new_tokens"})),
    "end_token=means_nothing": Change(lambda request, subject: {**request, "eos_token_id": None}),
    "odd_end_id=ignored_or_cut": Change(odd_ends, settings=frozenset({"eos_token_id"})),
    "foreign_end_or_pad=silent": Change(foreign_ends, settings=frozenset({"eos_token_id", "pad_token_id"})),
    "banned_end_token=dropped": Change(end_not_banned, settings=frozenset({"bad_words_ids"})),
    "default_mode=sample": Change(lambda request, subject: {"do_sample": True, **request}),
    "whole_penalty=error": refuses("repetition_penalty", whole_number),
    "whole_temperature=error": refuses("temperature", whole_number),
    "temperature_zero=error": Change(
        lambda request, subject: refuses("temperature", lambda t: t == 0).asked(request, subject)  # type: ignore[misc]
        if request.get("do_sample") else request,
        settings=frozenset({"temperature"}),
    ),
    "temperature_zero=division_by_zero": Change(zero_divides, settings=frozenset({"temperature"})),
    "tiny_temperature=raised_to_0.01": Change(raised, settings=frozenset({"temperature"})),
    "top_p_above_one=off": drops("top_p", lambda p: p > 1),
    "top_p_zero=error": refuses("top_p", lambda p: p == 0),
    "cutoff_out_of_range=off": both(
        *(drops(name, lambda share: not 0 < share < 1) for name in ("epsilon_cutoff", "eta_cutoff"))
    ),
    "prompt_too_long=cut": Change(cut_prompt),
    "drafts_with_beams=ignored": Change(drafts_dropped, settings=frozenset({"prompt_lookup_num_tokens"})),
    "top_p_ties=any": any_of_equals("top_p"),
    # The sampler's chain, and the pick
    **SAMPLERS,
    **{f"order={each}": Change(chain=sampler_faults.conventions({"order": each}), settings=frozenset({"do_sample"})) for each in (
        "penalties_temperature_min_p_top_k_top_p", "penalties_top_k_typical_p_top_p_min_p_temperature",
        "temperature_top_p_top_k", "top_p_top_k_temperature")},
    "bias_longer_than_the_text=left_out": Change(
        chain=instead("sequence_bias", short_enough), settings=frozenset({"sequence_bias", "bad_words_ids"})),
    "padding_as_context=yes": Change(
        chain=counting_padding("no_repeat_ngram", "sequence_bias"), settings=frozenset({"attention_mask"})),
    "padding_penalised=yes": Change(
        chain=counting_padding("repetition_penalty"), settings=frozenset({"attention_mask"})),
    "top_h_entropy=renormalised": Change(chain=instead("top_h", renormalised_top_h), settings=frozenset({"top_h"})),
    "typical_ties=cut": Change(chain=instead("typical_p", typical_cut), settings=frozenset({"typical_p"})),
    "greedy_tie=highest_id": Change(picked=highest_id),
    "nan_or_nothing=id": Change(picked=first_id),
    # What is answered
    "empty_stop_string=one_token": Change(one_token, at_once, settings=frozenset({"stop_strings"})),
    "max_new_tokens_zero=no_tokens": Change(at_least_one, none_given, settings=frozenset({"max_new_tokens"})),
    "stop_string_of_the_prompt=never": stopped(lambda prompt, new, string: string in new),
    "stop_string_of_the_prompt=always": stopped(lambda prompt, new, string: string in prompt + new),
    "stopped_row_without_end_tokens=runs_on": Change(answered=runs_on, settings=frozenset({"stop_strings"})),
    "context_end=error": Change(answered=at_the_context),
    "context_end=n": each(one_less),
    "context_end=slide": Change(answered=slid),
    "draft_at_the_end_of_the_context=fed": Change(answered=fed_drafts, settings=frozenset({"prompt_lookup_num_tokens"})),
    "streamed_bytes=replaced": Change(answered=streamed_by_token, settings=frozenset({"stream"})),
    "streamed_bytes=lost": Change(answered=lost_bytes, settings=frozenset({"stream"})),
    "end_token_at_the_limit=length": each(late_end),
    "end_token_in_ids=dropped": Change(answered=end_dropped),
    "finish=stop_or_length": each(two_reasons),
    "stop_string_in_output=cut_off": each(text_cut),
    "special_in_text=error": Change(encoded=no_special),
    "unknown_id=error": Change(decoded=known_ids),
}  # fmt: skip

# Options that allow what the rule's own does too: a subject that declares one and does the rule's own is right.
PERMISSIVE = frozenset({"gelu=tanh_float16_table", "temperature_zero=division_by_zero", "top_p_ties=any"})

# Visible options that no question asks for yet, and what a question would have to be.
NOT_YET: Mapping[str, str] = {
    "differing_tied_head": "a folder whose head differs from its embedding",
    "missing_tensor": "a folder without one tensor",
    "extra_tensor": "a folder with one tensor too many",
    "none_in_config": "a folder whose generation_config.json holds null",
    "padding_of_a_negative_prompt": "the protocol has no negative prompts",
    "finished_row_with_nothing_left": "a batch in which a finished row has nothing left to draw from",
    "beam_ties": "beams whose sums are equal",
    "beam_length": "texts of beams that differ in length, with and without the prompt",
    "drafts_keep_the_tokens_of_a_seed": "sampling by a seed with drafts and without",
}
