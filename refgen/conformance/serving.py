"""The level "serving": what a server says beside the text, and whether requests leave each other alone.

Questions are functions of a talk.Talk, each with its id, rules and reason; `checks(lab)` binds them to a subject that is a server.
They ask for greedy text unless chance is the question, at prompts where rounding cannot change it, and compare a server with
itself where that is enough. Rules SERVE-01 to SERVE-10 of SPEC.md, and those of generation that a server has to keep.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from refgen.conformance.completions import (
    changed,
    cut,
    finish_reason,
    usage,
    wrong_in_choices,
    wrong_in_echo,
    wrong_in_logprobs,
    wrong_in_stream,
    wrong_in_tokens,
)
from refgen.conformance.lab import Lab
from refgen.conformance.subject import CrashedError, RefusedError, SkippedError
from refgen.conformance.talk import LETTERS, Material, Talk, Walk, off
from refgen.conformance.verdicts import Finding, Verdict
from refgen.oracle.margins import ODDS
from refgen.oracle.noise import LOGIT

Question = Callable[[Talk], Finding]
NEVER = "\u2603 never said"
COUNT = 16  # tokens of most answers
ENOUGH = 8  # characters of a text to cut
AT_ONCE = 8
WARM = 1.0  # the temperature of chance


@dataclass(frozen=True)
class ServingCheck:
    """One question to a server."""

    id: str
    rules: tuple[str, ...]
    why: str
    needs: frozenset[str]
    question: Question
    talk: Talk | None = None
    level: str = "serving"

    def run(self, lab: Lab) -> Finding:
        """Asks it."""
        talk = self.talk if self.talk is not None and self.talk.lab is lab else Talk(lab)
        return self.question(talk)


QUESTIONS: list[ServingCheck] = []


def asks(name: str, *rules: str, why: str, needs: Sequence[str] = ()) -> Callable[[Question], Question]:
    """Makes a function a question of this level."""

    def register(question: Question) -> Question:
        QUESTIONS.append(ServingCheck(f"serving.{name}", rules, why, frozenset({"complete", *needs}), question))
        return question

    return register


def checks(lab: Lab, material: Material | None = None) -> list[ServingCheck]:
    """All questions, sharing one talk; none if the subject is no server."""
    if "complete" not in lab.about.can:
        return []
    talk = Talk(lab, material)
    return [
        ServingCheck(each.id, each.rules, each.why, each.needs, each.question, talk, each.level) for each in QUESTIONS
    ]


def passed(message: str = "", **facts: Any) -> Finding:
    """Right."""
    return Finding(Verdict.PASS, message, facts)


def failed(message: str, *rules: str, **facts: Any) -> Finding:
    """Wrong; `rules` if the evidence points at others than the check's."""
    return Finding(Verdict.FAIL, message, facts, rules)


def skipped(message: str) -> Finding:
    """This server, or this model, gives no occasion."""
    return Finding(Verdict.SKIP, message)


def compared(observed: Any, expected: Any, what: str, *rules: str) -> Finding:
    """PASS if they are equal."""
    if observed == expected:
        return passed()
    return failed(f"{what}: observed {observed!r}, expected {expected!r}", *rules)


# --- One request and another ---------------------------------------------------------------------------------------------


@asks("state.twice", "SERVE-08", why="a prompt that is wholly in the cache leaves nothing to compute")
def the_same_twice(talk: Talk) -> Finding:
    """The same request twice gives the same text."""
    for walk in talk.known.walks[:2]:
        one, other = (talk.choice(walk.prompt, ids=True, max_tokens=COUNT, fresh=False) for _ in range(2))
        if (found := unlike(talk, walk.prompt, COUNT, one, other)) is not None:
            return found
    return passed()


@asks("state.prefix", "SERVE-08", "CACHE-02", why="what one user asked changes what another is told")
def prefixes_of_each_other(talk: Talk) -> Finding:
    """A, AB, A, AC, AB, A: prompts that begin alike, one after the other."""
    walks = talk.known.walks
    a = max((walk.prompt for walk in walks), key=len)
    b, c = next((one.prompt, other.prompt) for one in walks for other in walks if one.prompt[0] != other.prompt[0])
    return each_as_the_reference(talk, spellable(talk, [a, [*a, *b], a, [*a, *c], [*a, *b], a]))


