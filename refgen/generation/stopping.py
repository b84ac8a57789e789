"""Stopping: when a row is finished, and why. Rules STOP-01 to STOP-07 and LEN-01 to LEN-05 of SPEC.md.

Each condition looks at the rows after a token was appended; the first that holds names the finish:

    eos       the new token is an end token; it stays in the output
    length    the row is as long as asked for
    context   the row fills the model's positions, so no further token could be computed

Axes    B rows, S columns so far.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy import ndarray

Stop = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], mask [B S]) -> [B]
FINISHES = ("eos", "length", "context")


def stopping(eos_ids: tuple[int, ...], max_length: int, n_positions: int) -> dict[str, Stop]:
    """STOP-01. The conditions by the finish they name, in the order they are asked."""
    return {
        "eos": partial(eos, eos_ids=eos_ids),
        "length": partial(length, max_length=max_length),
        "context": partial(context, n_positions=n_positions),
    }


def eos(ids: ndarray, mask: ndarray, *, eos_ids: tuple[int, ...]) -> ndarray:
    """STOP-02, STOP-03. Only the newest token counts: an end token in the prompt stops nothing."""
    return np.isin(ids[:, -1], eos_ids)


def length(ids: ndarray, mask: ndarray, *, max_length: int) -> ndarray:
    """LEN-02. Columns count, so padding counts; the whole batch reaches the limit at once."""
    return np.full(len(ids), ids.shape[1] >= max_length)


def context(ids: ndarray, mask: ndarray, *, n_positions: int) -> ndarray:
    """LEN-04, LEN-05. Tokens count, padding does not. The last token is never fed back, so n_positions + 1 fit."""
    return mask.sum(axis=1) > n_positions
