"""Reads MINE and OTHER of `refgen compare`: stages recorded in a file, or an implementation that computes them now."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from refgen.cli.subject import connected
from refgen.errors import OracleError
from refgen.oracle import trace

if TYPE_CHECKING:
    from refgen.config import GPT2Config
    from refgen.oracle.trace import Trace

DRAWN = 32  # ids, if none are given


def is_file(text: str) -> bool:
    """Whether it is a file of stages; anything else is an implementation, as `refgen check` names it."""
    return text.endswith(".safetensors")


def read_or_ask(
    mine: str, other: str | None, ids: ndarray | None, folder: Path, config: "GPT2Config"
) -> "tuple[Trace, Trace | None]":
    """Both traces, of the same ids `[1 T]`: those of a file, else those given, else drawn ones. Raises `OracleError`."""
    files = {text: trace.load(Path(text), config) for text in (mine, other) if text is not None and is_file(text)}
    if files and ids is not None:
        raise OracleError("--ids", "a file of stages has its own ids", remedy="Leave it out.")
    of = next(iter(files.values()), None)
    if of is not None:
        ids, mask = of.input_ids, of.attention_mask
    else:
        ids = drawn(config) if ids is None else ids
        mask = np.ones_like(ids)
    first, second = (
        None if text is None else files[text] if text in files else asked(text, ids, mask, folder, config)
        for text in (mine, other)
    )
    assert first is not None  # noqa: S101 - MINE is always given
    return first, second


def drawn(config: "GPT2Config") -> ndarray:
    """`[1 T]` ids, always the same: drawn ones reach more of a network than a sentence does."""
    length = min(DRAWN, config.n_positions)
    return np.random.default_rng(0).integers(config.vocab_size, size=(1, length))


def asked(text: str, ids: ndarray, mask: ndarray, folder: Path, config: "GPT2Config") -> "Trace":
    """The stages of an implementation, or only its logits. Raises `OracleError` if it gives neither, or its `SubjectError`."""
    request: dict[str, Any] = {"input_ids": ids.tolist()}
    if not mask.all():
        request["attention_mask"] = mask.tolist()
    subject, _ = connected(text, str(folder))
    try:
        about = subject.about
        if "stages" in about.can:
            given = subject.ask("stages", folder, request)["stages"]
        elif "forward" in about.can:
            given = {"lm_head": subject.ask("forward", folder, request)["logits"]}
        else:
            raise OracleError(text, "answers neither stages nor forward, so there is nothing to compare")
    finally:
        subject.close()
    return trace.of(given, ids, mask, config, about.dtype)