@asks("state.length", "SERVE-08", "CACHE-02", why="a cache found by length or hash belongs to somebody else")
def unlike_prompts_of_one_length(talk: Talk) -> Finding:
    """Different prompts of the same length, one after the other."""
    longest = sorted((walk.prompt for walk in talk.known.walks), key=len)[-4:]
    shortest = min(map(len, longest))
    prompts = spellable(talk, [prompt[:shortest] for prompt in longest])
    return each_as_the_reference(talk, [*prompts, *prompts[:2]])


@asks("state.together", "SERVE-08", "BATCH-01", why="answers depend on who else is asking")
def at_the_same_time(talk: Talk) -> Finding:
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


# --- Greedy text, its length and its end -----------------------------------------------------------------------------


@asks("greedy", "GREEDY-01", why="a server that does not say the likeliest token at temperature 0 serves another model")
def greedy(talk: Talk) -> Finding:
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


@asks("max_tokens", "LEN-01", why="an answer of another length than asked for is cut, or costs what nobody wanted")
def max_tokens(talk: Talk) -> Finding:
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
def finish_length(talk: Talk) -> Finding:
    """An answer cut by max_tokens says so."""
    choice = talk.choice(talk.known.best.prompt, max_tokens=3)
    return compared(choice["finish_reason"], finish_reason("length"), "finish_reason after max_tokens")


@asks("finish.eos", "SERVE-02", "STOP-02", why="an answer that ends by itself is whole")
def finish_eos(talk: Talk) -> Finding:
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
        return failed(f"text goes on behind the end token with {rest[:40]!r}", "STOP-02")
    if choice["text"] != text:
        return failed(f"observed {choice['text']!r}, expected {text!r}", "STOP-02")
    return compared(choice["finish_reason"], finish_reason("eos"), "finish_reason after the end token")


@asks("finish.eos.limit", "SERVE-02", "STOP-01", why="an answer that is whole at the very last token is whole")
def finish_eos_at_the_limit(talk: Talk) -> Finding:
    """The end token as the last one allowed: "stop", or "length" where a server counts so."""
    walk = ended(talk)
    if walk is None:
        return skipped("the model ends none of the prompts by itself")
    choice = talk.choice(walk.prompt, max_tokens=len(walk.ids))
    if choice["finish_reason"] == "length":
        return chosen(talk, "end_token_at_the_limit", "length")
    return compared(choice["finish_reason"], "stop", "finish_reason of an end token at the limit")


@asks("eos.hidden", "SERVE-09", why="<|endoftext|> at the end of an answer is shown to users")
def end_token_is_hidden(talk: Talk) -> Finding:
    """The end token's text is not in the text."""
    walk = ended(talk)
    if walk is None:
        return skipped("the model ends none of the prompts by itself")
    hidden = talk.tokenizer.decode(walk.ids[-1:])
    for limit in (len(walk.ids), len(walk.ids) + 4):
        for stream in (False, True)[: 1 + ("stream" in talk.lab.about.can)]:
            text = talk.choice(walk.prompt, max_tokens=limit, stream=stream)["text"]
            if hidden in text:
                return failed(f"observed {text[-60:]!r}, which shows the end token")
    return passed()


# --- Counts --------------------------------------------------------------------------------


@asks("usage", "SERVE-01", why="people are billed by these counts, and clients plan by them")
def counts(talk: Talk) -> Finding:
    """Of an answer that ends at its limit, of one that ends by the end token, and of two choices."""
    for walk, ending in [(talk.known.best, "length"), (ended(talk), "eos")]:
        if walk is None:
            continue
        limit = 5 if ending == "length" else len(walk.ids) + 3
        answer = talk.ask(walk.prompt, max_tokens=limit)
        if answer["usage"] is None:
            return failed("the answer has no usage")
        expected = [usage(walk.prompt, [walk.ids[:limit]])]
        if ending == "eos":
            expected.append(usage(walk.prompt, [walk.ids[:-1]]))  # end_token_in_usage: a choice
        if answer["usage"] not in expected:
            return failed(f"usage: observed {answer['usage']}, expected {expected[0]}")
    return passed()


