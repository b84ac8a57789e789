"""Biases, chance and several choices. Rules SERVE-07, BIAS-01, SAMP-05, SAMP-07, TEMP-01, TEMP-02 and TOPP-01."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refgen.conformance.judging.completions import (
    wrong_in_choices,
)
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.serving.question import COUNT, asks, compared, failed, passed, skipped
from refgen.conformance.questions.serving.server_talk import ServerTalk
from refgen.oracle.margins import ODDS

WARM = 1.0  # the temperature of chance


@asks("bias.up", "BIAS-01", why="a bias that does nothing is a promise broken", needs=["logit_bias"])
def biased_up(talk: ServerTalk) -> Finding:
    """100 more makes a token the only one."""
    walk = talk.known.best
    token = next(i for i in talk.known.walks[1].ids if i not in talk.known.ends and i not in walk.ids[:1])
    text = talk.choice(walk.prompt, max_tokens=3, logit_bias={str(token): 100})["text"]
    return compared(text, talk.tokenizer.decode([token] * 3), "text with logit_bias 100")


@asks("bias.down", "BIAS-01", why="forbidden words come", needs=["logit_bias"])
def biased_down(talk: ServerTalk) -> Finding:
    """100 less makes the second best the best."""
    for walk in talk.known.walks:
        biased = talk.known.walk(walk.prompt, 1, {walk.ids[0]: -100.0})
        if biased.clear(talk.known.least) and not biased.ended:
            text = talk.choice(walk.prompt, max_tokens=1, logit_bias={str(walk.ids[0]): -100})["text"]
            return compared(text, talk.known.text_of(biased), "text with logit_bias -100")
    return skipped("no prompt has a clear second best token")


@asks("bias.some", "BIAS-01", why="a bias is added to the logit, not to anything else", needs=["logit_bias"])
def biased_a_little(talk: ServerTalk) -> Finding:
    """A bias just short of what is needed changes nothing, one just beyond it changes the token."""
    for walk in talk.known.walks:
        other = talk.known.walk(walk.prompt, 1, {walk.ids[0]: -100.0})
        gap = walk.margins[0]
        room = max(4 * talk.known.least / 8, 0.05)
        if other.ended or walk.ids[0] in talk.known.ends or gap < 2 * room or other.margins[0] < talk.known.least:
            continue
        for bias, expected in ((gap - room, walk), (gap + room, other)):
            text = talk.choice(walk.prompt, max_tokens=1, logit_bias={str(other.ids[0]): bias})["text"]
            if text != talk.known.text_of(expected, 1):
                return failed(
                    f"logit_bias {bias:.4g} for a token {gap:.4g} after it: observed {text!r}, "
                    f"expected {talk.known.text_of(expected, 1)!r}"
                )
        return passed()
    return skipped("no prompt has two tokens far enough apart")


@asks("seed.same", "SAMP-05", why="a run that cannot be repeated cannot be debugged", needs=["seed"])
def same_seed(talk: ServerTalk) -> Finding:
    """The same seed, the same text."""
    texts = [talk.choice(talk.known.best.prompt, max_tokens=COUNT, **drawn(talk, 7))["text"] for _ in range(2)]
    return compared(texts[1], texts[0], "the second answer with a seed")


@asks("seed.other", "SAMP-05", "TEMP-01", why="chance that never changes is not chance", needs=["seed"])
def other_seeds(talk: ServerTalk) -> Finding:
    """Other seeds, other texts, unless that is likely not to happen."""
    choices = [
        talk.choice(talk.known.best.prompt, ids=True, max_tokens=COUNT, **drawn(talk, seed)) for seed in (1, 2, 3)
    ]
    greedy_text = talk.choice(talk.known.best.prompt, max_tokens=COUNT)["text"]
    if all(choice["text"] == greedy_text for choice in choices):
        return differing(talk, choices, "texts at a temperature", "TEMP-01")
    return differing(talk, choices, "texts of different seeds", "SAMP-05")


@asks("seed.greedy", "GREEDY-05", "TEMP-02", why="temperature 0 is for answers that do not change", needs=["seed"])
def seeds_at_temperature_zero(talk: ServerTalk) -> Finding:
    """No seed changes greedy text."""
    for walk in talk.known.walks[:2]:
        count = min(COUNT, walk.clear(talk.known.least))
        texts = [talk.choice(walk.prompt, max_tokens=count, temperature=0, seed=seed)["text"] for seed in (1, 2, 3)]
        if len(set(texts)) > 1:
            return failed(f"three seeds at temperature 0: observed {texts}", "TEMP-02")
    return passed()


@asks("top_p", "TOPP-01", why="a setting that is accepted and has no effect misleads", needs=["top_p"])
def top_p_near_zero(talk: ServerTalk) -> Finding:
    """At a top_p that only the best token reaches, warm text is greedy."""
    walk = talk.known.best
    count = min(8, walk.clear(talk.known.least))
    text = talk.choice(walk.prompt, max_tokens=count, top_p=0.0001, **drawn(talk, 5))["text"]
    return compared(text, talk.known.text_of(walk, count), "text at top_p 0.0001")


@asks("n.greedy", "SERVE-07", why="a client that asks for three answers reads three", needs=["n"])
def several_greedy_choices(talk: ServerTalk) -> Finding:
    """n choices, numbered from 0, all the same at temperature 0."""
    choices = talk.ask(talk.known.best.prompt, max_tokens=5, n=3, temperature=0)["choices"]
    if problem := wrong_in_choices(choices, 3):
        return failed(f"n=3: {problem}")
    texts = {choice["text"] for choice in choices}
    return passed() if len(texts) == 1 else failed(f"choices at temperature 0 differ: {sorted(texts)}", "TEMP-02")


@asks("n.sampled", "SERVE-07", "SAMP-07", why="three times the same answer is not a choice", needs=["n"])
def several_sampled_choices(talk: ServerTalk) -> Finding:
    """With chance they differ, unless that is likely not to happen."""
    answer = talk.ask(talk.known.best.prompt, ids=True, max_tokens=COUNT, n=3, **drawn(talk, 1))
    if len(answer["choices"]) != 3:
        return skipped("no three choices")
    return differing(talk, answer["choices"], "choices", "SERVE-07")


def drawn(talk: ServerTalk, seed: int, temperature: float = WARM) -> dict[str, Any]:
    """Chance that can be repeated, if the server can repeat it."""
    return {"temperature": temperature} | ({"seed": seed} if "seed" in talk.lab.about.can else {})


def differing(talk: ServerTalk, choices: Sequence[Mapping[str, Any]], what: str, rule: str) -> Finding:
    """Texts drawn by chance that are all the same are wrong if they would be with less than one chance in a million."""
    if len({choice["text"] for choice in choices}) > 1:
        return passed()
    prompt = talk.known.best.prompt
    exact = talk.known.exact_logprobs([*prompt, *talk.known.tokens(prompt, choices[0], COUNT)], WARM)
    odds = math.exp(float(exact[len(prompt) - 1 :].sum()) * (len(choices) - 1))
    message = f"{len(choices)} {what} are all {choices[0]['text']!r}, which has a chance of {odds:.1g}"
    return failed(message, rule) if odds < ODDS else Finding(Verdict.INCONCLUSIVE, message)
