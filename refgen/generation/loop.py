"""The loop: a model is a function from ids to logits; this file makes sequences of it. Rule LOOP-01 of SPEC.md.

It is a generator of steps, and the only loop there is: `generate()` collects its steps, a streamer shows them as
they come, and whoever wants to compare another implementation supplies a `pick` that returns the other's tokens.

Axes    B rows, S columns so far, V tokens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.errors import GenerationError
from refgen.generation.next_logits import NextLogits
from refgen.generation.pick import Pick
from refgen.generation.processors import Processor
from refgen.generation.prompt import Prompt
from refgen.generation.stopping import Stop


@dataclass(frozen=True)
class Step:
    """One new token a row. `finish[b]` says why row b is finished, None while it is not."""

    tokens: ndarray  # [B]
    logits: ndarray  # [B V] float32: what the model said
    scores: ndarray  # [B V] float32: what the processors made of it
    finish: tuple[str | None, ...]


def decode(
    next_logits: NextLogits,
    prompt: Prompt,
    processors: Iterable[Processor],
    pick: Pick,
    stopping: Mapping[str, Stop],
    pad: int | None,
) -> Iterator[Step]:
    """LOOP-01. Logits, scores, pick, append, stop; until every row is finished (STOP-04).

    A finished row is filled with `pad`; its last token and the filling are masked, so that they take no position
    and change nothing (STOP-05, STOP-06).
    """
    processors = list(processors)
    ids, mask = prompt.ids, prompt.mask
    finish: tuple[str | None, ...] = (None,) * len(ids)
    while not all(finish):
        running = np.array([reason is None for reason in finish])
        with np.errstate(all="ignore"):  # what is no number any more is looked for right after
            logits = next_logits(ids, mask).astype(np.float32)  # also for float64 models (GREEDY-02)
            scores = logits
            for processor in processors:
                scores = processor(ids, scores)
            check_scores(scores, logits, running)
            # Where pad is None no row finishes before the others; `call.py` has seen to that.
            tokens = np.where(running, pick(scores), 0 if pad is None else pad)
        # To the stopping conditions the new token counts; to the model it will, if its row goes on.
        ids, seen = np.column_stack([ids, tokens]), np.column_stack([mask, running])
        hits = [(reason, stop(ids, seen)) for reason, stop in stopping.items()]
        finish = tuple(
            was or next((reason for reason, hit in hits if hit[row]), None) for row, was in enumerate(finish)
        )
        mask = np.column_stack([mask, [reason is None for reason in finish]])
        yield Step(tokens, logits, scores, finish)


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
