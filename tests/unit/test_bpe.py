"""The plain tokenizer, by hand: characters of bytes, words, merges, ids and text."""

import doctest

import pytest

from refgen import bpe

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ã", "©")]
VOCAB, RANKS = bpe.vocabulary(MERGES), bpe.rank_of(MERGES)


def test_examples():
    """The examples in the docstrings are true."""
    failed, tried = doctest.testmod(bpe)
    assert failed == 0
    assert tried >= 12


def test_byte_characters():
    """TOK-04. 256 bytes have 256 printable characters, and printable ASCII stands for itself."""
    characters = bpe.byte_characters()
    assert sorted(characters) == list(range(256))
    assert len(set(characters.values())) == 256
    assert all(characters[byte] == chr(byte) for byte in range(33, 127))
    assert [characters[byte] for byte in b" \n\x00\xad"] == ["Ġ", "Ċ", "Ā", "Ń"]
    assert all(character.isprintable() for character in characters.values())


def test_spelled():
    """TOK-04. A text is spelled in one character for each byte, and the spelling gives the bytes back."""
    assert bpe.spelled("a é\n") == "aĠÃ©Ċ"
    assert bpe.token_bytes(bpe.spelled("a é\n日😀")) == "a é\n日😀".encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("we're", ["we", "'re"]),
        ("WE'RE", ["WE", "'", "RE"]),  # only lower-case endings are endings
        ("we'é", ["we", "'", "é"]),
        ("'tis", ["'t", "is"]),
        ("x''s", ["x", "''", "s"]),
        ("a b", ["a", " b"]),
        ("a  b", ["a", " ", " b"]),  # the last of several spaces goes with the next word
        ("a \tb", ["a", " ", "\t", "b"]),  # but only a space does
        ("a\n\nb", ["a", "\n", "\n", "b"]),
        ("a \n ", ["a", " \n "]),  # at the end they stay together
        ("a  's", ["a", " ", " '", "s"]),
        ("12a½²", ["12", "a", "½²"]),
        ("Ⅷ٣", ["Ⅷ٣"]),
        ("e\u0301", ["e", "\u0301"]),  # a combining mark is no letter
        ("日本 語", ["日本", " 語"]),
        ("a\u00a0b\u3000", ["a", "\u00a0", "b", "\u3000"]),
        ("a\u2028\x85 b", ["a", "\u2028\x85", " b"]),
        ("\x1c \x1f", ["\x1c", " \x1f"]),  # separators of ASCII are marks here, though str.isspace says otherwise
        ("\u200b\u180e", ["\u200b\u180e"]),  # nor are these white space
        ("\r\r\n\0", ["\r\r", "\n", "\0"]),
        ("👩\u200d👧!", ["👩\u200d👧!"]),
        ("_a_", ["_", "a", "_"]),
    ],
)
def test_words(text, words):
    """TOK-03. Contractions, letters, numbers, marks and white space are cut as GPT-2's pattern says."""
    assert bpe.words(text) == words


@pytest.mark.parametrize(
    ("character", "like"),
    [("s", "s"), ("\x1c", "\x1c"), ("ß", "x"), ("ʰ", "x"), ("½", "0"), ("๙", "0"), ("\x85", "\t"), ("€", "!"), ("\u0301", "!")],
)  # fmt: skip
def test_ascii_like(character, like):
    """TOK-06. ASCII is itself; beyond it there are letters, numbers, white space and marks."""
    assert bpe.ascii_like(character) == like


@pytest.mark.parametrize(
    ("word", "merges", "tokens"),
    [
        ("", ["a a"], ""),
        ("a", ["a a"], "a"),
        ("aaa", ["a a"], "aa a"),  # from the left
        ("aaaa", ["a a"], "aa aa"),
        ("aaaa", ["a a", "aa aa"], "aaaa"),
        ("aaaaaaa", ["a a", "aa aa", "aa a"], "aaaa aaa"),
        ("abc", ["a b", "b c"], "ab c"),  # the lower rank wins
        ("abc", ["b c", "a b"], "a bc"),
        ("abcabc", ["b c", "a b", "ab c"], "a bc a bc"),  # abc is a token, but not of these two
        ("abab", ["ab a", "a b"], "aba b"),  # an untrained list: encoder.py would join both ab first
    ],
)
def test_merged(word, merges, tokens):
    """TOK-05. The pair of lowest rank is joined, from the left, until no pair has a rank."""
    assert bpe.merged(word, bpe.rank_of([tuple(merge.split()) for merge in merges])) == tokens.split()


def test_vocabulary():
    """TOK-01. 256 bytes in GPT-2's order, then the merges, then the end."""
    assert list(VOCAB.values()) == list(range(256 + len(MERGES) + 1))
    assert [VOCAB[token] for token in ("!", "~", "Ā", "he", "Ã©", bpe.END)] == [0, 93, 188, 256, 261, 262]


def test_encode():
    """TOK-02. The end is one id wherever it is written; the texts around it know nothing of each other."""
    hello, end, l_, e = VOCAB["hello"], VOCAB[bpe.END], VOCAB["l"], VOCAB["e"]
    assert bpe.encode("", VOCAB, RANKS) == []
    assert bpe.encode("hello", VOCAB, RANKS) == [hello]
    assert bpe.encode("hel<|endoftext|>lo", VOCAB, RANKS) == [VOCAB["he"], l_, end, l_, VOCAB["o"]]
    assert bpe.encode("<|endoftext|><|endoftext|>e", VOCAB, RANKS) == [end, end, e]


def test_encode_ordinary():
    """TOK-07. Where nothing is special, the end is three words of text, and nothing is added."""
    ids = bpe.encode_ordinary(bpe.END, VOCAB, RANKS)
    assert VOCAB[bpe.END] not in ids
    assert bpe.decode(ids, VOCAB) == bpe.END
    assert bpe.encode_ordinary("", VOCAB, RANKS) == []
    assert bpe.encode_ordinary("é hello", VOCAB, RANKS) == [VOCAB["Ã©"], VOCAB["Ġ"], VOCAB["hello"]]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], ""),
        (["Ã", "©"], "é"),  # a character in two tokens
        (["Ã"], "\ufffd"),
        (["©", "Ã", "h"], "\ufffd\ufffdh"),
        (["ð", "Ł", "ĺ"], "\ufffd"),  # three bytes of an emoji's four: one sign
        (["ð", "Ł", "ĺ", "Ģ"], "😀"),
        (["í", "ł", "Ģ"], "\ufffd\ufffd\ufffd"),  # a surrogate is no character: one sign for each byte
        (["hell", "o", "<|endoftext|>"], "hello<|endoftext|>"),
    ],
)
def test_decode(tokens, text):
    """TOK-13. Bytes are joined first and read then; what is not whole UTF-8 becomes U+FFFD."""
    assert bpe.decode([VOCAB[token] for token in tokens], VOCAB) == text
