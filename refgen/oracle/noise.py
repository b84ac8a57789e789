"""How far a correct implementation may be off: the expected rounding error of every position and logit, and a judge.

The exact logits are those of the float64 forward pass, with weights rounded to the storage format first, as every
implementation has them. The expected error is measured on the same pass with numbers that err at every operation
(noisy.py), some times over. An implementation's error, divided by it, is about 1 whatever the model's size, depth,
format and input; how much more can still be rounding is in LIMITS, and where those come from in docs/noise.md.

Axes    B rows, T positions, C a stage's last axis, V tokens, M noisy runs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated as Float
from typing import Annotated as Int

import numpy as np
from numpy import ndarray

from refgen.config import GPT2Config
from refgen.errors import OracleError
from refgen.model import GPT2, forward
from refgen.oracle.formats import cast, find_format
from refgen.oracle.noisy import noisy


@dataclass(frozen=True)
class Noise:
    """What a correct run in `dtype` gives, and how far off it is expected to be, by the names of model.py's stages."""

    dtype: str
    attention_mask: Int[ndarray, "B T"]
    exact: Mapping[str, ndarray]  # float64, in the stage's own shape [...]
    samples: Mapping[str, ndarray]  # float32 [M ...]: noisy runs minus the exact one; 0 where both are -inf
    scale: Mapping[str, ndarray]  # float64 [B T]: root mean square of `samples` at a position


def stages_of(
    gpt2: GPT2, input_ids: ndarray, attention_mask: ndarray | None, stages: Sequence[str]
) -> dict[str, ndarray]:
    """One forward pass: those of its stages, by name, as plain arrays. Raises `OracleError` for a stage there is not."""
    noted: dict[str, ndarray] = {}
    names: list[str] = []

    def note(name: str, array: ndarray) -> None:
        names.append(name)
        if name in stages:
            noted[name] = np.array(array)

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

    Each has a random stream of its own, so that the first ones are the same however many follow.
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

    Errors grow with the logit, in trained networks nearly in proportion, in random ones hardly at all; a noisy run or
    eight of them measure that for all logits together, not for each. b is fitted, and between 0 and 0.9: it is the
    slope of the samples' squares, in units of s², over z² / Z². Both have the mean 1, so the line passes through
    (1, 1) and has no other parameter.
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


# --- A verdict --------------------------------------------------------------------------------------------

OVERALL, POSITION, LOGIT = 1.5, 4.0, 12.0  # the limits; docs/noise.md has the runs they were validated on


@dataclass(frozen=True)
class ErrorRatios:
    """An implementation's errors in units of the expected ones: root mean square overall, worst position, worst logit."""

    overall: float
    position: float
    logit: float
    worst_position: tuple[int, int]  # row, position
    worst_logit: tuple[int, int, int]  # row, position, token

    @property
    def passes(self) -> bool:
        """Whether rounding explains them."""
        return self.overall <= OVERALL and self.position <= POSITION and self.logit <= LOGIT


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
    row, at = np.unravel_index(by_position.argmax(), by_position.shape)
    worst = np.unravel_index(by_logit.argmax(), by_logit.shape)
    return ErrorRatios(
        overall=math.sqrt(float((by_position[real] ** 2).mean())),
        position=float(by_position.max()),
        logit=float(by_logit.max()),
        worst_position=(int(row), int(at)),
        worst_logit=(int(worst[0]), int(worst[1]), int(worst[2])),
    )
