"""The expected rounding error: what it is made of, and how an error is judged by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import GPT2Config
from refgen.errors import OracleError
from refgen.model import forward
from refgen.oracle.formats import FORMATS, cast
from refgen.oracle.noise import (
    LOGIT,
    OVERALL,
    POSITION,
    expected_error,
    independent,
    judge_error,
    logit_scale,
    rarely_above,
)
from tests.strategies import models, prompts, random_model

DTYPES = sorted(FORMATS)


@st.composite
def measured(draw):
    """A network, ids, a mask and the noise of all its stages."""
    model = draw(models("float32"))
    ids, mask = draw(prompts(model.config.vocab_size))
    dtype, stages = draw(st.sampled_from(DTYPES)), ["lm_head", "h.0.attn.scores", "h.0.attn.q", "h.0", "drop"]
    return model, ids, mask, expected_error(model.gpt2, ids, mask, dtype, 3, draw(st.integers(0, 99)), stages)


@settings(max_examples=20)
@given(measured())
def test_exact_is_the_float64_pass_of_the_cast_weights(case):
    """Bit for bit, each stage."""
    model, ids, mask, noise = case
    noted = {}
    forward(cast(model.gpt2, noise.dtype), ids, mask, note=noted.setdefault)
    for stage, exact in noise.exact.items():
        np.testing.assert_array_equal(exact, noted[stage])
        assert noise.samples[stage].shape == (3, *exact.shape)
        assert noise.samples[stage].dtype == np.float32


@settings(max_examples=20)
@given(measured())
def test_scale_is_the_root_mean_square_of_the_samples(case):
    """Number by number: over samples, heads and columns of a position; hidden keys, which have no error, do not count."""
    _, ids, _, noise = case
    for stage, samples in noise.samples.items():
        exact = noise.exact[stage]
        for b, t in np.ndindex(ids.shape):
            at = (b, slice(None), t) if exact.ndim == 4 else (b, t)
            errors = [
                float(e)
                for run in samples
                for e, z in zip(run[at].ravel(), exact[at].ravel(), strict=True)
                if z > -np.inf
            ]
            expected = np.sqrt(sum(e * e for e in errors) / len(errors)) if errors else 0.0
            assert noise.scale[stage][b, t] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=10)
@given(measured())
def test_samples_are_the_first_of_more(case):
    """A larger number of samples adds to those that there were; another seed gives others."""
    model, ids, mask, _ = case
    few, more, other = (expected_error(model.gpt2, ids, mask, samples=n, seed=s) for n, s in ((1, 4), (3, 4), (1, 5)))
    np.testing.assert_array_equal(few.samples["lm_head"], more.samples["lm_head"][:1])
    assert not np.array_equal(few.samples["lm_head"], other.samples["lm_head"])


@settings(max_examples=20)
@given(measured())
def test_logit_scales_make_up_the_position_scale(case):
    """Whatever is fitted, the mean square over a position's logits is the square of its scale."""
    _, _, mask, noise = case
    real = mask.astype(bool)
    squares = (logit_scale(noise) ** 2).mean(axis=-1)
    np.testing.assert_allclose(np.sqrt(squares[real]), noise.scale["lm_head"][real], rtol=1e-9)


def test_logit_scale_finds_how_errors_grow(shakespeare):
    """Samples made with a known slope give it back, and so each logit's own scale, within the chance of 64 samples."""
    from dataclasses import replace

    noise = expected_error(shakespeare[0].gpt2, np.arange(40)[None])
    z = noise.exact["lm_head"]
    for b in (0.0, 0.3, 0.8):
        true = np.sqrt(1 - b + b * z * z / (z * z).mean(axis=-1, keepdims=True))
        samples = true * np.random.default_rng(1).normal(size=(64, *z.shape))
        made = replace(noise, samples={"lm_head": samples}, scale={"lm_head": np.ones(z.shape[:2])})
        np.testing.assert_allclose(logit_scale(made), true, rtol=0.05)


