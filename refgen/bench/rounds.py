"""Turns and what follows from them: round by round, every subject once, medians with quartiles, ratios within a round.

A shared machine is fast now and slow then. Subjects that take turns see the same weather, so a ratio is taken between
two times of one round, and then the median of those ratios.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import sleep
from typing import NamedTuple

from refgen.errors import BenchError

Tokens = list[list[int]]


class Taken(NamedTuple):
    """What one turn gave: seconds (or bytes), and tokens, if it made some."""

    value: float
    tokens: Tokens = []  # noqa: RUF012 - never changed


Turn = Callable[[int], Taken]  # given the number of the round; 0 is the warm-up


@dataclass(frozen=True)
class Series:
    """The values of each subject, one a round, the tokens likewise, and the reason if a subject is missing."""

    values: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, list[Tokens]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Spread(NamedTuple):
    """A median between its quartiles."""

    median: float
    low: float
    high: float


def order(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: each subject begins in turn, and every other round runs backwards."""
    start = number % len(names) if names else 0
    turned = [*names[start:], *names[:start]]
    return turned[::-1] if number % 2 else turned


def take_turns(
    turns: Mapping[str, Turn],
    rounds: int,
    pause: float = 0.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Series:
    """`rounds` rounds after one to warm up, which does not count. A subject that fails is out, with its reason.

    `pause` seconds lie between turns, for threads that spin a little after their work.
    """
    series = Series({name: [] for name in turns}, {name: [] for name in turns})
    for number in range(rounds + 1):
        for name in order(list(turns), number):
            if name in series.failed:
                continue
            progress(f"{f'round {number} of {rounds}' if number else 'warm-up'}, {name}")
            sleep(pause)
            try:
                taken = turns[name](number)
            except BenchError as error:
                series.failed[name] = str(error)
                del series.values[name], series.tokens[name]
                continue
            if number:
                series.values[name].append(taken.value)
                series.tokens[name].append(taken.tokens)
    return series


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high)


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Of the two values of each round."""
    return [value / of for value, of in zip(values, base, strict=True)]


def agreement(tokens: Mapping[str, list[Tokens]], base: str) -> dict[str, str]:
    """How many rows of all rounds are token for token those of `base`, such as "40/40"."""
    if base not in tokens or not any(tokens[base]):
        return {}
    expected = [row for rows in tokens[base] for row in rows]
    found = {}
    for name in tokens:
        got = [row for rows in tokens[name] for row in rows]
        if got and name != base:
            equal = sum(one == other for one, other in zip(got, expected, strict=False))
            found[name] = f"{equal}/{len(expected)}"
    return found