@asks("usage.n", "SERVE-01", why="with several choices every one of them costs", needs=["n"])
def counts_of_several(talk: Talk) -> Finding:
    """The completion's count is that of all choices."""
    walk = talk.known.best
    answer = talk.ask(walk.prompt, max_tokens=4, n=2, temperature=0)
    if len(answer["choices"]) != 2 or answer["usage"] is None:
        return skipped("no two choices with usage")
    return compared(answer["usage"], usage(walk.prompt, [walk.ids[:4]] * 2), "usage of two choices")


@asks("usage.stream", "SERVE-01", why="streaming clients are billed too", needs=["stream", "stream_usage"])
def counts_of_stream(talk: Talk) -> Finding:
    """The same as not streamed."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    plain = talk.ask(talk.known.best.prompt, max_tokens=5)["usage"]
    return compared(talk.ask(talk.known.best.prompt, max_tokens=5, **options)["usage"], plain, "usage of a stream")


# --- Biases ----------------------------------------------------------------------------------------------


@asks("bias.up", "BIAS-01", why="a bias that does nothing is a promise broken", needs=["logit_bias"])
def biased_up(talk: Talk) -> Finding:
    """100 more makes a token the only one."""
    walk = talk.known.best
    token = next(i for i in talk.known.walks[1].ids if i not in talk.known.ends and i not in walk.ids[:1])
    text = talk.choice(walk.prompt, max_tokens=3, logit_bias={str(token): 100})["text"]
    return compared(text, talk.tokenizer.decode([token] * 3), "text with logit_bias 100")


@asks("bias.down", "BIAS-01", why="forbidden words are said", needs=["logit_bias"])
def biased_down(talk: Talk) -> Finding:
    """100 less makes the second best the best."""
    for walk in talk.known.walks:
        biased = talk.known.walk(walk.prompt, 1, {walk.ids[0]: -100.0})
        if biased.clear(talk.known.least) and not biased.ended:
            text = talk.choice(walk.prompt, max_tokens=1, logit_bias={str(walk.ids[0]): -100})["text"]
            return compared(text, talk.known.text_of(biased), "text with logit_bias -100")
    return skipped("no prompt has a clear second best token")


@asks("bias.some", "BIAS-01", why="a bias is added to the logit, not to anything else", needs=["logit_bias"])
def biased_a_little(talk: Talk) -> Finding:
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
                    f"logit_bias {bias:.4g} for a token {gap:.4g} behind: observed {text!r}, "
                    f"expected {talk.known.text_of(expected, 1)!r}"
                )
        return passed()
    return skipped("no prompt has two tokens far enough apart")


# --- Chance ------------------------------------------------------------------------------------------------------------


@asks("seed.same", "SAMP-05", why="a run that cannot be repeated cannot be debugged", needs=["seed"])
def same_seed(talk: Talk) -> Finding:
    """The same seed, the same text."""
    texts = [talk.choice(talk.known.best.prompt, max_tokens=COUNT, **warm(talk, 7))["text"] for _ in range(2)]
    return compared(texts[1], texts[0], "the second answer with a seed")


@asks("seed.other", "SAMP-05", "TEMP-01", why="chance that never changes is none", needs=["seed"])
def other_seeds(talk: Talk) -> Finding:
    """Other seeds, other texts, unless that is likely not to happen."""
    choices = [
        talk.choice(talk.known.best.prompt, ids=True, max_tokens=COUNT, **warm(talk, seed)) for seed in (1, 2, 3)
    ]
    greedy_text = talk.choice(talk.known.best.prompt, max_tokens=COUNT)["text"]
    if all(choice["text"] == greedy_text for choice in choices):
        return differing(talk, choices, "texts at a temperature", "TEMP-01")
    return differing(talk, choices, "texts of different seeds", "SAMP-05")


@asks("seed.greedy", "GREEDY-05", "TEMP-02", why="temperature 0 is for answers that do not change", needs=["seed"])
def seeds_at_temperature_zero(talk: Talk) -> Finding:
    """No seed changes greedy text."""
    for walk in talk.known.walks[:2]:
        count = min(COUNT, walk.clear(talk.known.least))
        texts = [talk.choice(walk.prompt, max_tokens=count, temperature=0, seed=seed)["text"] for seed in (1, 2, 3)]
        if len(set(texts)) > 1:
            return failed(f"three seeds at temperature 0: observed {texts}", "TEMP-02")
    return passed()


@asks("top_p", "TOPP-01", why="a setting that is accepted and has no effect misleads", needs=["top_p"])
def top_p_near_zero(talk: Talk) -> Finding:
    """At a top_p that only the best token reaches, warm text is greedy."""
    walk = talk.known.best
    count = min(8, walk.clear(talk.known.least))
    text = talk.choice(walk.prompt, max_tokens=count, top_p=0.0001, **warm(talk, 5))["text"]
    return compared(text, talk.known.text_of(walk, count), "text at top_p 0.0001")


# --- Several choices -------------------------------------------------------------------------------------


@asks("n.greedy", "SERVE-07", why="a client that asks for three answers reads three", needs=["n"])
def several_greedy_choices(talk: Talk) -> Finding:
    """n choices, numbered from 0, all the same at temperature 0."""
    choices = talk.ask(talk.known.best.prompt, max_tokens=5, n=3, temperature=0)["choices"]
    if problem := wrong_in_choices(choices, 3):
        return failed(f"n=3: {problem}")
    texts = {choice["text"] for choice in choices}
    return passed() if len(texts) == 1 else failed(f"choices at temperature 0 differ: {sorted(texts)}", "TEMP-02")


@asks("n.sampled", "SERVE-07", "SAMP-07", why="three times the same answer is no choice", needs=["n"])
def several_sampled_choices(talk: Talk) -> Finding:
    """With chance they differ, unless that is likely not to happen."""
    answer = talk.ask(talk.known.best.prompt, ids=True, max_tokens=COUNT, n=3, **warm(talk, 1))
    if len(answer["choices"]) != 3:
        return skipped("no three choices")
    return differing(talk, answer["choices"], "choices", "SERVE-07")


# --- Stop strings ----------------------------------------------------------------------------------------------------


@asks(
    "stop.across", "SERVE-03", why="a stop string split over tokens is missed, and the answer runs on", needs=["stop"]
)
def stop_across_tokens(talk: Talk) -> Finding:
    """A stop string that begins in one token and ends in another."""
    walk, text = plain_text(talk)
    place = next(across(talk, walk, text), None)
    if place is None:
        return skipped("no two tokens of the text make a string that does not stand there before")
    return stopped(talk, walk, text, [place])


@asks("stop.inside", "SERVE-03", why="what follows the stop string in its token is shown", needs=["stop"])
def stop_inside_a_token(talk: Talk) -> Finding:
    """A stop string in the middle of a token, with letters before and behind it."""
    walk, text = plain_text(talk)
    for stop in inside(talk, walk, text):
        return stopped(talk, walk, text, [stop])
    return skipped("no token of the text is long enough")


@asks("stop.letter", "SERVE-03", why="single letters break some matchers", needs=["stop"])
def stop_at_a_letter(talk: Talk) -> Finding:
    """One letter, as a text and not in a list."""
    walk, text = plain_text(talk)
    letter = next((each for each in text[len(text) // 3 :] if each.isalpha()), text[-1])
    choice = talk.choice(walk.prompt, max_tokens=COUNT, stop=letter)
    return judged_stop(choice, text, [letter])


@asks("stop.several", "SERVE-03", why="of several stop strings the first in the text must win", needs=["stop"])
def stop_of_several(talk: Talk) -> Finding:
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
def stop_that_never_comes(talk: Talk) -> Finding:
    """A stop string that is not in the text changes nothing."""
    walk, text = plain_text(talk)
    return stopped(talk, walk, text, [NEVER])


@asks(
    "stop.character",
    "SERVE-03",
    why="stop strings of several tokens a character are never found",
    needs=["stop", "logit_bias"],
)
def stop_of_a_split_character(talk: Talk) -> Finding:
    """A character that is several tokens stops as any other."""
    split = split_character(talk)
    if split is None:
        return skipped("no character of several tokens can be brought about")
    walk, biases, letter = split
    if talk.choice(walk.prompt, max_tokens=len(walk.ids), logit_bias=biases)["text"] != letter:
        return skipped(f"biases do not bring about {letter!r}: see serving.bias.some")
    choice = talk.choice(walk.prompt, max_tokens=6, stop=[letter], logit_bias=biases)
    return judged_stop(choice, letter, [letter])


# --- Streams ---------------------------------------------------------------------------------------------------------


@asks("stream.same", "SERVE-04", why="what is streamed is what users see", needs=["stream"])
def stream_is_the_text(talk: Talk) -> Finding:
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
def stream_of_split_characters(talk: Talk) -> Finding:
    """No half characters, where a character is several tokens."""
    split = split_character(talk)
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


@asks("stream.tail", "STREAM-03", why="what the decoder still holds at the end is lost", needs=["stream", "logit_bias"])
def stream_of_half_a_character(talk: Talk) -> Finding:
    """An answer cut within a character ends in a stream as it does without."""
    split = split_character(talk)
    if split is None:
        return skipped("no character of several tokens can be brought about")
    walk, biases, _ = split
    body: dict[str, Any] = {"max_tokens": len(walk.ids) - 1, "logit_bias": biases}
    plain = talk.choice(walk.prompt, **body)
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
def stream_to_a_stop(talk: Talk) -> Finding:
    """Nothing of the stop string is streamed, nor anything behind it."""
    walk, text = plain_text(talk)
    stops = [*list(across(talk, walk, text))[:2], *list(inside(talk, walk, text))[:1]]
    for stop in stops:
        said = cut(text, [stop])
        answer = talk.ask(walk.prompt, max_tokens=COUNT, stop=[stop], stream=True)
        found = streamed(answer, {"text": said, "finish_reason": "stop"})
        if found.verdict is Verdict.FAIL:
            return found
    return passed() if stops else skipped("no place for a stop string in the text")


@asks(
    "stream.held",
    "SERVE-04",
    why="what looked like a stop string and was none is never shown",
    needs=["stream", "stop"],
)
def stream_of_what_was_held_back(talk: Talk) -> Finding:
    """A text that ends with the beginning of a stop string is streamed to its end."""
    walk, text = plain_text(talk)
    for kept in (1, 3):
        answer = talk.ask(walk.prompt, max_tokens=COUNT, stop=[text[-kept:] + NEVER], stream=True)
        found = streamed(answer, {"text": text, "finish_reason": None})
        if found.verdict is Verdict.FAIL:
            return found
    return passed()


@asks(
    "stream.finish", "SERVE-02", why="a stream that does not say why it ended might have broken off", needs=["stream"]
)
def stream_says_why(talk: Talk) -> Finding:
    """finish_reason comes in a stream too, the same as without."""
    for walk, most in [(talk.known.best, 3), (ended(talk), 10**6)]:
        if walk is not None:
            limit = min(most, len(walk.ids) + 2)
            reasons = [talk.choice(walk.prompt, max_tokens=limit, stream=s)["finish_reason"] for s in (False, True)]
            if reasons[0] != reasons[1]:
                return failed(f"finish_reason of a stream: observed {reasons[1]!r}, without streaming {reasons[0]!r}")
    return passed()


# --- Logprobs ----------------------------------------------------------------------------------------------------------


@asks("logprobs.lists", "SERVE-05", why="numbers beside the wrong token mislead whoever uses them", needs=["logprobs"])
def logprobs_are_aligned(talk: Talk) -> Finding:
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
    "logprobs.stop", "SERVE-05", why="behind a stop string the lists no longer fit the text", needs=["logprobs", "stop"]
)
def logprobs_to_a_stop(talk: Talk) -> Finding:
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
def logprobs_are_right(talk: Talk) -> Finding:
    """Of greedy text they are those of the model, within the rounding of its dtype; alternatives too."""
    worst = 0.0
    for walk in talk.known.walks[:2]:
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
        worst = max(worst, float(distance.max()))
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
def logprobs_are_raw_or_processed(talk: Talk) -> Finding:
    """At a temperature of 0.5 they are the model's own, or those it drew from: a choice, which a server is held to."""
    walk = talk.known.best
    choice = talk.choice(walk.prompt, max_tokens=8, logprobs=2, temperature=0.5)
    numbers = choice.get("logprobs")
    if not numbers or choice["ids"] is None or None in numbers:
        return skipped("no logprobs with ids come")
    ids = [*walk.prompt, *choice["ids"]]
    for name, temperature in (("raw", 1.0), ("processed", 0.5)):
        exact, sigma = (each[len(walk.prompt) - 1 :] for each in talk.known.chosen_logprobs(ids, temperature))
        if len(exact) == len(numbers) and off(numbers, exact, sigma).max() <= LOGIT:
            return chosen(talk, "logprobs", name)
    return failed("at temperature 0.5 the logprobs are neither the model's nor those it draws from")


