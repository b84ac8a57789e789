"""Where the order of processors is free, and where it is not: PROC-06, for every pair of them."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest

from refgen.generation.processors import cuts, penalties, places, sampling
from refgen.generation.watermark import green_list

REMOVALS = {"no_repeat_ngram_size", "bad_words_ids", "min_length", "suppress_tokens"}
ADDITIONS = {"sequence_bias", "watermarking_config"}
BY_ITSELF = ADDITIONS | {"repetition_penalty", "exponential_decay_length_penalty", "temperature"}
NAMES = sorted(REMOVALS | BY_ITSELF | {
    "prefix_allowed_tokens_fn", "forced_eos_token_id", "remove_invalid_values", "top_h", "top_k", "top_p", "min_p", "typical_p",
    "epsilon_cutoff", "eta_cutoff", "renormalize_logits",
})  # fmt: skip
FREE = (
    {frozenset(pair) for pair in combinations(REMOVALS, 2)}
    | {frozenset((removal, other)) for removal in REMOVALS for other in BY_ITSELF}
    | {frozenset(ADDITIONS), frozenset(("top_k", "min_p"))}
    | {
        frozenset(("temperature", other))
        for other in ("exponential_decay_length_penalty", "repetition_penalty", "top_k")
    }
    | {
        frozenset((zero, other))  # what is left scores 0, and 0 stays 0
        for zero in ("prefix_allowed_tokens_fn", "forced_eos_token_id")
        for other in ("repetition_penalty", "temperature", "exponential_decay_length_penalty")
    }
    | {
        frozenset(("forced_eos_token_id", other))  # all that is left ties, and these keep ties
        for other in ("top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
    }
    | {frozenset(("remove_invalid_values", other)) for other in (*ADDITIONS, "renormalize_logits")}
)


def all_processors(ids):
    """One of each, so set that neighbours meet."""
    mask = np.ones_like(ids)
    green = {
        "greenlist_ratio": 0.25,
        "bias": 2.0,
        "hashing_key": 15485863,
        "seeding_scheme": "lefthash",
        "context_width": 1,
    }
    return {
        "sequence_bias": partial(penalties.sequence_bias, biases=[((3,), 1.5), ((4,), -2.0)], prompt_mask=mask),
        "repetition_penalty": partial(penalties.repetition_penalty, penalty=1.7, prompt_mask=mask),
        "no_repeat_ngram_size": partial(penalties.no_repeat_ngram, n=2, prompt_mask=mask),
        "bad_words_ids": partial(penalties.sequence_bias, biases=[((6,), -np.inf)], prompt_mask=mask),
        "min_length": partial(penalties.min_length, least=99, eos_ids=(1,)),
        "prefix_allowed_tokens_fn": partial(
            places.prefix_allowed_tokens, allowed=lambda row, ids: [1, 3, 5, 6][row % 2 :]
        ),
        "forced_eos_token_id": partial(places.forced, column=ids.shape[1], forced_ids=(1, 3, 5, 6)),
        "remove_invalid_values": places.remove_invalid_values,
        "exponential_decay_length_penalty": partial(places.exponential_decay, start=1, factor=1.4, eos_ids=(1, 3)),
        "suppress_tokens": partial(places.suppress, suppressed=(5,)),
        "temperature": partial(sampling.temperature, value=0.5),
        "top_h": partial(cuts.top_h, share=0.5),
        "top_k": partial(sampling.top_k, k=3),
        "top_p": partial(sampling.top_p, p=0.6),
        "min_p": partial(sampling.min_p, p=0.2),
        "typical_p": partial(cuts.typical_p, mass=0.5),
        "epsilon_cutoff": partial(cuts.epsilon_cutoff, epsilon=0.15),
        "eta_cutoff": partial(cuts.eta_cutoff, epsilon=0.3),
        "watermarking_config": partial(green_list, settings=green, prompt_mask=mask),
        "renormalize_logits": places.renormalize,
    }


@pytest.fixture(scope="module")
def cases():
    """Contexts of eight tokens' repetitions and scores; in some, tokens are removed already."""
    rng, drawn = np.random.default_rng(0), []
    for number in range(400):
        scores = rng.normal(0, 2, (2, 8)).astype(np.float32)
        for row in range(2):
            scores[row, rng.permutation([1, 3, 5, 6, 0, 2])[: number % 6]] = -np.inf
        ids = rng.integers(0, 8, (2, 6))
        drawn.append((scores, ids, all_processors(ids)))
    return drawn


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
def test_order(cases, one, other):
    """PROC-06: a free pair gives the same either way, to rounding; of any other pair some scores tell the order."""
    swapped_is_same = True
    with np.errstate(all="ignore"):
        for scores, ids, processor in cases if frozenset((one, other)) not in FREE else cases[:60]:
            first = processor[other](ids, processor[one](ids, scores))
            second = processor[one](ids, processor[other](ids, scores))
            swapped_is_same = np.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True)
            if not swapped_is_same:
                break
    assert swapped_is_same == (frozenset((one, other)) in FREE)
