"""The plain tokenizer and the library that runs are one function: ids of any text, text of any ids, for any merges."""

import json
import re
import unicodedata
from functools import cache
from itertools import pairwise

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers

from refgen import Tokenizer, bpe
from refgen.vocabulary import read_merges
from tests.strategies import hostile_texts, merge_lists

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


class Both:
    """The plain tokenizer and the library with the same merges."""

    def __init__(self, library, merges):
        self.library, self.merges = library, merges
        self.vocab, self.ranks = bpe.vocabulary(merges), bpe.rank_of(merges)
        assert library.get_vocab() == self.vocab
        broken = [i for token, i in self.vocab.items() if "\ufffd" in bpe.token_bytes(token).decode(errors="replace")]
        # Lists of ids, half of them of tokens that are no whole characters.
        self.ids = st.lists(st.sampled_from(broken) | st.sampled_from([*self.vocab.values()]))

    def check_text(self, text):
        """One text to ids and back, special tokens in it or taken apart."""
        ids = bpe.encode(text, self.vocab, self.ranks)
        assert ids == self.library.encode(text)
        assert bpe.decode(ids, self.vocab) == self.library.decode(ids) == text
        ordinary = bpe.encode_ordinary(text, self.vocab, self.ranks)
        assert ordinary == self.library.encode(text, split_special_tokens=True)

    def check_ids(self, ids):
        """Ids to text, whole characters or not."""
        assert bpe.decode(ids, self.vocab) == self.library.decode(ids)


def library_of(merges):
    """The library's tokenizer with these merges, as refgen has it."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=bpe.vocabulary(merges), merges=merges))
    backend.pre_tokenizer, backend.decoder = BYTE_LEVEL, decoders.ByteLevel()
    backend.add_special_tokens([bpe.END])
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def built_in(shakespeare):
    """The tokenizer of the built-in model."""
    merges = json.loads(shakespeare[1]._backend.to_str())["model"]["merges"]
    return Both(shakespeare[1], [tuple(pair) for pair in merges])


@pytest.fixture(scope="module")
def gpt2(shared_data):
    """GPT-2's."""
    folder = shared_data / "tokenizer"
    return Both(Tokenizer.from_pretrained(folder), read_merges(folder / "vocab.bpe"))


# --- Words ---


def pieces(text):
    """The words of a text by the library."""
    return [text[first:last] for _, (first, last) in BYTE_LEVEL.pre_tokenize_str(text)]


@given(text=hostile_texts())
def test_words(text):
    """TOK-03. Any text is cut into the same words, whatever is merged in them."""
    assert bpe.words(text) == pieces(text)


# --- Real tokenizers ---


@given(text=hostile_texts())
def test_built_in_texts(built_in, text):
    """TOK-02 to TOK-07. The built-in model's tokenizer gives any text the ids of the plain one, and the text back."""
    built_in.check_text(text)


def test_the_word_on_its_way(built_in):
    """The steps that the top of bpe.py shows are those of the built-in tokenizer."""
    shown = dict(re.findall(r"^    (bytes|tokens|ids) +((?:\S+ )*\S+)(?:   .*)?$", bpe.__doc__, re.MULTILINE))
    ids = bpe.encode(" hélas", built_in.vocab, built_in.ranks)
    tokens = bpe.merged(bpe.spelled(" hélas"), built_in.ranks)
    assert shown == {
        "bytes": " hélas".encode().hex(" "),
        "tokens": " ".join(tokens),
        "ids": " ".join(map(str, ids)),
    }


@given(text=hostile_texts())
def test_gpt2_texts(gpt2, text):
    """TOK-02 to TOK-07. So does GPT-2's."""
    gpt2.check_text(text)


@given(data=st.data())
def test_built_in_ids(built_in, data):
    """TOK-13. Any ids have the same text, half characters and ends among them."""
    built_in.check_ids(data.draw(built_in.ids))


@given(data=st.data())
def test_gpt2_ids(gpt2, data):
    """TOK-13. Those of GPT-2 too."""
    gpt2.check_ids(data.draw(gpt2.ids))


