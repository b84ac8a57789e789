"""Reads added and special tokens from every file that can name one, as transformers 5.23 does. Rule TOK-17.

An *added* token is found in a text before it is split into words. A *special* one is also skipped on request. The files list
the ids of added tokens, and name bos, eos, pad and so on:

    tokenizer_config.json     names, and perhaps `added_tokens_decoder`; with it, none of the following is read
    special_tokens_map.json   names, which replace those of tokenizer_config.json
    added_tokens.json         ids; a token is special if one of those two files names it
    tokenizer.json            ids and flags, which replace those of added_tokens.json

For the class GPT2Tokenizer, bos, eos and unk are `<|endoftext|>` where no file names them. A named token without an id gets
the next free one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken

from refgen.bpe import END
from refgen.errors import TokenizerError
from refgen.tokenizer_files import TokenizerFiles

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NAMED_BY_GPT2 = ("bos_token", "eos_token", "unk_token")
EXTRA, EXTRA_ONCE = "extra_special_tokens", "additional_special_tokens"  # one setting, and its name before version 5
SPECIFIC = "model_specific_special_tokens"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
Token = str | AddedToken  # a str is a special token without flags


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens in the files: added tokens by id, named tokens (`bos_token`, ...), and special tokens without a name."""

    added: Mapping[int, AddedToken]
    named: Mapping[str, Token]
    extra: list[Token]


def read_special_tokens(files: TokenizerFiles) -> SpecialTokens:
    """TOK-17. The tokens in the files. Raises `TokenizerError` for an invalid token, and for two added tokens with one id."""
    settings = from_config(files.config)
    if "added_tokens_decoder" in settings:
        added = by_id((int(i), added_token(entry)) for i, entry in settings.pop("added_tokens_decoder").items())
    else:
        settings |= from_map(files.special_tokens_map, settings)
        if isinstance(settings.get(EXTRA), dict):
            settings[SPECIFIC] = {**settings.get(SPECIFIC, {}), **settings.pop(EXTRA)}
        special = {content(settings[name]) for name in NAMED if settings.get(name)}
        special |= set(map(content, settings.get(EXTRA) or []))
        added = by_id([*from_added_tokens(files.added_tokens, special), *from_tokenizer(files)])
    settings = {name: revived(value) for name, value in settings.items()}
    return SpecialTokens(added, named_tokens(settings, files, added), extra_tokens(settings))


# --- One file each ---


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `tokenizer_config.json`, with the list under its new name and the tokens with other names collected."""
    settings = dict(config)
    if EXTRA_ONCE in settings and not settings.get(EXTRA):
        settings[EXTRA] = settings.pop(EXTRA_ONCE)
    specific = {name: settings.pop(name) for name in config if is_specific(name) and isinstance(config[name], str)}
    if isinstance(settings.get(EXTRA), dict):
        specific |= settings.pop(EXTRA)
    if specific:
        settings[SPECIFIC] = specific
    return settings


def from_map(entries: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `special_tokens_map.json` replaces. Its list of extra tokens is added to theirs."""
    found: dict[str, Any] = {}
    for name, value in entries.items():
        if name == EXTRA and isinstance(value, list):
            found[EXTRA] = list(settings.get(EXTRA) or [])
            for each in value:
                token = added_token(each | {"special": True}) if isinstance(each, dict) else each
                found[EXTRA] += [] if token in found[EXTRA] else [token]
        elif (name in NAMED or is_specific(name)) and isinstance(value, str | dict | None):
            found[name] = added_token(value | {"special": True}) if isinstance(value, dict) else value
        elif (name == EXTRA_ONCE and isinstance(value, list | None)) or (
            name == EXTRA and isinstance(value, dict | None)
        ):
            found[name] = value
        else:
            raise TokenizerError(
                f"special_tokens_map.json: {name}={value!r}", "must be a special token or a list of them", "TOK-17"
            )
    return found


def from_added_tokens(entries: Mapping[str, Any], special: set[str]) -> Iterator[tuple[int, AddedToken]]:
    """The tokens of `added_tokens.json`. Those in `special` are special."""
    for text, token_id in entries.items():
        is_special = text in special
        yield (
            whole(token_id, text),
            AddedToken(text, rstrip=False, lstrip=False, normalized=not is_special, special=is_special),
        )


def from_tokenizer(files: TokenizerFiles) -> Iterator[tuple[int, AddedToken]]:
    """The added tokens of `tokenizer.json`."""
    for entry in files.tokenizer["added_tokens"] if files.parts is not None else []:
        others = {name: value for name, value in entry.items() if name != "id"}
        yield whole(entry["id"], entry.get("content")), added_token(others)


# --- One entry each ---


def is_specific(name: str) -> bool:
    """Whether a setting names a token that only some models have, such as `image_token`."""
    return name.endswith("_token") and name not in (*NAMED, "add_bos_token", "add_eos_token")


def content(token: Any) -> str:
    """The text of a token."""
    return token.content if isinstance(token, AddedToken) else str(token)


def whole(token_id: Any, text: Any) -> int:
    """The id of an added token. Raises `TokenizerError` unless it is a whole number."""
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        raise TokenizerError(f"added token {text!r}: id {token_id!r}", "must be a whole number", "TOK-17")
    return token_id


