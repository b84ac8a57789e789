"""generate() against transformers, token for token: random models, prompts, paddings and settings.

Both sides compute logits in float32 and round differently, so a choice between two tokens whose scores nearly tie
may fall either way. Such a near-tie is shown to be one from refgen's own numbers, counted and reported; anything
else that differs is a mismatch, and fails.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import refgen
from refgen.auto import find_model
from refgen.generation.pick import TorchStream
from refgen.model import softmax
from tests.cross.torch_twin import torch_twin
from tests.strategies import random_model

MODELS, CALLS = 90, 12  # greedy runs; sampling does half as many
NEAR = 2e-5  # relative to the largest logit, the bound that test_forward.py proves for float32


def draw_model(rng):
    """A float32 model over the switches that matter to generation, with positions to spare."""
    config = refgen.GPT2Config(
        vocab_size=int(rng.integers(4, 80)), n_positions=48, n_embd=8 * int(rng.integers(1, 4)), n_head=2,
        n_layer=int(rng.integers(1, 3)), tie_word_embeddings=bool(rng.integers(2)),
        scale_attn_by_inverse_layer_idx=bool(rng.integers(2)), bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return random_model(config, int(rng.integers(2**32)), "float32")


def a_few(rng, vocab_size):
    """One to three ids."""
    return rng.integers(0, vocab_size, rng.integers(1, 4)).tolist()


def draw_lengths(rng, vocab_size, P):
    """Limits, minima, ends and padding."""
    settings = {"max_new_tokens": int(rng.integers(1, 12)), "pad_token_id": int(rng.integers(vocab_size))}
    if rng.integers(2):
        settings["eos_token_id"] = a_few(rng, vocab_size)
    if rng.integers(3) == 0:
        settings["min_new_tokens"] = int(rng.integers(0, settings["max_new_tokens"] + 1))
    if rng.integers(3) == 0:
        settings["max_length"] = P + settings.pop("max_new_tokens")
        settings["min_length"] = P + settings.pop("min_new_tokens", 0)
    return settings | {"use_cache": bool(rng.integers(2))}


def draw_penalties(rng, vocab_size, ends):
    """Settings that act greedily too, each one ready to be drawn."""
    one = lambda: int(rng.integers(vocab_size))  # noqa: E731
    settings = {
        "repetition_penalty": lambda: float(rng.choice([0.7, 1.3, 2.0])),
        "no_repeat_ngram_size": lambda: int(rng.integers(2, 4)),
        "bad_words_ids": lambda: (
            [word for word in ([one()], a_few(rng, vocab_size)) if word not in [[e] for e in ends]] or [[one(), one()]]
        ),
        "sequence_bias": lambda: {tuple(a_few(rng, vocab_size)): float(rng.normal(0, 3)) for _ in range(3)},
        "forced_bos_token_id": one,
        "forced_eos_token_id": one,  # several would tie, and sampling may then keep any of them
        "remove_invalid_values": lambda: True,
        "suppress_tokens": lambda: [one()],
        "begin_suppress_tokens": lambda: [one()],
        "renormalize_logits": lambda: True,
    }
    decay = {"exponential_decay_length_penalty": lambda: (int(rng.integers(0, 4)), float(rng.choice([1.1, 1.5])))}
    return settings | (decay if ends else {})


def draw_chance(rng):
    """Settings that act when sampling, each one ready to be drawn."""
    options = {
        "temperature": [0.3, 0.7, 1.7], "top_p": [0.3, 0.8, 0.95], "min_p": [0.05, 0.3], "top_h": [0.3, 0.7, 0.95],
        "typical_p": [0.2, 0.6, 0.95], "epsilon_cutoff": [0.01, 0.1], "eta_cutoff": [0.01, 0.1],
    }  # fmt: skip
    drawn = {name: lambda values=values: float(rng.choice(values)) for name, values in options.items()}
    return drawn | {"top_k": lambda: int(rng.choice([1, 5, 50]))}


def draw_call(rng, vocab_size, do_sample):
    """A prompt batch with left padding, and settings, each active in some of the calls."""
    B, P = int(rng.integers(1, 4)), int(rng.integers(1, 12))
    ids = rng.integers(0, vocab_size, (B, P))
    mask = (np.arange(P) >= rng.integers(0, P, (B, 1))).astype(np.int64)
    settings = draw_lengths(rng, vocab_size, P)
    sometimes = draw_penalties(rng, vocab_size, settings.get("eos_token_id", []))
    if do_sample:
        settings |= {"do_sample": True, "num_return_sequences": int(rng.integers(1, 3)), "top_k": 0}
        sometimes |= draw_chance(rng)
    settings |= {name: draw() for name, draw in sometimes.items() if rng.integers(4) == 0}
    forced = {settings.get("forced_bos_token_id"), settings.get("forced_eos_token_id")}
    if forced & set(settings.get("suppress_tokens", ())):  # both refuse that
        del settings["suppress_tokens"]
    if settings.keys() & {"no_repeat_ngram_size", "bad_words_ids", "sequence_bias"}:
        mask[:] = 1  # NGRAM-02: to transformers padding is context for these
    return ids, mask, settings


def both(model, twin, ids, mask, settings, seed):
    """The two answers, refgen's with its scores; transformers' too if the settings ask for it."""
    torch.manual_seed(seed)
    scores = {"output_scores": True} if "return_dict_in_generate" in settings else {}
    theirs = twin.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **settings, **scores)
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    ours = model.generate(ids, mask, seed=seed, **(settings | wanted))
    return ours, theirs if scores else theirs.numpy()


def nothing_left(model, ids, mask, settings, seed):
    """Whether refgen refuses because the settings leave no token; transformers then says id 0 or fails."""
    rule = None
    try:
        model.generate(ids, mask, seed=seed, **settings)
    except refgen.GenerationError as error:
        rule = error.rule
    assert rule in (None, "SAMP-08"), settings
    return rule is not None


def is_near_tie(ours, theirs, P, settings, seed):
    """Whether the first difference is between two tokens that float32 rounding can exchange."""
    width = min(ours.sequences.shape[1], theirs.shape[1])
    differs = ours.sequences[:, :width] != theirs[:, :width]
    if not differs.any():
        return False
    column = int(differs.any(axis=0).argmax())
    row = int(differs[:, column].argmax())
    scores, logits = ours.scores[column - P], ours.logits[column - P]
    noise = NEAR * np.abs(logits).max() * max(1.0, 1.0 / settings.get("temperature", 1.0)) * 4
    chosen, other = ours.sequences[row, column], theirs[row, column]
    if not settings.get("do_sample"):
        return abs(float(scores[row, chosen]) - float(scores[row, other])) < noise
    if not np.isfinite(scores[row, other]):  # at the edge of the kept set; test_processors.py covers the edge itself
        return False
    stream = TorchStream(seed)
    for _ in range(column - P + 1):
        exponentials = stream.exponentials(scores.size).reshape(scores.shape)
    ratios = np.log(softmax(scores)[row, [chosen, other]] / exponentials[row, [chosen, other]])
    return abs(float(ratios[0] - ratios[1])) < noise


def compare(rng, calls, do_sample):
    """Counts of runs, tokens, near-ties and refusals, and of each setting; fails at the first mismatch."""
    count = Counter()
    for number in range(MODELS):
        model = draw_model(rng)
        twin = torch_twin(model)
        for _ in range(calls):
            ids, mask, settings = draw_call(rng, model.config.vocab_size, do_sample)
            seed = int(rng.integers(2**40))
            if nothing_left(model, ids, mask, settings, seed):
                count["refused"] += 1
                continue
            ours, theirs = both(model, twin, ids, mask, settings, seed)
            count.update(settings.keys())
            count["runs"] += 1
            count["tokens"] += theirs[:, ids.shape[1] :].size
            if ours.sequences.shape != theirs.shape or (ours.sequences != theirs).any():
                assert is_near_tie(ours, theirs, ids.shape[1], settings, seed), (
                    f"model {number}, {settings}, seed {seed}, prompt {ids.tolist()}, mask {mask.tolist()}:\n"
                    f"refgen       {ours.sequences.tolist()}\ntransformers {theirs.tolist()}"
                )
                count["near-ties"] += 1
    assert count["near-ties"] + count["refused"] <= count["runs"] // 50
    return count


def told(count):
    """The counts as a line, and how often each setting was active as another."""
    numbers = {name: count.pop(name, 0) for name in ("runs", "tokens", "near-ties", "refused")}
    active = ", ".join(f"{name} {times}" for name, times in sorted(count.items()))
    return (
        f"{numbers['runs']} runs, {numbers['tokens']} tokens, 0 mismatches, {numbers['near-ties']} near-ties, "
        f"{numbers['refused']} without any token left\n    active: {active}"
    )


def test_greedy_runs_equal_transformers(figures):
    """Greedy decoding gives transformers' tokens, cached or not, batched, padded, with every setting that acts on it."""
    count = compare(np.random.default_rng(1), CALLS, do_sample=False)
    assert count["runs"] >= 1000
    figures.append(f"greedy against transformers: {told(count)}")