@asks("logprobs.too_many", "SERVE-10", why="one careless request stops the server for everybody", needs=["logprobs"])
def too_many_logprobs(talk: Talk) -> Finding:
    """A million alternatives are refused, or as many given as there are; the next request is answered."""
    try:
        choice = talk.choice(talk.known.best.prompt, max_tokens=1, logprobs=10**6)
    except RefusedError:
        said = "refused"
    except CrashedError as error:
        return failed(f"logprobs=1000000: {error}")
    else:
        tops = choice.get("top_logprobs") or [[]]
        if max(len(top or []) for top in tops) > talk.config.vocab_size:
            return failed(f"{len(tops[0])} alternatives, more than there are tokens")
        said = "given as many as there are"
    return alive(talk, said)


# --- Echo ------------------------------------------------------------------------------------------------


@asks("echo.text", "SERVE-06", why="scoring programs cut the prompt off by its length", needs=["echo"])
def echo_of_the_text(talk: Talk) -> Finding:
    """The prompt, then what comes without echo."""
    walk = talk.known.best
    plain = talk.choice(walk.prompt, max_tokens=5)["text"]
    text = talk.choice(walk.prompt, max_tokens=5, echo=True)["text"]
    if text == plain:
        return failed("echo is accepted and changes nothing")
    return compared(text, talk.tokenizer.decode(walk.prompt) + plain, "text with echo")


