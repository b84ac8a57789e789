"""Planted faults: subjects with one real mistake each, which the kit must catch, and whose rule it must name.

A fault turns a model folder into a subject: refgen's own with something changed. Faults of forward passes are those of
oracle/faults.py, planted in logits and in generation. Faults of samplers are in sampler_faults.py. The others are here:
they change the request before refgen answers it, or the answer afterwards. Most were found in real implementations.

Axes    B rows, P prompt columns, S columns so far, V tokens.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.bpe import END
from refgen.conformance.planted import sampler_faults
from refgen.conformance.planted.sampler_faults import SamplerFault
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.errors import GenerationError
from refgen.generation.next_logits import NextLogits
from refgen.oracle import faults as forward_faults
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import Change

Request = dict[str, Any]
Rows = list[dict[str, Any]]
Factory = Callable[[Path], Any]
ARRAYS = {"input_ids", "attention_mask", "logits", "prompt_length", "stream"}  # what of a request is no setting


@dataclass(frozen=True)
class SubjectFault:
    """`plant` is the factory of a subject that has it, `rules` are those of SPEC.md that it breaks; `family` the kind
    of program part it is in.
    """

    name: str
    sentence: str
    rules: tuple[str, ...]
    family: str
    plant: Factory


# --- Ways to plant one ------------------------------------------------------------------------------------


class Planted:
    """A subject some of whose methods are others."""

    def __init__(self, subject: Any, **methods: Callable[..., Any]) -> None:
        self.__dict__.update(methods)
        self._subject = subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subject, name)


def asking(change: Callable[[Request], Request], *ops: str) -> Factory:
    """The request is changed; `ops` are generate and process if none are named."""

    def plant(folder: Path) -> Planted:
        subject = ReferenceSubject(folder)

        def changed(op: str) -> Callable[..., Any]:
            return lambda **request: getattr(subject, op)(**change(request))

        return Planted(subject, **{op: changed(op) for op in ops or ("generate", "process")})

    return plant


def answering(change: Callable[[Rows, Request, ReferenceSubject], Rows]) -> Factory:
    """What `generate` answers, changed."""

    def plant(folder: Path) -> Planted:
        subject = ReferenceSubject(folder)
        return Planted(subject, generate=lambda **request: change(subject.generate(**request), request, subject))

    return plant


def each_row(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Factory:
    """Every row of an answer is changed."""
    return answering(lambda rows, request, subject: [change(row) for row in rows])


def ignoring(*names: str) -> Factory:
    """Settings that are accepted and do nothing."""
    return asking(lambda request: {name: value for name, value in request.items() if name not in names})


def setting(name: str, change: Callable[[Any, Request], Any]) -> Factory:
    """A setting, if it is given, means something else."""
    return asking(lambda request: {**request, name: change(request[name], request)} if name in request else request)


def scoring(function: Callable[[ndarray, ndarray], ndarray]) -> Factory:
    """Scores `[B V]` are changed before a token is picked: (ids `[B S]`, scores) -> scores."""

    def plant(folder: Path) -> ReferenceSubject:
        subject = ReferenceSubject(folder)
        subject.logits_processor = (function,)
        return subject

    return plant


def text_of(change: Callable[[str], str]) -> Factory:
    """A text is changed before it is encoded."""
    return asking(lambda request: {"text": change(request["text"])}, "encode")


def decoding(change: Callable[[ReferenceSubject, Sequence[int], bool], str]) -> Factory:
    """Ids become text in another way."""

    def plant(folder: Path) -> Planted:
        subject = ReferenceSubject(folder)
        return Planted(subject, decode=lambda ids, skip_special_tokens=False: change(subject, ids, skip_special_tokens))

    return plant


class FaultyNetwork(ReferenceSubject):
    """A forward pass with a fault, in logits and in generation."""

    change: Change

    def forward(self, input_ids: Any, attention_mask: Any = None, prefill: int | None = None) -> ndarray:
        """Logits `[B T V]`."""
        ids = np.asarray(input_ids)
        mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
        return self.change(Pass(self.model.gpt2, ids, mask, prefill=prefill)).run()

    def next_logits(self, P: int) -> NextLogits | None:
        """The prompt in one pass, the tokens after it one by one."""
        return lambda ids, mask: self.change(Pass(self.model.gpt2, ids, mask, prefill=P)).run()[:, -1]


def in_network(change: Change) -> Factory:
    """That fault of the forward pass."""

    def plant(folder: Path) -> FaultyNetwork:
        subject = FaultyNetwork(folder)
        subject.change = change
        return subject

    return plant


CHANCE = {"temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h"}
NO_SETTINGS = {"do_sample", "seed", "uniforms"}  # of a chain of processors
PROCESSED = {  # settings whose work the scores of a fault already do
    "sequence_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "remove_invalid_values", "renormalize_logits",
}  # fmt: skip


def in_sampler(fault: SamplerFault) -> Factory:
    """That fault of a sampler: it makes the scores, and refgen has nothing left to do to them."""

    def plant(folder: Path) -> Planted:
        subject = ReferenceSubject(folder)

        def scores(request: Request, ids: ndarray, logits: ndarray, P: int | None) -> ndarray:
            settings = {name: value for name, value in request.items() if name not in ARRAYS | NO_SETTINGS}
            if not request.get("do_sample"):  # nothing shapes chance; top_k is what leaves all
                settings = {name: value for name, value in settings.items() if name not in CHANCE}
                settings["top_k"] = logits.shape[1]
            return fault.scores(settings, ids, logits.astype(np.float32), P)

        def process(**request: Any) -> ndarray:
            ids, logits = np.asarray(request["input_ids"]), np.asarray(request["logits"])
            return scores(request, ids, logits, request.get("prompt_length"))

        def generate(**request: Any) -> Rows:
            if "num_beams" in request:
                return subject.generate(**request)
            P = np.shape(request["input_ids"])[1]
            subject.logits_processor = (lambda ids, logits: scores(request, ids, logits, P),)
            kept = {name: value for name, value in request.items() if name not in CHANCE | PROCESSED}
            return subject.generate(**kept | ({"top_k": 0} if kept.get("do_sample") else {}))

        return Planted(subject, process=process, generate=generate)

    return plant


# --- The longer ones --------------------------------------------------------------------------------------


def cut_at_end(rows: Rows, request: Request) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Rows and where their first end token is."""
    ends = request.get("eos_token_id")
    several = ends if isinstance(ends, list) else [ends]
    for row in rows:
        yield row, next((place for place, token in enumerate(row["new_ids"]) if token in several), None)


