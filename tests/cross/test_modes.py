"""Guidance, watermarks, drafts, hidden states and scores against transformers, on random models and prompts.

Logits of both sides differ by float32 rounding, 2e-5 of the largest as test_forward.py proves; what is computed from
them by sums and products of that size is compared within 1e-4 of it. Tokens must be equal.
"""

import numpy as np
import pytest
import torch
import transformers

import refgen
from refgen.generation.watermark import coin_table, permutation
from refgen.model import softmax
from tests.cross.torch_twin import torch_twin
from tests.strategies import random_model

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def drawn(seed, rows=3):
    """A model, its twin, a batch with left padding and its mask."""
    rng = np.random.default_rng(seed)
    config = refgen.GPT2Config(
        vocab_size=60, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    model = random_model(config, seed, "float32")
    B, P = int(rng.integers(1, rows + 1)), int(rng.integers(1, 9))
    ids = rng.integers(0, 60, (B, P))
    mask = (np.arange(P) >= rng.integers(0, P, (B, 1))).astype(np.int64)
    return model, torch_twin(model), ids, mask


def theirs(twin, ids, mask, **settings):
    """transformers' answer to the same call."""
    as_tensor = {name: torch.from_numpy(value) for name, value in settings.items() if isinstance(value, np.ndarray)}
    return twin.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **(settings | as_tensor))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.5, 4.0])
def test_guidance(scale, use_cache):
    """CFGG-01: away from the last prompt token or from a negative prompt, with and without a cache."""
    for seed in range(3):
        model, twin, ids, mask = drawn(seed)
        negative = np.random.default_rng(seed).integers(1, 60, (len(ids), 1 + seed))
        for prompt in ({}, {"negative_prompt_ids": negative}):
            settings = prompt | {
                "guidance_scale": scale,
                "use_cache": use_cache,
                "max_new_tokens": 8,
                "pad_token_id": 0,
            }
            expected = theirs(twin, ids, mask, **settings).numpy()
            np.testing.assert_array_equal(model.generate(ids, mask, **settings), expected)


GREEN_LISTS = [
    {"bias": 3.0},
    {"bias": 2.0, "greenlist_ratio": 0.5, "hashing_key": 1234567, "context_width": 2},
    {"seeding_scheme": "selfhash", "bias": 2.5, "context_width": 2},
    {"seeding_scheme": "selfhash", "bias": 4.0, "hashing_key": 2**40 + 7},
]


@pytest.mark.parametrize("entries", GREEN_LISTS, ids=str)
def test_green_lists(entries):
    """WMARK-01, WMARK-02: the same tokens are green, greedily and by chance."""
    for seed in range(2):
        model, twin, ids, _ = drawn(seed)
        ones = np.ones_like(ids)
        for sampling in ({}, {"do_sample": True, "top_k": 0}):
            settings = sampling | {"max_new_tokens": 10, "pad_token_id": 0}
            torch.manual_seed(seed)
            expected = theirs(
                twin, ids, ones, watermarking_config=transformers.WatermarkingConfig(**entries), **settings
            )
            ours = model.generate(ids, ones, watermarking_config=entries, seed=seed, **settings)
            np.testing.assert_array_equal(ours, expected.numpy())


SYNTHIDS = [
    {"ngram_len": 5, "keys": [654, 400, 836, 123, 340]},
    {"ngram_len": 2, "keys": [1, 2, 3], "sampling_table_size": 97, "sampling_table_seed": 5, "context_history_size": 2},
    {"ngram_len": 3, "keys": [9], "skip_first_ngram_calls": True},
]


@pytest.mark.parametrize("entries", SYNTHIDS, ids=str)
def test_synthid(entries):
    """WMARK-03: the same tokens, and the same probabilities before each."""
    for seed in range(4):
        model, twin, ids, _ = drawn(seed)
        ones = np.ones_like(ids)
        settings = {
            "max_new_tokens": 10, "pad_token_id": 0, "do_sample": True, "return_dict_in_generate": True, "output_scores": True,
        }  # fmt: skip
        torch.manual_seed(seed)
        config = transformers.SynthIDTextWatermarkingConfig(**entries)
        expected = theirs(twin, ids, ones, watermarking_config=config, **settings)
        ours = model.generate(ids, ones, watermarking_config=entries, seed=seed, **settings)
        np.testing.assert_array_equal(ours.sequences, expected.sequences.numpy())
        for one, other in zip(ours.scores, expected.scores, strict=True):
            # As probabilities: where one has nearly all the mass, 1 - mass has few right digits in both.
            np.testing.assert_allclose(softmax(one), softmax(other.numpy()), rtol=0, atol=1e-5)


