"""What a difference looks like: which known fault, if any, explains an error that is not rounding.

The signature of a fault is what it does to the exact numbers: D = (exact with the fault) - (exact), in float64. The error
e of an implementation that has the fault is D plus rounding. With w = 1 / σ², σ the expected rounding error of each
position (noise.py), and <a, b> the sum of w a b, the matched filter

    α = <e, D> / <D, D>

is the amount of the fault that is in the error: 1 if it is there, 0 if not, give or take the rounding's own α, whose
deviation is measured on noisy runs (D. O. North, 1943). It sees faults that are far smaller than the rounding, because
rounding does not look like them. The fault whose signature is nearest, the smallest <e - D, e - D>, is named if α is near
1 and what is left of the error is either rounding or next to nothing. Otherwise nothing is named.

Axes    B rows, T positions, C a stage's last axis.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.oracle.faults import FAULTS, Fault, Pass
from refgen.oracle.noise import OVERALL, POSITION, Noise, ratio

ABSENT, PRESENT = 0.25, 0.75  # α below and above; between them nobody can say
UNSEEN = 0.125  # the deviation of α from which on the two cannot be told apart: half an α, and four deviations
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
    def sentence(self) -> str:
        """For a person."""
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
        return f"It looks like {best.fault.name}: {best.fault.sentence} (α = {best.alpha:.3f} ± {best.deviation:.1g}, {rest}.)"


def diagnose(
    p: Pass,
    noise: Noise,
    observed: ndarray,
    stage: str = "lm_head",
    faults: Sequence[Fault] = FAULTS,
    part: Callable[[Pass], Pass] = lambda p: p,
    progress: Callable[[int], None] = lambda done: None,
) -> Diagnosis:
    """Looks for `faults` in `observed`, a stage as an implementation gave it.

    `p` is the exact pass, in float64 with the weights as they are stored, and `noise` what is expected of it.
    `part` is what is looked at of a pass, the whole or one block (local.py); faults are planted in the whole first.
    """
    right = stage_of(part(p), stage)
    rows = Weighed(noise.attention_mask.astype(bool), noise.scale[stage])
    error, samples = rows(observed - right), [rows(sample) for sample in noise.samples[stage]]
    matches = []
    for done, fault in enumerate(faults):
        progress(done)
        signature = rows(stage_of(part(fault.change(p)), stage) - right)
        power = float(np.vdot(signature, signature))
        # A signature as small as float64 rounding is none.
        if power <= (1e-9 * math.sqrt(float(np.vdot(rows(right), rows(right))))) ** 2:
            continue
        left = error - signature
        matches.append(
            Match(
                fault=fault,
                alpha=float(np.vdot(error, signature)) / power,
                deviation=math.sqrt(np.mean([np.vdot(sample, signature) ** 2 for sample in samples])) / power,
                explained=1 - float(np.vdot(left, left)) / max(float(np.vdot(error, error)), np.finfo(float).tiny),
                leftover=size(left),
            )
        )
    return Diagnosis(tuple(sorted(matches, key=lambda match: -match.explained)), size(error))


def stage_of(p: Pass, stage: str) -> ndarray:
    """One stage of a pass."""
    noted: dict[str, ndarray] = {}
    p.run(note=lambda name, array: noted.update({name: array}) if name == stage else None)
    return noted[stage]


@dataclass(frozen=True)
class Weighed:
    """A stage `[B T C]` as the numbers `[positions C]` of real positions, in units of their expected errors."""

    real: ndarray  # [B T] bool
    scale: ndarray  # [B T]

    def __call__(self, array: ndarray) -> ndarray:
        """Its real positions, divided by their scales; where no error is expected, any error is infinite."""
        return ratio(array[self.real].astype(np.float64), self.scale[self.real][:, None])


def size(weighed: ndarray) -> tuple[float, float]:
    """Root mean square of `[positions C]`, overall and at the worst position."""
    by_position = (weighed**2).mean(axis=-1)
    return math.sqrt(by_position.mean()), math.sqrt(by_position.max())


def fits(error: tuple[float, float]) -> bool:
    """Whether rounding explains such an error, given in units of what is expected."""
    overall, position = error
    return overall <= OVERALL and position <= POSITION
