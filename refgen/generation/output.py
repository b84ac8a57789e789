"""Output: what `generate()` returns beside the ids. Rules OUT-01 to OUT-08 of SPEC.md.

Axes    B rows, n sequences a row, P prompt columns, V tokens; T positions in a forward pass, S positions before and in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.cache import Cache
from refgen.errors import GenerationError, InputError
from refgen.generation.config import GenerationConfig
from refgen.generation.scores import log_softmax

Layers = tuple[ndarray, ...]


@dataclass(frozen=True)
class GenerateOutput:
    """OUT-01. What `generate(..., return_dict_in_generate=True)` returns. A field that was not requested is None.

    Tuples have one entry a step. Entries of a row that is finished mean nothing (OUT-05).
    """

    sequences: ndarray  # [B*n, P + new] int64
    lengths: ndarray  # [B*n] the columns of each row that are not filling behind its end
    finish: tuple[str, ...]  # why each row ended: eos, length, context, stop_string, time or criterion
    seed: int | tuple[int, ...] | None  # what chance was seeded with; None if nothing was drawn from a seed
    scores: tuple[ndarray, ...] | None = None  # [B*n V] float32, after the processors; of beams K for n
    logits: tuple[ndarray, ...] | None = None  # [B*n V] float32, before them
    hidden_states: tuple[Layers, ...] | None = None  # [B*n T C] embeddings, then every block, the last one normed
    attentions: tuple[Layers, ...] | None = None  # [B*n H T S], every block
    past_key_values: Cache | None = None  # P + new - 1 positions; None with use_cache=False
    sequences_scores: ndarray | None = None  # [B*n] float32, of beam search
    beam_indices: ndarray | None = None  # [B*n new]: the row of scores each token was chosen in, -1 after the end

    def logprobs(self, of: str = "scores") -> ndarray:
        """OUT-08. The log-probability of every new token, float32 `[B*n new]`, 0 after a row's end.

        `of` is "scores", the scores that the token was chosen from, or "logits", those of the model.
        """
        if of not in ("scores", "logits"):
            raise GenerationError(f"of={of!r}", 'must be "scores" or "logits"', "OUT-08")
        if getattr(self, of) is None:
            raise GenerationError(
                f"logprobs({of!r})", f"needs the {of} of every step", "OUT-08", f"Generate with output_{of}=True."
            )
        values = transition_scores(self.sequences, getattr(self, of), self.beam_indices, normalize_logits=True)
        width = self.sequences.shape[1]
        columns = np.arange(width - values.shape[1], width)
        return np.where(columns < self.lengths[:, None], values, np.float32(0))


def transition_scores(
    sequences: ndarray,
    scores: Sequence[ndarray],
    beam_indices: ndarray | None = None,
    *,
    normalize_logits: bool = False,
) -> ndarray:
    """OUT-06. The score each new token of `sequences` had when it was chosen, float32 `[B*n new]`.

    As it stands in `scores`, or as the log-probability it means. Where `beam_indices` are -1 it is 0. Raises
    `InputError` for arrays that are not from one result.
    """
    rows = np.arange(len(sequences))[:, None] if beam_indices is None else np.asarray(beam_indices)
    steps = len(scores) if beam_indices is None else int((rows >= 0).sum(axis=1).max(initial=0))
    if not 0 < steps <= min(len(scores), sequences.shape[1]):
        raise InputError(
            f"{len(scores)} scores", f"sequences of {sequences.shape[1]} columns need one for each new token", "OUT-06"
        )
    table = np.stack([log_softmax(each) if normalize_logits else each for each in scores])
    rows = np.broadcast_to(rows, (len(sequences), max(rows.shape[1], steps)))[:, :steps]
    if rows.max() >= table.shape[1]:
        raise InputError(
            f"row {rows.max()}", f"scores have {table.shape[1]} rows", "OUT-06", "Pass their beam_indices."
        )
    values = table[np.arange(steps), rows, sequences[:, -steps:]]
    return np.where(rows < 0, np.float32(0), values)


class Stages:
    """OUT-04. A `note` that keeps stages of every forward pass under the names that the result has for them.

    `names` has for each of these the stages it is made of, in order.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = names
        self._kept = frozenset(stage for stages in names.values() for stage in stages)
        self._passes: list[dict[str, ndarray]] = []

    def note(self, name: str, array: ndarray) -> None:
        """Takes a stage; the first one of a pass is `drop`."""
        if name == "drop":
            self._passes.append({})
        if name in self._kept:
            self._passes[-1][name] = array.copy()

    def collected(self) -> dict[str, tuple[Layers, ...]]:
        """By name, a tuple a pass of its stages."""
        return {
            name: tuple(tuple(kept[stage] for stage in stages) for kept in self._passes)
            for name, stages in self.names.items()
        }


def hidden_states(n_layer: int) -> list[str]:
    """The stages between the blocks: what enters the first, what leaves each, the last one after `ln_f`."""
    return ["drop", *(f"h.{i}" for i in range(n_layer - 1)), "ln_f"]


def attentions(n_layer: int) -> list[str]:
    """The stages in which each position says how it spreads its attention."""
    return [f"h.{i}.attn.pattern" for i in range(n_layer)]


def watched(config: GenerationConfig, n_layer: int) -> dict[str, list[str]]:
    """OUT-04. The parts of the result that are made of stages of every pass, and of which."""
    wanted = {
        "hidden_states": (config.output_hidden_states, hidden_states(n_layer)),
        "attentions": (config.output_attentions, attentions(n_layer)),
    }
    return {name: stages for name, (asked, stages) in wanted.items() if asked and config.return_dict_in_generate}