@asks("echo.logprobs", "SERVE-06", "OUT-08", why="perplexities are computed from these", needs=["echo", "logprobs"])
def echo_of_logprobs(talk: Talk) -> Finding:
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


# --- Limits ------------------------------------------------------------------------------------------------------------


@asks("context.over", "SERVE-10", "FWD-23", why="a prompt cut in silence is answered as if it were whole")
def prompt_too_long(talk: Talk) -> Finding:
    """A prompt longer than the context is refused, and the next one is answered."""
    prompt = long_prompt(talk, talk.config.n_positions + 5)
    try:
        answer = talk.ask(prompt, max_tokens=2)
    except RefusedError as error:
        return alive(talk, f"refused: {error}")
    except CrashedError as error:
        return failed(f"a prompt of {len(prompt)} tokens: {error}")
    counted = (answer["usage"] or {}).get("prompt_tokens")
    if counted is not None and counted < len(prompt):
        return Finding(Verdict.CHOICE, f"cut to {counted} tokens, which usage says")
    return failed(f"a prompt of {len(prompt)} tokens is answered; the model has {talk.config.n_positions} positions")


@asks("context.end", "LEN-04", "SERVE-02", why="at the end of the context a server crashes or goes round in circles")
def end_of_the_context(talk: Talk) -> Finding:
    """An answer that reaches the end of the context ends there by length, or is refused before."""
    n = talk.config.n_positions
    prompt = long_prompt(talk, n - 2)
    try:
        choice = talk.choice(prompt, ids=True, max_tokens=8)
    except RefusedError:
        return chosen(talk, "context_end", "error")
    except CrashedError as error:
        return failed(f"a prompt of {len(prompt)} tokens and max_tokens=8: {error}")
    found = len(choice["ids"] or talk.known.read(prompt, choice["text"]))
    if choice["finish_reason"] == "stop" and found <= 3:
        return passed("ended by itself before")
    if found > 3:
        return failed(f"{found} tokens behind {n - 2}; the model has {n} positions")
    if choice["finish_reason"] != "length":
        return failed(f"finish_reason at the end of the context: observed {choice['finish_reason']!r}", "SERVE-02")
    return chosen(talk, "context_end", "n_plus_1" if found == 3 else "n")


