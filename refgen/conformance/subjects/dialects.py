"""The dialects of OpenAI-compatible servers: requests and answers of `/v1/completions` as plain data.

A completion, as the rest of the kit sees it, whatever the dialect:

    {choices: [{text, finish_reason, ids?, ids_from?, tokens?, logprobs?, top_logprobs?, deltas?}], usage?}

`ids` are the tokens of the choice, and under echo those of the prompt too. `ids_from` names their origin: the server's
`token_ids`, its `logprobs`, the `token strings` in them, or the `text`. A text is encoded again, which may give other
tokens than the model produced. `logprobs` has a number or None for each token, `top_logprobs` a list of
`[id, logprob]`, with None for an unknown id. `deltas` are the texts of a streamed choice in order of arrival.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from refgen.conformance.subjects.border import completion, optional, read_json, text, whole
from refgen.conformance.subjects.protocol import GarbledError
from refgen.conformance.subjects.values import shown
from refgen.errors import TokenizerError
from refgen.tokenizer import Tokenizer

OPENAI = {"temperature": "temperature", "top_p": "top_p", "stop_strings": "stop"}


@dataclass(frozen=True)
class Dialect:
    """The fields of one kind of server. `neutral` are sent always, so that nothing the server does by itself is left on."""

    name: str
    owner: str  # in the answer to /v1/models
    neutral: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=lambda: OPENAI)  # setting of generate() -> field
    samplers: Mapping[str, str] = field(default_factory=dict)  # setting -> name in the list of samplers, in our order
    fresh: Mapping[str, Any] = field(default_factory=dict)  # sent where the answer must not depend on a cache
    ends: bool = False  # whether other end tokens than the model's can be asked for
    ids_in: bool = True


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        each.name: each
        for each in (
            Dialect("openai-legacy", ""),
            Dialect("text-only", "", ids_in=False),
            Dialect(
                "vllm",
                "vllm",
                neutral={"top_k": -1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
                names=OPENAI
                | {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
                | {"min_new_tokens": "min_tokens"},
                ends=True,
            ),
            Dialect(
                "llama.cpp",
                "llamacpp",
                neutral={
                    "samplers": ["temperature"],
                    "top_k": 0,
                    "top_p": 1.0,
                    "min_p": 0.0,
                    "typical_p": 1.0,
                    "repeat_penalty": 1.0,
                    "repeat_last_n": 65536,  # more than a context has; -1, which its manual has for that, is refused
                },
                names=OPENAI
                | {"top_k": "top_k", "min_p": "min_p", "typical_p": "typical_p"}
                | {"repetition_penalty": "repeat_penalty"},
                samplers={
                    "repetition_penalty": "penalties",
                    "temperature": "temperature",
                    "top_k": "top_k",
                    "top_p": "top_p",
                    "min_p": "min_p",
                    "typical_p": "typ_p",
                },
                fresh={"cache_prompt": False},
            ),
        )
    }
)
ID_FIELDS = (
    {"return_token_ids": True},
    {"return_tokens": True},
    {"logprobs": 1},
)  # the first that makes ids come is used
FINISHES = {
    "length": "length", "limit": "length", "stop": "stop", "eos": "eos", "eos_token": "eos", "word": "stop_string",
    "stop_sequence": "stop_string",
}  # fmt: skip


class Vocabulary:
    """Tokens as servers write them → ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def by_bytes(self) -> Mapping[bytes, int]:
        """The id of every token that stands for these bytes; of several, none."""
        seen: dict[bytes, int | None] = {}
        for token in range(len(self.tokenizer)):
            spelled = self.tokenizer.token_bytes(token)
            seen[spelled] = token if spelled not in seen else None
        return {spelled: token for spelled, token in seen.items() if token is not None}

    def id_of(self, token: Any) -> int | None:
        r"""Of `token_id:5`, `bytes:\xe4`, or a token's text; None if it is unknown."""
        if not isinstance(token, str):
            return None
        if match := re.fullmatch(r"token_id:([0-9]{1,18})", token):
            return int(match[1])
        if token.startswith("bytes:"):
            digits = re.findall(r"\\x([0-9a-fA-F]{2})", token)
            return self.by_bytes.get(bytes.fromhex("".join(digits)))
        return self.by_bytes.get(token.encode("utf-8", errors="replace"))

    def encode_exactly(self, text: str) -> list[int] | None:
        """The ids of a text that survived the way through them; None for one with broken characters."""
        try:
            ids = self.tokenizer.encode(text)
        except TokenizerError:
            return None
        return ids if "\ufffd" not in text and self.tokenizer.decode(ids) == text else None

    def spell(self, ids: Sequence[int]) -> str | None:
        """The text of a prompt from which a server makes the same ids again, or None."""
        text = self.tokenizer.decode(list(ids))
        return text if self.tokenizer.encode(text) == list(ids) else None


# --- An answer ---------------------------------------------------------------------------------------------


