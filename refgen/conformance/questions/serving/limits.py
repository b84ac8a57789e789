"""Requests that cannot be served as sent. Rules SERVE-10, LEN-04 and FWD-23."""

from refgen.conformance.judging.verdicts import Finding
from refgen.conformance.questions.serving.question import asks, chosen, failed, held_to, passed
from refgen.conformance.questions.serving.server_talk import ServerTalk
from refgen.conformance.subjects.protocol import CrashedError, RefusedError


@asks("context.over", "SERVE-10", "FWD-23", why="a prompt cut in silence is answered as if it were whole")
def prompt_too_long(talk: ServerTalk) -> Finding:
    """A prompt longer than the context is refused, and the next one is answered."""
    prompt = long_prompt(talk, talk.config.n_positions + 5)
    try:
        answer = talk.ask(prompt, max_tokens=2)
    except RefusedError as error:
        held = chosen(talk, "prompt_too_long", "refused")
        return alive(talk, f"refused: {error}") if held.verdict.good else held
    except CrashedError as error:
        return failed(f"a prompt of {len(prompt)} tokens: {error}")
    counted = (answer["usage"] or {}).get("prompt_tokens")
    if counted is not None and counted < len(prompt):
        return chosen(talk, "prompt_too_long", "cut")
    return failed(f"a prompt of {len(prompt)} tokens is answered; the model has {talk.config.n_positions} positions")


@asks("context.end", "LEN-04", "SERVE-02", why="at the end of the context a server crashes or goes round in circles")
def end_of_the_context(talk: ServerTalk) -> Finding:
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
        wrong = failed(f"{found} tokens after {n - 2}; the model has {n} positions")
        return held_to(talk, "context_end", "slide" if found == 8 else None, wrong)
    if choice["finish_reason"] != "length":
        return failed(f"finish_reason at the end of the context: observed {choice['finish_reason']!r}", "SERVE-02")
    return chosen(talk, "context_end", "n_plus_1" if found == 3 else "n")


@asks("request.unknown", "SERVE-10", why="a user who misspells a field should get an error")
def unknown_field(talk: ServerTalk) -> Finding:
    """An unknown field is refused or ignored, and the report only notes which."""
    try:
        talk.choice(talk.known.best.prompt, max_tokens=1, refgen_unknown_field=1)
    except RefusedError:
        found = alive(talk, "an unknown field is refused")
        return chosen(talk, "unknown_field", "refused") if found.verdict.good else found
    except CrashedError as error:
        return failed(f"an unknown field: {error}")
    return chosen(talk, "unknown_field", "ignored")


@asks("request.wrong", "SERVE-10", why="a request that makes no sense must not stop the server")
def senseless_requests(talk: ServerTalk) -> Finding:
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


@asks("logprobs.too_many", "SERVE-10", why="one careless request stops the server for everybody", needs=["logprobs"])
def too_many_logprobs(talk: ServerTalk) -> Finding:
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


def long_prompt(talk: ServerTalk, length: int) -> list[int]:
    """A prompt of exactly this many tokens, whose text encodes to the same tokens."""
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


def alive(talk: ServerTalk, said: str) -> Finding:
    """PASS with what was said, if the server still answers."""
    try:
        choice = talk.choice(talk.known.best.prompt, max_tokens=2)
    except CrashedError as error:
        return failed(f"{said}; after it: {error}")
    return passed(said) if choice["text"] else failed(f"{said}; after it the answer is empty")
