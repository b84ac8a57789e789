"""Greedy text, its length and its end, and what is counted. Rules SERVE-01, SERVE-02, SERVE-09 and those of greedy text."""

from typing import Any

from refgen.conformance.judging.completions import (
    finish_reason,
    usage,
)
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.serving.material import Walk
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
from refgen.conformance.questions.serving.state import unsteady


@asks("greedy", "GREEDY-01", why="a server that does not say the likeliest token at temperature 0 serves another model")
def greedy(talk: ServerTalk) -> Finding:
    """Every token of four answers is the best, or a tie."""
    flips = 0
    for walk in talk.known.walks[:4]:
        choice = talk.choice(walk.prompt, ids=True, max_tokens=COUNT)
        judgement = talk.known.judge(walk.prompt, choice, COUNT)
        if judgement is None:
            return failed("the answer holds no token", "LEN-01")
        if judgement.verdict == "FAIL":
            if unsteady(talk, walk.prompt, COUNT):
                return failed("answers at temperature 0 differ, whatever was asked before", "TEMP-02")
            return failed(judgement.sentence)
        flips += len(judgement.flips)
    return Finding(Verdict.TIE, f"{flips} near ties") if flips else passed()


@asks("max_tokens", "LEN-01", why="an answer of the wrong length is cut, or costs more than wanted")
def max_tokens(talk: ServerTalk) -> Finding:
    """1, 2 and 5 tokens, no more and no less."""
    walk = talk.known.best
    for count in (1, 2, 5):
        if not clear(talk, walk, count):
            continue
        choice = talk.choice(walk.prompt, ids=True, max_tokens=count)
        found = len(talk.known.tokens(walk.prompt, choice, count))
        if found != count:
            return failed(f"max_tokens={count}: observed {found} tokens, {choice['text']!r}")
        if choice["text"] != talk.known.text_of(walk, count):
            return failed(
                f"max_tokens={count}: observed {choice['text']!r}, expected {talk.known.text_of(walk, count)!r}"
            )
    return passed()


@asks("finish.length", "SERVE-02", why="without it a client cannot tell a cut answer from a whole one")
def finish_length(talk: ServerTalk) -> Finding:
    """An answer cut by max_tokens says so."""
    choice = talk.choice(talk.known.best.prompt, max_tokens=3)
    return compared(choice["finish_reason"], finish_reason("length"), "finish_reason after max_tokens")


@asks("finish.eos", "SERVE-02", "STOP-02", why="an answer that ends by itself is whole")
def finish_eos(talk: ServerTalk) -> Finding:
    """An answer that ends by the end token says so, and ends there."""
    walk = ended(talk)
    if walk is None:
        return skipped("the model ends none of the prompts by itself")
    choice = talk.choice(walk.prompt, max_tokens=len(walk.ids) + 4)
    text = talk.known.text_of(walk)
    if choice["text"].startswith(text) and len(choice["text"]) > len(text):
        rest = choice["text"][len(text) :]
        hidden = talk.tokenizer.decode(walk.ids[-1:])
        if rest == hidden:
            return compared(choice["finish_reason"], "stop", "finish_reason after the end token")
        return failed(f"text goes on after the end token with {rest[:40]!r}", "STOP-02")
    if choice["text"] != text:
        return failed(f"observed {choice['text']!r}, expected {text!r}", "STOP-02")
    return compared(choice["finish_reason"], finish_reason("eos"), "finish_reason after the end token")


@asks("finish.eos.limit", "SERVE-02", "STOP-01", why="an answer that is whole at the very last token is whole")
def finish_eos_at_the_limit(talk: ServerTalk) -> Finding:
    """The end token as the last one allowed: "stop", or "length" where a server counts so."""
    walk = ended(talk)
    if walk is None:
        return skipped("the model ends none of the prompts by itself")
    choice = talk.choice(walk.prompt, max_tokens=len(walk.ids))
    if choice["finish_reason"] == "length":
        return chosen(talk, "end_token_at_the_limit", "length")
    found = compared(choice["finish_reason"], "stop", "finish_reason of an end token at the limit")
    return chosen(talk, "end_token_at_the_limit", "eos") if found.verdict.good else found


@asks("eos.hidden", "SERVE-09", why="<|endoftext|> at the end of an answer is shown to users")
def end_token_is_hidden(talk: ServerTalk) -> Finding:
    """The end token's text is not in the text."""
    walk = ended(talk)
    if walk is None:
        return skipped("the model ends none of the prompts by itself")
    hidden = talk.tokenizer.decode(walk.ids[-1:])
    for limit in (len(walk.ids), len(walk.ids) + 4):
        for stream in (False, True)[: 1 + ("stream" in talk.lab.about.can)]:
            text = talk.choice(walk.prompt, max_tokens=limit, stream=stream)["text"]
            observed = "shown" if hidden in text else "hidden"
            wrong = failed(f"observed {text[-60:]!r}, which shows the end token")
            found = held_to(talk, "special_tokens_in_text", observed, wrong)
            if not found.verdict.good:
                return found
    return found


@asks("usage", "SERVE-01", why="people are billed by these counts, and clients plan by them")
def counts(talk: ServerTalk) -> Finding:
    """Of an answer that ends at its limit, and of one that ends by the end token."""
    found = passed()
    for walk, ending in [(talk.known.best, "length"), (ended(talk), "eos")]:
        if walk is None:
            continue
        limit = 5 if ending == "length" else len(walk.ids) + 3
        answer = talk.ask(walk.prompt, max_tokens=limit)
        if answer["usage"] is None:
            return failed("the answer has no usage")
        expected = usage(walk.prompt, [walk.ids[:limit]])
        if ending == "eos" and answer["usage"] in (expected, usage(walk.prompt, [walk.ids[:-1]])):
            return chosen(talk, "end_token_in_usage", "counted" if answer["usage"] == expected else "left_out")
        found = compared(answer["usage"], expected, "usage")
        if not found.verdict.good:
            return found
    return found


@asks("usage.n", "SERVE-01", why="with several choices every one of them costs", needs=["n"])
def counts_of_several(talk: ServerTalk) -> Finding:
    """The completion's count is that of all choices."""
    walk = talk.known.best
    answer = talk.ask(walk.prompt, max_tokens=4, n=2, temperature=0)
    if len(answer["choices"]) != 2 or answer["usage"] is None:
        return skipped("no two choices with usage")
    found = compared(answer["usage"], usage(walk.prompt, [walk.ids[:4]] * 2), "usage of two choices")
    first = answer["usage"] == usage(walk.prompt, [walk.ids[:4]])
    return held_to(talk, "usage_of_choices", "first" if first else "all" if found.verdict.good else None, found)


@asks("usage.stream", "SERVE-01", why="streaming clients are billed too", needs=["stream", "stream_usage"])
def counts_of_stream(talk: ServerTalk) -> Finding:
    """The same as not streamed."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    plain = talk.ask(talk.known.best.prompt, max_tokens=5)["usage"]
    return compared(talk.ask(talk.known.best.prompt, max_tokens=5, **options)["usage"], plain, "usage of a stream")


def clear(talk: ServerTalk, walk: Walk, count: int) -> bool:
    """Whether rounding cannot change the first `count` tokens, none of which is an end token."""
    return walk.clear(talk.known.least) >= count and len(walk.ids) - walk.ended >= count


def ended(talk: ServerTalk) -> Walk | None:
    """A prompt that the model ends by itself, clearly."""
    return next(
        (walk for walk in talk.known.walks if walk.ended and walk.clear(talk.known.least) == len(walk.ids)), None
    )
