"""Which known fault explains greedy tokens that rounding does not explain?

A fault explains the tokens if the network with the fault, in the place of the exact one, produces them: every token is
its best or a near tie (margins.py). Of several such faults, the one for which the tokens are likeliest is named, if it
is far ahead of the others. One or two tokens that differ from the exact text name nothing, because among many faults
one may give them by chance.

Axes    T steps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refgen.model import GPT2
from refgen.oracle.faults import FAULTS, Fault
from refgen.oracle.margins import Judgement, against, normal_tail, together, watch

AHEAD = 2.0  # decades of likelihood by which one fault must be ahead of the next to be named
DEPARTING = (
    3  # tokens that are not the exact network's best, at least; below it a wrong fault was named (docs/noise.md)
)
SHOWN = 4  # of those that cannot be told apart


@dataclass(frozen=True)
class Suspects:
    """The faults that explain the tokens, likeliest first, each with the logarithm to base 10 of its likelihood."""

    faults: tuple[tuple[Fault, float], ...]
    departing: int  # tokens that are not the exact network's best

    @property
    def named(self) -> Fault | None:
        """The fault, if one is far ahead, and enough tokens speak for it."""
        if (
            self.departing < DEPARTING
            or not self.faults
            or (len(self.faults) > 1 and self.faults[0][1] - self.faults[1][1] < AHEAD)
        ):
            return None
        return self.faults[0][0]

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.faults:
            return "None of the known faults explains the tokens."
        if self.departing < DEPARTING:
            return f"Too few tokens differ, {self.departing}, to tell which known fault it is."
        if self.named is not None:
            return f"It looks like {self.named.name}: {self.named.sentence}"
        names = [fault.name for fault, _ in self.faults]
        more = f", or one of {len(names) - SHOWN} others" if len(names) > SHOWN else ""
        return f"It may be {' or '.join(names[:SHOWN])}{more}: each explains every token."


def suspects(
    gpt2: GPT2,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    dtype: str = "float32",
    end_ids: Sequence[int] = (),
    faults: Sequence[Fault] = FAULTS,
    progress: Callable[[str], None] = lambda _: None,
) -> Suspects:
    """Looks for a fault that explains all of `texts`, pairs of prompt and new ids. Costs a pass for each fault and text.

    Where a fault changes nothing that could be seen, the tokens are judged as by the exact network.
    """
    watched = [watch(gpt2, prompt, new, dtype, end_ids) for prompt, new in texts]
    departing = sum(len(against(text, text.logits(text.exact)).flips) for text in watched)
    found = []
    for done, fault in enumerate(faults):
        progress(f"known faults: {done}")
        judged = [against(text, text.logits(fault.change(text.exact))) for text in watched]
        if together(judged).explained:
            found.append((fault, sum(map(likelihood, judged))))
    return Suspects(tuple(sorted(found, key=lambda each: -each[1])), departing)


def likelihood(judged: Judgement) -> float:
    """The logarithm to base 10 of the chance of just these tokens: at a flip that of the difference, else of none."""
    flipped = {flip.step: normal_tail(flip.sigmas) for flip in judged.flips}
    # The best of many near ties is no less likely than the second best of one.
    chances = (flipped.get(step, 1 - min(chance, 0.5)) for step, chance in enumerate(judged.chances))
    return sum(math.log10(max(chance, 1e-300)) for chance in chances)
