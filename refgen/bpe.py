"""GPT-2's tokenizer, the definition: byte-level BPE in plain Python, from text to token ids and back.

One word on its way, with the tokens of the built-in model:

    text        " hélas"
    bytes       20 68 c3 a9 6c 61 73
    characters  Ġ h Ã © l a s                 one printable character for each byte
    tokens      Ġh Ã © l as                   after the merges
    ids         285 127 102 75 360

Read it from top to bottom: characters for bytes, words, merges, ids, text. Rules TOK-01 to TOK-07 and TOK-13 of SPEC.md.
refgen runs the `tokenizers` library through `tokenizer.py`, and tests keep it equal to this file. This file leaves out
files, padding, and every added token except the end.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

END = "<|endoftext|>"
Pair = tuple[str, str]

# --- Bytes and characters ---


def byte_characters() -> dict[int, str]:
    """TOK-04. The printable character that stands for each byte in a vocabulary file, in the order of GPT-2's ids.

    >>> characters = byte_characters()
    >>> characters[ord("A")], characters[ord(" ")], len(characters)
    ('A', 'Ġ', 256)
    """
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {byte: chr(byte) for byte in itself} | {byte: chr(256 + i) for i, byte in enumerate(others)}


CHARACTER_OF = byte_characters()
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}


def spelled(text: str) -> str:
    """TOK-04. A text as its bytes in UTF-8, one printable character for each byte.

    >>> spelled(" né")
    'ĠnÃ©'
    """
    return "".join(CHARACTER_OF[byte] for byte in text.encode())


def token_bytes(token: str) -> bytes:
    r"""TOK-04. The bytes that a token stands for: `spelled` the other way.

    >>> token_bytes("ĠnÃ")
    b' n\xc3'
    """
    return bytes(BYTE_OF[character] for character in token)


# --- Words ---

# GPT-2's pattern is this one with \p{L} (any letter) for A-Za-z and \p{N} (any number) for 0-9. Its parts, tried in
# this order: seven endings of English; letters, numbers and other marks, each after one space at most; then spaces,
# without the last one if something follows, because that one belongs to the next word.
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)


def ascii_like(character: str) -> str:
    r"""TOK-06. A character of ASCII that is cut like this one: x for a letter, 0 a number, tab white space, ! a mark.

    Python's `re` has no \p{L}, so every character beyond ASCII is matched as one of these four. Its class comes from
    Python's table of Unicode. The library has its own table, which may be newer. In Python 3.11 (Unicode 14) 9272
    letters and 120 numbers of Unicode 16 are still unassigned. They are marks here, and letters or numbers there.

    >>> [ascii_like(character) for character in ("s", "é", "½", "\u3000", "€")]
    ['s', 'x', '0', '\t', '!']
    """
    if character.isascii():
        return character
    if character.isspace():
        return "\t"
    return {"L": "x", "N": "0"}.get(unicodedata.category(character)[0], "!")


def words(text: str) -> list[str]:
    """TOK-03. The pieces of a text that are merged each by itself. Joined, they are the text.

    >>> words("They're  12 élèves!")
    ['They', "'re", ' ', ' 12', ' élèves', '!']
    """
    shape = "".join(map(ascii_like, text))
    return [text[match.start() : match.end()] for match in WORD.finditer(shape)]


# --- Merges ---


def merged(word: str, ranks: Mapping[Pair, int]) -> list[str]:
    """TOK-05. The tokens of a spelled word: again and again, join the adjacent pair of lowest rank, leftmost first.

    >>> merged("aaab", {("a", "a"): 0, ("a", "b"): 1})
    ['aa', 'ab']

    GPT-2's own program joins all occurrences of that pair before it looks again. The result is the same for every
    list in the order of training, where a merge comes after all those that make its two parts.
    """
    tokens = list(word)
    while pairs := [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]:
        _, i = min(pairs)
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


# --- Text to ids, ids to text ---


def rank_of(merges: Sequence[Pair]) -> dict[Pair, int]:
    """TOK-05. The rank of a merge is its place in the list: what was learned first is joined first."""
    return {pair: rank for rank, pair in enumerate(merges)}


def vocabulary(merges: Sequence[Pair]) -> dict[str, int]:
    """TOK-01. GPT-2's ids follow from its merges: the 256 bytes, then what each merge makes, then the end.

    >>> vocab = vocabulary([("t", "h"), ("th", "e")])
    >>> vocab["!"], vocab["the"], vocab["<|endoftext|>"]
    (0, 257, 258)
    """
    return {token: i for i, token in enumerate([*BYTE_OF, *(left + right for left, right in merges), END])}


def encode_ordinary(text: str, vocab: Mapping[str, int], ranks: Mapping[Pair, int]) -> list[int]:
    """TOK-07. The ids of a text in which nothing is special: those of its words, and nothing before or after."""
    return [vocab[token] for word in words(text) for token in merged(spelled(word), ranks)]


def encode(text: str, vocab: Mapping[str, int], ranks: Mapping[Pair, int]) -> list[int]:
    """TOK-02. The ids of a text: it is cut at `<|endoftext|>` first, and each of those is one id.

    >>> merges = [("t", "h"), ("th", "e")]
    >>> encode("the<|endoftext|>he", vocabulary(merges), rank_of(merges))
    [257, 258, 71, 68]
    """
    first, *others = [encode_ordinary(part, vocab, ranks) for part in text.split(END)]
    return first + [token_id for part in others for token_id in [vocab[END], *part]]


def decode(ids: Iterable[int], vocab: Mapping[str, int]) -> str:
    r"""TOK-13. The text of ids: the bytes of their tokens are joined and read as UTF-8, with U+FFFD for incomplete
    characters.

    >>> decode([71, 68, 127, 102], vocabulary([])), decode([71, 68, 127], vocabulary([]))
    ('heé', 'he\ufffd')
    """
    tokens = {token_id: token for token, token_id in vocab.items()}
    return b"".join(token_bytes(tokens[token_id]) for token_id in ids).decode("utf-8", errors="replace")
