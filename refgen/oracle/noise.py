"""How far a correct implementation may be off: the expected rounding error of every position and logit, and a judge.

The exact logits are those of the float64 forward pass, with weights rounded to the storage format first, as in every
implementation. The expected error is measured by a few runs of the same pass with numbers that err at every operation
(noisy.py). An implementation's error, divided by it, is about 1 for any size, depth, format and input. `limits` gives
the largest values that can still be rounding. docs/noise.md has the runs that validated them.

Axes    B rows, T positions, C a stage's last axis, V tokens, M noisy runs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from refgen.config import GPT2Config
from refgen.errors import OracleError
from refgen.model import GPT2, forward
from refgen.oracle.formats import cast, find_format
from refgen.oracle.noisy import noisy
from refgen.shapes import Float, Int


@dataclass(frozen=True)
class Noise:
    """What a correct run in `dtype` gives, and how far off it is expected to be, by the names of model.py's stages."""

    dtype: str
    attention_mask: Int[ndarray, "B T"]
    exact: Mapping[str, ndarray]  # float64, in the stage's own shape [...]
    samples: Mapping[str, ndarray]  # float32 [M ...]: noisy runs minus the exact one; 0 where both are -inf
    scale: Mapping[str, ndarray]  # float64 [B T]: root mean square of `samples` at a position

    def part(self, rows: slice, columns: slice) -> "Noise":
        """The same of some rows and columns; stages are `[B T ...]`."""
        return Noise(
            self.dtype,
            self.attention_mask[rows, columns],
            {name: array[rows, columns] for name, array in self.exact.items()},
            {name: array[:, rows, columns] for name, array in self.samples.items()},
            {name: array[rows, columns] for name, array in self.scale.items()},
        )


def stages_of(
    gpt2: GPT2, input_ids: ndarray, attention_mask: ndarray | None, stages: Sequence[str]
) -> dict[str, ndarray]:
    """One forward pass: those of its stages, by name, as plain arrays. Raises `OracleError` for a stage there is not."""
    noted: dict[str, ndarray] = {}
    names: list[str] = []

    def note(name: str, array: ndarray) -> ndarray:
        names.append(name)
        if name in stages:
            noted[name] = np.array(array)
        return array

    forward(gpt2, input_ids, attention_mask, note=note)
    for stage in stages:
        if stage not in noted:
            raise OracleError(f"stage {stage!r}", "is not in this model", remedy=f"It has {', '.join(names)}.")
    return noted


def noisy_runs(
    exact: GPT2,
    input_ids: ndarray,
    attention_mask: ndarray | None,
    dtype: str,
    samples: int,
    seed: int,
    stages: Sequence[str],
) -> Iterator[dict[str, ndarray]]:
    """Forward passes of a network in float64, as `cast` gives it, with rounding errors like those of `dtype`.

    Each has its own random stream, so the first ones are the same however many follow.
    """
    for stream in np.random.SeedSequence(seed).spawn(samples):
        wte = noisy(exact.wte, find_format(dtype), np.random.default_rng(stream))
        yield stages_of(replace(exact, wte=wte), input_ids, attention_mask, stages)


def expected_error(
    gpt2: GPT2,
    input_ids: Int[ndarray, "B T"],
    attention_mask: Int[ndarray, "B T"] | None = None,
    dtype: str = "float32",
    samples: int | None = None,
    seed: int = 0,
    stages: Sequence[str] = ("lm_head",),
) -> Noise:
    """The exact stages of a network whose weights are rounded to `dtype`, and their expected rounding errors.

    Costs one forward pass in float64 and, `samples` times, about four; None for as many as `enough` says. Raises
    `OracleError`, and `InputError` for ids.
    """
    samples = enough(gpt2.config) if samples is None else samples
    if samples < 1:
        raise OracleError(f"samples={samples}", "must be at least 1")
    network = cast(gpt2, dtype)
    exact = stages_of(network, input_ids, attention_mask, stages)
    deviations: dict[str, list[ndarray]] = {stage: [] for stage in stages}
    for run in noisy_runs(network, input_ids, attention_mask, dtype, samples, seed, stages):
        for stage, values in run.items():
            visible = np.isfinite(exact[stage])
            deviation = np.subtract(values, exact[stage], where=visible, out=np.zeros_like(values))
            deviations[stage].append(deviation.astype(np.float32))
    stacked = {stage: np.stack(each) for stage, each in deviations.items()}
    mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
    scale = {
        stage: rms_by_position((stacked[stage].astype(np.float64) ** 2).mean(axis=0), np.isfinite(exact[stage]))
        for stage in stages
    }
    return Noise(dtype, mask, exact, stacked, scale)


