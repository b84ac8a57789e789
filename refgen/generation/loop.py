"""The loop makes sequences from a model, which is a function from ids to logits. Rule LOOP-01 of SPEC.md.

It is a generator of steps, and the only loop in refgen. `generate()` collects its steps, and a streamer shows them one
by one. A comparison with another implementation passes a `pick` that returns the other's tokens.

Axes    B rows, S columns so far, V tokens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.generation.next_logits import NextLogits
from refgen.generation.pick import Pick
from refgen.generation.processors import Processor
from refgen.generation.prompt import Prompt
from refgen.generation.scores import check_scores
from refgen.generation.stopping import Stop


@dataclass(frozen=True)
class Step:
    """One new token a row. `finish[b]` is why row b is finished, or None."""

    tokens: ndarray  # [B]
    logits: ndarray  # [B V] float32, from the model
    scores: ndarray  # [B V] float32, after the processors
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

    A finished row is filled with `pad`. Its last token and the filling are masked, so they take no position and
    change nothing (STOP-05, STOP-06). `pad` is None only where all rows finish together (STOP-07).
    """
    processors = list(processors)
    ids, mask = prompt.ids, prompt.mask
    finish: tuple[str | None, ...] = (None,) * len(ids)
    while not all(finish):
        running = np.array([reason is None for reason in finish])
        with np.errstate(all="ignore"):  # check_scores looks for what is not finite
            logits = next_logits(ids, mask).astype(np.float32)  # also for float64 models (GREEDY-02)
            scores = logits
            for processor in processors:
                scores = processor(ids, scores)
            check_scores(scores, logits, running)
            tokens = np.where(running, pick(scores), 0 if pad is None else pad)
        # The stopping conditions count the new token; the model will see it only if its row goes on.
        ids, seen = np.column_stack([ids, tokens]), np.column_stack([mask, running])
        hits = [(reason, stop(ids, seen)) for reason, stop in stopping.items()]
        finish = tuple(
            was or next((reason for reason, hit in hits if hit[row]), None) for row, was in enumerate(finish)
        )
        mask = np.column_stack([mask, [reason is None for reason in finish]])
        yield Step(tokens, logits, scores, finish)