def all_end_together(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """Every row goes on until all have ended."""
    if len(rows) == 1:
        return rows
    ends = request.get("eos_token_id", subject.model.generation_config.eos_token_id)
    endless = subject.generate(**{**request, "eos_token_id": None})
    places = [place for _, place in cut_at_end(endless, {"eos_token_id": ends})]
    if None in places:
        return endless
    last = max(place for place in places if place is not None)
    return [{**row, "new_ids": row["new_ids"][: last + 1], "finish": "eos"} for row in endless]


def ended_by_prompt(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """An end token in the prompt counts."""
    ends = request.get("eos_token_id", subject.model.generation_config.eos_token_id)
    several = ends if isinstance(ends, list | tuple) else [ends]
    prompts = [set(prompt) for prompt in request["input_ids"]]
    n = len(rows) // len(prompts)
    return [
        {"new_ids": [], "finish": "eos"} if set(several) & prompts[number // n] else row
        for number, row in enumerate(rows)
    ]


def stopped_in_newest(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """Stop strings are looked for in the newest token alone."""
    strings = request.get("stop_strings")
    if strings is None:
        return rows
    several = [strings] if isinstance(strings, str) else strings
    plain = subject.generate(**{name: value for name, value in request.items() if name != "stop_strings"})
    for row in plain:
        for place, token in enumerate(row["new_ids"]):
            if any(string.encode() in subject.tokenizer.token_bytes(token) for string in several):
                row |= {"new_ids": row["new_ids"][: place + 1], "finish": "stop_string"}
                break
    return plain


def stopped_by_prompt(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """A stop string in the prompt ends the text at its first token."""
    strings = request.get("stop_strings", [])
    several = [strings] if isinstance(strings, str) else strings
    texts = [subject.decode(prompt) for prompt in request["input_ids"]] if several else [""] * len(rows)
    return [
        {**row, "new_ids": row["new_ids"][:1], "finish": "stop_string"} if any(s in text for s in several) else row
        for row, text in zip(rows, texts, strict=False)
    ]


def past_context(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """Text continues after the context, at its last position."""
    limit = request.get("max_new_tokens", 0)
    filled = []
    for row in rows:
        more = limit - len(row["new_ids"])
        longer = {"new_ids": row["new_ids"] + row["new_ids"][-1:] * more, "finish": "length"}
        filled.append(longer if row["finish"] == "context" else row)
    return filled


def remembered() -> Factory:
    """A prompt as long as the one before is answered from its cache."""

    def plant(folder: Path) -> Planted:
        subject, held = ReferenceSubject(folder), dict[Any, Rows]()

        def generate(**request: Any) -> Rows:
            key = (np.shape(request["input_ids"]), request.get("max_new_tokens"), request.get("do_sample"))
            if key in held:
                return held[key]
            held.clear()
            held[key] = subject.generate(**request)
            return held[key]

        return Planted(subject, generate=generate)

    return plant


def seeded(seeds: Callable[[], Iterator[int]]) -> Factory:
    """Seeds that are not the caller's."""

    def plant(folder: Path) -> Planted:
        subject, own = ReferenceSubject(folder), seeds()

        def generate(**request: Any) -> Rows:
            return subject.generate(**request | ({"seed": next(own)} if "seed" in request else {}))

        return Planted(subject, generate=generate)

    return plant


def unverified(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """A draft is taken as it is: what followed the same token in the prompt."""
    if "prompt_lookup_num_tokens" not in request:
        return rows
    text = list(request["input_ids"][0])
    new: list[int] = []
    while len(new) < len(rows[0]["new_ids"]):
        before = [place for place, token in enumerate(text[:-1]) if token == text[-1]]
        new.append(text[before[-1] + 1] if before else rows[0]["new_ids"][len(new)])
        text.append(new[-1])
    return [{**rows[0], "new_ids": new}]


def interleaved(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """a b a b instead of a a b b."""
    B = len(request["input_ids"])
    n = len(rows) // B
    return [rows[prompt * n + copy] for copy in range(n) for prompt in range(B)]


def highest_of_ties(ids: ndarray, scores: ndarray) -> ndarray:
    """Of equal best tokens the last."""
    best = scores == scores.max(axis=1, keepdims=True)
    last = best & (best[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
    return np.where(best & ~last, np.float32(-1e9), scores)


def second_best(ids: ndarray, scores: ndarray) -> ndarray:
    """Without the best."""
    return np.where(scores == scores.max(axis=1, keepdims=True), np.float32(-1e9), scores)


def zero_refused(request: Request) -> Request:
    """Temperature 0 divides by zero."""
    if request.get("temperature") == 0:
        raise GenerationError("temperature=0.0", "divides by zero")
    return request


def greedy_warped(request: Request) -> Request:
    """Greedy requests are sampled if they have a setting of chance."""
    chance = {"temperature", "top_k", "top_p"} & request.keys()
    return {**request, "do_sample": True} if chance and not request.get("do_sample") else request


def mask_from_ids(request: Request) -> Request:
    """The mask is guessed: whatever is the pad or end token is padding."""
    ids = np.asarray(request["input_ids"])
    pad = request.get("pad_token_id", ids.max())
    mask = (ids != pad).astype(int)
    mask[:, -1] = 1
    return {**request, "attention_mask": mask.tolist()}


def positions_by_chunk(folder: Path) -> Planted:
    """A prompt in chunks: positions begin anew with each."""
    subject = ReferenceSubject(folder)

    def generate(**request: Any) -> Rows:
        chunk = request.get("prefill_chunk_size")
        if chunk is None:
            return subject.generate(**request)
        faulty = FaultyNetwork(folder)
        faulty.change = forward_faults.standing(lambda p: p.positions % chunk)
        return faulty.generate(**request)

    return Planted(subject, generate=generate)


def streamed_by_token(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """Each token is decoded by itself."""
    return [
        {**row, "chunks": [subject.decode([token]) for token in row["new_ids"]]} if "chunks" in row else row
        for row in rows
    ]


def streamed_without_last(rows: Rows, request: Request, subject: ReferenceSubject) -> Rows:
    """The last piece is never sent."""
    return [{**row, "chunks": row["chunks"][:-1]} if "chunks" in row else row for row in rows]


# --- The list ---------------------------------------------------------------------------------------------


def loops() -> Iterator[tuple[str, str, tuple[str, ...], Factory]]:
    """Of the decoding loop."""
    yield (
        "end-ignored",
        "End tokens do not end.",
        ("STOP-02", "STOP-03"),
        asking(lambda r: {**r, "eos_token_id": None}, "generate"),
    )
    yield (
        "end-first-of-several",
        "Of several end tokens only the first ends.",
        ("STOP-03",),
        setting("eos_token_id", lambda ends, r: ends[0] if isinstance(ends, list) else ends),
    )
    yield (
        "end-stripped",
        "The end token is not among the ids.",
        ("STOP-02",),
        each_row(lambda row: {**row, "new_ids": row["new_ids"][:-1]} if row["finish"] == "eos" else row),
    )
    yield "end-together", "A row goes on until all have ended.", ("STOP-04", "STOP-06"), answering(all_end_together)
    yield "end-in-prompt", "An end token in the prompt ends the text.", ("STOP-02",), answering(ended_by_prompt)
    yield (
        "finish-length",
        "The finish is always length.",
        ("STOP-01",),
        each_row(lambda row: {**row, "finish": "length"}),
    )
    yield "finish-eos", "The finish is always eos.", ("STOP-01",), each_row(lambda row: {**row, "finish": "eos"})
    yield (
        "limit-before-end",
        "An end token with the last allowed token is reported as length.",
        ("STOP-01",),
        answering(
            lambda rows, r, s: [
                {**row, "finish": "length"} if len(row["new_ids"]) == r.get("max_new_tokens") else row for row in rows
            ]
        ),
    )
    yield "one-more", "One new token too many.", ("LEN-01",), setting("max_new_tokens", lambda n, r: n + 1)
    yield "one-less", "One new token too few.", ("LEN-01",), setting("max_new_tokens", lambda n, r: max(1, n - 1))
    yield (
        "prompt-counted",
        "max_new_tokens counts the prompt.",
        ("LEN-01",),
        setting("max_new_tokens", lambda n, r: max(1, n - len(r["input_ids"][0]))),
    )
    yield "minimum-ignored", "There is no minimum.", ("LEN-07", "LEN-08"), ignoring("min_new_tokens", "min_length")
    yield (
        "minimum-counts-prompt",
        "min_new_tokens counts the prompt.",
        ("LEN-07",),
        setting("min_new_tokens", lambda n, r: max(0, n - (r.get("prompt_length") or len(r["input_ids"][0])))),
    )
    yield (
        "minimum-first-end-only",
        "The minimum holds back the first end token only.",
        ("LEN-08", "LEN-07", "STOP-03"),
        asking(
            lambda r: (
                {**r, "eos_token_id": r["eos_token_id"][0]}
                if "min_length" in r and isinstance(r.get("eos_token_id"), list)
                else r
            )
        ),
    )
    yield (
        "min-length-counts-new",
        "min_length counts new tokens only.",
        ("LEN-08",),
        asking(
            lambda r: (
                {**r, "min_length": r["min_length"] + (r.get("prompt_length") or len(r["input_ids"][0]))}
                if "min_length" in r
                else r
            )
        ),
    )
    yield "stop-ignored", "Stop strings do not stop.", ("SSTR-01", "SSTR-02"), ignoring("stop_strings")
    yield (
        "stop-in-newest-token",
        "Stop strings are looked for in the newest token alone.",
        ("SSTR-01", "SSTR-02"),
        answering(stopped_in_newest),
    )
    yield (
        "stop-first-of-several",
        "Only the first of several stop strings counts.",
        ("SSTR-01",),
        setting("stop_strings", lambda texts, r: texts[:1] if isinstance(texts, list) else texts),
    )
    yield "stop-in-prompt", "A stop string in the prompt ends the text.", ("SSTR-03",), answering(stopped_by_prompt)
    yield "past-context", "Text continues after the context.", ("LEN-04",), answering(past_context)
    yield (
        "mask-ignored",
        "The attention mask is not looked at.",
        ("PAD-05", "PAD-04", "FWD-12"),
        asking(lambda r: {name: value for name, value in r.items() if name != "attention_mask"}, "generate", "forward"),
    )
    yield (
        "mask-from-ids",
        "Whatever is the pad token counts as padding, in the text too.",
        ("PAD-03", "PAD-02", "STOP-02", "PAD-05"),
        asking(mask_from_ids, "generate"),
    )
    yield "rows-reversed", "Rows come back in another order.", ("BATCH-01",), answering(lambda rows, r, s: rows[::-1])
    yield (
        "first-row-for-all",
        "The first row is given for all.",
        ("BATCH-01",),
        answering(lambda rows, r, s: rows[:1] * len(rows)),
    )
    yield (
        "several-alike",
        "Several answers are copies of one.",
        ("SAMP-07",),
        answering(lambda rows, r, s: [rows[i - i % (len(rows) // len(r["input_ids"]))] for i in range(len(rows))]),
    )
    yield "several-interleaved", "Several answers stand a b a b.", ("SAMP-07",), answering(interleaved)
    yield "second-best", "The second best token is taken.", ("GREEDY-01",), scoring(second_best)
    yield "highest-id", "Of equal tokens the last is taken.", ("GREEDY-01",), scoring(highest_of_ties)
    yield "greedy-warped", "Greedy text is sampled if there is a temperature.", ("GREEDY-05",), asking(greedy_warped)
    yield "temperature-zero-refused", "Temperature 0 is refused.", ("TEMP-02",), asking(zero_refused)
    yield (
        "temperature-zero-one",
        "Temperature 0 counts as 1.",
        ("TEMP-02",),
        setting("temperature", lambda t, r: t or 1.0),
    )
    yield (
        "hidden-penalty",
        "There is a repetition penalty of 1.1 that nobody requested.",
        ("PROC-05", "GREEDY-01", "REP-01"),
        asking(lambda r: {"repetition_penalty": 1.1, **r}),
    )
    yield "seed-ignored", "Seeds do nothing.", ("SAMP-05", "SAMP-03"), seeded(lambda: count(1))
    yield "seed-always-one", "There is one seed for all.", ("SAMP-05", "SAMP-03"), seeded(lambda: iter(lambda: 1, None))
    yield (
        "remembered",
        "A prompt as long as the one before is answered from its cache.",
        ("CACHE-01", "BATCH-01", "GREEDY-04"),
        remembered(),
    )
    yield "draft-unverified", "A draft is taken as it is.", ("ASSIST-01",), answering(unverified)
    yield "chunk-positions", "Positions begin anew with each chunk of a prompt.", ("CACHE-03",), positions_by_chunk
    yield (
        "stream-by-token",
        "Each token is decoded by itself while streaming.",
        ("STREAM-03",),
        answering(streamed_by_token),
    )
    yield (
        "stream-without-last",
        "The last piece of a stream is never sent.",
        ("STREAM-03",),
        answering(streamed_without_last),
    )
    yield (
        "logprobs-shifted",
        "Log-probabilities are one token late.",
        ("OUT-08",),
        each_row(lambda row: {**row, "logprobs": [0.0, *row["logprobs"][:-1]]} if row.get("logprobs") else row),
    )
    yield (
        "logprobs-too-many",
        "There is one log-probability too many.",
        ("OUT-08",),
        each_row(lambda row: {**row, "logprobs": [*row["logprobs"], 0.0]} if row.get("logprobs") else row),
    )
    yield (
        "logprobs-positive",
        "Log-probabilities have the wrong sign.",
        ("OUT-08",),
        each_row(lambda row: {**row, "logprobs": [-p for p in row["logprobs"]]} if row.get("logprobs") else row),
    )
    yield (
        "beams-are-greedy",
        "Beams are accepted and do nothing.",
        ("BEAM-01", "BEAM-02", "BEAM-04", "BEAM-09"),
        ignoring("num_beams", "length_penalty", "early_stopping"),
    )


def processing() -> Iterator[tuple[str, str, tuple[str, ...], Factory]]:
    """Of settings that keep tokens out or bring them in."""
    for name, field, rules in (
        ("ngram-ignored", "no_repeat_ngram_size", ("NGRAM-01",)),
        ("bad-words-ignored", "bad_words_ids", ("BAD-01",)),
        ("forced-end-ignored", "forced_eos_token_id", ("FORCE-02",)),
        ("decay-ignored", "exponential_decay_length_penalty", ("EXPD-01",)),
    ):
        yield name, f"{field} is accepted and does nothing.", rules, ignoring(field)
    yield (
        "suppress-ignored",
        "suppress_tokens is accepted and does nothing.",
        ("SUP-01", "SUP-02"),
        ignoring("suppress_tokens", "begin_suppress_tokens"),
    )
    yield (
        "ngram-one-longer",
        "One token more may repeat than no_repeat_ngram_size says.",
        ("NGRAM-01",),
        setting("no_repeat_ngram_size", lambda n, r: n + 1 if n else 0),
    )
    yield (
        "bad-words-last-token",
        "The last token of a forbidden sequence is forbidden everywhere.",
        ("BAD-01",),
        setting("bad_words_ids", lambda words, r: [word[-1:] for word in words]),
    )
    yield (
        "begin-suppress-always",
        "begin_suppress_tokens suppresses everywhere.",
        ("SUP-02",),
        asking(lambda r: {"suppress_tokens": r["begin_suppress_tokens"], **r} if "begin_suppress_tokens" in r else r),
    )
    yield (
        "bias-single-tokens-only",
        "The bias of a sequence acts without its beginning.",
        ("BIAS-01",),
        setting("sequence_bias", lambda pairs, r: [[sequence[-1:], bias] for sequence, bias in pairs]),
    )


def tokenizers() -> Iterator[tuple[str, str, tuple[str, ...], Factory]]:
    """Of text."""
    spelled = re.compile(r" ([.,!?])")
    yield (
        "add-prefix-space",
        "A space is put before every text.",
        ("TOK-07", "TOK-03"),
        text_of(lambda text: f" {text}" if text else text),
    )
    yield "strip-text", "White space around a text is dropped.", ("TOK-03", "TOK-07"), text_of(str.strip)
    yield "spaces-greedy", "Several spaces become one.", ("TOK-03",), text_of(lambda text: re.sub(" +", " ", text))
    yield (
        "lower-case",
        "Text is made lower case.",
        ("TOK-05", "TOK-03"),
        text_of(lambda text: text if END in text else text.lower()),
    )
    yield "normal-form", "Text is normalised.", ("TOK-04",), text_of(lambda text: unicodedata.normalize("NFC", text))
    yield (
        "ascii-only",
        "Characters outside ASCII become question marks.",
        ("TOK-04",),
        text_of(lambda text: text.encode("ascii", "replace").decode()),
    )
    yield "special-as-text", "The end token's text is spelled out.", ("TOK-02",), special_spelled
    yield (
        "special-strips",
        "Spaces around a special token are dropped.",
        ("TOK-02",),
        text_of(lambda text: re.sub(rf" *({re.escape(END)}) *", r"\1", text)),
    )
    yield (
        "adds-begin",
        "An end token is put before every text.",
        ("TOK-07",),
        asking(lambda r: {"text": END + r["text"]}, "encode"),
    )
    yield (
        "cleans-up-spaces",
        "Spaces before marks are dropped.",
        ("TOK-12",),
        decoding(lambda s, ids, skip: spelled.sub(r"\1", s.decode(ids, skip))),
    )
    yield (
        "token-by-token",
        "Each token is decoded by itself.",
        ("TOK-11", "TOK-13"),
        decoding(lambda s, ids, skip: "".join(s.decode([token], skip) for token in ids)),
    )
    yield (
        "drops-invalid",
        "Bytes that are not text are dropped.",
        ("TOK-13",),
        decoding(lambda s, ids, skip: s.decode(ids, skip).replace("\ufffd", "")),
    )
    yield (
        "strips-decoded",
        "Decoded text loses its first space.",
        ("TOK-11", "TOK-12"),
        decoding(lambda s, ids, skip: s.decode(ids, skip).lstrip(" ")),
    )
    yield (
        "keeps-special",
        "Special tokens are always shown.",
        ("TOK-11",),
        decoding(lambda s, ids, skip: s.decode(ids, False)),
    )
    yield (
        "drops-special",
        "Special tokens are never shown.",
        ("TOK-11", "TOK-02"),
        decoding(lambda s, ids, skip: s.decode(ids, True)),
    )


def special_spelled(folder: Path) -> Planted:
    """`<|endoftext|>` in a text is text."""
    subject = ReferenceSubject(folder)
    return Planted(subject, encode=lambda text: subject.tokenizer.encode(text, split_special_tokens=True))


def samplers() -> Iterator[tuple[str, str, tuple[str, ...], Factory]]:
    """Of what makes scores of logits; the law of sampled text shows them too (questions/sampling.py)."""
    for fault in sampler_faults.FAULTS:
        yield fault.name, f"{fault.sentence[0].upper()}{fault.sentence[1:]}.", fault.rules, in_sampler(fault)


def forwards() -> Iterator[tuple[str, str, tuple[str, ...], Factory]]:
    """Of the forward pass: those that some input shows."""
    for fault in forward_faults.FAULTS:
        if not fault.equivalent:
            yield fault.name, fault.sentence, fault.rules, in_network(fault.change)


FAMILIES: Mapping[str, Callable[[], Iterator[tuple[str, str, tuple[str, ...], Factory]]]] = {
    "tokenizer": tokenizers,
    "forward": forwards,
    "process": processing,
    "loop": loops,
    "sampling": samplers,
}
FAULTS: tuple[SubjectFault, ...] = tuple(
    SubjectFault(name, sentence, rules, family, plant)
    for family, members in FAMILIES.items()
    for name, sentence, rules, plant in members()
)
