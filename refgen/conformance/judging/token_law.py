"""The law of a sampled token: what refgen's own processors make of the exact logits, and what a subject's options change in that.

Where logits may be off, what a right sampler gives is not one law but bounded by one; where a known fault is planted, it is another.

Axes    B rows, P prompt columns, T new tokens a row, S = P + T, N tokens, V vocabulary, n laws (N, or 1 for all).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.evidence import Law
from refgen.conformance.planted.sampler_faults import (
    FAULTS,
    Chain,
    SamplerFault,
    conventions,
    meant,
    right,
    run,
    ties_are_free,
)
from refgen.generation.prompt import Prompt
from refgen.model import softmax

REACH = 6.0  # how many expected errors a logit may be off by when a cut is judged
TIE = 1e-6  # the same for dice, where equal tokens may be cut in any way
HISTORY = frozenset({"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids"})  # settings that look at the text


@dataclass(frozen=True)
class Rows:
    """Rows that were drawn, `ids` `[B S]` of which the first `width` are the prompt, and the exact logits before each new one.

    `logits` are `[B T V]`, or `[1 1 V]` where they are the same at every step; `sigma` is their expected error.
    """

    ids: ndarray
    width: int
    logits: ndarray
    sigma: float = 0.0

    @property
    def tokens(self) -> ndarray:
        """The new tokens, row after row, `[N]`."""
        return self.ids[:, self.width :].ravel()

    def before(self, column: int) -> ndarray:
        """For every token the one `column` columns before it in its row, `[N]`; -1 where there is only the prompt."""
        new = self.ids[:, self.width :]
        return np.column_stack([np.full((len(new), column), -1), new])[:, : new.shape[1]].ravel()

    def above(self) -> ndarray:
        """For every token that of the row above at the same step, `[N]`; -1 in the first row."""
        new = self.ids[:, self.width :]
        return np.concatenate([np.full((1, new.shape[1]), -1), new])[: len(new)].ravel()


def scores_of(chain: Chain, rows: Rows, logits: ndarray, by_text: bool) -> ndarray:
    """What a chain makes of logits `[B T V]` or `[1 1 V]`: `[n V]`, row after row. `by_text`: if it looks at the ids."""
    V = logits.shape[-1]
    if not by_text:
        return run(chain, rows.ids[:, : rows.width], logits.reshape(-1, V))
    B, T = len(rows.ids), rows.ids.shape[1] - rows.width
    wide = np.broadcast_to(logits, (B, T, V))
    steps = [run(chain, rows.ids[:, : rows.width + t], wide[:, t]) for t in range(T)]
    return np.stack(steps, axis=1).reshape(-1, V)


def law_of(chain: Chain, rows: Rows, by_text: bool, temperature: float = 1.0) -> Law:
    """The right law. Where logits may be off by `sigma`, a token near a cut may be in or out.

    Shifts of the logits by REACH sigma find such tokens: some tokens gain, and the rest lose. First the tokens that are
    ever kept lose, until no new token comes in, because one that comes in may bring in another. Then the tokens that
    are always kept lose, until no more fall out. Then the kept tokens gain, then the best token, then the rest. A right
    sampler keeps the tokens that all shifts keep, and none that every shift removes. So the chance of a token is at
    most its weight over the weight of the tokens that are always kept. A normal error of a logit, with mean 0 and
    independent of the bet, raises the money by at most exp(sigma²) a token. That is allowed for too.
    """
    scores = scores_of(chain, rows, rows.logits, by_text)
    kept = np.isfinite(scores)
    if rows.sigma == 0:
        chances = softmax(scores)
        return Law(chances, chances)
    wide = rows.logits.reshape(-1, rows.logits.shape[-1])
    best = wide >= wide.max(axis=-1, keepdims=True)
    ever, always, highest = kept, kept, scores

    def shift(gaining: ndarray) -> bool:
        """Whether another token comes in or falls out."""
        nonlocal ever, always, highest
        before = ever.sum() - always.sum()
        shifted = wide + REACH * rows.sigma * np.where(gaining, 1, -1)
        moved = scores_of(chain, rows, shifted.reshape(rows.logits.shape), by_text)
        ever, always = ever | np.isfinite(moved), always & np.isfinite(moved)
        highest = np.where(kept, scores, np.maximum(highest, moved))
        return bool(ever.sum() - always.sum() > before)

    for gaining in (kept, best, ~best):
        shift(gaining)
    while shift(~ever) or shift(~always):
        pass
    weights = np.where(ever, np.exp(highest - highest.max(axis=1, keepdims=True)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = weights / np.where(always, weights, 0).sum(axis=1, keepdims=True)
    allowance = math.exp((rows.sigma / min(temperature, 1.0)) ** 2)
    return Law(
        expected=weights / weights.sum(axis=1, keepdims=True),
        most=np.minimum(np.where(ever, most, 0) * allowance, ever),
    )


@dataclass(frozen=True)
class Sampler:
    """What a request's settings mean for one subject, and the known faults that could change it."""

    settings: Mapping[str, Any]
    choices: Mapping[str, str]
    _chains: dict[tuple[int, int], Chain] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def meant(self) -> dict[str, Any]:
        """With what the subject declares to mean where the request is silent."""
        return meant(self.settings, self.choices)

    @property
    def by_text(self) -> bool:
        """Whether the law depends on the tokens before."""
        biases = self.settings.get("sequence_bias") or ()
        return bool(HISTORY & self.settings.keys()) or any(len(ids) > 1 for ids, _ in biases)

    @cached_property
    def faults(self) -> tuple[SamplerFault, ...]:
        """Those whose settings are there, but for options that the subject declares."""
        declared = {f"{name}={option}" for name, option in self.choices.items()}
        return tuple(
            each for each in FAULTS if self.settings.keys() >= set(each.settings) and each.choice not in declared
        )

    def changed_by(self, fault: SamplerFault, rows: Rows) -> bool:
        """Whether the fault changes anything about the chain."""
        return fault.plant(self.chain(rows), self.settings) != self.chain(rows)

    def chain(self, rows: Rows) -> Chain:
        """The right one."""
        shape = (len(rows.ids) if self.by_text else 1, rows.width)
        if shape not in self._chains:
            prompt = Prompt(np.zeros(shape, int), np.ones(shape, int))  # of which a chain keeps the mask
            self._chains[shape] = conventions(self.choices)(right(self.meant, prompt), self.meant)
        return self._chains[shape]

    def law(self, rows: Rows) -> Law:
        """The law of every token."""
        free = rows.sigma == 0 and ties_are_free(self.settings, self.choices)
        softened = replace(rows, sigma=TIE) if free else rows
        return law_of(self.chain(rows), softened, self.by_text, self.settings.get("temperature") or 1.0)

    def faulty(self, fault: SamplerFault, rows: Rows) -> ndarray:
        """The law `[n V]` of every token if the fault is there."""
        with np.errstate(all="ignore"):
            chain = fault.plant(self.chain(rows), self.settings)
            return softmax(scores_of(chain, rows, rows.logits, self.by_text))
