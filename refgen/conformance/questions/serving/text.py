"""Stop strings and streams. Rules SERVE-02 to SERVE-04 and STREAM-03."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from refgen.conformance.judging.completions import (
    cut,
    finish_reason,
    wrong_in_stream,
)
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.serving.length import ended
from refgen.conformance.questions.serving.material import Walk
from refgen.conformance.questions.serving.question import COUNT, asks, chosen, failed, held_to, passed, skipped
from refgen.conformance.questions.serving.server_talk import ServerTalk
from refgen.conformance.subjects.protocol import SkippedError

NEVER = "\u2603 never said"
ENOUGH = 8  # characters of a text to cut


@asks(
    "stop.across", "SERVE-03", why="a stop string split over tokens is missed, and the answer runs on", needs=["stop"]
)
def stop_across_tokens(talk: ServerTalk) -> Finding:
    """A stop string that begins in one token and ends in another."""
    walk, text = plain_text(talk)
    place = next(across(talk, walk, text), None)
    if place is None:
        return skipped("no two tokens of the text make a string that does not stand there before")
    return stopped(talk, walk, text, [place])


@asks("stop.inside", "SERVE-03", why="the rest of the token after the stop string is shown", needs=["stop"])
def stop_inside_a_token(talk: ServerTalk) -> Finding:
    """A stop string in the middle of a token, with letters before and after it."""
    walk, text = plain_text(talk)
    for stop in inside(talk, walk, text):
        return stopped(talk, walk, text, [stop])
    return skipped("no token of the text is long enough")


@asks("stop.letter", "SERVE-03", why="single letters break some matchers", needs=["stop"])
def stop_at_a_letter(talk: ServerTalk) -> Finding:
    """One letter, as a text and not in a list."""
    walk, text = plain_text(talk)
    letter = next((each for each in text[len(text) // 3 :] if each.isalpha()), text[-1])
    choice = talk.choice(walk.prompt, max_tokens=COUNT, stop=letter)
    return judged_stop(talk, choice, text, [letter])


@asks("stop.several", "SERVE-03", why="of several stop strings the first in the text must win", needs=["stop"])
def stop_of_several(talk: ServerTalk) -> Finding:
    """The one that comes first in the text, which is not the first in the list."""
    walk, text = plain_text(talk)
    stops = [text[i : i + 3] for i in (2 * len(text) // 3, len(text) // 3)]
    return stopped(talk, walk, text, [*stops, NEVER])


@asks(
    "stop.absent",
    "SERVE-03",
    why="an answer loses its last letter, because nothing was found at place -1",
    needs=["stop"],
)
def stop_that_never_comes(talk: ServerTalk) -> Finding:
    """A stop string that is not in the text changes nothing."""
    walk, text = plain_text(talk)
    return stopped(talk, walk, text, [NEVER])


@asks(
    "stop.character",
    "SERVE-03",
    why="stop strings of several tokens a character are never found",
    needs=["stop", "logit_bias"],
)
def stop_of_a_split_character(talk: ServerTalk) -> Finding:
    """A character that is several tokens stops as any other."""
    split = talk.known.split_character
    if split is None:
        return skipped("no character of several tokens can be brought about")
    walk, biases, letter = split
    if talk.choice(walk.prompt, max_tokens=len(walk.ids), logit_bias=biases)["text"] != letter:
        return skipped(f"biases do not bring about {letter!r}: see serving.bias.some")
    choice = talk.choice(walk.prompt, max_tokens=6, stop=[letter], logit_bias=biases)
    return judged_stop(talk, choice, letter, [letter])


@asks("stream.same", "SERVE-04", why="users see the streamed text", needs=["stream"])
def stream_is_the_text(talk: ServerTalk) -> Finding:
    """Four answers, one of them beginning with a space, streamed and not streamed."""
    for walk in [*talk.known.walks[:3], beginning_with_a_space(talk)]:
        if walk is None:
            continue
        plain = talk.choice(walk.prompt, max_tokens=COUNT)
        answer = talk.ask(walk.prompt, max_tokens=COUNT, stream=True)
        found = streamed(answer, plain)
        if found.verdict is Verdict.FAIL:
            return found
    return passed()


@asks(
    "stream.characters",
    "STREAM-03",
    why="letters with accents, CJK and emoji turn into question marks",
    needs=["stream", "logit_bias"],
)
def stream_of_split_characters(talk: ServerTalk) -> Finding:
    """No half characters, where a character is several tokens."""
    split = talk.known.split_character
    if split is None:
        return skipped("no character of several tokens can be brought about")
    walk, biases, letter = split
    for count in (len(walk.ids), len(walk.ids) + 6):
        body: dict[str, Any] = {"max_tokens": count, "logit_bias": biases}
        plain = talk.choice(walk.prompt, ids=True, **body)
        if count == len(walk.ids) and plain["text"] != letter:
            if plain["ids_from"] != "text" and plain["ids"] == walk.ids:
                return failed(f"the tokens of {letter!r} give {plain['text']!r}", "TOK-13")
            return skipped(f"biases do not bring about {letter!r}: see serving.bias.some")
        found = streamed(talk.ask(walk.prompt, stream=True, **body), plain)
        if found.verdict is Verdict.FAIL:
            return found
    return passed()


@asks(
    "stream.tail",
    "STREAM-03",
    why="text that the decoder still holds at the end is lost",
    needs=["stream", "logit_bias"],
)
def stream_of_half_a_character(talk: ServerTalk) -> Finding:
    """An answer cut within a character ends in a stream as it does without."""
    split = talk.known.split_character
    if split is None:
        return skipped("no character of several tokens can be brought about")
    walk, biases, _ = split
    body: dict[str, Any] = {"max_tokens": len(walk.ids) - 1, "logit_bias": biases}
    plain = talk.choice(walk.prompt, **body)
    if plain["text"].strip("\ufffd"):
        return skipped("biases do not bring about half a character: see serving.bias.some")
    found = streamed(talk.ask(walk.prompt, stream=True, **body), plain)
    if found.verdict is Verdict.FAIL:
        return found
    return chosen(talk, "unfinished_character", "dropped" if plain["text"] == "" else "replaced")


@asks(
    "stream.stop",
    "SERVE-04",
    "SERVE-03",
    why="the beginning of a stop string flashes up before it is complete",
    needs=["stream", "stop"],
)
def stream_to_a_stop(talk: ServerTalk) -> Finding:
    """Neither the stop string nor anything after it is streamed."""
    walk, text = plain_text(talk)
    stops = [*list(across(talk, walk, text))[:2], *list(inside(talk, walk, text))[:1]]
    for stop in stops:
        said = cut(text, [stop])
        if talk.lab.choice("stop_string_in_text") == "kept":
            said = talk.choice(walk.prompt, max_tokens=COUNT, stop=[stop])["text"]
        answer = talk.ask(walk.prompt, max_tokens=COUNT, stop=[stop], stream=True)
        found = streamed(answer, {"text": said, "finish_reason": "stop"})
        if found.verdict is Verdict.FAIL:
            return found
    return passed() if stops else skipped("no place for a stop string in the text")


@asks(
    "stream.held",
    "SERVE-04",
    why="text that only looked like a stop string is never shown",
    needs=["stream", "stop"],
)
def stream_of_what_was_held_back(talk: ServerTalk) -> Finding:
    """A text that ends with the beginning of a stop string is streamed to its end."""
    walk, text = plain_text(talk)
    for kept in (1, 3):
        answer = talk.ask(walk.prompt, max_tokens=COUNT, stop=[text[-kept:] + NEVER], stream=True)
        found = streamed(answer, {"text": text, "finish_reason": None})
        said = "".join(answer["choices"][0]["deltas"]) if answer["choices"] else ""
        observed = "released" if found.verdict.good else "lost" if said == text[:-kept] else None
        found = held_to(talk, "held_at_the_end", observed, found)
        if not found.verdict.good:
            return found
    return found


@asks(
    "stream.finish", "SERVE-02", why="a stream that does not say why it ended might have broken off", needs=["stream"]
)
def stream_says_why(talk: ServerTalk) -> Finding:
    """finish_reason comes in a stream too, the same as without."""
    for walk, most in [(talk.known.best, 3), (ended(talk), 10**6)]:
        if walk is not None:
            limit = min(most, len(walk.ids) + 2)
            reasons = [talk.choice(walk.prompt, max_tokens=limit, stream=s)["finish_reason"] for s in (False, True)]
            if reasons[0] != reasons[1]:
                return failed(f"finish_reason of a stream: observed {reasons[1]!r}, without streaming {reasons[0]!r}")
    return passed()


def beginning_with_a_space(talk: ServerTalk) -> Walk | None:
    """A prompt whose answer begins with a space."""
    return next((walk for walk in talk.known.walks if talk.known.text_of(walk, 4).startswith(" ")), None)


def plain_text(talk: ServerTalk) -> tuple[Walk, str]:
    """The prompt with the longest clear text, and the server's own answer to it without stop strings."""
    walk = talk.known.best
    text = talk.choice(walk.prompt, max_tokens=COUNT)["text"]
    if len(text) < ENOUGH:
        raise SkippedError(f"the text is {text!r}, too short to cut: see serving.greedy")
    return walk, text


