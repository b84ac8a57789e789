"""evidence.py: bets are fair, false alarms are as rare as promised, and the power that is printed is the power there is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.conformance.judging.evidence import (
    Evidence,
    Law,
    by_copy,
    by_follower,
    by_rank,
    copier,
    learn,
    log_mean,
    log_money,
    suspect,
    threshold,
    tokens_to_be_sure,
)

RUNS = 1000


def random_law(rng, V):
    """Some probabilities, a few of them 0."""
    p = rng.dirichlet(np.full(V, 0.5)) * (rng.random(V) < 0.8)
    p[rng.integers(V)] += 0.1
    return p / p.sum()


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(2, 40), st.integers(0, 12))
def test_nothing_is_won_from_a_right_sampler_on_average(seed, V, N):
    """After any history, the mean of the next factor is at most 1 for the bet on a fault and exactly 1 for a learner."""
    rng = np.random.default_rng(seed)
    laws = np.stack([random_law(rng, V) for _ in range(N + 1)])
    faulty = random_law(rng, V)
    history = np.array([rng.choice(V, p=p) for p in laws[:-1]], dtype=int)
    possible = np.flatnonzero(laws[-1] > 0)
    means = np.zeros(6)
    for token in possible:
        tokens = np.append(history, token)
        before, one = np.append(-1, tokens[:-1]), Law(laws[-1:], laws[-1:])
        factors = [
            suspect(tokens[-1:], one, faulty[None]).log_chance[0] - math.log(laws[-1, token]),
            copier(tokens[-1:], one, before[-1:]).log_chance[0] - math.log(laws[-1, token]),
        ]
        looked_at = (by_rank(tokens, laws), by_copy(tokens, laws, before), by_follower(tokens, laws, before))
        for learner in looked_at:
            last = [learn(each.cells[each.cells >= 0], each.chances[each.cells >= 0])[-1:]
                    for each in learner if each.cells[-1] >= 0]  # fmt: skip
            factors.append(sum(float(each[0]) for each in last))
        factors.append(0.0)
        means += laws[-1, token] * np.exp(factors)
    assert (means[:2] <= 1 + 1e-9).all()
    assert means[2:] == pytest.approx(np.ones(4), abs=1e-9)


def test_false_alarms_are_as_rare_as_promised(figures):
    """In 1,000 honest runs of 800 tokens of each of three laws, the money reaches 1 / a in at most a part a, by Ville."""
    rng = np.random.default_rng(5)
    peaks = []
    for V in (4, 13, 62):
        right = random_law(rng, V)
        faults = np.stack([(1 - t) * right + t * random_law(rng, V) for t in (0.02, 0.1, 0.3, 1.0)])
        faults = 0.999 * faults + 0.001 * right
        tokens = rng.choice(V, p=right, size=(RUNS, 800))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.log(faults) - np.log(right)
        for some in np.split(tokens, 20):
            (cells,) = by_rank(some.ravel(), right[None])
            learned = learn(cells.cells.reshape(some.shape), cells.chances)
            peaks.append(log_money(ratios[:, some], learned[None]).max(axis=1))
    peaks = np.concatenate(peaks)
    for a in (0.2, 0.05, 0.01):
        share = (peaks >= math.log(1 / a)).mean()
        assert share <= a + 3 * math.sqrt(a * (1 - a) / RUNS)
        figures.append(
            f"honest samplers whose money reaches {1 / a:g}: {100 * share:.2f} %, at most {100 * a:g} % promised"
        )
    assert peaks.max() < math.log(1 / 1e-6)


def test_the_power_is_what_it_is_said_to_be(figures):
    """At the number of tokens that is said to be enough for 99 %, at least 97 of 100 faulty samplers are seen."""
    rng = np.random.default_rng(3)
    alpha, seen = 1e-7, []
    for strength in (0.05, 0.15, 0.5):
        right, other = random_law(rng, 13), random_law(rng, 13)
        right = 0.9 * right + 0.1 / 13
        q = (1 - strength) * right + strength * other
        one = Law(right[None], right[None])
        N = math.ceil(tokens_to_be_sure(suspect(np.zeros(1, int), one, q[None]), threshold(1, alpha)))
        for _ in range(100):
            tokens = rng.choice(13, p=q, size=N)
            evidence = Evidence(["it"], alpha)
            evidence.add(tokens, one, [suspect(tokens, one, q[None])], [by_rank(tokens, one.expected)])
            seen.append(evidence.seen_at is not None)
            assert evidence.powers()["it"][0] == pytest.approx(0.99, abs=0.01)
    figures.append(f"faults said to be seen with 99 %: {100 * np.mean(seen):.1f} % of {len(seen)}")
    assert np.mean(seen) >= 0.97


def test_a_token_that_cannot_be_ends_the_matter():
    """Without any money won, and it is named by what can give it."""
    right, leaky = np.array([[0.5, 0.5, 0.0]]), np.array([[0.45, 0.45, 0.1]])
    tokens = np.array([0, 1, 2])
    law = Law(right, right)
    evidence = Evidence(["leak", "greedy"], 1e-7)
    evidence.add(tokens, law, [suspect(tokens, law, q) for q in (leaky, np.array([[1.0, 0, 0]]))])
    assert (evidence.impossible, evidence.seen_at, evidence.suspects()) == (2, 3, ["leak"])


@given(seeds, st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_tokens_may_come_in_any_portions(seed, portions):
    """The evidence after all of them does not know how they came."""
    rng = np.random.default_rng(seed)
    right, q = random_law(rng, 6), random_law(rng, 6)
    law, tokens = Law(right[None], right[None]), rng.choice(6, p=right, size=sum(portions))
    whole, parts = Evidence(["q"], 1e-6), Evidence(["q"], 1e-6)
    whole.add(tokens, law, [suspect(tokens, law, q[None])], [by_rank(tokens, law.expected)])
    for part in np.split(tokens, np.cumsum(portions)[:-1]):
        parts.add(part, law, [suspect(part, law, q[None])], [by_rank(part, law.expected)])
    assert np.allclose(whole.path(), parts.path(), atol=1e-9)
    assert whole.powers()["q"] == pytest.approx(parts.powers()["q"])


def test_the_mean_of_logarithms():
    """Of what they are logarithms of, without overflow."""
    assert log_mean(np.array([[1000.0], [-1000.0]]))[0] == pytest.approx(1000 - math.log(2))
