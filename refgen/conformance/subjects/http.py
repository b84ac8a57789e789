"""A subject that is a server with OpenAI's `/v1/completions`: `connect(url, folder)` finds out what it can, then asks.

Besides `generate`, mapped to one request a row, it has two operations that only servers have. `can` lists their parts
by name:

    complete           {body, ids?} -> {choices, usage, done?}: one request, as dialects.py says; `ids` asks for tokens if they cost a field
    complete_together  {bodies} -> {answers}: all at the same time, for what depends on neighbours

A body's `prompt` is a list of ids; a server that wants text gets their text. Questions that need a field which the
server lacks are skipped by name. A field that it refuses is never sent.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from refgen.config import GPT2Config
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.dialects import DIALECTS, FINISHES, Vocabulary, join_stream, read_completion
from refgen.conformance.subjects.discover import Profile, discover
from refgen.conformance.subjects.protocol import About, SkippedError
from refgen.conformance.subjects.wire import Wire
from refgen.errors import CheckpointError, GenerationError
from refgen.generation.config import DEFAULTS, METADATA
from refgen.json_files import read_object
from refgen.tokenizer import Tokenizer

SEEDS = 2**31 - 1  # what any server takes
SHAPES_CHANCE = ("temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")
NEUTRAL = {**DEFAULTS, "top_k": 0, "min_p": 0.0, "stop_strings": []}  # need no field
ELSEWHERE = {
    "max_new_tokens",
    "max_length",
    "pad_token_id",
    "bos_token_id",
    "use_cache",
    "prefill_chunk_size",
    *METADATA,
}
BIAS = 100.0  # what OpenAI's logit_bias goes to


def connect(
    url: str,
    folder: Path,
    *,
    dtype: str = "float32",
    dialect: str | None = None,
    model: str | None = None,
    choices: Mapping[str, str] | None = None,
    key: str | None = None,
    timeout: float = 60.0,
    budget: int = 2000,
) -> "HttpSubject":
    """The server at `url` that has loaded the model in `folder`, after some thirty small requests that show what it can.

    `dtype` is what it computes in, `dialect` one of DIALECTS, `model` its name there; both are found out if None. Raises a
    `SubjectError` if it does not answer.
    """
    wire = Wire(url, timeout, budget, key)
    tokenizer = Tokenizer.from_pretrained(folder)
    profile = discover(wire, Vocabulary(tokenizer), DIALECTS[dialect] if dialect else None, model)
    return HttpSubject(wire, folder, profile, tokenizer, dtype, choices or {})


class HttpSubject:
    """One server, one model."""

    def __init__(
        self, wire: Wire, folder: Path, profile: Profile, tokenizer: Tokenizer, dtype: str, choices: Mapping[str, str]
    ) -> None:
        self.wire, self.folder, self.profile, self.tokenizer = wire, folder, profile, tokenizer
        self.about = About(
            name=f"{profile.dialect.name} at {wire.url}",
            version=profile.version,
            dtype=dtype,
            can=frozenset({"generate", "complete"}) | profile.accepts,
            choices=dict(choices),
            loads=False,
        )
        self.vocabulary = Vocabulary(tokenizer)
        config = GPT2Config.from_dict(read_object(folder / "config.json", CheckpointError, "CKPT-09"))
        self.n_positions = config.n_positions
        own = folder / "generation_config.json"
        self.defaults = {**DEFAULTS, **(read_object(own, GenerationError, "CKPT-11") if own.exists() else {})}
        self.end_ids = as_ids(self.defaults.get("eos_token_id"))

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request a row of `generate`, one in all of `complete`."""
        if model.resolve() != self.folder.resolve():
            raise SkippedError(f"the server has loaded {self.folder.name}, not {model.name}")
        if op == "complete":
            return checked(op, request, self.complete(**request))
        if op == "complete_together":
            return checked(op, request, self.complete_together(**request))
        if op == "generate":
            return checked(op, request, {"rows": self.generate(**request)})
        raise SkippedError(f"a server has no {op}")

    def restart(self) -> None:
        """Nothing: the server goes on as it is."""

    def close(self) -> None:
        """Closes connections."""
        self.wire.close()

    # --- Completions ---

    def complete(self, body: Mapping[str, Any], ids: bool = False) -> dict[str, Any]:
        """The answer to one body, to which what the dialect needs is added."""
        started = time.monotonic()
        sent = self.profile.request(body, ids, self.vocabulary)
        if sent.get("stream"):
            answer = join_stream(self.wire.stream("/completions", sent), self.vocabulary)
        else:
            answer = read_completion(self.wire.post("/completions", sent), self.vocabulary)
        return answer | {"seconds": time.monotonic() - started}

    def complete_together(self, bodies: Sequence[Mapping[str, Any]], ids: bool = False) -> dict[str, Any]:
        """The answers to several, asked at the same time."""
        with ThreadPoolExecutor(len(bodies)) as pool:
            return {"answers": list(pool.map(lambda body: self.complete(body, ids), bodies))}

    # --- generate() ---

    def generate(
        self, input_ids: Sequence[Sequence[int]], attention_mask: Any = None, seed: Any = None, **settings: Any
    ) -> list[dict[str, Any]]:
        """The rows, prompt after prompt."""
        prompts = [unpadded(row, mask) for row, mask in masked(input_ids, attention_mask)]
        n = settings.pop("num_return_sequences", None) or 1
        rows: list[dict[str, Any]] = []
        for number, prompt in enumerate(prompts):
            body, stops, ends = self.body_of(len(input_ids[0]), settings)
            body["prompt"] = prompt
            if seed is not None and "seed" not in self.profile.accepts:
                raise SkippedError("the server has no seed")
            for start in range(0, n, self.profile.most):
                together = min(n - start, self.profile.most)
                if seed is not None:
                    body["seed"] = self.seed_of(seed, number * n + start)
                answer = self.complete(body | ({"n": together} if together > 1 else {}), ids=True)
                rows += [self.row_of(choice, prompt, body["max_tokens"], stops, ends) for choice in answer["choices"]]
        return rows

    def seed_of(self, seed: Any, row: int) -> int:
        """SAMP-09. The row's own seed, or one made of the call's, which is another one for each row."""
        if isinstance(seed, list | tuple):
            return int(seed[row])
        return (int(seed) + 1_000_003 * row) % SEEDS

    def body_of(self, width: int, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], list[int]]:
        """The settings of one row as a request; its stop strings and end tokens. Raises `SkippedError` by a setting's name."""
        asked = {**self.defaults, **settings}
        body: dict[str, Any] = {"max_tokens": self.max_tokens(width, settings), "temperature": 0}
        ends = as_ids(asked.pop("eos_token_id", None))
        body |= self.ending(ends)
        if asked.pop("do_sample", False) and asked.get("temperature") != 0:
            body["temperature"] = asked.pop("temperature", 1.0)
        else:  # GREEDY-05
            asked = {name: value for name, value in asked.items() if name not in SHAPES_CHANCE}
        if biases := asked.pop("sequence_bias", None):
            body["logit_bias"] = self.logit_bias(biases)
        stops = asked.get("stop_strings") or []
        asked["stop_strings"] = stops = [stops] if isinstance(stops, str) else list(stops)
        if stops and self.profile.ids_from != "token_ids":
            raise SkippedError("stop_strings cut the text, and the server does not send the ids after the cut")
        for name, value in asked.items():
            if name not in ELSEWHERE and value not in (None, NEUTRAL.get(name)):
                body[self.field(name)] = value
        return body, stops, ends

    def field(self, name: str) -> str:
        """A setting's name on this server. Raises `SkippedError` where it has none, or one that does nothing."""
        found = self.profile.dialect.names.get(name)
        if found is None or found in self.profile.refused or (found == "stop" and "stop" not in self.profile.accepts):
            raise SkippedError(f"{self.profile.dialect.name} has no field for {name}")
        if found in self.profile.idle:
            raise SkippedError(f"{found} is accepted and has no effect")
        return found

    def max_tokens(self, width: int, settings: Mapping[str, Any]) -> int:
        """LEN-01 to LEN-03. The number of new tokens the settings mean."""
        for name, before in (("max_new_tokens", 0), ("max_length", width)):
            for source in (settings, self.defaults):
                if source.get(name) is not None:
                    return int(source[name]) - before
        return min(20, self.n_positions - width)

    def ending(self, ends: Sequence[int]) -> dict[str, Any]:
        """STOP-02, STOP-03. The fields for other end tokens than the model's own.

        Fewer of them need no field: `row_of` skips a row that was ended by another.
        """
        if set(ends) == set(self.end_ids) or (set(ends) < set(self.end_ids) and not self.profile.dialect.ends):
            return {}
        if not self.profile.dialect.ends:
            raise SkippedError(f"{self.profile.dialect.name} has no field for eos_token_id")
        return {"ignore_eos": True} | ({"stop_token_ids": list(ends)} if ends else {})

    def logit_bias(self, biases: Any) -> dict[str, float]:
        """BIAS-01. Biases of single tokens, which is what servers have."""
        pairs = list(biases.items()) if isinstance(biases, Mapping) else list(biases)
        if "logit_bias" not in self.profile.accepts:
            raise SkippedError("the server has no logit_bias")
        if any(len(ids) != 1 or abs(bias) > BIAS for ids, bias in pairs):
            raise SkippedError(f"sequence_bias of several tokens, or beyond {BIAS:g}, has no field")
        summed: dict[str, float] = {}
        for (token,), bias in pairs:
            summed[str(token)] = summed.get(str(token), 0.0) + bias
        return summed

    def row_of(
        self, choice: Mapping[str, Any], prompt: Sequence[int], limit: int, stops: Sequence[str], ends: Sequence[int]
    ) -> dict[str, Any]:
        """A choice as a row of `generate`: with its end token, which many servers leave out, and refgen's word for its end."""
        row: dict[str, Any] = {"text": choice["text"]}
        reason = FINISHES.get(choice["finish_reason"] or "")
        ids = choice["ids"]
        early = ids is not None and len(ids) < limit and reason in ("stop", "eos") and not stops
        if early and set(ends) < set(self.end_ids) and ids[-1:] not in [[end] for end in ends]:
            raise SkippedError("ended by the model's own end token, which this server has no field to switch off")
        if ids is not None:
            ended = bool(ids) and ids[-1] in ends
            if reason == "stop":
                reason = "eos" if ended or not stops else None if ends else "stop_string"
            if reason == "eos" and not ended and len(ends) == 1 and len(ids) < limit:
                ids = [*ids, ends[0]]
            if reason == "length" and len(ids) < limit and len(prompt) + len(ids) >= self.n_positions:
                reason = "context"
            row["new_ids"] = ids
            if choice.get("logprobs") is not None and len(choice["logprobs"]) == len(ids):
                row["logprobs"] = choice["logprobs"]
        elif reason == "stop":
            reason = None if stops else "eos"
        return row | ({} if reason is None else {"finish": reason})


def as_ids(value: Any) -> list[int]:
    """One id, several or none."""
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def masked(input_ids: Sequence[Sequence[int]], attention_mask: Any) -> list[tuple[list[int], list[int]]]:
    """Rows with their masks."""
    masks = [[1] * len(row) for row in input_ids] if attention_mask is None else attention_mask
    return [(list(row), list(mask)) for row, mask in zip(input_ids, masks, strict=True)]


def unpadded(row: Sequence[int], mask: Sequence[int]) -> list[int]:
    """PAD-05. A row without the padding at its left."""
    start = next((place for place, visible in enumerate(mask) if visible), len(row))
    if not all(mask[start:]):
        raise SkippedError("attention_mask hides more than padding at the left, for which servers have no field")
    return list(row[start:])
