"""Bug or tie? Judges the greedy tokens of an implementation that rounds, each step after its own earlier tokens.

Two correct implementations diverge as soon as two logits are closer than rounding, and from there on their texts have
nothing in common. So the implementation's own tokens are fed to the exact network (teacher forcing). At each step its
choice is compared with the best token. Its distance is measured in units of the rounding error expected of that
difference. After a step that rounding explains, the judgement continues with the implementation's token.

Rounding may explain each choice but not all together: taking the second best wherever rounding allows it is a bug. The
same errors show how often a correct implementation does not take the best. A count with a chance below one in a million
is a FAIL too.

Axes    T steps, V tokens, M noisy runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from refgen.errors import OracleError
from refgen.inputs import check_ids
from refgen.model import GPT2
from refgen.oracle.counterfactual import Pass
from refgen.oracle.formats import cast
from refgen.oracle.noise import noisy_runs, ratio
from refgen.shapes import Float, Int

NEAR = 4.0  # sigmas behind the best that rounding explains; correct runs came to 1.9 (docs/noise.md)
ODDS = 1e-6  # chance of the number of flips below which rounding does not explain it


@dataclass(frozen=True)
class Flip:
    """A step at which the best token was not taken. Logits are those of the exact network."""

    step: int  # in the new tokens, from 0
    token: int  # that was taken
    best: int
    rank: int  # of the taken one, 2 is the second best
    margin: float  # the best logit minus the taken one's
    sigma: float  # expected error of that difference

    @property
    def sigmas(self) -> float:
        """The margin in units of its expected error; infinite where no error is expected."""
        return float(ratio(np.array(self.margin), np.array(self.sigma)))

    @property
    def is_tie(self) -> bool:
        """Whether rounding explains it."""
        return self.sigmas <= NEAR

    def __str__(self) -> str:
        return (
            f"step {self.step}: token {self.token} instead of {self.best}, "
            f"rank {self.rank}, {self.margin:.4g} below, {self.sigmas:.1f} sigma"
        )


@dataclass(frozen=True)
class Judgement:
    """Of one sequence, or of several together (`together`)."""

    dtype: str
    flips: tuple[Flip, ...]
    chances: Float[ndarray, "T"]  # of a flip, at each step, for a correct implementation
    goes_on: int | None = None  # the step after the end token at which text goes on, if it does

    @property
    def expected(self) -> float:
        """How many flips a correct implementation is expected to have, at most."""
        return float(self.chances.sum())

    @property
    def odds(self) -> float:
        """The chance that a correct implementation has as many flips or more."""
        return at_least(len(self.flips), self.chances)

    @property
    def fault(self) -> Flip | None:
        """The first flip that rounding does not explain."""
        return next((flip for flip in self.flips if not flip.is_tie), None)

    @property
    def explained(self) -> bool:
        """Whether rounding explains every token, and how many of them are not the best."""
        return self.fault is None and self.odds >= ODDS

    @property
    def verdict(self) -> str:
        """PASS: all tokens are the best. TIE: rounding explains those that are not. FAIL: it does not."""
        if not self.explained or self.goes_on is not None:
            return "FAIL"
        return "TIE" if self.flips else "PASS"

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        count = f"{len(self.flips)} of {len(self.chances)} tokens"
        if self.fault is not None:
            return f"FAIL: {self.fault}; rounding of {self.dtype} explains {NEAR:g}."
        if self.goes_on is not None:
            return f"FAIL: text goes on at step {self.goes_on}, after the end token."
        if self.odds < ODDS:
            return f"FAIL: {count} are near ties lost; rounding of {self.dtype} loses {self.expected:.1f}."
        if self.flips:
            worst = max(flip.sigmas for flip in self.flips)
            return (
                f"TIE: {count} are not the best, first at step {self.flips[0].step}; "
                f"rounding of {self.dtype} explains each, the largest margin is {worst:.1f} sigma."
            )
        return f"PASS: all {len(self.chances)} tokens are the best."


def judge_tokens(
    gpt2: GPT2,
    prompt_ids: Sequence[int],
    new_ids: Sequence[int],
    dtype: str = "float32",
    end_ids: Sequence[int] = (),
    samples: int = 12,
    seed: int = 0,
) -> Judgement:
    """Whether an implementation in `dtype` that continued `prompt_ids` greedily by `new_ids` is correct.

    Steps are judged up to the first of `end_ids`; after it one token may be repeated as filling. Raises
    `OracleError` for empty lists, `InputError` for ids that the model does not have or too many of them.
    """
    seen = watch(gpt2, prompt_ids, new_ids, dtype, end_ids, samples, seed)
    return against(seen, seen.logits(seen.exact))


@dataclass(frozen=True)
class Text:
    """The tokens of an implementation, the exact pass over them, and noisy ones."""

    dtype: str
    exact: Pass
    chosen: Int[ndarray, "T"]  # up to the first end token
    goes_on: int | None
    errors: Float[ndarray, "M T V"]  # float32, of the logits in noisy runs

    def logits(self, p: Pass) -> Float[ndarray, "T V"]:
        """Those from which a pass over the same tokens chooses each."""
        return p.run()[0, -len(self.chosen) :]


def watch(
    gpt2: GPT2,
    prompt_ids: Sequence[int],
    new_ids: Sequence[int],
    dtype: str,
    end_ids: Sequence[int],
    samples: int = 12,
    seed: int = 0,
) -> Text:
    """Compares a text with the network's own choices after the same tokens. Raises as `judge_tokens` does."""
    if not len(prompt_ids) or not len(new_ids):
        raise OracleError("prompt_ids, new_ids", "must hold at least one token each")
    if samples < 1:
        raise OracleError(f"samples={samples}", "must be at least 1")
    chosen, goes_on = up_to_end(list(new_ids), end_ids)
    ids = np.array([[*prompt_ids, *chosen]])
    check_ids(ids, gpt2.config)  # the last one too, which is not fed
    ids = ids[:, :-1]
    exact, steps = Pass(cast(gpt2, dtype), ids, np.ones_like(ids), prefill=len(prompt_ids)), slice(-len(chosen), None)
    z = exact.run()[0, steps]
    runs = noisy_runs(exact.gpt2, ids, None, dtype, samples, seed, ["lm_head"])
    errors = np.stack([(run["lm_head"][0, steps] - z).astype(np.float32) for run in runs])
    return Text(dtype, exact, np.array(chosen), goes_on, errors)


