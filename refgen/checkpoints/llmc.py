"""llm.c's `.bin`: 256 whole numbers with the sizes, then all weights in llm.c's order. Rule CKPT-17 of SPEC.md.

refgen reads versions 3 (F32) and 5 (BF16), which pad the embedding to a multiple of 128 rows, and 1 (F32, not padded). The padding
rows are not tokens and are not loaded. llm.c never reads their logits either. Linear weights are `[out, in]`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refgen.checkpoints.stored import Stored, mapped
from refgen.errors import CheckpointError

HEADER = 256  # whole numbers of 4 bytes
VERSIONS = {1: ("F32", 4), 3: ("F32", 4), 5: ("BF16", 2)}
SIZES = ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd")


def header(file: Path) -> dict[str, int]:
    """The sizes, the `version`, and the `rows` of the padded embedding. Raises `CheckpointError`."""
    with file.open("rb") as opened:
        numbers = np.frombuffer(opened.read(4 * HEADER).ljust(4 * HEADER, b"\0"), "<i4").tolist()
    found = {"version": numbers[1], **dict(zip(SIZES, numbers[2:7], strict=True)), "rows": numbers[7] or numbers[3]}
    if found["version"] not in VERSIONS:
        problem = f"is version {found['version']} of llm.c's files, must be one of {', '.join(map(str, VERSIONS))}"
        raise CheckpointError(str(file), problem, "CKPT-17", "Write it again with llm.c's train_gpt2.py.")
    if min(found.values()) < 1 or found["rows"] < found["vocab_size"]:
        raise CheckpointError(str(file), f"has impossible sizes: {found}", "CKPT-17", "Fetch it again.")
    return found


def configuration(file: Path) -> dict[str, Any]:
    """The sizes as entries of a config.json; everything else is as in GPT-2."""
    found = header(file)
    ids = {"bos_token_id": 50256, "eos_token_id": 50256} if found["vocab_size"] > 50256 else {}
    return (
        {"model_type": "gpt2", "bos_token_id": None, "eos_token_id": None} | {name: found[name] for name in SIZES} | ids
    )


def tensors(found: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape as they lie, in llm.c's order: each kind of all layers together."""
    C, layers = found["n_embd"], range(found["n_layer"])
    yield "wte.weight", (found["rows"], C)
    yield "wpe.weight", (found["n_positions"], C)
    for name, out, into in (
        ("ln_1", C, 0), ("attn.c_attn", 3 * C, C), ("attn.c_proj", C, C),
        ("ln_2", C, 0), ("mlp.c_fc", 4 * C, C), ("mlp.c_proj", C, 4 * C),
    ):  # fmt: skip
        for i in layers:
            yield f"h.{i}.{name}.weight", (out, into) if into else (out,)
        for i in layers:
            yield f"h.{i}.{name}.bias", (out,)
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)


def read(file: Path) -> list[Stored]:
    """Every tensor. Raises `CheckpointError` unless the file is as long as its sizes say."""
    found = header(file)
    dtype, width = VERSIONS[found["version"]]
    C, rows = found["n_embd"], found["rows"] + found["n_positions"] + 2
    expected = 4 * HEADER + width * C * (rows + found["n_layer"] * (12 * C + 13))
    pages = mapped(file)
    if len(pages) != expected:
        problem = f"has {len(pages)} bytes, must have {expected} for its sizes"
        raise CheckpointError(str(file), problem, "CKPT-17", "Fetch it again.")
    stored, place = [], 4 * HEADER
    for name, shape in tensors(found):
        size = width * math.prod(shape)
        kept = found["vocab_size"] if name == "wte.weight" else shape[0]
        linear = len(shape) == 2 and name.startswith("h.")
        data = np.frombuffer(pages, np.uint8, size // shape[0] * kept, place)
        as_read = shape[::-1] if linear else (kept, *shape[1:])
        stored.append(Stored(file, name, dtype, as_read, data, "F" if linear else "C", pages))
        place += size
    return stored
