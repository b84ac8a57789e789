"""Is a model the released one: every kind of fact holds where it is true and differs where it is not, with its source."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from refgen import GPT2LMHeadModel
from refgen.checkpoints import disassemble, tensor_shapes
from refgen.cli.commands.check import tell_released
from refgen.config import GPT2Config
from refgen.oracle import released
from tests.cross.torch_twin import torch_twin

PROMPT = [5, 80, 200]


@pytest.fixture(scope="module")
def facts(shakespeare):
    """True facts of the built-in model, from the same network in transformers."""
    import torch

    model, tokenizer = shakespeare
    twin = torch_twin(model)
    with torch.no_grad():
        output = twin(torch.tensor([[*PROMPT, 7, 9]]), output_hidden_states=True)
        logp = output.logits.double().log_softmax(-1)[0]
        greedy = twin.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0].tolist()
        ids = tokenizer.encode("ROMEO:")
        said = twin.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0].tolist()
    parts = [logp[2, 7].item(), logp[3, 9].item()]
    expected = {
        name: getattr(model.config, name) for name in ("n_layer", "n_embd", "vocab_size", "activation_function")
    }
    whole = [logp[i, token].item() for i, token in enumerate([*PROMPT, 7, 9][1:])]
    common = {"model": "tiny", "source": "transformers"}
    return [
        common | {"id": "a", "kind": "sizes", "expected": expected | {"parameters": sum(map(np.size, disassemble(model.gpt2).values()))}},
        common | {"id": "b", "kind": "continuation", "ids": PROMPT, "expected": greedy[3:]},
        common | {"id": "c", "kind": "text", "prompt": "ROMEO:", "settings": {"max_new_tokens": 8}, "expected": tokenizer.decode(said)},
        common | {"id": "d", "kind": "logprobs", "context": PROMPT, "ids": [7, 9], "expected": parts, "within": 1e-4},
        common | {"id": "e", "kind": "logprob-sum", "context": PROMPT, "ids": [7, 9], "expected": sum(parts), "within": 1e-4},
        common | {"id": "f", "kind": "loss", "rows": [[*PROMPT, 7, 9]], "expected": -float(np.mean(whole)), "within": 1e-4},
        common | {"id": "g", "kind": "values", "tensor": "wte.weight", "expected": model.gpt2.wte[0, :3].tolist(), "within": 1e-6},
        common | {"id": "h", "kind": "hidden", "ids": [*PROMPT, 7, 9], "expected": output.hidden_states[-1][0, 0, :4].tolist(), "within": 1e-4},
    ]  # fmt: skip


def test_true_facts_hold(monkeypatch, shakespeare, facts):
    """Each kind of fact, true by another implementation, holds; the line has the source."""
    monkeypatch.setattr(released, "FACTS", facts)
    findings = list(released.compare(shakespeare[0], "tiny", shakespeare[1]))
    assert [finding.fact["id"] for finding in findings] == list("abcdefgh")
    assert [finding.line for finding in findings] == [
        f"tiny {each}: as published [transformers]" for each in "abcdefgh"
    ]
    without = list(released.compare(shakespeare[0], "tiny", None))
    assert [finding.fact["id"] for finding in without] == list("abdefgh")


def test_false_facts_differ(monkeypatch, shakespeare, facts):
    """A planted difference in any fact is seen in that fact alone, and its line has both values."""
    for i, fact in enumerate(facts):
        wrong = copy.deepcopy(facts)
        expected = wrong[i]["expected"]
        if isinstance(expected, dict):
            expected["n_layer"] += 1
        elif isinstance(expected, str):
            wrong[i]["expected"] = expected + "x"
        elif isinstance(expected, float):
            wrong[i]["expected"] = expected + 1e-3
        else:
            expected[-1] += 1 if isinstance(expected[-1], int) else 1e-3
        monkeypatch.setattr(released, "FACTS", wrong)
        findings = list(released.compare(shakespeare[0], "tiny", shakespeare[1]))
        assert [finding.fact["id"] for finding in findings if not finding.holds] == [fact["id"]]
        line = next(finding.line for finding in findings if not finding.holds)
        assert ", published " in line
        assert line.endswith(" [transformers]")
        assert len(findings) == (1 if fact["kind"] == "sizes" else len(facts))


def test_another_model_differs(monkeypatch, shakespeare, facts):
    """A network with slightly other weights has other losses, log-probabilities and values."""
    gpt2 = shakespeare[0].gpt2
    other = GPT2LMHeadModel(replace(gpt2, wte=gpt2.wte * np.float32(1.01), lm_head=gpt2.lm_head * np.float32(1.01)))
    monkeypatch.setattr(released, "FACTS", facts)
    differing = {finding.fact["kind"] for finding in released.compare(other, "tiny", None) if not finding.holds}
    assert {"logprobs", "logprob-sum", "loss", "values", "hidden"} <= differing


def test_the_published_facts_are_well_formed():
    """Each has an id of its own, a source and a kind that is asked; parameters follow from the sizes."""
    assert len({fact["id"] for fact in released.FACTS}) == len(released.FACTS) > 30
    for fact in released.FACTS:
        assert fact["kind"] in released.ASK
        assert len(fact["source"]) > 10
        if fact["kind"] == "sizes":
            sizes = {name: value for name, value in fact["expected"].items() if name != "parameters"}
            shapes = tensor_shapes(GPT2Config(**sizes))
            assert fact["expected"]["parameters"] == sum(int(np.prod(shape)) for shape in shapes.values())
        for name in ("ids", "context", "expected"):
            if isinstance(fact.get(name), list) and all(isinstance(each, int) for each in fact[name]):
                assert all(0 <= each < 50257 for each in fact[name])


def test_a_model_says_which_it_is(tmp_path, shakespeare):
    """By its folder's name, or by the one that config.json remembers; others are asked nothing."""
    config = shakespeare[0].config
    assert released.released_name(tmp_path / "gpt2", config) == "gpt2"
    snapshot = tmp_path / "models--openai-community--gpt2-xl" / "snapshots" / ("a" * 40)
    assert released.released_name(snapshot, config) == "gpt2-xl"
    remembers = replace(config, other={"_name_or_path": "distilbert/distilgpt2"})
    assert released.released_name(tmp_path / "mine", remembers) == "distilgpt2"
    assert released.released_name(tmp_path / "mine", config) is None


def test_check_tells_it(capsys, tmp_path, shakespeare):
    """`refgen check --model` says on stderr that a folder called gpt2 is not the gpt2."""
    shakespeare[0].save_pretrained(tmp_path / "gpt2")
    tell_released(tmp_path / "gpt2")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("refgen: gpt2 sizes-gpt2: {'n_layer': 4")
    assert lines[1] == f"refgen: {tmp_path / 'gpt2'}: 0 of 1 published facts of gpt2 hold"