def enough(config: GPT2Config) -> int:
    """Eight, and more for narrow networks, so that a position's scale rests on 256 numbers or more that err by themselves."""
    return max(8, -(-256 // min(config.n_embd, config.vocab_size)))


def rms_by_position(squares: ndarray, visible: ndarray) -> Float[ndarray, "B T"]:
    """The root of the mean over a position's numbers that are `visible`; others are 0. Stages by head are `[B H T D]`."""
    axes = (1, 3) if squares.ndim == 4 else (2,)
    return np.sqrt(squares.sum(axis=axes) / np.maximum(visible.sum(axis=axes), 1))


# --- Logits one by one ------------------------------------------------------------------------------------


def logit_scale(noise: Noise) -> Float[ndarray, "B T V"]:
    """The expected error of each logit z: s sqrt(1 - b + b z² / Z²), s that of the position and Z² the mean of its z².

    Errors grow with the logit, nearly in proportion in trained networks, and hardly at all in random ones. One to eight
    noisy runs can measure that for all logits together, but not for each. The fitted b is between 0 and 0.9. It is the
    slope of the samples' squares, in units of s², over z² / Z². Both have the mean 1, so the line passes through (1, 1)
    and has no other parameter.
    """
    z, sigma = noise.exact["lm_head"], noise.scale["lm_head"][..., None]
    z2 = ratio(z, np.sqrt((z * z).mean(axis=-1, keepdims=True))) ** 2
    n2 = (ratio(noise.samples["lm_head"], sigma) ** 2).mean(axis=0)
    real = noise.attention_mask.astype(bool)
    x, y = z2[real] - 1, n2[real] - 1
    b = min(max(float(np.vdot(x, y) / max(np.vdot(x, x), np.finfo(float).tiny)), 0.0), 0.9)
    return sigma * np.sqrt(1 - b + b * z2)


def ratio(error: ndarray, scale: ndarray) -> ndarray:
    """error / scale; nothing off is nothing off, however exact one is expected to be."""
    with np.errstate(divide="ignore"):
        return np.divide(error, scale, where=error != 0, out=np.zeros(np.broadcast_shapes(error.shape, scale.shape)))


# --- How much more than expected --------------------------------------------------------------------------

OVERALL, POSITION, LOGIT = 1.5, 4.0, 12.0  # the limits; docs/noise.md has the runs they were validated on
RARE = 4.753  # sigmas that a normal number exceeds with a chance of one in a million


def limits(noise: Noise, stage: str) -> tuple[float, Float[ndarray, "B T"]]:
    """How many times the expected error of a stage rounding explains: overall, and at each position.

    OVERALL and POSITION, unless so few numbers err by themselves there that a root mean square may exceed them by chance.
    """
    real = noise.attention_mask.astype(bool)
    alike = likeness(noise, stage)
    return (
        max(OVERALL, float(rarely_above(independent(alike[real].sum(axis=0))))),
        np.maximum(POSITION, rarely_above(independent(alike))),
    )


def likeness(noise: Noise, stage: str) -> Float[ndarray, "B T M M"]:
    """At each position the products of any two noisy runs' errors, in units of the expected one."""
    samples, (B, T) = noise.samples[stage], noise.attention_mask.shape
    products = np.empty((B, T, len(samples), len(samples)))
    for b, t in np.ndindex(B, T):
        at = samples[:, b, :, t] if samples.ndim == 5 else samples[:, b, t]
        weighed = ratio(at.reshape(len(samples), -1).astype(np.float64), noise.scale[stage][b, t])
        products[b, t] = weighed @ weighed.T
    return products


def independent(alike: Float[ndarray, "... M M"]) -> Float[ndarray, "..."]:
    """How many numbers err by themselves, at least 1, given the products of the runs' errors.

    Errors of covariance Σ have a mean square that varies as that of (tr Σ)² / tr Σ² independent normal numbers. Here tr
    Σ is the mean square of a run, and tr Σ² that of the product of two. A single run does not show it, and 1 is safe.
    """
    M = alike.shape[-1]
    own = np.einsum("...mm->...", alike) / M
    others = (alike**2).sum(axis=(-1, -2)) - (np.einsum("...mm->...m", alike) ** 2).sum(axis=-1)
    return np.maximum(ratio(own**2, others / max(M * (M - 1), 1)), 1) if M > 1 else np.ones(alike.shape[:-2])


def rarely_above(n: ndarray) -> ndarray:
    """What the root mean square of `n` normal numbers exceeds with a chance of one in a million.

    E. B. Wilson and M. M. Hilferty (1931): the cube root of the mean square is nearly normal, of variance 2 / 9n.
    """
    variance = 2 / (9 * n)
    return np.asarray((1 - variance + RARE * np.sqrt(variance)) ** 1.5)


# --- A verdict --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorRatios:
    """An implementation's errors in units of the expected ones: root mean square overall, worst position, worst logit."""

    overall: float
    position: float
    logit: float
    worst_position: tuple[int, int]  # row, position
    worst_logit: tuple[int, int, int]  # row, position, token
    limits: tuple[float, float, float]  # of the first three

    @property
    def passes(self) -> bool:
        """Whether rounding explains them."""
        found = (self.overall, self.position, self.logit)
        return all(each <= limit for each, limit in zip(found, self.limits, strict=True))


def judge_error(noise: Noise, logits: Float[ndarray, "B T V"]) -> ErrorRatios:
    """Compares an implementation's logits, of any dtype, with what rounding explains; padding does not count."""
    exact = noise.exact["lm_head"]
    if logits.shape != exact.shape:
        raise OracleError(
            f"logits of shape {list(logits.shape)}", f"must be {list(exact.shape)}: rows, positions, tokens"
        )
    real = noise.attention_mask.astype(bool)
    error = np.where(real[..., None], logits - exact, 0)
    if not np.isfinite(error).all():
        raise OracleError("logits", "must be finite")
    by_position = np.sqrt((ratio(error, noise.scale["lm_head"][..., None]) ** 2).mean(axis=-1))
    by_logit = np.abs(ratio(error, logit_scale(noise)))
    overall_limit, position_limits = limits(noise, "lm_head")
    row, at = np.unravel_index((by_position / position_limits).argmax(), by_position.shape)
    worst = np.unravel_index(by_logit.argmax(), by_logit.shape)
    return ErrorRatios(
        overall=math.sqrt(float((by_position[real] ** 2).mean())),
        position=float(by_position[row, at]),
        logit=float(by_logit.max()),
        worst_position=(int(row), int(at)),
        worst_logit=(int(worst[0]), int(worst[1]), int(worst[2])),
        limits=(overall_limit, float(position_limits[row, at]), LOGIT),
    )
