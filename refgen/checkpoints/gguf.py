"""GGUF of architecture gpt2, as llama.cpp has it: F32, F16, BF16, and Q8_0, whose numbers are read exactly. Rule CKPT-17 of SPEC.md.

The header describes the model, entry by entry, then the place of each tensor. Lists, such as the vocabulary, are skipped: only
their place in the file is kept, and `vocabulary` reads them. Linear weights are `[out, in]`.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refgen.checkpoints.stored import BLOCKS, Stored, mapped
from refgen.errors import CheckpointError, listed

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
FORMATS = {0: "F32", 1: "F16", 8: "Q8_0", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
LONGEST = 128  # bytes that are kept of a text
SIZES = {
    "context_length": "n_positions", "embedding_length": "n_embd", "feed_forward_length": "n_inner",
    "block_count": "n_layer", "attention.head_count": "n_head", "attention.layer_norm_epsilon": "layer_norm_epsilon",
}  # fmt: skip
NAMES = {
    "token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head",
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A list in the header: the kind of its items, how many, where the first is."""

    kind: int
    count: int
    start: int


class Reader:
    """The header, from its beginning to its end. Raises `ValueError` or `struct.error` where the file is damaged."""

    def __init__(self, pages: mmap.mmap, place: int = 0) -> None:
        self.pages, self.place = pages, place

    def number(self, code: str) -> Any:
        """One number, by its code in `struct`."""
        (found,) = struct.unpack_from(f"<{code}", self.pages, self.place)
        self.place += struct.calcsize(f"<{code}")
        return found

    def skip(self, size: int) -> None:
        """Skips `size` bytes. Raises `ValueError` at the end of the file."""
        if self.place + size > len(self.pages):
            raise ValueError("cut off")
        self.place += size

    def text(self) -> str:
        """A text; only the beginning of a very long one."""
        start = self.place + 8
        self.skip(8 + self.number_at("Q"))
        return self.pages[start : min(self.place, start + LONGEST)].decode(
            "utf-8", "replace"
        )  # tokens of GPT-2 are shorter

    def number_at(self, code: str) -> Any:
        """The next number, without moving on."""
        (found,) = struct.unpack_from(f"<{code}", self.pages, self.place)
        return found

    def value(self, kind: int, depth: int = 0) -> Any:
        """The value of an entry, or the place of a list."""
        if kind == TEXT:
            return self.text()
        if kind != LIST:
            return self.number(SCALARS[kind])
        inner, count = self.number("I"), self.number("Q")
        start = self.place
        if inner in SCALARS:
            self.skip(count * struct.calcsize(SCALARS[inner]))
        elif inner == TEXT:
            for _ in range(count):
                self.skip(8 + self.number_at("Q"))
        elif depth < 3:
            for _ in range(count):
                self.value(LIST, depth + 1)
        else:
            raise ValueError("lists in lists")
        return Place(inner, count, start)


@dataclass(frozen=True)
class Header:
    """The contents of a header: its entries, and the name, shape, format and place of each tensor."""

    pages: mmap.mmap
    entries: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]


def header(file: Path) -> Header:
    """The header of a file of architecture gpt2. Raises `CheckpointError`."""
    try:
        found = parsed(mapped(file))
    except (OSError, ValueError, struct.error, KeyError, OverflowError) as error:
        problem = f"is not a whole GGUF file ({str(error)[:100]})"
        raise CheckpointError(str(file), problem, "CKPT-17", "Fetch it again.") from None
    if (kind := found.entries.get("general.architecture")) != "gpt2":
        problem = f"general.architecture={str(kind)[:50]!r}: must be 'gpt2'"
        raise CheckpointError(str(file), problem, "CKPT-13", "refgen computes GPT-2 only.")
    return found


