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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.oracle.counterfactual import Pass
from refgen.oracle.families import FAMILIES, Family
from refgen.oracle.faults import FAULTS, Fault
from refgen.oracle.noise import OVERALL, POSITION, Noise, ratio

ABSENT, PRESENT = 0.25, 0.75  # alpha below and above; between them nobody can say
UNSEEN = 0.125  # the deviation of alpha from which on the two cannot be told apart
UNCHANGED = 1e-9  # a relative change that may be float64 rounding
FITTED, STEPS, GOLDEN = 8, 18, (math.sqrt(5) - 1) / 2  # families whose number is refined, and how
EXPLAINED = 0.9  # of the squared error, at least, where more than rounding is left of it
BY_NUMBER = 0.999  # the same for a fault whose number is found: with a number to choose, much looks alike


@dataclass(frozen=True)
class Match:
    """How far one fault explains an error."""

    fault: Fault
    alpha: float  # how much of the signature is in the error
    deviation: float  # of alpha in correct runs
    explained: float  # R² = 1 - |e - D|² / |e|², weighted; below 0 where the signature makes it worse
    leftover: tuple[float, float]  # e - D in units of the expected error: overall, worst position
    likeness: float = (
        0.0  # R² of the signature times whatever amount fits best, negative if that is less than none of it
    )
    least: float = EXPLAINED  # what it must explain to convince

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
        return self.explained >= self.least or fits(self.leftover)


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
        """The result as a sentence for a reader."""
        return self.told("It looks like")

    def told(self, opening: str) -> str:
        """The same, with another opening if a fault is named."""
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
    p: Pass,
    views: Sequence[View],
    faults: Sequence[Fault] = FAULTS,
    families: Sequence[Family] = FAMILIES,
    progress: Callable[[int], None] = lambda _: None,
) -> Diagnosis:
    """Looks for `faults` in the views of an implementation. If none of them fits, fits `families`.

    `p` is the exact pass: in float64, with the weights as they are stored. Costs a pass or two for each fault, and `progress`
    gets the number of faults tried.
    """
    tried = count(1)
    error = Error(p, views, lambda: progress(next(tried)))
    known = error.diagnosis(found for each in faults if (found := error.match(each)) is not None)
    if known.named is not None or not families or fits(known.error):
        return known
    nearest = [best for family in families if (best := error.nearest(family)) is not None]
    nearest.sort(key=lambda best: -best[1].likeness)
    fitted = [error.between(*best) for best in nearest[:FITTED]]
    return error.diagnosis([*known.matches, *fitted, *(match for _, match, _ in nearest[FITTED:])])


def explained(match: Match) -> float:
    """The key that ranks matches."""
    return match.explained


Best = tuple[Family, Match, Any]  # the member that explains most, and its value


class Error:
    """The error of an implementation in some views. `match` measures how far a fault explains it."""

    def __init__(self, p: Pass, views: Sequence[View], progress: Callable[[], None] = lambda: None) -> None:
        self.p, self.views, self.progress = p, views, progress
        self.exact = [view.exact(p) for view in views]
        self.weighed = [view.weighed(view.observed - right) for view, right in zip(views, self.exact, strict=True)]
        # As many runs as there are samples, each with its own error in every view.
        samples = ([view.weighed(sample) for sample in view.noise.samples[view.stage]] for view in views)
        self.runs = list(zip(*samples, strict=True))
        self.power = inner(self.weighed, self.weighed)

    def match(self, fault: Fault, least: float = EXPLAINED) -> Match | None:
        """How far a fault explains the error; None if it changes nothing here."""
        self.progress()
        planted = fault.change(self.p)
        changes = [view.exact(planted) - right for view, right in zip(self.views, self.exact, strict=True)]
        if all(
            np.abs(change).max() <= UNCHANGED * np.abs(right).max()
            for change, right in zip(changes, self.exact, strict=True)
        ):
            return None
        signature = [view.weighed(change) for view, change in zip(self.views, changes, strict=True)]
        full = inner(signature, signature)
        if not math.isfinite(full):  # the fault makes numbers that no float holds, and the error is finite
            return None
        amount = inner(self.weighed, signature)
        left = [each - own for each, own in zip(self.weighed, signature, strict=True)]
        return Match(
            fault=fault,
            alpha=amount / full,
            deviation=math.sqrt(np.mean([inner(run, signature) ** 2 for run in self.runs])) / full,
            explained=1 - inner(left, left) / self.power if self.power > 0 else 0.0,
            leftover=size(left),
            likeness=math.copysign(amount**2 / (full * self.power), amount) if self.power > 0 else 0.0,
            least=least,
        )

    def member(self, family: Family, value: Any) -> Match | None:
        """How far the fault of a family with this value explains the error."""
        return self.match(family.member(value), BY_NUMBER if family.between else EXPLAINED)

    def nearest(self, family: Family) -> Best | None:
        """The member of a family that explains most; None if none of them changes anything here."""
        found = [(value, match) for value in family.values if (match := self.member(family, value)) is not None]
        return max(
            ((family, match, value) for value, match in found),
            key=lambda best: (best[1].alpha > 0, best[1].explained),
            default=None,
        )

    def between(self, family: Family, match: Match, value: Any) -> Match:
        """The best match with a number between the two beside `value`, by golden section; `match` is that of `value`."""
        if not family.between:
            return match
        others = sorted({*family.values, 1.0})
        low = max((each for each in others if each < value), default=value)
        high = min((each for each in others if each > value), default=2 * value)
        tried = {value: match}

        def at(number: float) -> float:
            if number not in tried and (found := self.member(family, number)) is not None:
                tried[number] = found
            return tried[number].explained if number in tried else 0.0

        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        for _ in range(STEPS):
            if at(a) > at(b):
                high, b = b, a
                a = high - GOLDEN * (high - low)
            else:
                low, a = a, b
                b = low + GOLDEN * (high - low)
        return max(tried.values(), key=explained)

    def diagnosis(self, matches: Iterable[Match]) -> Diagnosis:
        """What matches say together."""
        return Diagnosis(tuple(sorted(matches, key=explained, reverse=True)), size(self.weighed))


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
