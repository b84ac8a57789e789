"""Scores as probabilities, and when there is no token to pick.

Axes    B rows, V tokens.
"""

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError


def log_softmax(scores: ndarray) -> ndarray:
    """Logarithms of the probabilities; -inf for a removed token."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def entropy(scores: ndarray) -> ndarray:
    """The sum of -p log p, `[B 1]`, in which a removed token has no part. Takes log p as it is, not of a rounded p."""
    logp = log_softmax(scores)
    return -(np.exp(logp) * np.where(np.isfinite(logp), logp, 0)).sum(axis=1, keepdims=True)


def check_scores(scores: ndarray, logits: ndarray, running: ndarray) -> None:
    """GREEDY-03, SAMP-08, TEMP-03. A row that goes on needs a best score, and a number for it; others guess."""
    best = scores.max(axis=1)
    for row in np.flatnonzero(running & ~np.isfinite(best)):
        if not np.isfinite(logits[row].max()):
            raise GenerationError(
                f"row {row}",
                "the model's logits are not finite",
                "SAMP-08",
                "Look for NaN or huge numbers in its weights.",
            )
        raise GenerationError(
            f"row {row}",
            "the settings leave no token to choose: all are removed, or a temperature or penalty overflows float32",
            "SAMP-08",
            "Loosen them; for greedy decoding use temperature=0.",
        )
