"""Names the known fault, if any, that explains an error which is not rounding.

The signature of a fault is its effect on the exact numbers: D = (exact with the fault) - (exact), in float64. The error
e of an implementation that has the fault is D plus rounding. With w = 1 / s², s the expected rounding error of each
position (noise.py), and <a, b> the sum of w a b, the matched filter

    alpha = <e, D> / <D, D>

is the amount of the fault in the error (D. O. North, 1943). It is 1 if the fault is there and 0 if not, up to the alpha
of rounding, whose deviation is measured on noisy runs. It sees faults far smaller than the rounding, because rounding
does not look like them. The nearest signature has the smallest <e - D, e - D>. Its fault is named if alpha is near 1,
and the rest of the error is rounding or close to zero. Otherwise nothing is named.

The filter looks at the logits, or, if hidden states are known, at every block by itself on the input that it got
(local.py). Sums go over all of them.

Axes    B rows, T positions, C a stage's last axis.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import FAULTS, Fault
from refgen.oracle.noise import OVERALL, POSITION, Noise, ratio

ABSENT, PRESENT = 0.25, 0.75  # alpha below and above; between them nobody can say
UNSEEN = 0.125  # the deviation of alpha from which on the two cannot be told apart
UNCHANGED = 1e-9  # a relative change that may be float64 rounding
EXPLAINED = 0.9  # of the squared error, at least, where more than rounding is left of it


@dataclass(frozen=True)
class Match:
    """How far one fault explains an error."""

    fault: Fault
    alpha: float  # how much of the signature is in the error
    deviation: float  # of alpha in correct runs
    explained: float  # R² = 1 - |e - D|² / |e|², weighted; below 0 where the signature makes it worse
    leftover: tuple[float, float]  # e - D in units of the expected error: overall, worst position

    @property
    def verdict(self) -> str:
        """absent, present, undecided, or unseen if rounding would hide it."""
        if self.deviation > UNSEEN:
            return "unseen"
        return "absent" if self.alpha < ABSENT else "present" if self.alpha > PRESENT else "undecided"

    @property
    def convinces(self) -> bool:
        """Whether an error with this match as the nearest has this fault: it is there once, and is all there is."""
        if self.verdict != "present" or self.alpha > 2 - PRESENT:
            return False
        return self.explained >= EXPLAINED or fits(self.leftover)


@dataclass(frozen=True)
class Diagnosis:
    """`matches` of all faults that would change these numbers, the nearest first; `named` the fault that is there."""

    matches: tuple[Match, ...]
    error: tuple[float, float]  # in units of the expected error: overall, worst position

    @property
    def named(self) -> Fault | None:
        """The fault, if the nearest convinces."""
        return self.matches[0].fault if self.matches and self.matches[0].convinces else None

    @property
    def alike(self) -> tuple[Fault, ...]:
        """Others that these numbers cannot tell from the nearest."""
        return tuple(
            match.fault for match in self.matches[1:] if abs(match.explained - self.matches[0].explained) < UNCHANGED
        )

    @property
    def sentence(self) -> str:
        """For a person."""
        return self.told("It looks like")

    def told(self, opening: str) -> str:
        """The same, in other words if a fault is named."""
        if not self.matches:
            return "None of the known faults would show here."
        best = self.matches[0]
        if self.named is None:
            if fits(self.error):
                return "No known fault shows in what rounding explains."
            return (
                f"None of the {len(self.matches)} known faults that would show explains it "
                f"(the nearest is {best.fault.name}, R² = {max(best.explained, 0):.2f})."
            )
        rest = "the rest is rounding" if fits(best.leftover) else f"R² = {best.explained:.4f}"
        others = "".join(f", or {fault.name}, which here is the same" for fault in self.alike)
        return (
            f"{opening} {best.fault.name}: {best.fault.sentence} "
            f"(alpha {best.alpha:.3f} ± {best.deviation:.1g}, {rest}{others}.)"
        )


@dataclass(frozen=True)
class View:
    """A stage `[B T C]` as an implementation gave it, and what is expected of it.

    `part` is what of a pass computes the stage: the whole, or one block.
    """

    observed: ndarray
    noise: Noise
    stage: str = "lm_head"
    part: Callable[[Pass], Pass] = lambda whole: whole

    def exact(self, p: Pass) -> ndarray:
        """The stage as `p` gives it."""
        noted: dict[str, ndarray] = {}
        self.part(p).run(note=lambda name, array: noted.update({name: array}) if name == self.stage else None)
        return noted[self.stage]

    def weighed(self, array: ndarray) -> ndarray:
        """`[positions C]` of an array like the stage: real positions in units of their expected errors.

        Where no error is expected, any is infinite.
        """
        real = self.noise.attention_mask.astype(bool)
        return ratio(array[real].astype(np.float64), self.noise.scale[self.stage][real][:, None])


def diagnose(
    p: Pass, views: Sequence[View], faults: Sequence[Fault] = FAULTS, progress: Callable[[int], None] = lambda _: None
) -> Diagnosis:
    """Looks for `faults` in what is seen of an implementation; tells `progress` how many it has looked for.

    `p` is the exact pass: in float64, with the weights as they are stored. Costs a pass or two for each fault.
    """
    exact = [view.exact(p) for view in views]
    error = [view.weighed(view.observed - right) for view, right in zip(views, exact, strict=True)]
    # As many runs as there are samples, each with its own error in every view.
    runs = list(
        zip(*([view.weighed(sample) for sample in view.noise.samples[view.stage]] for view in views), strict=True)
    )
    power = inner(error, error)
    matches = []
    for done, fault in enumerate(faults):
        progress(done)
        planted = fault.change(p)
        changes = [view.exact(planted) - right for view, right in zip(views, exact, strict=True)]
        if all(
            np.abs(change).max() <= UNCHANGED * np.abs(right).max()
            for change, right in zip(changes, exact, strict=True)
        ):
            continue
        signature = [view.weighed(change) for view, change in zip(views, changes, strict=True)]
        full = inner(signature, signature)
        left = [each - own for each, own in zip(error, signature, strict=True)]
        matches.append(
            Match(
                fault=fault,
                alpha=inner(error, signature) / full,
                deviation=math.sqrt(np.mean([inner(run, signature) ** 2 for run in runs])) / full,
                explained=1 - inner(left, left) / power if power > 0 else 0.0,
                leftover=size(left),
            )
        )
    return Diagnosis(tuple(sorted(matches, key=lambda match: -match.explained)), size(error))


def inner(a: Sequence[ndarray], b: Sequence[ndarray]) -> float:
    """The sum of all products."""
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def size(weighed: Sequence[ndarray]) -> tuple[float, float]:
    """Root mean square of views `[positions C]`: over all positions, and at the worst."""
    by_position = np.concatenate([(each**2).mean(axis=-1) for each in weighed])
    return math.sqrt(by_position.mean()), math.sqrt(by_position.max())


def fits(error: tuple[float, float]) -> bool:
    """Whether rounding explains such an error, given in units of what is expected."""
    overall, position = error
    return overall <= OVERALL and position <= POSITION
