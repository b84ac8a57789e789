"""Bug or tie: torch's own greedy texts in float16 and bfloat16, right and wrong. HYPOTHESIS_PROFILE=long takes many."""

import numpy as np
import pytest
import torch
from hypothesis import settings

from refgen.oracle.margins import judge_tokens, together
from refgen.oracle.noise import expected_error
from refgen.oracle.suspects import suspects
from tests.cross.torch_twin import torch_twin

TEXT = """ROMEO:
But, soft! what light through yonder window breaks? It is the east, and Juliet is the sun. Arise, fair sun, and kill the
envious moon, who is already sick and pale with grief, that thou her maid art far more fair than she.

GLOUCESTER:
Now is the winter of our discontent made glorious summer by this sun of York; and all the clouds that lour'd upon our
house in the deep bosom of the ocean buried. Now are our brows bound with victorious wreaths; our bruised arms hung up for
monuments; our stern alarums changed to merry meetings, our dreadful marches to delightful measures.
"""
LONG = settings().max_examples > 1000
CORRECT, WRONG, STEPS = (105, 50, 96) if LONG else (2, 1, 40)  # sequences of each kind and dtype; tokens of each


def some_prompts(tokenizer, count, seed):
    """Passages of 3 to 20 tokens."""
    ids, rng = tokenizer.encode(TEXT), np.random.default_rng(seed)
    starts = rng.integers(0, len(ids) - 20, count)
    return [ids[start : start + rng.integers(3, 21)] for start in starts]


def best(logits):
    """Greedy."""
    return int(logits.argmax())


def second_best(logits):
    """What no implementation should do."""
    return int(logits.topk(2).indices[1])


def continued(twin, prompt, choose=best, lost=0, overwrites=False, place=lambda start, step: start + step):
    """torch's tokens, step by step with a cache, and what may be wrong with it.

    `lost` positions fall out of the cache after the prompt; each step's key `overwrites` the one before; step n stands
    at `place(length of the prompt, n)`.
    """
    new = []
    with torch.no_grad():
        out = twin(torch.tensor([prompt]), use_cache=True)
        cache = out.past_key_values
        if lost:
            cache.crop(-lost)
        for step in range(STEPS):
            new.append(choose(out.logits[0, -1]))
            if overwrites:
                cache.crop(-1)
            places = torch.tensor([[place(len(prompt), step)]])
            out = twin(torch.tensor([[new[-1]]]), past_key_values=cache, position_ids=places, use_cache=True)
    return new


def twins(model, dtype):
    """torch's two attentions, in turns."""
    for attention in ("eager", "sdpa"):
        twin = torch_twin(model).to(getattr(torch, dtype))
        twin.set_attn_implementation(attention)
        yield twin


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_is_not_accused(shakespeare, figures, dtype):
    """Correct greedy texts, most of which are not the exact one, are PASS or TIE; all together too."""
    model, tokenizer = shakespeare
    both = list(twins(model, dtype))
    texts = [(prompt, continued(both[i % 2], prompt)) for i, prompt in enumerate(some_prompts(tokenizer, CORRECT, 1))]
    judged = [judge_tokens(model.gpt2, *text, dtype) for text in texts]
    whole = together(judged)
    assert [each.sentence for each in judged if each.verdict == "FAIL"] == []
    assert whole.verdict != "FAIL", whole.sentence
    departed, worst = sum(each.verdict == "TIE" for each in judged), max([0, *(flip.sigmas for flip in whole.flips)])
    figures.append(
        f"judge: {departed} of {CORRECT} texts in {dtype} depart, 0 accused; {len(whole.flips)} flips in "
        f"{len(whole.chances)} steps, at most {whole.expected:.0f} expected, the largest {worst:.2f} sigma"
    )


BUGS = {
    "second best always": {"choose": second_best},
    "cache, each step overwrites the one before": {"overwrites": True},
    "position, steps stand at 0": {"place": lambda start, step: 0},
}
SUBTLE = {  # by the names that faults.py has for them
    "cache-loses-last": {"lost": 1},
    "cached-position-plus-one": {"place": lambda start, step: start + step + 1},
}


def judgements(shakespeare, options, dtype, count, seed):
    """Some texts with a bug, and their judgements."""
    model, tokenizer = shakespeare
    twin = next(twins(model, dtype))
    texts = [(prompt, continued(twin, prompt, **options)) for prompt in some_prompts(tokenizer, count, seed)]
    return texts, [judge_tokens(model.gpt2, *text, dtype) for text in texts]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("bug", BUGS)
def test_bugs_are_found(shakespeare, figures, bug, dtype):
    """Each text of an implementation with a plain bug is FAIL."""
    _, judged = judgements(shakespeare, BUGS[bug], dtype, WRONG, 2)
    failed = sum(each.verdict == "FAIL" for each in judged)
    figures.append(f"judge: {failed} of {WRONG} texts in {dtype} are FAIL: {bug}")
    assert failed == WRONG


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"] if LONG else ["float16"])
@pytest.mark.parametrize("bug", SUBTLE)
def test_subtle_bugs_are_found_in_some_texts(shakespeare, figures, bug, dtype):
    """A bug that hardly moves the logits changes few tokens: not each text shows it, all together do, and name it."""
    texts, judged = judgements(shakespeare, SUBTLE[bug], dtype, WRONG if LONG else 3, 4)
    failed = [text for text, each in zip(texts, judged, strict=True) if each.verdict == "FAIL"]
    assert together(judged).verdict == "FAIL"
    found = suspects(shakespeare[0].gpt2, failed[: 8 if LONG else 2] or texts, dtype)
    figures.append(
        f"judge: {len(failed)} of {len(judged)} texts in {dtype} are FAIL, and all together: {bug}. {found.sentence}"
    )
    assert bug in [fault.name for fault, _ in found.faults]
    assert found.named is None or found.named.name == bug


def test_too_many_ties_are_a_bug(shakespeare, figures):
    """To take the second best wherever it is near enough is explained at each step, and is FAIL in all."""
    model, tokenizer = shakespeare
    prompts = some_prompts(tokenizer, 4, 3)
    noise = expected_error(model.gpt2, np.array([prompts[0]]), dtype="bfloat16")
    near = 2 * float(noise.scale["lm_head"].mean())

    def choose(logits):
        first, second = logits.topk(2).values.tolist()
        return second_best(logits) if first - second < near else best(logits)

    twin = next(twins(model, "float32"))
    whole = together([judge_tokens(model.gpt2, each, continued(twin, each, choose), "bfloat16") for each in prompts])
    assert whole.fault is None
    assert whole.verdict == "FAIL"
    figures.append(f"second best within 2 sigma, bfloat16: {whole.sentence}")