def against(text: Text, z: Float[ndarray, "T V"]) -> Judgement:
    """Judges a text by the logits that a correct implementation would have but for rounding."""
    best = z.argmax(axis=-1)[:, None]
    squares = np.zeros_like(z)
    for errors in text.errors:
        squares += (np.take_along_axis(errors, best, axis=-1) - errors).astype(np.float64) ** 2
    sigma = np.sqrt(squares / len(text.errors))
    margin = np.take_along_axis(z, best, axis=-1) - z
    flips = tuple(
        Flip(
            t,
            int(token),
            int(best[t, 0]),
            int((z[t] > z[t, token]).sum()) + 1,
            float(margin[t, token]),
            float(sigma[t, token]),
        )
        for t, token in enumerate(text.chosen)
        if token != best[t, 0]
    )
    return Judgement(text.dtype, flips, flip_chances(margin, sigma, best), text.goes_on)


def together(judgements: Sequence[Judgement]) -> Judgement:
    """All sequences as one, for a count of flips over more steps; steps are those in their own sequence."""
    return Judgement(
        judgements[0].dtype,
        tuple(flip for each in judgements for flip in each.flips),
        np.concatenate([each.chances for each in judgements]),
        next((each.goes_on for each in judgements if each.goes_on is not None), None),
    )


def up_to_end(new_ids: list[int], end_ids: Sequence[int]) -> tuple[list[int], int | None]:
    """The tokens up to the first end token, and the step where text goes on after it, unless all the rest is one
    token.
    """
    end = next((t for t, token in enumerate(new_ids) if token in end_ids), len(new_ids))
    filling = new_ids[end + 1 :]
    return new_ids[: end + 1], end + 1 if len(set(filling)) > 1 else None


def flip_chances(margin: Float[ndarray, "T V"], sigma: Float[ndarray, "T V"], best: ndarray) -> Float[ndarray, "T"]:
    """The chance that a correct implementation prefers another token to the best, at most.

    The error of each difference is taken as normal, because it comes from many operations. The chance that any token
    wins is at most the sum of their chances. Tokens more than 8 sigma below add nothing.
    """
    chances = np.zeros(margin.shape)
    near = margin <= 8 * sigma
    np.put_along_axis(near, best, False, axis=-1)
    chances[near] = [normal_tail(each) for each in ratio(margin[near], sigma[near])]
    return np.minimum(chances.sum(axis=-1), 1.0)


def normal_tail(x: float) -> float:
    """The chance that a standard normal number is above x."""
    return math.erfc(x / math.sqrt(2.0)) / 2


def at_least(count: int, chances: Float[ndarray, "T"]) -> float:
    """The chance that `count` or more of independent events happen, each with its own chance (Poisson-binomial)."""
    distribution = np.ones(1)  # of the number of events so far
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(distribution[count:].sum())