@asks("request.unknown", "SERVE-10", why="whoever misspells a field should hear of it")
def unknown_field(talk: Talk) -> Finding:
    """A field nobody knows is refused or ignored; only told."""
    try:
        talk.choice(talk.known.best.prompt, max_tokens=1, refgen_unknown_field=1)
    except RefusedError:
        return alive(talk, "an unknown field is refused")
    except CrashedError as error:
        return failed(f"an unknown field: {error}")
    return passed("an unknown field is ignored")


@asks("request.wrong", "SERVE-10", why="a request that makes no sense must not stop the server")
def senseless_requests(talk: Talk) -> Finding:
    """Fields of the wrong kind are refused with 400 to 499, or ignored; the next request is answered."""
    for body in ({"max_tokens": "many"}, {"temperature": "warm"}, {"prompt": {"no": "prompt"}}):
        try:
            talk.lab.ask(
                "complete", talk.model, body={"prompt": talk.known.best.prompt, "max_tokens": 1} | body, ids=False
            )
        except RefusedError:
            continue
        except CrashedError as error:
            return failed(f"{body}: {error}")
    return alive(talk, "wrong fields are refused or ignored")


# --- What questions share --------------------------------------------------------------------------------------------------


def clear(talk: Talk, walk: Walk, count: int) -> bool:
    """Whether rounding cannot change the first `count` tokens, none of which is an end token."""
    return walk.clear(talk.known.least) >= count and len(walk.ids) - walk.ended >= count


