"""Evidence against a sampler: a bet on every token, at odds that are fair if the sampler is right.

Imagine a gambler who starts with 1 and bets, token by token, that the sampler is wrong. Part of the money follows the
law of each known fault, and part follows what the tokens so far have shown. Let p be the right law. A token x
multiplies the money staked on a law q by q(x) / p(x). So against a right sampler the bet cannot win on average. The
chance that the money E ever reaches 1 / alpha is at most alpha (Ville 1939). The bet may be read after every token,
stopped at any time and continued later. It needs no fixed number of draws and no table of critical values. A token that
the right law cannot give decides at once.

    E = 1/2 mean over faults m of  prod q_m(x) / p(x)   +   1/2 mean over learners of  prod l(x) / p(x)

A learner knows no fault. It divides the tokens into cells, and bets on each cell by the estimate of Krichevsky and
Trofimov (1981). That estimate adds half a token to the count seen and half a token to the count expected.

Under fault m the money grows by the divergence of q_m from p, for each token. So the number of draws needed to see a
fault is known in advance, and the chance that it was seen is known afterwards. That chance is the power of a PASS.

Shafer and Vovk, Game-Theoretic Foundations for Probability and Finance (2019); Ramdas, Grünwald, Vovk and Shafer,
Game-theoretic statistics and safe anytime-valid inference (Statistical Science 38, 2023).

Axes    N draws, n laws (N, or 1 for all), V tokens, M faults, C cells.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy import ndarray

DOUBT = 1e-3  # the part of a stake that goes by the right law, so that a single token does not ruin it
NEVER = 1e-12  # what is left of a fault that says a token cannot be, for naming: no catalogue is complete
SURE = 0.99  # posterior at which a fault is named, and power that a PASS has
CELLS = 32


@dataclass(frozen=True)
class Law:
    """The right law of N tokens: `expected` are probabilities, `most` what a right sampler gives at most, `[n V]` both.

    They are one where the law is known exactly; else `most` allows for rounding, and sums to more than 1.
    """

    expected: ndarray
    most: ndarray


@dataclass(frozen=True)
class Suspicion:
    """One fault and N tokens: how likely it made each, `[N]` logarithms, and how fast the bet on it would grow if it had."""

    log_chance: ndarray
    growth: float  # the sum of the expectations of a token's log ratio
    spread: float  # the sum of its variances
    clean: float  # log of the chance that none of the tokens is one the right law cannot give


def suspect(tokens: ndarray, right: Law, q: ndarray) -> Suspicion:
    """The fault whose law is `q` `[n V]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log((1 - DOUBT) * q + DOUBT * right.expected) - np.log(right.most)
        won = np.where((q > 0) & (right.most > 0), q * ratio, 0.0)
        square = np.where(won != 0, won * ratio, 0.0).sum(axis=1)
    each = len(tokens) / max(1, len(q)) if len(q) < len(tokens) else 1.0
    growth = won.sum(axis=1)
    return Suspicion(
        log_chance=logarithm(picked((1 - DOUBT) * q + DOUBT * right.expected, tokens)),
        growth=float(growth.sum()) * each,
        spread=float((square - growth**2).clip(0).sum()) * each,
        clean=float(np.log1p(-np.where(right.most > 0, 0, q).sum(axis=1).clip(0, 1 - NEVER)).sum()) * each,
    )


def copier(tokens: ndarray, right: Law, copied: ndarray) -> Suspicion:
    """The fault that gives the token `copied` `[N]` again; -1 where there is nothing to copy."""
    there = copied >= 0
    chance = picked(right.expected, np.where(there, copied, tokens))
    again = np.where(tokens == copied, 1 - DOUBT, 0.0) + DOUBT * picked(right.expected, tokens)
    log_chance = logarithm(np.where(there, again, picked(right.expected, tokens)))
    growth = np.where(there, np.log((1 - DOUBT) / np.maximum(chance, NEVER) + DOUBT), 0.0)
    return Suspicion(log_chance, float(growth.sum()), 0.0, 0.0)


def picked(values: ndarray, tokens: ndarray) -> ndarray:
    """Of `values` `[n V]` those of the tokens, `[N]`."""
    wide = np.broadcast_to(values, (len(tokens), values.shape[1]))
    return np.take_along_axis(wide, tokens[:, None], axis=1)[:, 0]


def logarithm(chances: ndarray) -> ndarray:
    """Of chances, none smaller than NEVER."""
    logs: ndarray = np.log(np.maximum(chances, NEVER))
    return logs


# --- Learners ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Where N tokens fell, `[N]`, -1 for those that are not looked at, and the chances `[n C]` that the right law gave."""

    cells: ndarray
    chances: ndarray


Learner = Sequence[Cells]  # of which each token is in one at most


def learn(cells: ndarray, chances: ndarray) -> ndarray:
    """The log ratio `[... N]` of each stake, for tokens that fell in `cells` `[... N]` with `chances` `[... N C]`.

    Before a token, cell c is staked on in proportion to its chance times (seen + 1/2) / (expected + 1/2).
    """
    hits = cells[..., None] == np.arange(chances.shape[-1])
    chances = np.broadcast_to(chances, hits.shape)
    seen = hits.cumsum(axis=-2) - hits
    expected = chances.cumsum(axis=-2) - chances
    factor = (seen + 0.5) / (expected + 0.5)
    own = np.take_along_axis(factor, cells[..., None], axis=-1)[..., 0]
    ratio: ndarray = np.log(own / (factor * chances).sum(axis=-1))
    return ratio


def by_rank(tokens: ndarray, expected: ndarray) -> Learner:
    """How often each rank under the right law comes: the 31 likeliest tokens, and the rest."""
    order = np.argsort(-expected, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(expected.shape[1])[None], axis=1)
    likeliest = np.take_along_axis(expected, order, axis=1)
    head, rest = likeliest[:, : CELLS - 1], likeliest[:, CELLS - 1 :].sum(axis=1, keepdims=True)
    return [Cells(np.minimum(picked(rank, tokens), CELLS - 1), np.concatenate([head, rest], axis=1))]


def by_copy(tokens: ndarray, expected: ndarray, copied: ndarray) -> Learner:
    """How often a token is the one `copied` `[N]`, -1 if there is no such token."""
    chance = picked(expected, np.maximum(copied, 0))
    cells = np.where(copied >= 0, (tokens != copied).astype(int), -1)
    return [Cells(cells, np.stack([chance, 1 - chance], axis=1))]


def by_follower(tokens: ndarray, expected: ndarray, before: ndarray, groups: int = 4) -> Learner:
    """Which of a few groups of ids comes after which, `before` `[N]` being the token before, or -1."""
    group = np.arange(expected.shape[1]) * groups // expected.shape[1]
    chances = np.stack([expected[:, group == g].sum(axis=1) for g in range(groups)], axis=1)
    return [Cells(np.where((before >= 0) & (group[before] == g), group[tokens], -1), chances) for g in range(groups)]


# --- The money --------------------------------------------------------------------------------------------


def log_money(faults: ndarray, learners: ndarray) -> ndarray:
    """log E after each token, `[... N]`, from the log ratios `[M ... N]` of faults and `[L ... N]` of learners."""
    parts = [log_mean(np.cumsum(ratios, axis=-1)) for ratios in (faults, learners) if len(ratios)]
    return log_mean(np.stack(parts))


def log_mean(logs: ndarray) -> ndarray:
    """The logarithm of the mean over the first axis."""
    top = logs.max(axis=0)
    mean: ndarray = top + np.log(np.exp(logs - top).mean(axis=0))
    return mean


def threshold(faults: int, alpha: float) -> float:
    """The log gain that the bet on one fault needs for the whole to reach 1 / alpha, if all other bets are lost."""
    return math.log(2 * max(1, faults) / alpha)


def power(suspicion: Suspicion, height: float) -> float:
    """The chance that the fault would have been seen: the bet's log a normal number, and impossible tokens apart."""
    lacking = height - suspicion.growth
    missed = NORMAL.cdf(lacking / math.sqrt(suspicion.spread)) if suspicion.spread > 0 else float(lacking > 0)
    return 1 - missed * math.exp(suspicion.clean)


def tokens_to_see(suspicion: Suspicion, N: int, height: float) -> float:
    """How many tokens such a fault takes to be seen, on average, at the pace of N tokens; infinite where it is invisible."""
    walk = height * N / suspicion.growth if suspicion.growth > 0 else math.inf
    leak = N / -suspicion.clean if suspicion.clean < 0 else math.inf
    return max(1.0, min(walk, leak))


def tokens_to_be_sure(one: Suspicion, height: float) -> float:
    """How many tokens it takes for power SURE, `one` being the suspicion of a single token under an unchanging law."""
    z = NORMAL.inv_cdf(SURE)
    root = z * math.sqrt(one.spread) + math.sqrt(z * z * one.spread + 4 * max(one.growth, 0) * height)
    walk = (root / (2 * one.growth)) ** 2 if one.growth > 0 else math.inf
    leak = math.log(1 - SURE) / one.clean if one.clean < 0 else math.inf
    return min(walk, leak)


NORMAL = NormalDist()


class Evidence:
    """What the tokens so far say. `faults` are the names of those that are bet on, `alpha` the chance of a false alarm."""

    def __init__(self, faults: Sequence[str], alpha: float) -> None:
        self.faults, self.alpha = tuple(faults), alpha
        self.tokens = np.zeros(0, int)
        self.most = self.expected = np.zeros(0)  # [N] logarithms of what the right law gave each token
        self.log_chances = np.zeros((len(faults), 0))
        self.growths = self.spreads = self.cleans = np.zeros(len(faults))
        self.frequencies: Any = 0.0  # [V] how often each token is expected
        self._learners: list[list[Cells]] = []
        self._path: ndarray | None = None

    def add(
        self, tokens: ndarray, right: Law, suspicions: Sequence[Suspicion], learners: Sequence[Learner] = ()
    ) -> None:
        """N more tokens with their laws, a `Suspicion` for every fault, and what learners look at."""
        N, self._path = len(tokens), None
        self.tokens = np.concatenate([self.tokens, tokens])
        with np.errstate(divide="ignore"):
            self.most = np.concatenate([self.most, np.log(picked(right.most, tokens))])
        self.expected = np.concatenate([self.expected, logarithm(picked(right.expected, tokens))])
        if suspicions:
            self.log_chances = np.concatenate(
                [self.log_chances, np.stack([each.log_chance for each in suspicions])], axis=1
            )
            self.growths = self.growths + [each.growth for each in suspicions]
            self.spreads = self.spreads + [each.spread for each in suspicions]
            self.cleans = self.cleans + [each.clean for each in suspicions]
        self.frequencies = self.frequencies + right.expected.sum(axis=0) * (N / len(right.expected))
        wide = [
            [Cells(c.cells, np.broadcast_to(c.chances, (N, c.chances.shape[1]))) for c in each] for each in learners
        ]
        self._learners = [joined(*pair) for pair in zip(self._learners, wide, strict=True)] if self._learners else wide

    @property
    def count(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    @property
    def height(self) -> float:
        """The log money at which a verdict falls."""
        return math.log(1 / self.alpha)

    @property
    def impossible(self) -> int | None:
        """The first token that the right law cannot give."""
        return next(iter(np.flatnonzero(np.isneginf(self.most)).tolist()), None)

    def learned(self) -> ndarray:
        """The log ratios of the learners, `[L N]`."""
        ratios = np.zeros((len(self._learners), self.count))
        for number, learner in enumerate(self._learners):
            for each in learner:
                looked_at = np.flatnonzero(each.cells >= 0)
                ratios[number, looked_at] = learn(each.cells[looked_at], each.chances[looked_at])
        return ratios

    def path(self) -> ndarray:
        """log E after each token, `[N]`; impossible tokens, which no money is needed for, left aside."""
        if self._path is None:
            most = np.where(np.isneginf(self.most), self.expected, self.most)
            self._path = log_money(self.log_chances - most, self.learned() + (self.expected - most))
        return self._path

    @property
    def log_e(self) -> float:
        """The most that log E has been."""
        return float(self.path().max(initial=0.0))

    @property
    def seen_at(self) -> int | None:
        """After how many tokens a verdict fell; None if the sampler may be right."""
        crossed = np.flatnonzero(self.path() >= self.height)[:1].tolist()
        verdicts = [at + 1 for at in (*crossed, self.impossible) if at is not None]
        return min(verdicts, default=None)

    def posterior(self) -> dict[str, float]:
        """How likely each fault is, of those in the catalogue and a fault that is in none of them, "": one of the learners."""
        strange = (self.learned() + self.expected).sum(axis=1)
        logs = np.concatenate([self.log_chances.sum(axis=1), strange])
        chances = np.exp(logs - logs.max())
        chances /= chances.sum()
        named = dict(zip(self.faults, chances[: len(self.faults)].tolist(), strict=True))
        return named | {"": float(chances[len(self.faults) :].sum())}

    def suspects(self) -> list[str]:
        """The faults that together are surer than SURE, likeliest first, if they make the same law here; else none."""
        posterior = self.posterior()
        best = max(posterior.values())
        alike = [name for name, chance in posterior.items() if name and chance > best * (1 - 1e-6)]
        return alike if sum(posterior[name] for name in alike) > SURE else []

    def totals(self) -> Iterator[tuple[str, float, float, float]]:
        """For every fault growth, spread and clean, as in `Suspicion`, of all tokens."""
        yield from zip(self.faults, self.growths.tolist(), self.spreads.tolist(), self.cleans.tolist(), strict=True)

    def powers(self) -> dict[str, tuple[float, float]]:
        """For every fault how sure it was to be seen in these tokens, and how many it takes on average."""
        height = threshold(len(self.faults), self.alpha)
        totals = {name: Suspicion(np.zeros(0), *sums) for name, *sums in self.totals()}
        return {name: (power(each, height), tokens_to_see(each, self.count, height)) for name, each in totals.items()}

    def oddest(self) -> tuple[int, int, float]:
        """The token whose number is farthest from the expected one: the token, how often it came, how often expected."""
        counts = np.bincount(self.tokens, minlength=len(self.frequencies))
        token = int(np.abs((counts - self.frequencies) / np.sqrt(self.frequencies + 1)).argmax())
        return token, int(counts[token]), float(self.frequencies[token])


def joined(first: Sequence[Cells], second: Sequence[Cells]) -> list[Cells]:
    """What a learner has looked at, and what it looks at now."""
    return [
        Cells(np.concatenate([a.cells, b.cells]), np.concatenate([a.chances, b.chances]))
        for a, b in zip(first, second, strict=True)
    ]
