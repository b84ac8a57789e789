"""generate() against transformers: whole calls, drawn at random, must have the same answer.

Every draw ends in one verdict: both answer alike, in tokens, scores, logits and origins of beams; both refuse; refgen
differs by a rule that `differences.py` knew from the call; or float32 rounding explains it, and that is proved by
giving refgen the logits that transformers had. There is nothing else. `calls.py` draws, `ask.py` asks and compares.
"""

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings

import refgen
from refgen.generation.config import SETTINGS
from refgen.generation.torch_stream import TorchStream
from refgen.names import find_model
from tests.cross.ask import verdict
from tests.cross.calls import ELSEWHERE, FUNCTIONS, Request, requests
from tests.cross.torch_twin import torch_twin
from tests.strategies import random_model

DRAWS = {"quick": 3000, "long": 30_000, "faults": 300}
OFTEN = 200  # each field is active in at least one of so many draws that compared equal


@pytest.mark.filterwarnings("ignore::refgen.IgnoredSettingWarning", "ignore::UserWarning")
def test_whole_calls_equal_transformers(figures):
    """Any call has the answer it has in transformers, or both refuse, or a named difference predicts what is otherwise."""
    verdicts, rules, active, beams = Counter(), Counter(), Counter(), Counter()
    draws = DRAWS[settings.get_current_profile_name()]

    @settings(max_examples=draws)
    @given(requests())
    def law(request: Request) -> None:
        said, *named = verdict(request)
        verdicts[said] += 1
        rules.update(named)
        if said == "equal":
            active.update(request.active())
            beams["search" if not request.samples else "sampling"] += request.beams > 1

    law()
    told(figures, verdicts, rules, active, beams)
    total = verdicts.total()
    assert total >= draws
    assert beams.total() >= draws / 6, beams
    assert verdicts["equal"] >= total * 0.6, verdicts
    assert verdicts["near-tie"] <= total / 100, verdicts
    rarely = {name for name in (SETTINGS.keys() | FUNCTIONS.keys()) - ELSEWHERE if active[name] < total / OFTEN}
    assert not rarely, {name: active[name] for name in rarely}


