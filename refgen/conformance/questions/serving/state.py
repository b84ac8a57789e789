"""Whether an answer depends on its request alone. Rules SERVE-08, CACHE-02 and BATCH-01."""

from collections.abc import Mapping, Sequence
from typing import Any

from refgen.conformance.judging.completions import (
    changed,
)
from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.questions.serving.question import COUNT, asks, failed, passed, skipped
from refgen.conformance.questions.serving.server_talk import ServerTalk

AT_ONCE = 8
UNUSUAL = 19  # tokens of a prompt


@asks("state.twice", "SERVE-08", why="a prompt that is wholly in the cache leaves nothing to compute")
def the_same_twice(talk: ServerTalk) -> Finding:
    """The same request twice gives the same text."""
    for walk in talk.known.walks[:2]:
        one, other = (talk.choice(walk.prompt, ids=True, max_tokens=COUNT, fresh=False) for _ in range(2))
        if (found := unlike(talk, walk.prompt, COUNT, one, other)) is not None:
            return found
    return passed()


@asks("state.prefix", "SERVE-08", "CACHE-02", why="one user's request changes another user's answer")
def prefixes_of_each_other(talk: ServerTalk) -> Finding:
    """A, AB, A, AC, AB, A: prompts that begin alike, one after the other."""
    walks = talk.known.walks
    a = max((walk.prompt for walk in walks), key=len)
    b, c = next((one.prompt, other.prompt) for one in walks for other in walks if one.prompt[0] != other.prompt[0])
    return each_as_the_reference(talk, spellable(talk, [a, [*a, *b], a, [*a, *c], [*a, *b], a]))


@asks("state.length", "SERVE-08", "CACHE-02", why="a cache found by length or hash belongs to somebody else")
def unlike_prompts_of_one_length(talk: ServerTalk) -> Finding:
    """Different prompts of the same length, one after the other; a length that nothing else has."""
    walks = talk.known.walks[:6]
    joined = [[token for walk in [*walks[i:], *walks[:i]] for token in walk.prompt] for i in range(len(walks))]
    length = min(UNUSUAL, *map(len, joined))
    prompts = spellable(talk, [prompt[:length] for prompt in joined])
    return each_as_the_reference(talk, [*prompts, *prompts[:2]])


@asks("state.together", "SERVE-08", "BATCH-01", why="answers depend on who else is asking")
def at_the_same_time(talk: ServerTalk) -> Finding:
    """Eight requests at once get what each would alone."""
    walks = [talk.known.walks[i % len(talk.known.walks)] for i in range(AT_ONCE)]
    bodies = [{"prompt": walk.prompt, "max_tokens": 4 + i % 5} for i, walk in enumerate(walks)]
    for number, (walk, answer) in enumerate(zip(walks, talk.together(bodies), strict=True)):
        choice = answer["choices"][0] if answer["choices"] else {"text": "", "ids": None, "finish_reason": None}
        limit = 4 + number % 5
        alone = talk.choice(walk.prompt, ids=True, max_tokens=limit)
        found = unlike(talk, walk.prompt, limit, alone, choice, f"request {number} of {AT_ONCE} at once")
        if found is not None:
            return found
    return passed()


def unlike(
    talk: ServerTalk,
    prompt: Sequence[int],
    limit: int,
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    where: str = "the second answer",
) -> Finding | None:
    """A failure if two answers to one request differ by more than ties."""
    if one["text"] == other["text"]:
        return None
    judgements = [talk.known.judge(prompt, choice, limit) for choice in (one, other)]
    if all(judgement is not None and judgement.verdict != "FAIL" for judgement in judgements):
        return None
    if unsteady(talk, prompt, limit):
        return failed("answers at temperature 0 differ, whatever was asked before", "TEMP-02")
    return failed(f"{where}: observed {other['text']!r}, alone {one['text']!r}")


def unsteady(talk: ServerTalk, prompt: Sequence[int], limit: int) -> bool:
    """Whether the same request gives several texts one after the other, so that chance is at work and no cache."""
    return len({talk.choice(prompt, max_tokens=limit, temperature=0)["text"] for _ in range(3)}) > 1


def each_as_the_reference(talk: ServerTalk, prompts: Sequence[Sequence[int]]) -> Finding:
    """Prompts one after the other, with the server's cache; each answer is the reference's, or a tie."""
    asked: list[tuple[Sequence[int], str]] = []
    for number, prompt in enumerate(prompts):
        choice = talk.choice(prompt, ids=True, max_tokens=8, fresh=False)
        judgement = talk.known.judge(prompt, choice, 8)
        asked.append((prompt, choice["text"]))
        if judgement is not None and judgement.verdict != "FAIL" and (judgement.flips or changed(asked) is None):
            continue
        if number == 0:
            return skipped("the first answer is wrong, with nothing before it: see serving.greedy")
        if unsteady(talk, prompt, 8):
            return failed("answers at temperature 0 differ, whatever was asked before", "TEMP-02")
        told = (
            f"{choice['text']!r}, another text than before"
            if judgement is None or not judgement.flips
            else judgement.sentence
        )
        return failed(f"request {number} of a row of related prompts: {told}")
    return passed()


def spellable(talk: ServerTalk, prompts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Of prompts those whose text gives their ids, so that every server can be asked."""
    return [prompt for prompt in prompts if talk.tokenizer.encode(talk.tokenizer.decode(list(prompt))) == list(prompt)]