def read_completion(body: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """A whole answer, past the border; raises `GarbledError`, which says what is wrong."""
    if not isinstance(body, Mapping):
        raise GarbledError(f"the answer is {shown(body)}, must be an object")
    if not isinstance(body.get("choices"), list):
        raise GarbledError(f"choices are {shown(body.get('choices'))}, must be a list")
    choices = [read_choice(choice, vocabulary) for choice in body["choices"]]
    return completion({"choices": choices, "usage": body.get("usage")})


def read_choice(choice: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """One continuation."""
    if not isinstance(choice, Mapping) or not isinstance(choice.get("text"), str):
        raise GarbledError(f"a choice is {shown(choice)}, must have a text")
    read = {name: choice.get(name) for name in ("text", "index", "finish_reason")}
    text(read["text"], "text")  # before it is encoded
    read |= read_logprobs(choice.get("logprobs") or choice.get("completion_probabilities"), vocabulary)
    read |= {name: choice[name] for name in ("deltas",) if name in choice}
    if choice.get("token_ids") is not None and not is_ids(choice["token_ids"]):
        raise GarbledError(f"token_ids must be a list of whole numbers; got {shown(choice['token_ids'])}")
    for name in ("token_ids", "tokens"):
        if is_ids(choice.get(name)):
            return read | {"ids": choice[name], "ids_from": "token_ids"}
    if read.get("ids") is not None:
        return read
    return read | {"ids": vocabulary.encode_exactly(choice["text"]), "ids_from": "text"}


def is_ids(value: Any) -> bool:
    """Whether it is a list of whole numbers."""
    return isinstance(value, list) and all(type(each) is int for each in value)


def read_logprobs(given: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """The three shapes: the four lists of OpenAI's completions, the entries of its chat, llama.cpp's own list of entries."""
    if given in (None, [], {}):
        return {}
    if isinstance(given, Mapping) and isinstance(given.get("content"), list):
        given = given["content"]
    if isinstance(given, list):
        return read_entries(given, vocabulary)
    if not isinstance(given, Mapping) or not isinstance(given.get("tokens"), list):
        raise GarbledError(f"logprobs are {shown(given)}, of no known shape")
    tokens, tops = given["tokens"], given.get("top_logprobs")
    ids = [vocabulary.id_of(token) for token in tokens]
    known = None if None in ids else ids
    strict = any(isinstance(token, str) and token.startswith("token_id:") for token in tokens)
    return {
        "tokens": tokens,
        "logprobs": read_numbers(given.get("token_logprobs")),
        "top_logprobs": None if not isinstance(tops, list) else [read_top(top, vocabulary) for top in tops],
        "ids": known,
        "ids_from": "logprobs" if strict else "token strings",
    }


def read_top(top: Any, vocabulary: Vocabulary) -> list[list[Any]] | None:
    """`{token: logprob}` of one position."""
    if top is None:
        return None
    if not isinstance(top, Mapping):
        raise GarbledError(f"top_logprobs hold {shown(top)}, must be objects")
    return [[vocabulary.id_of(token), number] for token, number in zip(top, read_numbers([*top.values()]), strict=True)]


def read_entries(entries: list[Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """`{id?, token, logprob, top_logprobs}` a token."""
    if not all(isinstance(entry, Mapping) and "logprob" in entry for entry in entries):
        raise GarbledError(f"logprobs are {shown(entries)}, must be entries with a logprob")

    def told(entry: Mapping[str, Any]) -> int | None:
        return entry["id"] if type(entry.get("id")) is int else vocabulary.id_of(entry.get("token"))

    def alternatives(entry: Mapping[str, Any]) -> list[Any]:
        given = entry.get("top_logprobs") or []
        if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
            raise GarbledError(f"top_logprobs are {shown(given)}, must be a list of objects")
        return given

    ids = [told(entry) for entry in entries]
    return {
        "tokens": [entry.get("token") for entry in entries],
        "logprobs": read_numbers([entry["logprob"] for entry in entries]),
        "top_logprobs": [[[told(top), top.get("logprob")] for top in alternatives(entry)] for entry in entries],
        "ids": None if None in ids else ids,
        "ids_from": "logprobs" if all("id" in entry for entry in entries) else "token strings",
    }


def read_numbers(values: Any) -> list[float | None]:
    """Numbers and nulls."""
    if not isinstance(values, list) or not all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool)) for each in values
    ):
        raise GarbledError(f"logprobs are {shown(values)}, must be numbers")
    return values


# --- A streamed answer ---------------------------------------------------------------------------------------


def join_stream(events: Iterable[str], vocabulary: Vocabulary) -> dict[str, Any]:
    """The completion that the data of server-sent events add up to. `done` says whether it ended with [DONE]."""
    choices: dict[int, dict[str, Any]] = {}
    usage: Any = None
    done = False
    for data in events:
        if data.strip() == "[DONE]":
            done = True
            break
        body = read_json(data.encode("utf-8", "surrogatepass"), "a streamed event")
        if not isinstance(body, Mapping) or not isinstance(body.get("choices"), list):
            raise GarbledError(f"a streamed event is {shown(body)}, must be an object with choices")
        usage = body.get("usage") or usage
        for choice in body["choices"]:
            if not isinstance(choice, Mapping):
                raise GarbledError(f"a streamed choice is {shown(choice)}, must be an object")
            index = optional(whole, choice.get("index", 0), "index")
            add_chunk(
                choices.setdefault(0 if index is None else index, {"deltas": [], "text": "", "index": index}), choice
            )
    read = read_completion({"choices": [choices[index] for index in sorted(choices)], "usage": usage}, vocabulary)
    return read | {"done": done}


def add_chunk(so_far: dict[str, Any], chunk: Mapping[str, Any]) -> None:
    """A chunk of a choice, after the earlier ones. A chunk may be without text: the last one often is."""
    piece = text(chunk.get("text") or "", "a streamed text")
    so_far["text"] += piece
    so_far["deltas"].append(piece)
    if chunk.get("finish_reason") is not None:
        so_far["finish_reason"] = chunk["finish_reason"]
    for name in ("token_ids", "tokens"):
        if is_ids(chunk.get(name)):
            so_far.setdefault(name, []).extend(chunk[name])
    given = chunk.get("logprobs")
    if isinstance(given, Mapping):
        lists = so_far.setdefault("logprobs", {})
        for name, values in given.items():
            if isinstance(values, list):
                lists.setdefault(name, []).extend(values)