def test_seeded_sampling_equals_transformers(figures):
    """A seed gives the tokens that torch.manual_seed gives transformers on a CPU, with every sampling setting."""
    count = compare(np.random.default_rng(2), CALLS // 2, do_sample=True)
    assert count["runs"] >= 500
    figures.append(f"seeded sampling against transformers: {told(count)}")


def draw_beams(rng, vocab_size):
    """A batch and settings for beams; enough tokens that their candidates can all be real."""
    B, P, K = int(rng.integers(1, 3)), int(rng.integers(1, 8)), int(rng.integers(2, 5))
    ids = rng.integers(0, vocab_size, (B, P))
    mask = (np.arange(P) >= rng.integers(0, P, (B, 1))).astype(np.int64)
    settings = {
        "num_beams": K, "max_new_tokens": int(rng.integers(1, 10)), "pad_token_id": int(rng.integers(1, vocab_size)),
        "num_return_sequences": int(rng.integers(1, K + 1)), "use_cache": bool(rng.integers(2)),
    }  # fmt: skip
    ends = rng.integers(0, vocab_size, rng.integers(0, 3)).tolist()
    if ends:
        settings |= {"eos_token_id": ends, "min_new_tokens": int(rng.integers(0, settings["max_new_tokens"] + 1))}
    sometimes = {
        "length_penalty": lambda: float(rng.choice([-1.0, 0.0, 0.5, 2.0])),
        "early_stopping": lambda: [True, False, "never"][rng.integers(3)],
        "repetition_penalty": lambda: 1.4,
        "renormalize_logits": lambda: True,
        "do_sample": lambda: True,
    }
    settings |= {name: draw() for name, draw in sometimes.items() if rng.integers(2) == 0}
    if "do_sample" in settings:  # all candidates stay possible, or which of them fill up is nobody's promise (BEAM-11)
        settings |= {"temperature": float(rng.choice([1.0, 1.5, 2.0])), "top_k": 0}
    enough = vocab_size >= max(2, 1 + len(ends)) * K
    return (ids, mask, settings) if enough else draw_beams(rng, vocab_size)


def test_beams_equal_transformers(figures):
    """BEAM-01 to BEAM-13: beam search and beam sampling return transformers' sequences, scores and origins."""
    rng, count = np.random.default_rng(4), Counter()
    for number in range(70):
        model = draw_model(rng)
        model = random_model(replace(model.config, vocab_size=int(rng.integers(20, 80))), number, "float32")
        twin = torch_twin(model)
        for _ in range(8):
            ids, mask, settings = draw_beams(rng, model.config.vocab_size)
            seed = int(rng.integers(2**40))
            ours, theirs = both(model, twin, ids, mask, settings | {"return_dict_in_generate": True}, seed)
            told_by = f"model {number}, {settings}, seed {seed}, prompt {ids.tolist()}, mask {mask.tolist()}"
            np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy(), err_msg=told_by)
            np.testing.assert_array_equal(ours.beam_indices, theirs.beam_indices.numpy(), err_msg=told_by)
            np.testing.assert_allclose(ours.sequences_scores, theirs.sequences_scores.numpy(), rtol=1e-5, atol=1e-5)
            assert len(ours.scores) == len(theirs.scores), told_by  # the search ended at the same step
            count.update(settings.keys())
            count["runs"] += 1
            count["tokens"] += theirs.sequences[:, ids.shape[1] :].numel()
    assert count["runs"] >= 500
    figures.append(f"beams against transformers, every sequence, score and origin: {told(count)}")


