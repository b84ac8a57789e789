"""The files a vocabulary comes in, read into a `tokenizers.Tokenizer`. Rules TOK-01, TOK-05 and TOK-07.

`tokenizer.json`, or `vocab.json` and `merges.txt`, or GPT-2's `vocab.bpe` alone, with the settings beside them. Any
tokenizer that differs from GPT-2's, as `bpe.py` defines it, is refused, not approximated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from refgen.bpe import END, vocabulary
from refgen.errors import TokenizerError
from refgen.json_files import read_object

GPT2_PARTS = (  # of a tokenizer.json: part, entry, and what it is in GPT-2's
    ("model", "type", "BPE"),
    ("model", "dropout", None),
    ("normalizer", "type", None),
    ("pre_tokenizer", "type", "ByteLevel"),
    ("pre_tokenizer", "use_regex", True),
    ("decoder", "type", "ByteLevel"),
)


def read_settings(folder: Path) -> dict[str, Any]:
    """The special tokens and settings beside the vocabulary, if any."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            settings |= read_object(folder / name, TokenizerError, "TOK-01")
    limit = settings.get("model_max_length")
    settings["model_max_length"] = limit if isinstance(limit, int) and limit <= 10**9 else None  # 1e30: unknown
    if (folder / "tokenizer.json").exists():
        settings["add_bos_token"] = template_adds_bos(folder / "tokenizer.json", settings)
    return settings


def template_adds_bos(path: Path, settings: Mapping[str, Any]) -> bool:
    """TOK-07. Whether `tokenizer.json` puts the bos token first: transformers 5 reads and writes it only there."""
    template = read_object(path, TokenizerError, "TOK-01").get("post_processor") or {}
    pieces = [(kind, piece["id"]) for part in template.get("single", []) for kind, piece in part.items()]
    bos = settings.get("bos_token", END)
    first = ("SpecialToken", bos["content"] if isinstance(bos, dict) else bos)
    if template.get("type") not in (None, "ByteLevel", "TemplateProcessing") or (
        pieces and pieces not in ([("Sequence", "A")], [first, ("Sequence", "A")])
    ):
        raise TokenizerError(str(path), "adds more to a text than a bos_token at its start", "TOK-07")
    return first in pieces


def read_backend(folder: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer from whichever files are there."""
    if (folder / "tokenizer.json").exists():
        entries = read_object(folder / "tokenizer.json", TokenizerError, "TOK-01")
        for part, entry, kind in GPT2_PARTS:
            found = (entries.get(part) or {}).get(entry)
            if found != kind and not (found is None and entry != "type"):
                name = part if entry == "type" else f"{part}'s {entry}"
                raise TokenizerError(
                    str(folder / "tokenizer.json"), f"its {name} is {found}, GPT-2's is {kind}", "TOK-01"
                )
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        backend.no_truncation()
        backend.no_padding()
        if "add_prefix_space" in settings:
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings["add_prefix_space"]))
        backend.post_processor = processors.ByteLevel()  # what it adds is `add_bos_token` now
        return backend
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocab, merges = read_object(folder / "vocab.json", TokenizerError, "TOK-01"), read_merges(folder / "merges.txt")
    elif (folder / "vocab.bpe").exists():
        merges = read_merges(folder / "vocab.bpe")
        vocab = vocabulary(merges)
    else:
        raise TokenizerError(
            str(folder),
            "holds no tokenizer",
            "TOK-01",
            "It needs tokenizer.json, or vocab.json and merges.txt, or GPT-2's vocab.bpe.",
        )
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    if END in vocab:
        backend.add_special_tokens([AddedToken(END, normalized=False, special=True)])
    add_tokens(backend, folder, settings)
    return backend


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of `merges.txt` or `vocab.bpe`, most urgent first."""
    merges = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line and not (number == 1 and line.startswith("#version")):
            left, _, right = line.partition(" ")
            if not left or not right or " " in right:
                raise TokenizerError(f"{path}, line {number}", f"must be two tokens and a space, is {line!r}", "TOK-05")
            merges.append((left, right))
    return merges


def add_tokens(backend: tokenizers.Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """Tokens added after training, from `added_tokens.json` or the `added_tokens_decoder` of the settings."""
    path = folder / "added_tokens.json"
    listed = read_object(path, TokenizerError, "TOK-01") if path.exists() else {}
    added = {int(i): {"content": text} for text, i in listed.items()}
    added |= {int(i): entry for i, entry in settings.get("added_tokens_decoder", {}).items()}
    for token_id, entry in sorted(added.items()):
        options = {
            name: bool(entry[name])
            for name in ("lstrip", "rstrip", "single_word", "normalized", "special")
            if name in entry
        }
        token = AddedToken(entry["content"], **options)
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(entry["content"]) != token_id:
            raise TokenizerError(f"added token {entry['content']!r}", f"cannot have id {token_id}", "TOK-01")