def test_gpt2_decodes_every_id(gpt2):
    """TOK-04. Each of GPT-2's 50257 ids has the same text by itself, and so do all of them in a row."""
    ids = list(range(len(gpt2.vocab)))
    tokens = {i: token for token, i in gpt2.vocab.items()}
    alone = [bpe.token_bytes(tokens[i]).decode(errors="replace") for i in ids]
    assert len(ids) == 50257
    assert alone == gpt2.library.batch_decode([[i] for i in ids])
    gpt2.check_ids(ids)


# --- Drawn merges ---

overlapping = st.one_of(st.text(letters, min_size=12) for letters in ("a", "ab", "a ", "abc", "ab é'ã"))


@given(merges=merge_lists(), texts=st.lists(overlapping, min_size=1, max_size=5))
def test_any_merges(merges, texts):
    """TOK-05. For any list of merges, trained or not, the library joins the same pairs in the same order."""
    both = Both(library_of(merges), merges)
    for text in texts:
        both.check_text(text)


def passes(word, ranks):
    """A word's tokens as encoder.py of openai/gpt-2 finds them: all occurrences of the best pair in one pass."""
    tokens = list(word)
    while pairs := [pair for pair in pairwise(tokens) if pair in ranks]:
        best, joined, i = min(pairs, key=ranks.__getitem__), [], 0
        while i < len(tokens):
            here = tuple(tokens[i : i + 2]) == best
            joined.append("".join(best) if here else tokens[i])
            i += 1 + here
        tokens = joined
    return tokens


@given(merges=merge_lists("trained"), texts=st.lists(overlapping, min_size=1, max_size=5))
def test_passes(merges, texts):
    """TOK-05. In a list that training can give, joining one pair at a time is what encoder.py's passes do."""
    ranks = bpe.rank_of(merges)
    for word in map(bpe.spelled, texts):
        assert bpe.merged(word, ranks) == passes(word, ranks)


def test_passes_differ():
    """TOK-05. In a list out of order they may differ, and the library goes one pair at a time."""
    merges = [("ab", "a"), ("a", "b")]
    assert bpe.merged("abab", bpe.rank_of(merges)) == ["aba", "b"]
    assert passes("abab", bpe.rank_of(merges)) == ["ab", "ab"]
    Both(library_of(merges), merges).check_text("abab")


# --- Unicode ---


@cache
def kind_of_ascii(character):
    """The part of GPT-2's pattern that a character of ASCII belongs to."""
    return next(kind for kind in ("a", "1", "\n", "!") if bpe.words(kind + character) == [kind + character])


def kind(character):
    """The part of GPT-2's pattern that a character belongs to, by the plain tokenizer."""
    return kind_of_ascii(bpe.ascii_like(character))


def test_every_character(figures):
    """TOK-06. Every character that Python and the library both know is of one kind; one that either lacks is a mark."""
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    unassigned = pre_tokenizers.Split(Regex(r"\p{Cn}+"), "removed")
    there = {c for part, _ in unassigned.pre_tokenize_str("".join(characters)) for c in part}
    here = {c for c in characters if unicodedata.category(c) != "Cn"}
    both = sorted(here & there)
    for each in ("a", "1", "!", "\n"):
        same = "".join(c for c in both if kind(c) == each)
        assert len(same) >= 25
        assert pieces(same) == [same]  # one word of letters, one of numbers, one of marks, one of white space
    assert {kind(c) for c in characters if c not in here} == {"!"}
    unknown = "".join(c for c in characters if c not in there)
    assert pieces("!" + unknown) == ["!" + unknown]
    newer = [c for c in there - here if pieces("!" + c) != ["!" + c]]
    older = [c for c in here - there if kind(c) != "!"]
    figures.append(
        f"characters cut alike by Python's Unicode {unicodedata.unidata_version} and tokenizers': all {len(both)} "
        f"that both know; letters and numbers that only the library knows: {len(newer)}; that only Python knows: {len(older)}"
    )
    if unicodedata.unidata_version == "14.0.0" and len(there) == 292_531:  # Python 3.11 and Unicode 16
        assert (len(newer), len(older)) == (9392, 0)