def ended(talk: Talk) -> Walk | None:
    """A prompt that the model ends by itself, clearly."""
    return next(
        (walk for walk in talk.known.walks if walk.ended and walk.clear(talk.known.least) == len(walk.ids)), None
    )


def beginning_with_a_space(talk: Talk) -> Walk | None:
    """A prompt whose answer begins with a space."""
    return next((walk for walk in talk.known.walks if talk.known.text_of(walk, 4).startswith(" ")), None)


def plain_text(talk: Talk) -> tuple[Walk, str]:
    """The prompt with the longest clear text, and what the server itself says behind it without stop strings."""
    walk = talk.known.best
    text = talk.choice(walk.prompt, max_tokens=COUNT)["text"]
    if len(text) < ENOUGH:
        raise SkippedError(f"the text is {text!r}, too short to cut: see serving.greedy")
    return walk, text


def borders(talk: Talk, walk: Walk, text: str) -> list[int]:
    """Where tokens of the text end, in characters, as far as the reference has the same text."""
    ends = [len(talk.known.text_of(walk, t)) for t in range(len(walk.ids) + 1)]
    return [end for t, end in enumerate(ends) if text.startswith(talk.known.text_of(walk, t))]


def across(talk: Talk, walk: Walk, text: str) -> Iterator[str]:
    """Strings that begin in one token and end in another, and stand nowhere before."""
    for end in borders(talk, walk, text)[2:]:
        for before, behind in ((1, 1), (2, 1), (2, 2)):
            stop = text[max(end - before, 0) : end + behind]
            if len(stop) == before + behind and text.find(stop) == end - before:
                yield stop
                break


def inside(talk: Talk, walk: Walk, text: str) -> Iterator[str]:
    """Strings inside a token, with characters before and behind them, that stand nowhere before."""
    ends = borders(talk, walk, text)
    for start, end in pairwise(ends[1:]):
        stop = text[start + 1 : end - 1]
        if stop and text.find(stop) == start + 1:
            yield stop


def stopped(talk: Talk, walk: Walk, text: str, stops: Sequence[str]) -> Finding:
    """The answer with stop strings, judged by the text without."""
    return judged_stop(talk.choice(walk.prompt, max_tokens=COUNT, stop=list(stops)), text, stops)


def judged_stop(choice: Mapping[str, Any], text: str, stops: Sequence[str]) -> Finding:
    """SERVE-03. The text up to the first of the stop strings, and why it ended."""
    expected = cut(text, stops)
    if choice["text"] != expected:
        return failed(f"stop={list(stops)}: observed {choice['text']!r}, expected {expected!r}")
    if expected != text and choice["finish_reason"] != finish_reason("stop_string"):
        return failed(f"finish_reason after a stop string: observed {choice['finish_reason']!r}", "SERVE-02")
    return passed()


def streamed(answer: Mapping[str, Any], plain: Mapping[str, Any]) -> Finding:
    """SERVE-04. A stream beside the same text not streamed."""
    if not answer["choices"]:
        return failed("the stream holds no choice")
    problem, rule = wrong_in_stream(answer["choices"][0]["deltas"], plain["text"])
    return failed(problem, rule, deltas=answer["choices"][0]["deltas"]) if problem else passed()