def test_stop_strings_equal_transformers(tmp_path, figures):
    """SSTR-01 to SSTR-03: a stop string ends rows at the token where it ends them in transformers, across tokens too."""
    model = refgen.AutoModelForCausalLM.from_pretrained("shakespeare")
    tokenizer = refgen.AutoTokenizer.from_pretrained("shakespeare")
    twin, theirs_tokenizer = torch_twin(model), transformers.AutoTokenizer.from_pretrained(find_model("shakespeare"))
    rng, stopped = np.random.default_rng(5), 0
    for seed in range(60):
        prompt = np.array([tokenizer.encode(str(rng.choice(["ROMEO:", "KING RICHARD II:\nI", "O, th"])))])
        strings = [
            str(s)
            for s in rng.choice(["the", " th", "ou", ".", "\n", "e,", "ing ", "I am", "my lord"], 2, replace=False)
        ]
        settings = {"stop_strings": strings, "max_new_tokens": 25, "pad_token_id": 1}
        settings |= {"num_beams": 3} if seed % 3 == 0 else {"do_sample": True}
        torch.manual_seed(seed)
        ones = torch.ones(prompt.shape, dtype=torch.int64)
        theirs = twin.generate(torch.from_numpy(prompt), attention_mask=ones, tokenizer=theirs_tokenizer, **settings)
        ours = model.generate(prompt, seed=seed, tokenizer=tokenizer, return_dict_in_generate=True, **settings)
        np.testing.assert_array_equal(ours.sequences, theirs.numpy())
        stopped += ours.finish == ("stop_string",)
    assert stopped >= 30
    figures.append(f"stop strings against transformers: 60 runs, {stopped} ended by one, 0 mismatches")


