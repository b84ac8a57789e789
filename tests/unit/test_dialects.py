"""Answers of servers as plain data: dialects.py."""

import json

import pytest

from refgen.conformance.subjects.dialects import Vocabulary, join_stream, read_completion
from refgen.conformance.subjects.protocol import GarbledError


@pytest.fixture(scope="module")
def vocabulary(shakespeare):
    return Vocabulary(shakespeare[1])


def choice_of(vocabulary, **entries):
    (choice,) = read_completion({"choices": [{"text": "the", **entries}]}, vocabulary)["choices"]
    return choice


def test_ids_come_from_the_best_source(vocabulary):
    """The server's ids, then those beside logprobs, then tokens by their text, then the text encoded again."""
    the = vocabulary.tokenizer.encode("the")
    legacy = {"tokens": ["the"], "token_logprobs": [-1.0], "top_logprobs": [{"the": -1.0, "token_id:5": -2}]}
    coded = legacy | {"tokens": [f"token_id:{the[0]}"]}
    chat = {"content": [{"id": 7, "token": "?", "logprob": -1.0, "top_logprobs": [{"id": 7, "logprob": -1.0}]}]}
    assert (choice_of(vocabulary, token_ids=[9], logprobs=legacy)["ids_from"]) == "token_ids"
    assert choice_of(vocabulary, tokens=[9], logprobs=legacy)["ids"] == [9]
    read = choice_of(vocabulary, logprobs=coded)
    assert (read["ids"], read["ids_from"]) == (the, "logprobs")
    read = choice_of(vocabulary, logprobs=chat)
    assert (read["ids"], read["ids_from"], read["top_logprobs"]) == ([7], "logprobs", [[[7, -1.0]]])
    read = choice_of(vocabulary, logprobs=legacy)
    assert (read["ids"], read["ids_from"]) == (the, "token strings")
    assert read["top_logprobs"] == [[[the[0], -1.0], [5, -2]]]
    read = choice_of(vocabulary)
    assert (read["ids"], read["ids_from"]) == (the, "text")
    read = choice_of(vocabulary, completion_probabilities=chat["content"])
    assert read["logprobs"] == [-1.0]


def test_every_token_is_found_by_how_it_is_written(vocabulary):
    r"""By its text where it has one, as bytes:\x… where it has not; a broken character tells nothing."""
    for token in range(len(vocabulary.tokenizer)):
        spelled = vocabulary.tokenizer.token_bytes(token)
        assert vocabulary.id_of("bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)) == token
        if spelled.isascii():
            assert vocabulary.id_of(spelled.decode()) == token
    assert vocabulary.id_of("\ufffd") is None
    assert vocabulary.id_of(5) is None


def test_a_broken_text_is_not_encoded(vocabulary):
    """U+FFFD stands for bytes that nobody knows any more."""
    assert vocabulary.encode_exactly("a\ufffd") is None
    assert vocabulary.spell([127]) is None


@pytest.mark.parametrize(
    "body",
    [
        5, {}, {"choices": 5}, {"choices": [5]}, {"choices": [{"text": None}]},
        {"choices": [{"text": "", "finish_reason": 5}]}, {"choices": [], "usage": 5},
        {"choices": [{"text": "", "logprobs": 5}]}, {"choices": [{"text": "", "logprobs": {"content": [5]}}]},
        {"choices": [{"text": "", "logprobs": {"tokens": ["a"], "token_logprobs": ["b"]}}]},
        {"choices": [{"text": "", "logprobs": {"tokens": ["a"], "token_logprobs": [0.0], "top_logprobs": [5]}}]},
    ],
)  # fmt: skip
def test_what_is_no_completion(vocabulary, body):
    """Shapes that mean nothing are garbled, never an error of ours."""
    with pytest.raises(GarbledError):
        read_completion(body, vocabulary)


def test_a_stream_is_joined(vocabulary):
    """Choices by index, texts, ids and logprobs in order; usage of an event without choices; [DONE] may be missing."""
    events = [
        {"choices": [{"index": 1, "text": "x"}, {"index": 0, "text": "a", "token_ids": [1]}]},
        {"choices": [{"text": "b", "token_ids": [2, 3], "finish_reason": None}]},
        {"choices": [{"index": 0, "text": None, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}},
    ]
    data = [json.dumps(event) for event in events]
    answer = join_stream([*data, "[DONE]", "never read"], vocabulary)
    first, second = answer["choices"]
    assert (first["text"], first["ids"], first["finish_reason"], first["deltas"]) == (
        "ab",
        [1, 2, 3],
        "stop",
        ["a", "b", ""],
    )
    assert second["text"] == "x"
    assert (answer["usage"]["total_tokens"], answer["done"]) == (5, True)
    assert join_stream(data, vocabulary)["done"] is False
    for broken in ("{", "5", '{"choices": [5]}', '{"choices": [{"text": 5}]}'):
        with pytest.raises(GarbledError):
            join_stream([broken], vocabulary)
