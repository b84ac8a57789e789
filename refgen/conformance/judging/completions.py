"""Checks of a server's answer, as functions of plain data. Rules SERVE-01 to SERVE-09 of SPEC.md.

A server returns more than a model: counts, the reason it stopped, and a text without end tokens and stop strings. It
also streams pieces of that text, and sends logprobs with it. Each function here returns the right value, or the first
fault as a sentence, "" if there is no fault.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refgen.errors import TokenizerError
from refgen.tokenizer import Tokenizer

REASONS = {"eos": "stop", "stop_string": "stop", "length": "length", "context": "length"}


def usage(prompt_ids: Sequence[int], rows: Sequence[Sequence[int]]) -> dict[str, int]:
    """SERVE-01. The prompt once, the new tokens of all choices, and their sum."""
    completion = sum(map(len, rows))
    return {
        "prompt_tokens": len(prompt_ids),
        "completion_tokens": completion,
        "total_tokens": len(prompt_ids) + completion,
    }


def finish_reason(finish: str) -> str:
    """SERVE-02. The word of OpenAI's API for refgen's."""
    return REASONS[finish]


def visible_text(tokenizer: Tokenizer, new_ids: Sequence[int], stop_strings: Sequence[str] = ()) -> str:
    """SERVE-03, SERVE-09. Without special tokens, up to where the first stop string begins."""
    return cut(tokenizer.decode(list(new_ids), skip_special_tokens=True), stop_strings)


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """SERVE-03. Up to the stop string that is complete first; of several, up to the one that begins first."""
    ends = [start + len(stop) for stop in stop_strings if (start := text.find(stop)) >= 0]
    said = text[: min(ends, default=len(text))]
    return said[: min((said.find(stop) for stop in stop_strings if stop in said), default=len(said))]


def releasable(text: str, stop_strings: Sequence[str]) -> int:
    """SERVE-04. How many characters of an unfinished text may be streamed: its end may be the beginning of a stop string."""
    for start in range(len(text)):
        if any(stop.startswith(text[start:]) for stop in stop_strings):
            return start
    return len(text)


def wrong_in_stream(deltas: Sequence[str], text: str) -> tuple[str, str]:
    """SERVE-04, STREAM-03. The first fault in the pieces of `text`, and the rule."""
    said = ""
    for number, delta in enumerate(deltas):
        before, said = said, said + delta
        if text.startswith(said):
            continue
        if "\ufffd" in delta and "\ufffd" not in text[len(before) : len(said)]:
            return f"piece {number} is {delta!r}, half a character", "STREAM-03"
        if said.startswith(text):
            return f"piece {number} goes on with {said[len(text) :]!r} after the end of the text", "SERVE-04"
        return f"piece {number} is {delta!r}, where the text goes on with {text[len(before) :][:20]!r}", "SERVE-04"
    if len(said) < len(text):
        rest = text[len(said) :]
        return f"{rest!r}, the end of the text, never came", "STREAM-03" if "\ufffd" in rest else "SERVE-04"
    return "", ""


def wrong_in_logprobs(choice: Mapping[str, Any], greedy: bool = False) -> tuple[str, str]:
    """SERVE-05. The first fault in the lists beside a text, whatever the numbers should be, and the rule.

    The tokens, joined, begin with the text, of which a stop string may have cut some; of a greedy text each is the best.
    """
    numbers, tops = choice.get("logprobs"), choice.get("top_logprobs")
    tokens, ids = choice.get("tokens"), choice.get("ids")
    if numbers is None:
        return "no logprobs, though the request asks for them", "SERVE-05"
    lists = {
        "logprobs": numbers,
        "tokens": tokens,
        "top_logprobs": tops,
        "ids": None if choice.get("ids_from") == "text" else ids,
    }
    lengths = {name: len(each) for name, each in lists.items() if each is not None}
    if len(set(lengths.values())) > 1:
        return f"lists of different length: {', '.join(f'{n} {name}' for name, n in lengths.items())}", "SERVE-05"
    for place, number in enumerate(numbers):
        if number is None or not number <= 0:
            return f"the logprob of token {place} is {number}", "SERVE-05"
        top = [each for _, each in (tops[place] or []) if each is not None] if tops else []
        if greedy and top and number < max(top):
            return f"token {place} has logprob {number}, below the {max(top)} of another, in greedy text", "SERVE-05"
    return "", ""


def wrong_in_tokens(tokenizer: Tokenizer, ids: Sequence[int] | None, text: str) -> str:
    """SERVE-05. The first fault in the ids beside a text."""
    if ids is None:
        return ""
    try:
        said = tokenizer.decode(list(ids), skip_special_tokens=True)
    except TokenizerError as error:
        return str(error)
    if not said.startswith(text.rstrip("\ufffd")):
        return f"the tokens beside the text say {said[-40:]!r}, the text ends with {text[-40:]!r}"
    return ""


def wrong_in_echo(choice: Mapping[str, Any], prompt_text: str, prompt_count: int) -> tuple[str, str]:
    """SERVE-06. The first fault in an echoed prompt and its logprobs."""
    if not choice["text"].startswith(prompt_text):
        return f"the text begins with {choice['text'][:40]!r}, not with the prompt", "SERVE-06"
    numbers = choice.get("logprobs")
    if numbers is None:
        return "", ""
    if len(numbers) < prompt_count:
        return f"{len(numbers)} logprobs, fewer than the {prompt_count} tokens of the prompt", "SERVE-06"
    if numbers[0] is not None:
        return f"the first token has logprob {numbers[0]}, and nothing stands before it", "SERVE-06"
    if any(number is None or not number <= 0 for number in numbers[1:]):
        return "a logprob after the first is null or positive", "SERVE-06"
    return "", ""


def wrong_in_choices(choices: Sequence[Mapping[str, Any]], n: int) -> str:
    """SERVE-07. The first fault in the number of choices and their indices."""
    indices = [choice["index"] for choice in choices]
    return (
        "" if sorted(indices, key=str) == list(range(n)) else f"choices with indices {indices}, expected 0 to {n - 1}"
    )


def changed(asked: Sequence[tuple[Sequence[int], str]]) -> int | None:
    """SERVE-08. Of greedy answers to prompts one after the other, the first that differs from what its prompt gave before."""
    first: dict[tuple[int, ...], str] = {}
    for number, (prompt, text) in enumerate(asked):
        if first.setdefault(tuple(prompt), text) != text:
            return number
    return None