def split_character(talk: Talk) -> tuple[Walk, dict[str, float], str] | None:
    """A character of two tokens that the model says if two biases are set just so: its walk, the biases, the character.

    After the prompt the first token must lead, after the first the second: the biases lie in the middle between what the
    two steps need.
    """
    found: list[tuple[float, Walk, dict[str, float], str]] = []
    pairs = [
        (letter, ids) for letter in LETTERS if len(ids := talk.tokenizer.encode(letter)) == 2 and len(set(ids)) == 2
    ]
    for walk in talk.known.walks[:3]:
        before = talk.known.reference.model([walk.prompt]).logits[0, -1]
        behind: dict[int, np.ndarray] = {}
        for letter, (first, second) in pairs:
            if first not in behind:
                behind[first] = talk.known.reference.model([[*walk.prompt, first]]).logits[0, -1]
            least, most = behind[first][first] - behind[first][second], before[first] - before[second]
            found.append((float(most - least) / 2, walk, {}, letter))
            up = float(before.max() - before.min() + behind[first].max() - behind[first].min()) / 2 + 10
            up = min(up, 80.0)
            middle = float(most + least) / 2
            found[-1][2].update({str(first): up, str(second): up + middle})
    for margin, walk, biases, letter in sorted(found, key=lambda each: -each[0]):
        numbers = {int(token): bias for token, bias in biases.items()}
        steered = talk.known.walk(walk.prompt, 2, numbers)
        if margin < talk.known.least or max(map(abs, biases.values())) > 100:
            return None
        if talk.tokenizer.decode(steered.ids) == letter:
            return Walk(walk.prompt, steered.ids, steered.margins, ended=False), biases, letter
    return None


def warm(talk: Talk, seed: int) -> dict[str, Any]:
    """Chance that can be repeated, if the server can repeat it."""
    return {"temperature": WARM} | ({"seed": seed} if "seed" in talk.lab.about.can else {})


def differing(talk: Talk, choices: Sequence[Mapping[str, Any]], what: str, rule: str) -> Finding:
    """Texts drawn by chance that are all the same are wrong if they would be with less than one chance in a million."""
    if len({choice["text"] for choice in choices}) > 1:
        return passed()
    prompt = talk.known.best.prompt
    exact, _ = talk.known.chosen_logprobs([*prompt, *talk.known.tokens(prompt, choices[0], COUNT)], WARM)
    odds = math.exp(float(exact[len(prompt) - 1 :].sum()) * (len(choices) - 1))
    message = f"{len(choices)} {what} are all {choices[0]['text']!r}, which has a chance of {odds:.1g}"
    return failed(message, rule) if odds < ODDS else Finding(Verdict.INCONCLUSIVE, message)


def unlike(
    talk: Talk,
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


def unsteady(talk: Talk, prompt: Sequence[int], limit: int) -> bool:
    """Whether the same request gives several texts one after the other, so that chance is at work and no cache."""
    return len({talk.choice(prompt, max_tokens=limit, temperature=0)["text"] for _ in range(3)}) > 1


def each_as_the_reference(talk: Talk, prompts: Sequence[Sequence[int]]) -> Finding:
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


def spellable(talk: Talk, prompts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Of prompts those whose text gives their ids, so that every server can be asked."""
    return [prompt for prompt in prompts if talk.tokenizer.encode(talk.tokenizer.decode(list(prompt))) == list(prompt)]


def long_prompt(talk: Talk, length: int) -> list[int]:
    """A prompt of exactly so many tokens, which a text gives back."""
    word = talk.known.best.prompt
    repeated = (word * (length // len(word) + 1))[:length]
    text = talk.tokenizer.decode(repeated)
    if talk.tokenizer.encode(text) == repeated:
        return repeated
    letters = [
        token
        for token in talk.known.best.ids
        if talk.tokenizer.encode(talk.tokenizer.decode([token] * 9)) == [token] * 9
    ]
    return [letters[0]] * length if letters else repeated


def alive(talk: Talk, said: str) -> Finding:
    """PASS with what was said, if the server still answers."""
    try:
        choice = talk.choice(talk.known.best.prompt, max_tokens=2)
    except CrashedError as error:
        return failed(f"{said}; after it: {error}")
    return passed(said) if choice["text"] else failed(f"{said}; after it the answer is empty")


def chosen(talk: Talk, name: str, option: str) -> Finding:
    """CHOICE: one of several right answers; FAIL if the subject has declared another."""
    declared = talk.lab.about.choices.get(name)
    if declared is not None and declared != option:
        return failed(f"{name}: observed {option}, declared {declared}")
    return Finding(Verdict.CHOICE, f"{name}={option}", {"choice": name, "option": option})