@settings(max_examples=20)
@given(measured(), st.floats(0.1, 20), st.integers(0, 2**32 - 1))
def test_ratios_are_in_units_of_the_scale(case, times, seed):
    """Errors of `times` the scale, their signs by chance, are judged so; what stands at padding does not matter."""
    _, _, mask, noise = case
    real = mask.astype(bool)
    signs = np.random.default_rng(seed).choice([-1, 1], noise.exact["lm_head"].shape)
    logits = noise.exact["lm_head"] + times * signs * noise.scale["lm_head"][..., None]
    logits[~real] = np.nan
    ratios = judge_error(noise, logits)
    # What is left of an error after it was added to a logit has an error of 1e-16 relative to the logit.
    assert ratios.overall == pytest.approx(times, rel=1e-6)
    assert ratios.position == pytest.approx(times, rel=1e-6)
    assert real[ratios.worst_position]
    assert ratios.logit >= times * (1 - 1e-6)
    overall, position, logit = ratios.limits
    assert ratios.passes == (ratios.overall <= overall and ratios.position <= position and ratios.logit <= logit)
    assert overall >= OVERALL
    assert position >= POSITION
    assert logit == LOGIT


def test_rarely_above_is_a_quantile():
    """Of chi-square's: the values are those of tables of its upper tail at one in a million, and no smaller."""
    for n, chi2 in ((1, 23.928), (2, 27.631), (5, 35.888), (8, 42.701), (30, 82.044), (100, 182.13)):
        assert np.sqrt(chi2 / n) <= rarely_above(np.array(n)) <= 1.08 * np.sqrt(chi2 / n)


@pytest.mark.parametrize("groups", [1, 3, 40])
def test_independent_numbers_are_counted(groups):
    """120 numbers, all of a group alike, count as many as there are groups; of a single run nobody can say."""
    runs = np.repeat(np.random.default_rng(groups).normal(size=(200, groups)), 120 // groups, axis=-1)
    assert float(independent(runs @ runs.T)) == pytest.approx(groups, rel=0.2)
    assert independent(runs[:1] @ runs[:1].T) == 1


def test_few_numbers_are_given_more_room():
    """Noisy runs through tiny networks, of one to four tokens, are all right; limits for many numbers would reject some."""
    rejected, without, runs = [], 0, 0
    for seed in range(6):
        rng = np.random.default_rng([seed, 5])
        H = int(rng.integers(1, 3))
        config = GPT2Config(n_layer=2, n_head=H, n_embd=4 * H, vocab_size=int(rng.integers(3, 9)), n_positions=8)
        gpt2, dtype = random_model(config, seed, "float32").gpt2, DTYPES[seed % 3]
        ids = rng.integers(0, config.vocab_size, (1, int(rng.integers(1, 5))))
        noise = expected_error(gpt2, ids, dtype=dtype)
        for error in noise.samples["lm_head"]:
            ratios = judge_error(noise, noise.exact["lm_head"] + error)
            runs += 1
            without += ratios.overall > OVERALL or ratios.position > POSITION
            rejected += [] if ratios.passes else [ratios]
    assert rejected == []
    assert runs > 300
    assert without > 5


def test_each_limit_counts(shakespeare):
    """One position off, or one logit, is found although the average is small; the exact logits themselves pass."""
    noise = expected_error(shakespeare[0].gpt2, np.arange(60)[None])
    exact, sigma = noise.exact["lm_head"], noise.scale["lm_head"]
    assert judge_error(noise, exact).passes
    position, logit = exact.copy(), exact.copy()
    position[0, 7] += 4.1 * sigma[0, 7]
    logit[0, 9, 70] += 12.1 * logit_scale(noise)[0, 9, 70]
    assert not judge_error(noise, position).passes
    assert judge_error(noise, position).overall < OVERALL
    assert judge_error(noise, position).worst_position == (0, 7)
    assert not judge_error(noise, logit).passes
    assert judge_error(noise, logit).position < POSITION
    assert judge_error(noise, logit).worst_logit == (0, 9, 70)


def test_what_is_refused(shakespeare):
    """Samples, stages, formats and logits that cannot be, in one line each."""
    gpt2, ids = shakespeare[0].gpt2, np.array([[1, 2, 3]])
    for options, message in (
        ({"samples": 0}, "samples=0: must be at least 1"),
        ({"stages": ["h.9"]}, "stage 'h.9': is not in this model. It has drop, h.0.ln_1"),
        ({"dtype": "float64"}, "dtype='float64': must be one of float32, float16, bfloat16"),
    ):
        with pytest.raises(OracleError, match=message.replace(".", r"\.")):
            expected_error(gpt2, ids, **options)
    noise = expected_error(gpt2, ids, samples=1)
    with pytest.raises(OracleError, match=r"logits of shape \[3, 1024\]: must be \[1, 3, 1024\]"):
        judge_error(noise, noise.exact["lm_head"][0])
    with pytest.raises(OracleError, match="logits: must be finite"):
        judge_error(noise, noise.exact["lm_head"] * np.nan)
