"""Text as it comes is the text of all ids, and never half a character."""

from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import GenerationError, InputError, TextIteratorStreamer, TextStreamer, Tokenizer
from refgen.bpe import END
from refgen.generation.streaming import TextDecoder

MERGES = ["h e", "l l", "he ll", "hell o", "Ã ©", "ð Ł", "ðŁ ĺ"]  # the last are the first bytes of many emoji
END_ID = 256 + len(MERGES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.bpe").write_text("\n".join(MERGES), encoding="utf-8")
    return Tokenizer.from_pretrained(folder)


def streamed(tokenizer, ids, **settings):
    """What a `TextStreamer` writes for a prompt of one id and the others one by one, then the end."""
    written = []
    streamer = TextStreamer(tokenizer, write=written.append, **settings)
    streamer.put(np.array([ids[:1]]))
    for token_id in ids[1:]:
        streamer.put(np.array([token_id]))
    streamer.end()
    return written


@given(text=st.text())
def test_text(tokenizer, text):
    """The pieces of any text, joined, are the text, and each piece is whole characters."""
    decoder = TextDecoder(tokenizer)
    pieces = [decoder.push(token_id) for token_id in tokenizer.encode(text)]
    assert decoder.flush() == ""
    assert "".join(pieces) == text


@given(ids=st.lists(st.integers(0, END_ID)), skips=st.booleans())
def test_any_ids(tokenizer, ids, skips):
    """The pieces of any ids, broken UTF-8 included, joined, are what `decode` gives."""
    decoder = TextDecoder(tokenizer, skip_special_tokens=skips)
    pieces = [decoder.push(token_id) for token_id in ids]
    assert "".join([*pieces, decoder.flush()]) == tokenizer.decode(ids, skip_special_tokens=skips)


@given(ids=st.lists(st.integers(0, END_ID), min_size=1), skips=st.booleans())
def test_streamer(tokenizer, ids, skips):
    """What a streamer writes, joined, is what `decode` gives, and it never writes nothing."""
    written = streamed(tokenizer, ids, skip_special_tokens=skips)
    assert "".join(written) == tokenizer.decode(ids, skip_special_tokens=skips)
    assert all(written)


@given(text=st.text(st.characters(min_codepoint=128, exclude_categories=["Cs"]), min_size=1))
def test_waits(tokenizer, text):
    """A character of several tokens comes at once with its last token, never as U+FFFD before."""
    decoder, shown = TextDecoder(tokenizer), ""
    raw = b""
    for token_id in tokenizer.encode(text):
        raw += tokenizer.token_bytes(token_id)
        shown += decoder.push(token_id)
        assert shown == raw.decode("utf-8", errors="ignore")


def test_one_emoji(tokenizer):
    """An emoji of two tokens is nothing, then itself."""
    ids = tokenizer.encode("😀")
    assert len(ids) == 2
    decoder = TextDecoder(tokenizer)
    assert [decoder.push(token_id) for token_id in ids] == ["", "😀"]


def test_flush(tokenizer):
    """`flush` gives U+FFFD for half a character, once, and leaves the decoder as new."""
    decoder = TextDecoder(tokenizer)
    half, whole = tokenizer.encode("😀")[0], tokenizer.encode("hello")[0]
    assert decoder.push(half) == ""
    assert (decoder.flush(), decoder.flush()) == ("\ufffd", "")
    assert decoder.push(whole) == "hello"


def test_broken_character(tokenizer):
    """Half a character before a whole one is U+FFFD as soon as that is certain."""
    decoder = TextDecoder(tokenizer)
    assert decoder.push(tokenizer.encode("😀")[0]) == ""
    assert decoder.push(tokenizer.encode("hello")[0]) == "\ufffdhello"


def test_end_flushes(tokenizer):
    """`end` hands over the half character that was waiting."""
    ids = [*tokenizer.encode("hello"), tokenizer.encode("😀")[0]]
    assert streamed(tokenizer, ids) == ["hello", "\ufffd"]


def test_skip_special(tokenizer):
    """Special tokens are shown unless `skip_special_tokens`, and a skipped one does not break a character."""
    first, second = tokenizer.encode("😀")
    assert streamed(tokenizer, [END_ID, first, END_ID, second]) == [END, f"\ufffd{END}", "\ufffd"]
    assert streamed(tokenizer, [END_ID, first, END_ID, second], skip_special_tokens=True) == ["😀"]


def test_skip_prompt(tokenizer):
    """`skip_prompt` leaves out the first ids put, and again after `end`."""
    written = []
    streamer = TextStreamer(tokenizer, skip_prompt=True, write=written.append)
    for _ in range(2):
        streamer.put(np.array([tokenizer.encode("hello hello")]))
        streamer.put(np.array(tokenizer.encode("é")))
        streamer.end()
    assert written == ["é", "é"]


def test_prompt_of_many(tokenizer):
    """A prompt of many tokens is written in one piece."""
    written = []
    TextStreamer(tokenizer, write=written.append).put(np.array([tokenizer.encode("hello é")]))
    assert written == ["hello é"]


@pytest.mark.parametrize("ids", [[[1], [2]], [[1, 2], [3, 4], [5, 6]], [1, 2]])
def test_batch(tokenizer, ids):
    """Several rows are refused with their number, whether prompt or tokens, and nothing is written."""
    written = []
    with pytest.raises(InputError, match=rf"^{len(ids)} rows: a TextStreamer follows one row \[STREAM-02\]"):
        TextStreamer(tokenizer, write=written.append).put(np.array(ids))
    assert written == []


def test_prints(tokenizer, capsys):
    """Without `write` the text goes to stdout, with nothing added."""
    streamer = TextStreamer(tokenizer)
    streamer.put(np.array([tokenizer.encode("hello é\n")]))
    streamer.put(np.array(tokenizer.encode("hello")))
    streamer.end()
    assert capsys.readouterr().out == "hello é\nhello"


def test_unknown_id(tokenizer):
    """TOK-14: an id that no token has adds nothing to the text, between the bytes of a character too."""
    decoder = TextDecoder(tokenizer)
    first, second = tokenizer.convert_tokens_to_ids(["Ã", "©"])
    assert [decoder.push(each) for each in (first, END_ID + 1, second)] == ["", "", "é"]


def test_iterating_in_a_thread(shakespeare):
    """STREAM-05: what another thread generates is iterated over as it comes, prompt left out, and is the text."""
    model, tokenizer = shakespeare
    ids = [tokenizer.encode("ROMEO:")]
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True)
    thread = Thread(target=model.generate, args=[ids], kwargs={"max_new_tokens": 12, "streamer": pieces})
    thread.start()
    text = list(pieces)
    thread.join()
    assert len(text) > 5
    assert "".join(text) == tokenizer.decode(model.generate(ids, max_new_tokens=12)[0, len(ids[0]) :])


@pytest.mark.parametrize("settings", [{"temprature": 1}, {"logits_processor": [lambda ids, scores: 1]}])
def test_iterating_ends_when_generation_fails(shakespeare, settings):
    """STREAM-05: before the first step or in it, an error ends the iteration."""
    model, tokenizer = shakespeare
    pieces = TextIteratorStreamer(tokenizer, timeout=5)
    with pytest.raises(GenerationError):
        model.generate([[1]], streamer=pieces, **settings)
    assert len(list(pieces)) <= 1  # the prompt at most


def test_iterating_can_run_out_of_time(tokenizer):
    """STREAM-05: waiting longer than the timeout is an error that says so."""
    with pytest.raises(GenerationError, match=r"timeout=0\.01: no text came within that many seconds \[STREAM-05\]"):
        list(TextIteratorStreamer(tokenizer, timeout=0.01))