def borders(talk: ServerTalk, walk: Walk, text: str) -> list[int]:
    """Where tokens of the text end, in characters, as far as the reference has the same text."""
    ends = [len(talk.known.text_of(walk, t)) for t in range(len(walk.ids) + 1)]
    return [end for t, end in enumerate(ends) if text.startswith(talk.known.text_of(walk, t))]


def across(talk: ServerTalk, walk: Walk, text: str) -> Iterator[str]:
    """Strings that begin in one token and end in another, and stand nowhere before."""
    for end in borders(talk, walk, text)[2:]:
        for before, behind in ((1, 1), (2, 1), (2, 2)):
            stop = text[max(end - before, 0) : end + behind]
            if len(stop) == before + behind and text.find(stop) == end - before:
                yield stop
                break


def inside(talk: ServerTalk, walk: Walk, text: str) -> Iterator[str]:
    """Strings inside a token, with characters before and after them, that do not occur earlier."""
    ends = borders(talk, walk, text)
    for start, end in pairwise(ends[1:]):
        stop = text[start + 1 : end - 1]
        if stop and text.find(stop) == start + 1:
            yield stop


def stopped(talk: ServerTalk, walk: Walk, text: str, stops: Sequence[str]) -> Finding:
    """The answer with stop strings, judged by the text without."""
    return judged_stop(talk, talk.choice(walk.prompt, max_tokens=COUNT, stop=list(stops)), text, stops)