def parsed(pages: mmap.mmap) -> Header:
    """The header. Raises what `Reader` raises."""
    reader = Reader(pages, len(MAGIC))
    version, tensor_count, entry_count = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version not in (2, 3) or max(tensor_count, entry_count) > max(2_000, len(pages) // 400):
        raise ValueError(f"version {version} with {entry_count} entries and {tensor_count} tensors")
    entries: dict[str, Any] = {}
    for _ in range(entry_count):
        name = reader.text()
        entries[name] = reader.value(reader.number("I"))
    tensors: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(tensor_count):
        name, axes = reader.text(), reader.number("I")
        if axes > 4 or name in tensors:
            raise ValueError("a tensor of more than four axes, or twice")
        shape = tuple(reader.number("Q") for _ in range(axes))[::-1]  # the file has the fastest axis first
        tensors[name] = (shape, reader.number("I"), reader.number("Q"))
    alignment = entries.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20:
        raise ValueError("an alignment that cannot be")
    start = -(-reader.place // alignment) * alignment
    return Header(pages, entries, {name: (shape, kind, start + at) for name, (shape, kind, at) in tensors.items()})


def configuration(file: Path) -> dict[str, Any]:
    """The entries of a config.json. Raises `CheckpointError` for a size that is missing."""
    found = header(file)
    sizes = {name: found.entries.get(f"gpt2.{theirs}") for theirs, name in SIZES.items()}
    missing = [f"gpt2.{theirs}" for theirs, name in SIZES.items() if sizes[name] is None]
    embedding = found.tensors.get("token_embd.weight", ((), 0, 0))[0]
    if missing or len(embedding) != 2:
        problem = f"lacks {listed([*missing, *(['token_embd.weight'] if len(embedding) != 2 else [])])}"
        raise CheckpointError(str(file), problem, "CKPT-17")
    if type(epsilon := sizes["layer_norm_epsilon"]) is float:
        sizes["layer_norm_epsilon"] = float(str(np.float32(epsilon)))  # the decimal that was rounded
    ids = {name: found.entries.get(f"tokenizer.ggml.{name}") for name in ("bos_token_id", "eos_token_id")}
    ids = {name: value if type(value) is int else None for name, value in ids.items()}
    return {"model_type": "gpt2", "vocab_size": embedding[0], "tie_word_embeddings": is_tied(found), **sizes, **ids}


def is_tied(found: Header) -> bool:
    """Whether the head is the embedding: it is left out, or written again, number by number."""
    if "output.weight" not in found.tensors:
        return True
    parts = []
    for name in ("output.weight", "token_embd.weight"):
        shape, kind, start = found.tensors[name]
        size = size_of(shape, FORMATS.get(kind, ""))
        parts.append((shape, kind, memoryview(found.pages)[start : start + size]))
    return parts[0] == parts[1]


def size_of(shape: tuple[int, ...], dtype: str) -> int:
    """The bytes of a tensor; 0 for an unknown format."""
    numbers, size = BLOCKS.get(dtype, (1, {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}.get(dtype, 0)))
    return math.prod(shape) // numbers * size


def read(file: Path) -> list[Stored]:
    """Every tensor under GPT-2's names. Raises `CheckpointError`."""
    return list(placed(file, header(file)))


def placed(file: Path, found: Header) -> Iterator[Stored]:
    """The tensors, where they lie."""
    for theirs, (shape, kind, start) in found.tensors.items():
        name, dtype = renamed(theirs), FORMATS.get(kind, f"GGUF's format {kind}")
        size = size_of(shape, dtype)
        if start + size > len(found.pages):
            raise CheckpointError(f"{file.name}: tensor {theirs[:100]}", "is cut off", "CKPT-17", "Fetch it again.")
        if dtype in BLOCKS and (not shape or shape[-1] % BLOCKS[dtype][0]):
            problem = f"is {dtype} with rows of {shape[-1:]} numbers"
            raise CheckpointError(f"{file.name}: tensor {theirs[:100]}", problem, "CKPT-17")
        linear = len(shape) == 2 and name.startswith("h.")
        data = np.frombuffer(found.pages, np.uint8, size, start)
        yield Stored(file, name, dtype, shape[::-1] if linear else shape, data, "F" if linear else "C", found.pages)


def renamed(name: str) -> str:
    """`blk.3.attn_qkv.weight` as `h.3.attn.c_attn.weight`; any other name is unchanged."""
    stem, _, end = name.rpartition(".")
    layer, _, kind = stem.rpartition(".")
    if kind not in NAMES or (layer and not layer.startswith("blk.")):
        return name
    return ".".join([*(["h", layer.removeprefix("blk.")] if layer else []), NAMES[kind], end])


def vocabulary(file: Path) -> tuple[list[str], list[str]] | None:
    """The tokens by id, and the merges, of a GPT-2 vocabulary; None if the file has no such vocabulary."""
    found = header(file)
    lists = []
    for name in ("tokens", "merges"):
        place = found.entries.get(f"tokenizer.ggml.{name}")
        if found.entries.get("tokenizer.ggml.model") != "gpt2" or not isinstance(place, Place) or place.kind != TEXT:
            return None
        reader = Reader(found.pages, place.start)
        lists.append([reader.text() for _ in range(place.count)])
    return lists[0], lists[1]
