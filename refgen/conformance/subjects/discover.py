"""Finds out what a server supports, with about thirty small requests. None of them judges right or wrong.

A field that is refused is never sent again, and questions that need it are skipped by name. A field of OpenAI's that is
accepted counts as supported, even if it does nothing; the checks find that out. Fields that others have added are also
tried for an effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from refgen.conformance.subjects.border import optional, text
from refgen.conformance.subjects.dialects import (
    DIALECTS,
    ID_FIELDS,
    Dialect,
    Vocabulary,
    join_stream,
    read_completion,
)
from refgen.conformance.subjects.protocol import CrashedError, GarbledError, RefusedError, SkippedError, SubjectError
from refgen.conformance.subjects.values import NAME
from refgen.conformance.subjects.wire import Wire
from refgen.errors import TokenizerError

TEXTS = ("The", "ROMEO:", "Hello", "a")
MANY = (10**9, 1000, 100, 20, 10, 5, 1)  # alternatives to ask for, the first that are granted
CHOICES = (32, 8, 4)  # a request
TRIED: Mapping[str, Mapping[str, Any]] = {  # fields of OpenAI's, by the name of what a server with them can
    "n": {"n": 2, "temperature": 1.0},
    "seed": {"seed": 1, "temperature": 1.0},
    "echo": {"echo": True},
    "stop": {"stop": ["\n\n\n"]},
    "logit_bias": {"logit_bias": {"0": 0}},
    "top_p": {"top_p": 0.5, "temperature": 1.0},
    "stream": {"stream": True},
    "stream_usage": {"stream": True, "stream_options": {"include_usage": True}},
}
WITH_EFFECT: Mapping[str, Mapping[str, Any]] = {  # settings that make warm text greedy, or greedy text another
    "top_k": {"top_k": 1, "temperature": 1.5},
    "min_p": {"min_p": 1.0, "temperature": 1.5},
    "repetition_penalty": {"repetition_penalty": 5.0},
}


@dataclass(frozen=True)
class Profile:
    """What a server can. `accepts` are names of TRIED and `logprobs`."""

    dialect: Dialect
    model: str | None = None
    version: str = ""
    ids_in: bool = True
    id_fields: Mapping[str, Any] = field(default_factory=dict)
    ids_from: str = "text"
    logprobs: int = 0  # the most alternatives it gives
    most: int = 1  # choices a request, as far as was tried
    accepts: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()  # fields of the dialect
    idle: frozenset[str] = frozenset()  # fields of the dialect without an effect

    def request(self, body: Mapping[str, Any], ids: bool, vocabulary: Vocabulary) -> dict[str, Any]:
        """A body with what this server needs, and nothing that it refuses. Raises `SkippedError`."""
        sent = {name: value for name, value in self.dialect.neutral.items() if name not in self.refused}
        sent |= {"temperature": 0} | ({} if self.model is None else {"model": self.model})
        sent |= self.id_fields if ids and not self.id_fields.keys() & body.keys() else {}
        sent |= {name: value for name, value in body.items() if name != "fresh"}
        if "samplers" in sent:
            sent["samplers"] = self.samplers(body)
        if body.get("fresh", True):
            sent |= {name: value for name, value in self.dialect.fresh.items() if name not in self.refused}
        if not self.ids_in and isinstance(sent["prompt"], list):
            text = vocabulary.spell(sent["prompt"])
            if text is None:
                raise SkippedError("the server takes text, and no text gives this prompt's ids")
            sent["prompt"] = text
        return sent

    def samplers(self, body: Mapping[str, Any]) -> list[str]:
        """PROC-01. Those that the body has a field for, in the order of `generate`; temperature always."""
        named = {"temperature", *(name for name in self.dialect.samplers if self.dialect.names.get(name) in body)}
        return [sampler for name, sampler in self.dialect.samplers.items() if name in named]

    @property
    def missing(self) -> list[str]:
        """Sentences about everything that cannot be tested."""
        without = {
            "logprobs": "no logprobs: numbers are not checked",
            "n": "no n: one choice a request",
            "seed": "no seed: chance cannot be repeated",
            "echo": "no echo: the prompt's own logprobs are not checked",
            "stop": "no stop strings",
            "logit_bias": "no logit_bias: split characters and forced tokens are not checked",
            "top_p": "no top_p",
            "stream": "no streaming",
            "stream_usage": "no usage in streams",
        }
        said = [sentence for name, sentence in without.items() if name not in self.accepts]
        if not self.ids_in:
            said.append("no token ids as prompts: only prompts that a text gives back are asked")
        if self.ids_from == "text":
            said.append("no token ids in answers: tokens are read from the text")
        return said + [
            f"no {name}" + (": accepted, without effect" if name in self.idle else "")
            for name in WITH_EFFECT
            if self.dialect.names.get(name) is None or self.dialect.names[name] in self.refused | self.idle
        ]

    def __str__(self) -> str:
        prompts = "ids" if self.ids_in else "text"
        tokens = {"token_ids": "given", "logprobs": "from logprobs", "token strings": "from token strings"}
        numbers = f"with up to {self.logprobs} alternatives" if self.logprobs else "none"
        lines = [
            f"dialect {self.dialect.name}{f', model {self.model}' if self.model else ''}",
            f"prompts as {prompts}, tokens {tokens.get(self.ids_from, 'read from the text')}, logprobs {numbers}",
            f"has {', '.join(sorted(self.accepts)) or 'nothing beside text'}",
        ]
        return "\n".join([*lines, *(f"not tested: {each}" for each in self.missing)])


def discover(wire: Wire, vocabulary: Vocabulary, dialect: Dialect | None = None, model: str | None = None) -> Profile:
    """Asks. Raises the `SubjectError` of the first request that any server must answer."""
    return Discovery(wire, vocabulary).all(dialect, model)


class Discovery:
    """The requests, with the profile as far as it is known."""

    def __init__(self, wire: Wire, vocabulary: Vocabulary) -> None:
        self.wire, self.vocabulary = wire, vocabulary
        self.prompt = next(ids for ids in self.prompts() if ids and vocabulary.spell(ids) is not None)

    def prompts(self) -> Iterator[list[int]]:
        """Words, and for a model that has none, such as a probe, its first tokens."""
        for words in TEXTS:
            with suppress(TokenizerError):
                yield self.vocabulary.tokenizer.encode(words)
        yield [0, 1, 2]

    def all(self, dialect: Dialect | None, model: str | None) -> Profile:
        """Step by step: names, prompts, neutral fields, ids, logprobs, OpenAI's fields, effects."""
        name, owner = self.models()
        found = dialect or next((each for each in DIALECTS.values() if each.owner and each.owner == owner), None)
        profile = Profile(found or DIALECTS["openai-legacy"], model or name, ids_in=False)
        profile = replace(profile, refused=self.refused_fields(profile))
        profile = replace(profile, ids_in=profile.dialect.ids_in and self.takes_ids(profile))
        profile = replace(profile, logprobs=self.alternatives(profile))
        profile = self.with_ids(profile)
        accepts = {name for name, fields in TRIED.items() if self.accepts(profile, fields)}
        accepts |= {"logprobs"} if self.accepts(profile, {"logprobs": 1}) else set()
        profile = replace(profile, accepts=frozenset(accepts), most=self.choices(profile) if "n" in accepts else 1)
        return replace(profile, idle=self.idle_fields(profile))

    def ask(self, profile: Profile, ids: bool = False, **body: Any) -> dict[str, Any]:
        """One request."""
        asked = {"prompt": self.prompt, "max_tokens": 2} | body
        sent = profile.request(asked, ids, self.vocabulary)
        if sent.get("stream"):
            return join_stream(self.wire.stream("/completions", sent), self.vocabulary)
        return read_completion(self.wire.post("/completions", sent), self.vocabulary)

    def accepts(self, profile: Profile, fields: Mapping[str, Any]) -> bool:
        """Whether the server answers with an answer; garbage is one, for the checks to look at."""
        try:
            self.ask(profile, **fields)
        except GarbledError:
            return True
        except (RefusedError, SkippedError, CrashedError):
            return False
        return True

    def models(self) -> tuple[str | None, str | None]:
        """The name of the first model and who owns it."""
        try:
            listed = self.wire.get("/models")
            first = listed["data"][0]
            return text(first["id"], "id", NAME), optional(text, first.get("owned_by"), "owned_by")
        except (RefusedError, GarbledError, KeyError, IndexError, TypeError, AttributeError):
            return None, None

    def refused_fields(self, profile: Profile) -> frozenset[str]:
        """The dialect's own fields that this server does not take."""
        own = {**profile.dialect.neutral, **profile.dialect.fresh}
        bare = replace(profile, refused=frozenset(own))
        self.ask(bare)  # whatever is wrong with this is wrong with the server
        if self.accepts(profile, {}):
            return frozenset()
        return frozenset(name for name in own if not self.accepts(bare, {name: own[name]}))

    def takes_ids(self, profile: Profile) -> bool:
        """Whether a prompt of ids is answered as their text is."""
        try:
            by_text = self.ask(profile)
            by_ids = self.ask(replace(profile, ids_in=True))
        except SubjectError:
            return False
        counted = [(each["usage"] or {}).get("prompt_tokens") for each in (by_text, by_ids)]
        return counted[1] in (None, len(self.prompt)) or counted[0] == counted[1]

    def alternatives(self, profile: Profile) -> int:
        """How many logprobs a token it gives at most."""
        most = min(MANY[0], len(self.vocabulary.tokenizer))
        for many in (most, *(each for each in MANY if each < most)):
            try:
                choices = self.ask(profile, logprobs=many)["choices"]
            except SubjectError:
                continue
            tops = (choices[0].get("top_logprobs") or [None])[0] if choices else None
            return min(len(tops), many) if tops else 0
        return 0

    def choices(self, profile: Profile) -> int:
        """How many choices a request it takes: some servers have as many as slots."""
        for many in CHOICES:
            if self.accepts(profile, {"n": many, "temperature": 1.0}):
                return many
        return 2

    def with_ids(self, profile: Profile) -> Profile:
        """The fields by which ids come."""
        for fields in ID_FIELDS:
            tried = replace(profile, id_fields=fields)
            try:
                choices = self.ask(tried, ids=True)["choices"]
            except SubjectError:
                continue
            if choices and choices[0]["ids_from"] != "text":
                return replace(tried, ids_from=choices[0]["ids_from"])
        return profile

    def idle_fields(self, profile: Profile) -> frozenset[str]:
        """Fields beyond OpenAI's that are accepted and change nothing."""
        texts = [self.text(profile), self.text(profile, temperature=1.5, **self.seed(profile))]
        idle = set()
        for name, settings in WITH_EFFECT.items():
            own = profile.dialect.names.get(name)
            if own is None or own in profile.refused or None in texts:
                continue
            named = {profile.dialect.names.get(each, each): value for each, value in settings.items()}
            warm = "temperature" in settings
            said = self.text(profile, **named, **(self.seed(profile) if warm else {}))
            if (said != texts[0]) if warm and texts[0] != texts[1] else (said == texts[0] and not warm):
                idle.add(own)
        return frozenset(idle)

    def seed(self, profile: Profile) -> dict[str, int]:
        """A seed, if there are any."""
        return {"seed": 1} if "seed" in profile.accepts else {}

    def text(self, profile: Profile, **body: Any) -> str | None:
        """What it says, or None."""
        try:
            choices = self.ask(profile, max_tokens=12, **body)["choices"]
        except SubjectError:
            return None
        return choices[0]["text"] if choices else None


def described(profile: Profile, sentences: Sequence[str] = ()) -> str:
    """The profile and what else there is to say."""
    return "\n".join([str(profile), *sentences])
