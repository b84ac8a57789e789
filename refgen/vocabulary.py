"""A vocabulary and its merges from the files they come in, made a `tokenizers.Tokenizer`. Rules TOK-01, TOK-05 and TOK-07.

`tokenizer.json`, or `vocab.json` and `merges.txt`, or GPT-2's `vocab.bpe` alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from refgen.bpe import Pair, vocabulary
from refgen.errors import TokenizerError
from refgen.json_files import read_object
from refgen.tokenizer_files import TokenizerFiles


def read_backend(files: TokenizerFiles, add_prefix_space: bool) -> tokenizers.Tokenizer:
    """TOK-01. The library's tokenizer of a folder, without any added token."""
    vocab, merges = read_vocabulary(files)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel()  # what a template adds is `add_bos_token` and `add_eos_token`
    return backend


def read_vocabulary(files: TokenizerFiles) -> tuple[dict[str, int], list[Pair]]:
    """TOK-01. The id of each token, and the merges, from whichever files are there."""
    folder = files.folder
    if files.parts is not None:
        model = files.tokenizer["model"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        return ids_of(model["vocab"], folder / "tokenizer.json"), [(left, right) for left, right in pairs]
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocab = read_object(folder / "vocab.json", TokenizerError, "TOK-01")
        return ids_of(vocab, folder / "vocab.json"), read_merges(folder / "merges.txt")
    if (folder / "vocab.bpe").exists():
        merges = read_merges(folder / "vocab.bpe")
        return vocabulary(merges), merges
    raise TokenizerError(
        str(folder),
        "holds no tokenizer",
        "TOK-01",
        "It needs tokenizer.json, or vocab.json and merges.txt, or GPT-2's vocab.bpe.",
    )


def ids_of(vocab: Any, path: Path) -> dict[str, int]:
    """TOK-01. A vocabulary whose ids are ids. Raises `TokenizerError` for any other."""
    if not isinstance(vocab, dict):
        raise TokenizerError(str(path), "its vocabulary must be an object of tokens and their ids", "TOK-01")
    for token, token_id in vocab.items():
        if type(token_id) is not int or not 0 <= token_id < 2**32:
            raise TokenizerError(
                str(path), f"token {token!r} has id {token_id!r}, must be a whole number below 2**32", "TOK-01"
            )
    return vocab


def read_merges(path: Path) -> list[Pair]:
    """TOK-05. The merges of `merges.txt` or `vocab.bpe`, most urgent first."""
    merges = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line and not (number == 1 and line.startswith("#version")):
            left, _, right = line.partition(" ")
            if not left or not right or " " in right:
                raise TokenizerError(f"{path}, line {number}", f"must be two tokens and a space, is {line!r}", "TOK-05")
            merges.append((left, right))
    return merges


def read_template(files: TokenizerFiles, special: Mapping[str, str], vocab: Mapping[str, int]) -> dict[str, bool]:
    """TOK-07. Whether the template of `tokenizer.json` puts the bos token first and the eos token last.

    Without that file the settings say so, and this is empty. Any other template is refused.
    """
    if files.parts is None:
        return {}
    template: dict[str, Any] = files.tokenizer.get("post_processor") or {}
    pieces = [(kind, piece["id"]) for part in template.get("single", []) for kind, piece in part.items()]
    bos, eos = ([("SpecialToken", special.get(name))] for name in ("bos_token", "eos_token"))
    text = [("Sequence", "A")]
    known = {(False, False): text, (True, False): bos + text, (False, True): text + eos, (True, True): bos + text + eos}
    adds = next((which for which, order in known.items() if order == pieces), None) if pieces else (False, False)
    right_ids = all(
        each["ids"] == [vocab.get(token)]
        for token, each in template.get("special_tokens", {}).items()
        if ("SpecialToken", token) in pieces
    )
    if template.get("type") not in (None, "ByteLevel", "TemplateProcessing") or adds is None or not right_ids:
        raise TokenizerError(
            str(files.folder / "tokenizer.json"),
            "adds more to a text than its bos_token at the start and its eos_token at the end",
            "TOK-07",
        )
    return dict(zip(("add_bos_token", "add_eos_token"), adds, strict=True))
