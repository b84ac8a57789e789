"""Chance: the seed or the uniform numbers a caller gave, made into a pick. Rules SAMP-05, SAMP-09 and SAMP-10."""

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError, InputError
from refgen.generation.beam import Choose, best, drawn
from refgen.generation.config import GenerationConfig
from refgen.generation.pick import Pick, draw, greedy, inverse_cdf
from refgen.generation.torch_stream import Exponentials, exponentials_per_row, shared_exponentials

Seed = int | Sequence[int] | None


def make_pick(
    config: GenerationConfig, rows: int, steps: int, seed: Seed, uniforms: Any
) -> tuple[Pick, int | tuple[int, ...] | None]:
    """Greedy, or by the source of chance the caller gave; and the seed that was used, fresh if none was given.

    There are `rows` to pick for and at most `steps` times to do it.
    """
    if seed is not None and uniforms is not None:
        raise GenerationError("seed and uniforms", "are two sources of chance", "SAMP-10", "Pass one of them.")
    seeds = read_seeds(seed, rows)
    table = None if uniforms is None else read_uniforms(uniforms, rows, steps)
    if not config.samples:
        return greedy, None
    if table is not None:
        return inverse_cdf(table), None
    return draw(exponentials_of(seeds)), seeds


def make_choose(
    config: GenerationConfig, rows: int, seed: Seed, uniforms: Any
) -> tuple[Choose, int | tuple[int, ...] | None]:
    """BEAM-03, BEAM-11. The best candidates, or a draw among them; and the seed that was used."""
    if uniforms is not None:
        raise GenerationError(
            "uniforms", "beams draw without replacement, which they do not define", "SAMP-10", "Use seed=."
        )
    seeds = read_seeds(seed, rows)
    return (drawn(exponentials_of(seeds)), seeds) if config.samples else (best, None)


def exponentials_of(seeds: int | tuple[int, ...]) -> Exponentials:
    """SAMP-04, SAMP-09. One stream for all rows, or one for each."""
    return exponentials_per_row(seeds) if isinstance(seeds, tuple) else shared_exponentials(seeds)


def read_seeds(seed: Seed, rows: int) -> int | tuple[int, ...]:
    """SAMP-05, SAMP-09. One whole number for the batch or one for each row; None takes 32 fresh bits."""
    if seed is None:
        return secrets.randbits(32)
    several: Any = seed.tolist() if hasattr(seed, "tolist") else seed  # arrays and NumPy's numbers
    one = not isinstance(several, list | tuple)
    several = [several] if one else list(several)
    if any(isinstance(each, bool) or not isinstance(each, int | np.integer) for each in several):
        raise GenerationError(f"seed={seed!r}", "must be a whole number, or one for each row", "SAMP-05")
    if one:
        return int(several[0])
    if len(several) != rows:
        raise GenerationError(
            f"{len(several)} seeds",
            f"there are {rows} rows to sample",
            "SAMP-09",
            "Give each of the rows times num_return_sequences its own.",
        )
    return tuple(int(each) for each in several)


def read_uniforms(uniforms: Any, rows: int, steps: int) -> ndarray:
    """SAMP-10. float64 `[B*n N]` with N at least the number of steps, all in [0, 1); one row may be flat."""
    try:
        table = np.atleast_2d(np.asarray(uniforms, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise InputError("uniforms", f"must be numbers in [{rows}, {steps}]", "SAMP-10") from None
    if table.ndim != 2 or len(table) != rows or table.shape[1] < steps:
        raise InputError(
            f"uniforms of shape {list(table.shape)}",
            f"must be [{rows}, {steps}]: a row for each sequence, a column for each step",
            "SAMP-10",
        )
    if not ((table >= 0) & (table < 1)).all():
        raise InputError("uniforms", "must be at least 0 and below 1", "SAMP-10")
    return table