def test_permutations_and_coins_are_torchs():
    """WMARK-03, WMARK-04: torch's randperm and randint, number for number."""
    for seed in (0, 7, 2**32 + 5, 2**63 + 11):
        for n in (1, 2, 50, 30_000):
            expected = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
            assert permutation(seed, n, n) == expected
        expected = torch.randint(0, 2, (2**16,), generator=torch.Generator().manual_seed(seed)).numpy()
        np.testing.assert_array_equal(coin_table(seed, 2**16), expected)


def test_drafts(figures):
    """ASSIST-01: with every kind of draft, transformers' tokens with and without one, and the scores of every step."""
    runs = 0
    for seed in range(5):
        model, twin, ids, _ = drawn(seed, rows=1)
        other, other_twin, _, _ = drawn(seed + 100)
        ones, rng = np.ones_like(ids), np.random.default_rng(seed)
        for extra in (
            {},
            {"repetition_penalty": 1.3},
            {"no_repeat_ngram_size": 2},
            {"suppress_tokens": [3, 4], "min_new_tokens": 4},
        ):
            ends = rng.integers(0, 60, 4).tolist() if rng.integers(2) else None
            settings = extra | {"eos_token_id": ends, "max_new_tokens": 16, "pad_token_id": 0}
            if ends is None:
                settings.pop("min_new_tokens", None)
            plain = theirs(twin, ids, ones, **settings).numpy()
            for draft, draft_twin in (
                ({"prompt_lookup_num_tokens": 1 + seed}, {"prompt_lookup_num_tokens": 1 + seed}),
                ({"assistant_model": other}, {"assistant_model": other_twin}),
                ({"assistant_model": model}, {"assistant_model": twin}),
            ):
                told = {"return_dict_in_generate": True, "output_scores": True}
                expected = theirs(twin, ids, ones, **settings, **draft_twin, **told)
                ours = model.generate(ids, ones, **settings, **draft, **told)
                np.testing.assert_array_equal(ours.sequences, expected.sequences.numpy())
                np.testing.assert_array_equal(ours.sequences, plain)
                np.testing.assert_allclose(np.stack(ours.scores), torch.stack(expected.scores).numpy(), **CLOSE)
                runs += 1
    figures.append(f"drafts against transformers with and without them: {runs} runs, 0 mismatches")


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_hidden_states_and_transition_scores(beams, use_cache):
    """OUT-04, OUT-06: every layer of every pass, every pattern, every transition score."""
    for seed in range(4):
        model, twin, ids, _ = drawn(seed)
        twin.set_attn_implementation("eager")
        settings = {
            "max_new_tokens": 6, "num_beams": beams, "use_cache": use_cache, "return_dict_in_generate": True, "output_scores": True,
            "output_logits": True, "output_hidden_states": True, "output_attentions": True, "pad_token_id": 0,
        }  # fmt: skip
        expected, ours = (
            theirs(twin, ids, np.ones_like(ids), **settings),
            model.generate(ids, np.ones_like(ids), **settings),
        )
        for name in ("hidden_states", "attentions"):
            for one, other in zip(getattr(ours, name), getattr(expected, name), strict=True):
                for layer, other_layer in zip(one, other, strict=True):
                    np.testing.assert_allclose(layer, other_layer.numpy(), **CLOSE)
        for normed in (False, True):
            indices = expected.beam_indices if beams > 1 else None
            wanted = twin.compute_transition_scores(expected.sequences, expected.scores, indices, normed).numpy()
            found = model.compute_transition_scores(ours.sequences, ours.scores, ours.beam_indices, normed)
            np.testing.assert_allclose(found, wanted, **CLOSE)
        held = None if expected.past_key_values is None else expected.past_key_values.get_seq_length()
        assert (ours.past_key_values and len(ours.past_key_values)) == (held if use_cache else None)