def test_the_random_stream_is_torchs(figures):
    """SAMP-03: the exponentials are torch's, bit for bit, for any seed."""
    count = 0
    for seed in (0, 1, 5489, 2**32 - 1, 2**32 + 5, 123456789):
        torch.manual_seed(seed)
        theirs = torch.empty(20_000).exponential_(1).numpy()
        np.testing.assert_array_equal(TorchStream(seed).exponentials(20_000), theirs)
        count += len(theirs)
    figures.append(f"torch's random stream: {count} draws, bit for bit")


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
def test_defaults_are_those_of_transformers():
    """LEN-03, PROC-05: a call with nothing but a prompt, and a plain do_sample=True, give transformers' tokens."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        model = draw_model(rng)
        model = random_model(replace(model.config, vocab_size=100), 4, "float32")
        twin = torch_twin(model)
        ids = rng.integers(0, 100, (1, int(rng.integers(1, 45))))
        ones = torch.ones(ids.shape, dtype=torch.int64)
        np.testing.assert_array_equal(
            model.generate(ids), twin.generate(torch.from_numpy(ids), attention_mask=ones).numpy()
        )
        torch.manual_seed(7)
        theirs = twin.generate(torch.from_numpy(ids), attention_mask=ones, do_sample=True).numpy()
        np.testing.assert_array_equal(model.generate(ids, do_sample=True, seed=7), theirs)