def added_token(entry: Any) -> AddedToken:
    """The token that an object in a file describes: its content, and flags for finding it in a text."""
    flags = {name: value for name, value in entry.items() if name not in ("content", "__type")}
    right = all(name in FLAGS and isinstance(value, bool) for name, value in flags.items())
    if not right or not isinstance(entry.get("content"), str):
        raise TokenizerError(
            f"token {entry!r}",
            f"must have a content, and its flags ({', '.join(FLAGS)}) must be true or false",
            "TOK-17",
        )
    return AddedToken(entry["content"], **flags)


def revived(value: Any) -> Any:
    """A value of the settings, with every object marked as an AddedToken replaced by a token."""
    if isinstance(value, dict):
        marked = value.get("__type") == "AddedToken"
        return added_token(value) if marked else {name: revived(each) for name, each in value.items()}
    return [revived(each) for each in value] if isinstance(value, list) else value


def is_token(value: Any) -> bool:
    """Whether a value is a token and not empty."""
    return isinstance(value, Token) and content(value) != ""


# --- Together ---


def by_id(tokens: Iterable[tuple[int, AddedToken]]) -> dict[int, AddedToken]:
    """Added tokens by id. If several files list the same token, the last file's flags count."""
    added: dict[int, AddedToken] = {}
    for token_id, token in tokens:
        other = added.get(token_id, token).content
        if other != token.content:
            raise TokenizerError(
                f"id {token_id}", f"is that of two added tokens, {other!r} and {token.content!r}", "TOK-17"
            )
        added[token_id] = token
    return added


def named_tokens(
    settings: Mapping[str, Any], files: TokenizerFiles, added: Mapping[int, AddedToken]
) -> dict[str, Token]:
    """The tokens that have a name, with the flags of the added token of the same text."""
    defaults: dict[str, Any] = {}
    if files.is_gpt2:
        defaults = dict.fromkeys(NAMED_BY_GPT2, END)
    elif files.parts is not None and files.parts.padding is not None:
        defaults = {"pad_token": files.parts.padding["pad_token"]}
    same_text = {token.content: token for token in added.values()}
    named = {name: settings.get(name, defaults.get(name)) for name in NAMED}
    named = {name: same_text.get(content(token), token) for name, token in named.items() if token is not None}
    specific = {name: token for name, token in settings.items() if is_specific(name) and isinstance(token, Token)}
    specific |= settings.get(SPECIFIC) or {}
    together = {name: (named | specific)[name] for name in [*NAMED, *specific] if name in named | specific}
    for name, token in [
        *named.items(),
        *together.items(),
    ]:  # an invalid token is an error even if another replaces it
        if not isinstance(token, Token) or (name in together and content(together[name]) == ""):
            raise TokenizerError(f"{name}={token!r}", "must be a text, or an object marked as AddedToken", "TOK-17")
    return together  # in the order in which they get ids


def extra_tokens(settings: Mapping[str, Any]) -> list[Token]:
    """The special tokens that have no name."""
    extra = settings.get(EXTRA, settings.get(EXTRA_ONCE))
    if not isinstance(extra, list | None) or not all(map(is_token, extra or [])):
        raise TokenizerError(f"{EXTRA}={extra!r}", "must be a list of texts or objects marked as AddedToken", "TOK-17")
    return extra or []


def add_tokens(backend: tokenizers.Tokenizer, tokens: SpecialTokens, files: TokenizerFiles) -> None:
    """TOK-17. Gives the library the tokens in transformers' order, and refuses ids other than those of the files."""
    own = {} if files.is_gpt2 else by_id(from_tokenizer(files))  # for the other class these come first
    backend.add_tokens(list(own.values()))
    pending: list[Token] = [tokens.added[token_id] for token_id in sorted(tokens.added)]
    known = {content(token) for token in [*own.values(), *pending]}
    for token in [*tokens.named.values(), *tokens.extra]:
        if content(token) not in known and token not in pending:
            pending.append(token)
    names = set(map(content, tokens.named.values()))
    for token in pending:
        if isinstance(token, AddedToken) and token.content in names:
            token.special = True
    ready = special_for_good(pending, {token.content for token in own.values() if token.special})
    backend.add_tokens(list(ready))
    refuse_wrong_ids(backend.get_vocab(), own | dict(tokens.added))


def special_for_good(tokens: Iterable[Token], special: set[str]) -> Iterator[AddedToken]:
    """Tokens as the library keeps them. A text that was special once stays special, also when it is saved."""
    for token in tokens:
        one = AddedToken(token, special=True) if isinstance(token, str) else token
        if one.content in special and not one.special:
            one = AddedToken(one.content, **{flag: getattr(one, flag) for flag in FLAGS} | {"special": True})
        special = special | {one.content} if one.special else special
        yield one


def refuse_wrong_ids(vocab: Mapping[str, int], claimed: Mapping[int, AddedToken]) -> None:
    """TOK-01, TOK-17. Raises `TokenizerError` if an added token's id is not that of its file, or if two tokens share an id."""
    for token_id, token in claimed.items():
        if vocab.get(token.content) != token_id:
            raise TokenizerError(
                f"added token {token.content!r}",
                f"cannot have id {token_id}: its id is {vocab.get(token.content)}",
                "TOK-17",
                "The id of an added token is that of the vocabulary, or the next free one.",
            )
    if len(set(vocab.values())) < len(vocab):
        first = {token_id: text for text, token_id in vocab.items()}
        text = next(text for text, token_id in vocab.items() if first[token_id] != text)
        raise TokenizerError(
            f"id {vocab[text]}", f"is that of two tokens, {text!r} and {first[vocab[text]]!r}", "TOK-01"
        )