def judged_stop(talk: ServerTalk, choice: Mapping[str, Any], text: str, stops: Sequence[str]) -> Finding:
    """SERVE-03. The text up to the first of the stop strings, and why it ended."""
    expected = cut(text, stops)
    wrong = failed(f"stop={list(stops)}: observed {choice['text']!r}, expected {expected!r}")
    if expected == text:
        return passed() if choice["text"] == text else wrong
    whole = any(choice["text"].startswith(expected + stop) for stop in stops) and text.startswith(choice["text"])
    observed = "cut_off" if choice["text"] == expected else "kept" if whole and choice["text"] != text else None
    found = held_to(talk, "stop_string_in_text", observed, wrong)
    if found.verdict.good and choice["finish_reason"] != finish_reason("stop_string"):
        return failed(f"finish_reason after a stop string: observed {choice['finish_reason']!r}", "SERVE-02")
    return found


def streamed(answer: Mapping[str, Any], plain: Mapping[str, Any]) -> Finding:
    """SERVE-04. A stream beside the same text not streamed."""
    if not answer["choices"]:
        return failed("the stream holds no choice")
    problem, rule = wrong_in_stream(answer["choices"][0]["deltas"], plain["text"])
    return failed(problem, rule, deltas=answer["choices"][0]["deltas"]) if problem else passed()