ALL = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
RARE = {  # calls that a long search found, and what becomes of them; rounding may differ on another machine
    "an end token that cannot be said fills no row": (
        Request(40, [[17, 20], [2, 5]], None, 0, {"max_new_tokens": 3}, own={"eos_token_id": 1000},
                functions={"stopping_criteria": "at every fifth id"}),
        ["refused here STOP-07"],
    ),
    "a pad id that cannot be said fills no row": (
        Request(40, [[17, 20], [2, 5]], None, 0, {"max_new_tokens": 3}, own={"pad_token_id": 1000},
                functions={"stopping_criteria": "at every fifth id"}),
        ["refused here STOP-07"],
    ),
    "an end token that cannot be said, but does not count": (
        Request(40, [[17, 20], [2, 5]], None, 0, {"eos_token_id": None, "max_new_tokens": 3}, passed={"eos_token_id": 1000}),
        ["equal"],
    ),
    "a length switched off that had replaced another": (
        Request(0, [[3]], None, 0, {"max_length": None, **ALL}, {"max_length": 3}, {"max_new_tokens": 3}),
        ["equal LEN-01 CFG-05"],
    ),
    "a length switched off beside a minimum that replaced another": (
        Request(0, [[3]], None, 0, {"max_length": None, "eos_token_id": 1, **ALL}, {"min_length": 3}, {"min_new_tokens": 6}),
        ["equal LEN-01 CFG-05"],
    ),
    "a length switched off that another source had replaced": (
        Request(0, [[3]], None, 0, {"max_new_tokens": None, **ALL}, {"max_new_tokens": 1}, {"max_length": 13}),
        ["equal LEN-01"],
    ),
    "a minimum switched off that another source had replaced": (
        Request(0, [[3]], None, 0, {"min_new_tokens": None, "max_new_tokens": 9, "eos_token_id": [0, 1], **ALL},
                {"min_new_tokens": 1}, {"min_length": 9}),
        ["equal LEN-01"],
    ),
    "a draft that reaches beyond the end of the context": (
        Request(8, [[4, 2, 4, 17, 14, 7, 8, 3]], None, 0, {
            "max_new_tokens": 5, "prompt_lookup_num_tokens": 5, "watermarking_config": {"bias": 2.0}, **ALL}),
        ["equal ASSIST-04"],
    ),
    "a draft at the end of the context, where a criterion ends the row": (
        Request(35, [[3, 0, 7, 3, 1, 7, 7, 1]], None, 0, {
            "max_new_tokens": 6, "prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 1, "suppress_tokens": [0], **ALL}),
        ["equal LEN-04 ASSIST-04"],
    ),
    "a finished row with nothing left to draw": (
        Request(35, [[5, 0, 5, 1, 6, 3, 2, 3], [0, 0, 2, 1, 4, 4, 5, 3]], [[1] * 8, [0] * 4 + [1] * 4], 573797775367, {
            "do_sample": True, "max_new_tokens": 4, "num_return_sequences": 3, "no_repeat_ngram_size": 1,
            "eos_token_id": [7, 1], "begin_suppress_tokens": [7, 2, 6], "top_k": 0, **ALL}),
        ["equal NGRAM-02 SAMP-08"],
    ),
    "beams whose scores are finite and sums are not": (
        Request(1, [[4, 3, 4], [2, 2, 0], [0, 4, 3]], None, 136804341519, {
            "num_beams": 2, "do_sample": True, "top_k": 0, "max_length": 5, "temperature": 1e-39, "pad_token_id": 1, **ALL},
            functions={"logits_processor": "by the last id"}),
        ["both refuse"],
    ),
    "guidance that leaves top_h hardly any entropy": (
        Request(40, [[23, 8, 6, 20, 9, 4, 2, 21]], None, 166574705010, {
            "do_sample": True, "num_beams": 2, "top_k": 0, "top_h": 0.9, "guidance_scale": 3.0, "max_new_tokens": 5,
            "repetition_penalty": 0.7, "watermarking_config": {"bias": 4.0, "greenlist_ratio": 0.5, "hashing_key": 7},
            "num_return_sequences": 2, **ALL}),
        ["near-tie BEAM-10 CFGG-01 BEAM-03 TOPH-01 SAMP-08", "equal BEAM-10 CFGG-01"],
    ),
    "many rows whose top_h rounding decides, each its own way": (
        Request(40, [[3], [9], [12]], None, 255260369375, {
            "do_sample": True, "top_h": 0.95, "temperature": 0.7, "top_k": 1000, "num_return_sequences": 3, "max_new_tokens": 20,
            "guidance_scale": 0.0, "bad_words_ids": [[19, 15], [23, 16, 10], [18]], "pad_token_id": 16, **ALL}),
        ["near-tie TOPH-01 SAMP-08", "near-tie TOPH-01 TOPP-03 SAMP-08", "equal"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::refgen.IgnoredSettingWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("call", "verdicts"), RARE.values(), ids=RARE.keys())
def test_rare_calls_equal_transformers(call, verdicts):
    """What a long search found once is looked at every time."""
    assert " ".join(verdict(call)) in verdicts


def told(figures, verdicts, rules, active, beams):
    """The counts as figures: verdicts, named differences, and how often each field was active in answers that were equal."""
    figures.append(
        f"whole calls against transformers: {verdicts.total()} draws, {dict(verdicts)}, 0 unexplained; "
        f"beams equal: {dict(beams)}"
    )
    figures.append(f"    named differences: {', '.join(f'{rule} {times}' for rule, times in sorted(rules.items()))}")
    named = [f"{name} {times}" for name, times in sorted(active.items())]
    figures += [f"    active: {', '.join(named[start : start + 6])}" for start in range(0, len(named), 6)]


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
    for seed in range(10):
        config = refgen.GPT2Config(
            vocab_size=100, n_positions=48, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
        )
        model = random_model(config, seed, "float32")
        twin = torch_twin(model)
        ids = rng.integers(0, 100, (1, int(rng.integers(1, 45))))
        ones = torch.ones(ids.shape, dtype=torch.int64)
        np.testing.assert_array_equal(
            model.generate(ids), twin.generate(torch.from_numpy(ids), attention_mask=ones).numpy()
        )
        torch.manual_seed(7)
        theirs = twin.generate(torch.from_numpy(ids), attention_mask=ones, do_sample=True).numpy()
        np.testing.assert_array_equal(model.generate(ids, do_sample=True, seed=7), theirs)
