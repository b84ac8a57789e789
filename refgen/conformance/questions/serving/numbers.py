"""Logprobs of the answer and of the prompt. Rules SERVE-05, SERVE-06 and OUT-08."""

import numpy as np

from refgen.conformance.judging.completions import (
    wrong_in_echo,
    wrong_in_logprobs,
    wrong_in_tokens,
)
from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.questions.serving.chance import drawn
from refgen.conformance.questions.serving.material import off
from refgen.conformance.questions.serving.question import (
    COUNT,
    asks,
    chosen,
    compared,
    failed,
    held_to,
    passed,
    skipped,
)
from refgen.conformance.questions.serving.server_talk import ServerTalk
from refgen.conformance.questions.serving.text import across, inside, plain_text
from refgen.oracle.noise import LOGIT


@asks("logprobs.lists", "SERVE-05", why="numbers beside the wrong token mislead their users", needs=["logprobs"])
def logprobs_are_aligned(talk: ServerTalk) -> Finding:
    """One logprob a token, none positive, the best one for each token of greedy text."""
    walk = talk.known.best
    count = min(COUNT, max(4, walk.clear(talk.known.least)))
    choice = talk.choice(walk.prompt, max_tokens=count, logprobs=2)
    problem, rule = wrong_in_logprobs(choice, greedy=True)
    problem = problem or wrong_in_tokens(talk.tokenizer, choice["ids"], choice["text"])
    if not problem and len(choice["logprobs"]) != count:
        problem = f"{len(choice['logprobs'])} logprobs for {count} tokens"
    return failed(problem, rule or "SERVE-05") if problem else passed()


@asks(
    "logprobs.stop", "SERVE-05", why="after a stop string the lists no longer fit the text", needs=["logprobs", "stop"]
)
def logprobs_to_a_stop(talk: ServerTalk) -> Finding:
    """The lists are as long as each other, and their tokens hold the text, where a stop string cuts it."""
    walk, text = plain_text(talk)
    if talk.choice(walk.prompt, max_tokens=1, logprobs=1).get("logprobs") is None:
        return skipped("no logprobs come")
    for stop in [*list(across(talk, walk, text))[:1], *list(inside(talk, walk, text))[:1]]:
        choice = talk.choice(walk.prompt, max_tokens=COUNT, stop=[stop], logprobs=2)
        if not choice["text"]:
            continue
        problem, _ = wrong_in_logprobs(choice)
        problem = problem or wrong_in_tokens(talk.tokenizer, choice["ids"], choice["text"])
        if problem:
            return failed(f"stop={stop!r}: {problem}")
    return passed()


@asks("logprobs.values", "OUT-08", why="wrong numbers look like right ones", needs=["logprobs"])
def logprobs_are_right(talk: ServerTalk) -> Finding:
    """Of greedy text they are those of the model, within the rounding of its dtype; alternatives too."""
    walk = talk.known.best
    choice = talk.choice(walk.prompt, max_tokens=COUNT, logprobs=2)
    numbers = choice.get("logprobs")
    if not numbers or choice["ids"] is None:
        return skipped("no logprobs come") if not numbers else skipped("no ids come with the logprobs")
    ids = [*walk.prompt, *choice["ids"]]
    exact, sigma = (each[len(walk.prompt) - 1 :] for each in talk.known.chosen_logprobs(ids))
    if len(exact) != len(numbers) or None in numbers:
        return skipped("the lists do not fit each other: see serving.logprobs.lists")
    distance = off(numbers, exact, sigma)
    if not distance.max() <= LOGIT:
        return wrong_numbers(numbers, exact, sigma, distance)
    worst = float(distance.max())
    return passed(f"at most {worst:.1f} expected errors off, {LOGIT:g} are allowed", worst=worst)


def wrong_numbers(numbers: list[float], exact: np.ndarray, sigma: np.ndarray, distance: np.ndarray) -> Finding:
    """Logprobs that are not the model's: shifted by a token, or something else."""
    place = int(distance.argmax())
    message = f"token {place}: observed {numbers[place]:.6g}, expected {exact[place]:.6g}, {distance[place]:.3g} expected errors off"
    for shift in (-1, 1):
        moved = np.roll(np.array(numbers), shift)[1:-1]
        if len(moved) > 2 and off(moved, exact[1:-1], sigma[1:-1]).max() <= LOGIT:
            return failed(
                f"{message}: the logprobs are those of the {'next' if shift < 0 else 'last'} token", "SERVE-05"
            )
    return failed(message)


@asks(
    "logprobs.temperature",
    "OUT-08",
    why="logprobs before or after temperature are two different numbers",
    needs=["logprobs"],
)
def logprobs_are_raw_or_processed(talk: ServerTalk) -> Finding:
    """At a temperature of 0.5 they are the model's own, or those that it drew from. This is a choice, which a server
    declares.
    """
    walk = talk.known.best
    choice = talk.choice(walk.prompt, max_tokens=8, logprobs=2, **drawn(talk, 3, 0.5))
    numbers = choice.get("logprobs")
    if not numbers or choice["ids"] is None or None in numbers:
        return skipped("no logprobs with ids come")
    ids = [*walk.prompt, *choice["ids"]]
    for name, temperature in (("raw", 1.0), ("processed", 0.5)):
        exact, sigma = (each[len(walk.prompt) - 1 :] for each in talk.known.chosen_logprobs(ids, temperature))
        if len(exact) == len(numbers) and off(numbers, exact, sigma).max() <= LOGIT:
            return chosen(talk, "logprobs", name)
    return failed("at temperature 0.5 the logprobs are neither the model's nor those it draws from")


@asks("echo.text", "SERVE-06", why="scoring programs cut the prompt off by its length", needs=["echo"])
def echo_of_the_text(talk: ServerTalk) -> Finding:
    """The prompt, then what comes without echo."""
    walk = talk.known.best
    plain = talk.choice(walk.prompt, max_tokens=5)["text"]
    text = talk.choice(walk.prompt, max_tokens=5, echo=True)["text"]
    found = compared(text, talk.tokenizer.decode(walk.prompt) + plain, "text with echo")
    observed = "text_and_logprobs" if found.verdict.good else "ignored" if text == plain else None
    return held_to(talk, "echo", observed, failed("echo is accepted and changes nothing") if text == plain else found)


@asks("echo.logprobs", "SERVE-06", "OUT-08", why="perplexities are computed from these", needs=["echo", "logprobs"])
def echo_of_logprobs(talk: ServerTalk) -> Finding:
    """Every token of the prompt has its logprob, by the tokens before it; the first has none."""
    walk = max(talk.known.walks, key=lambda each: len(each.prompt))
    text = talk.tokenizer.decode(walk.prompt)
    choice = talk.choice(walk.prompt, max_tokens=2, echo=True, logprobs=1)
    if not choice["text"].startswith(text):
        return skipped("the prompt does not come: see serving.echo.text")
    if choice.get("logprobs") is None:
        return skipped("no logprobs come with echo")
    problem, _ = wrong_in_echo(choice, text, len(walk.prompt))
    if problem:
        return failed(problem, "SERVE-06")
    numbers, count = choice["logprobs"], len(walk.prompt)
    exact, sigma = talk.known.chosen_logprobs(walk.prompt)
    distance = off(numbers[1:count], exact, sigma)
    if distance.max() <= LOGIT:
        return passed(f"at most {distance.max():.1f} expected errors off")
    place = int(distance.argmax()) + 1
    return failed(
        f"token {place} of the prompt: observed {numbers[place]:.6g}, expected {exact[place - 1]:.6g}", "SERVE-06"
    )
