"""Laws of the tokenizer that hold for every text, on a vocabulary trained on the spot. `test_bpe_laws.py` has its ids."""

import contextlib

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from refgen import Tokenizer, TokenizerError
from refgen.bpe import END
from tests.cross.tokenizer_folders import damaged_folders, write

LINES = [
    "It's the economy, they'd said; we'll see. I'm sure you've heard: they're 1234 miles away!",
    "the then there these they them the other another mother brother  whether   weather\n\n\tthe end",
    "Größe, Öl, schön, Führer, déjà vu, ça va, mañana, señor, нещо на Български, здравствуйте",
    "日本語のテキスト 中文文本 한국어 텍스트 ٠١٢٣ ½ ² 😀😁😂🤣 👩‍👩‍👧 e\u0301 a\u0308\u00a0\u3000",
]
WORDS = sorted({word for line in LINES for word in line.split()})
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from([*WORDS, " ", "  ", "\n", "'s", "'", "7", END, *"aé日😀"])).map("".join),
    st.lists(st.sampled_from([END, "<|end", "oftext|>", " the"])).map("".join),
    st.text(st.sampled_from("the '\n\t1½!éЖ日\u00a0\u200b\u2003\u0301")),
)


@pytest.fixture(scope="module")
def tokenizer():
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    backend.train_from_iterator(LINES * 3, trainer)
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def padder(tokenizer):
    padder = Tokenizer(tokenizer._backend)
    padder.pad_token = END
    return padder


@given(text=texts)
def test_round_trip(tokenizer, text):
    """TOK-13. The text of a text's ids is the text."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=texts)
def test_round_trip_split(tokenizer, text):
    """TOK-02. With `split_special_tokens` no id is special, and the text comes back even so."""
    ids = tokenizer.encode(text, split_special_tokens=True)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@given(text=texts)
def test_bytes_of_text(tokenizer, text):
    """TOK-04. The bytes of a text's tokens, joined, are the text in UTF-8."""
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode()


@given(data=st.data())
def test_bytes_of_ids(tokenizer, data):
    """TOK-13. Any ids decode to their bytes read as UTF-8, with U+FFFD for what is none."""
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1)))
    assert tokenizer.decode(ids) == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", errors="replace")


@given(rows=st.lists(st.lists(st.integers(0, 255))))
def test_decode_rows(tokenizer, rows):
    """TOK-11. Decoding rows is decoding each row."""
    expected = [tokenizer.decode(row) for row in rows] if rows else [""]
    assert tokenizer.batch_decode(rows) == expected


@given(batch=st.lists(texts, max_size=5))
def test_batch(tokenizer, batch):
    """TOK-08. Encoding several texts is encoding each."""
    encoded = tokenizer(batch)
    assert encoded["input_ids"] == [tokenizer.encode(text) for text in batch]
    assert encoded["attention_mask"] == [[1] * len(row) for row in encoded["input_ids"]]


@given(left=texts, right=texts)
def test_end_parts(tokenizer, left, right):
    """TOK-02. An end token cuts a text in two that know nothing of each other."""
    end = tokenizer.eos_token_id
    assert tokenizer.encode(left + END + right) == [*tokenizer.encode(left), end, *tokenizer.encode(right)]


@given(
    batch=st.lists(texts, min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
    max_length=st.none() | st.integers(0, 12),
    truncation=st.booleans(),
)
def test_padding(padder, batch, side, max_length, truncation):
    """TOK-09, TOK-10. Padding adds pads and zeros on one side up to one width, and changes nothing else."""
    if max_length is None and truncation:
        max_length = 100
    kind = True if max_length is None else "max_length"
    padded = padder(batch, padding=kind, padding_side=side, max_length=max_length, truncation=truncation)
    plain = padder(batch, max_length=max_length, truncation=truncation)["input_ids"]
    width = max(map(len, plain)) if max_length is None else max_length
    for ids, mask, row in zip(padded["input_ids"], padded["attention_mask"], plain, strict=True):
        pads, ones = [padder.pad_token_id] * (width - len(row)), [1] * len(row)
        zeros = [0] * len(pads)
        assert ids == (pads + row if side == "left" else row + pads)
        assert mask == (zeros + ones if side == "left" else ones + zeros)


@given(batch=st.lists(texts, min_size=1, max_size=5), side=st.sampled_from(["left", "right"]))
def test_arrays(padder, batch, side):
    """TOK-08. Arrays hold the same numbers as lists, as int64, and their kept part is the text."""
    lists = padder(batch, padding=True, padding_side=side)
    arrays = padder(batch, padding=True, padding_side=side, return_tensors="np")
    for name, array in arrays.items():
        assert array.dtype == np.int64
        assert array.shape == (len(batch), max(map(len, lists[name])))
        assert array.tolist() == lists[name]
    for text, ids, mask in zip(batch, arrays["input_ids"], arrays["attention_mask"], strict=True):
        assert padder.decode(ids[mask == 1]) == text


@given(text=texts, max_length=st.integers(0, 12))
def test_truncation(tokenizer, text, max_length):
    """TOK-08. Truncation keeps the first ids."""
    expected = tokenizer.encode(text)[:max_length]
    assert tokenizer(text, truncation=True, max_length=max_length)["input_ids"] == expected
    assert tokenizer(text, max_length=max_length)["input_ids"] == expected


@given(text=texts)
def test_bos(tokenizer, text):
    """TOK-07. `add_bos_token` puts one id first and changes nothing else."""
    other = Tokenizer(tokenizer._backend, {"add_bos_token": True})
    assert other.encode(text) == [other.bos_token_id, *tokenizer.encode(text)]
    assert other.encode(text, add_special_tokens=False) == tokenizer.encode(text)


@given(text=texts)
def test_saved(tokenizer, tmp_path_factory, text):
    """TOK-01. A tokenizer that was saved and loaded gives the same ids."""
    folder = tmp_path_factory.getbasetemp() / "saved-laws"
    if not folder.exists():
        tokenizer.save_pretrained(folder)
    assert Tokenizer.from_pretrained(folder).encode(text) == tokenizer.encode(text)


@given(files=damaged_folders())
def test_damaged_folders(fresh, files):
    """TOK-01, TOK-17, TOK-18. Whatever one place of a file holds, there is a tokenizer or one error of its own."""
    with contextlib.suppress(TokenizerError):
        assert isinstance(Tokenizer.from_pretrained(write(fresh(), files)).encode("hello </s>"), list)
