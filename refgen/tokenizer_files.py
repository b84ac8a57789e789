"""The JSON files of a tokenizer's folder, each read once. Rules TOK-01, TOK-17 and TOK-18.

`tokenizer.json` holds a whole tokenizer. The other files accompany a vocabulary: they name special tokens, and settings.
Like transformers, refgen reads them in one of two ways, which depends on the class that they name:

    GPT2Tokenizer, or no class    vocabulary, merges, added tokens and template; the rest is GPT-2's own
    PreTrainedTokenizerFast       tokenizer.json as it is; no token is special by default

`bpe.py` defines GPT-2's kind of tokenizer. A tokenizer.json of another kind is refused, not approximated.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from refgen.errors import TokenizerError
from refgen.json_files import read_object

IS_GPT2 = {  # by tokenizer_class: whether the files are read as transformers' GPT2Tokenizer reads them
    None: True,
    "GPT2Tokenizer": True,
    "GPT2TokenizerFast": True,
    "PreTrainedTokenizerFast": False,
    "TokenizersBackend": False,
}
GPT2_PARTS = (  # of a tokenizer.json: part, entry, and GPT-2's value
    ("model", "type", "BPE"),
    ("model", "dropout", None),
    ("model", "continuing_subword_prefix", ""),
    ("model", "end_of_word_suffix", ""),
    ("model", "byte_fallback", False),
    ("model", "ignore_merges", False),
    ("normalizer", "type", None),
    ("pre_tokenizer", "type", "ByteLevel"),
    ("pre_tokenizer", "use_regex", True),
    ("decoder", "type", "ByteLevel"),
)
UNSAID = {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges", "use_regex"}


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of `folder`, one object for each, which is empty if the file is missing.

    `is_gpt2` means that they are read as the class GPT2Tokenizer reads them. `parts` is the tokenizer of `tokenizer.json` without
    its vocabulary and its added tokens, or None without the file.
    """

    folder: Path
    is_gpt2: bool
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)
    added_tokens: Mapping[str, Any] = field(default_factory=dict)
    parts: tokenizers.Tokenizer | None = None


def read_files(folder: Path) -> TokenizerFiles:
    """TOK-17. The files of a folder. Raises `TokenizerError` for a file that is not a JSON object or not GPT-2's kind."""
    tokenizer, config, special_tokens_map, added_tokens = (
        read_if_there(folder / f"{name}.json")
        for name in ("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens")
    )
    there = (folder / "tokenizer.json").exists()
    return TokenizerFiles(
        folder,
        read_as_gpt2(folder, config),
        tokenizer,
        config,
        special_tokens_map,
        added_tokens,
        parts_of(folder / "tokenizer.json", tokenizer) if there else None,
    )


def read_if_there(path: Path) -> dict[str, Any]:
    """The object in a file, empty if the file is missing."""
    return read_object(path, TokenizerError, "TOK-01") if path.exists() else {}


def read_as_gpt2(folder: Path, config: Mapping[str, Any]) -> bool:
    """TOK-17. Whether the folder's tokenizer class is GPT-2's. `config.json` may name it too, and the settings take precedence."""
    name = config.get("tokenizer_class") or read_if_there(folder / "config.json").get("tokenizer_class")
    if not isinstance(name, str | None) or name not in IS_GPT2:
        known = ", ".join(kind for kind in IS_GPT2 if kind)
        raise TokenizerError(f"tokenizer_class={name!r}", f"must be one of {known}", "TOK-17")
    if not IS_GPT2[name] and not (folder / "tokenizer.json").exists():
        raise TokenizerError(
            f"tokenizer_class={name!r}",
            f"needs a tokenizer.json, and {folder} holds none",
            "TOK-17",
            "With vocab.json and merges.txt the class is GPT2Tokenizer.",
        )
    return IS_GPT2[name]


def parts_of(path: Path, entries: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """TOK-01. The tokenizer of `tokenizer.json` without its vocabulary. Raises `TokenizerError` if it is not GPT-2's kind."""
    for part, entry, kind in GPT2_PARTS:
        described = entries.get(part) or {}
        if not isinstance(described, dict):
            raise TokenizerError(str(path), f"its {part} must be an object", "TOK-01")
        found = described.get(entry)
        unsaid = found is None and (entry in UNSAID or (part == "model" and "merges" in described))
        if found != kind and not unsaid:  # a tokenizer.json of 2020, GPT-2's among them, does not name the model's type
            name = part if entry == "type" else f"{part}'s {entry}"
            raise TokenizerError(
                str(path), f"its {name} is {found}, GPT-2's is {'empty' if kind == '' else kind}", "TOK-01"
            )
    return tokenizers.Tokenizer.from_str(
        json.dumps({**entries, "model": {**entries["model"], "vocab": {}, "merges": []}})
    )
