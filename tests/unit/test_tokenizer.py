"""The tokenizer's files, calls and refusals, on a vocabulary of ten merges made on the spot."""

import copy
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from refgen import Tokenizer, TokenizerError
from refgen.bpe import END, byte_characters
from refgen.tokenizer_settings import SETTINGS

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ã ©"]
TOKENS = [*byte_characters().values(), *(merge.replace(" ", "") for merge in MERGES), END]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
END_ID = len(TOKENS) - 1
HELLO, WORLD, ACUTE = VOCAB["hello"], VOCAB["Ġworld"], VOCAB["Ã©"]


def write(folder, **files):
    """Files named `vocab_json` and so on, of text, or of anything that becomes JSON."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(text, encoding="utf-8")
    return folder


def bare(folder, **files):
    """A folder with `vocab.bpe` and whatever else is said."""
    return write(folder, vocab_bpe="\n".join(["#version: 0.2", *MERGES]) + "\n", **files)


def backend(**parts):
    """The library's tokenizer with this vocabulary, and with other parts if said."""
    made = tokenizers.Tokenizer(models.BPE(vocab=VOCAB, merges=[tuple(merge.split()) for merge in MERGES]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    for name, part in parts.items():
        setattr(made, name, part)
    return made


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer.from_pretrained(bare(tmp_path))


@pytest.fixture
def padder(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


# --- Files ---


@given(text=st.text())
def test_three_ways(tmp_path_factory, text):
    """`vocab.bpe`, `vocab.json` with `merges.txt`, and `tokenizer.json` make the same tokenizer."""
    two = {"vocab_json": VOCAB, "merges_txt": "#version: 0.2\n" + "\n".join(MERGES)}
    folders = [bare(tmp_path_factory.mktemp("bpe")), write(tmp_path_factory.mktemp("two"), **two)]
    folders.append(write(tmp_path_factory.mktemp("one"), tokenizer_json=json.loads(backend().to_str())))
    first, *others = map(Tokenizer.from_pretrained, folders)
    assert first.get_vocab() == VOCAB
    for other in others:
        assert other.get_vocab() == VOCAB
        assert other.encode(text) == first.encode(text)


def test_line_ends(tmp_path):
    """Merges written on Windows, without a version line or without a last line end, are the same merges."""
    expected = Tokenizer.from_pretrained(bare(tmp_path)).get_vocab()
    for lines in ("\r\n".join(["#version: 0.2", *MERGES, ""]), "\n".join(MERGES)):
        (tmp_path / "vocab.bpe").write_bytes(lines.encode())
        assert Tokenizer.from_pretrained(tmp_path).get_vocab() == expected


def test_hash_merge(tmp_path):
    """Only a first line that starts with #version is skipped: a merge of # is a merge."""
    write(tmp_path, vocab_bpe="# #\n")
    assert Tokenizer.from_pretrained(tmp_path).encode("##") == [256]


def test_save_and_load(tmp_path, tokenizer):
    """What `save_pretrained` writes loads as the same tokenizer, settings and all."""
    tokenizer.pad_token, tokenizer.padding_side, tokenizer.bos_token = END, "left", None
    tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.split_special_tokens = 12, "left", True
    tokenizer.save_pretrained(tmp_path / "new" / "folder")
    loaded = Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    for name in ("pad_token", "bos_token", "eos_token", "unk_token", *SETTINGS):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.encode("hello world é" + END) == tokenizer.encode("hello world é" + END)


def test_save_in_place(tmp_path):
    """TOK-17: names that were saved are those read again, also where an older special_tokens_map.json had others."""
    bare(tmp_path, special_tokens_map_json={"pad_token": "h", "eos_token": "l"})
    loaded = Tokenizer.from_pretrained(tmp_path)
    loaded.pad_token, loaded.eos_token = END, None
    loaded.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).special_tokens_map == loaded.special_tokens_map


@pytest.mark.parametrize("adds_bos", [False, True])
def test_save_bos(tmp_path, tokenizer, adds_bos):
    """`add_bos_token` survives saving, in the template of `tokenizer.json`, and saving changes nothing here."""
    tokenizer.add_bos_token = adds_bos
    for folder in ("one", "two"):
        tokenizer.save_pretrained(tmp_path / folder)
        expected = [END_ID, HELLO] if adds_bos else [HELLO]
        assert tokenizer.encode("hello") == expected
        tokenizer = Tokenizer.from_pretrained(tmp_path / folder)
        assert tokenizer.add_bos_token is adds_bos
        assert tokenizer.encode("hello") == expected
        raw = tokenizers.Tokenizer.from_file(str(tmp_path / folder / "tokenizer.json"))
        assert raw.encode("hello").ids == expected


@pytest.mark.parametrize(
    ("template", "adds"),
    [
        ("$A", (False, False)),
        (f"{END} $A", (True, False)),
        (f"$A {END}", (False, True)),
        (f"{END} $A {END}", (True, True)),
        ("h $A", None),
        (f"{END} {END} $A", None),
    ],
)
def test_template(tmp_path, template, adds):
    """A template with the bos token first is `add_bos_token`, with the eos token last `add_eos_token`; others are refused."""
    post = processors.TemplateProcessing(single=template, special_tokens=[(END, END_ID), ("h", VOCAB["h"])])
    write(tmp_path, tokenizer_json=json.loads(backend(post_processor=post).to_str()))
    if adds is None:
        with pytest.raises(TokenizerError, match=r"tokenizer.json: adds more to a text than its bos_token .*TOK-07"):
            Tokenizer.from_pretrained(tmp_path)
    else:
        loaded = Tokenizer.from_pretrained(tmp_path)
        assert (loaded.add_bos_token, loaded.add_eos_token) == adds
        assert loaded.encode("hello") == [END_ID] * adds[0] + [HELLO] + [END_ID] * adds[1]


def test_template_with_another_id(tmp_path):
    """TOK-07: a template whose bos token has another id than in the vocabulary is refused."""
    post = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 5)])
    write(tmp_path, tokenizer_json=json.loads(backend(post_processor=post).to_str()))
    with pytest.raises(TokenizerError, match="TOK-07"):
        Tokenizer.from_pretrained(tmp_path)


def test_truncation_in_the_file(tmp_path):
    """Truncation and padding that `tokenizer.json` was saved with do not apply: a call says so itself."""
    saved = backend()
    saved.enable_truncation(1)
    saved.enable_padding(length=9)
    write(tmp_path, tokenizer_json=json.loads(saved.to_str()))
    assert Tokenizer.from_pretrained(tmp_path).encode("hello world") == [HELLO, WORLD]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (END, END, None, "right", None)),
        ({"bos_token": None, "pad_token": "h"}, (None, END, "h", "right", None)),
        (
            {"bos_token": {"__type": "AddedToken", "content": "l"}, "padding_side": "left"},
            ("l", END, None, "left", None),
        ),
        ({"model_max_length": 1024}, (END, END, None, "right", 1024)),
        ({"model_max_length": 10**30}, (END, END, None, "right", None)),
        ({"model_max_length": 1e30}, (END, END, None, "right", None)),
        ({"model_max_length": None}, (END, END, None, "right", None)),
    ],
)
def test_settings(tmp_path, settings, expected):
    """`tokenizer_config.json` names the special tokens, the padding side and the longest text."""
    loaded = Tokenizer.from_pretrained(bare(tmp_path, tokenizer_config_json=settings))
    found = (loaded.bos_token, loaded.eos_token, loaded.pad_token, loaded.padding_side, loaded.model_max_length)
    assert found == expected


def test_special_tokens_map(tmp_path):
    """TOK-17: `special_tokens_map.json` has the last word over `tokenizer_config.json`, unless that lists added tokens."""
    bare(
        tmp_path, special_tokens_map_json={"pad_token": "h", "eos_token": "l"}, tokenizer_config_json={"eos_token": "e"}
    )
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token, loaded.eos_token) == ("h", "l")
    write(tmp_path, tokenizer_config_json={"eos_token": "e", "added_tokens_decoder": {}})
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token, loaded.eos_token) == (None, "e")


SPECIALS = {"vocab_json": VOCAB | {"</s>": END_ID + 1}, "merges_txt": "\n".join(MERGES)}


@pytest.mark.parametrize(
    "files",
    [
        {
            "added_tokens_json": {"<pad>": END_ID + 2},
            "special_tokens_map_json": {"eos_token": "</s>", "pad_token": "<pad>"},
        },
        {"special_tokens_map_json": {"eos_token": {"content": "</s>"}, "pad_token": {"content": "<pad>"}}},
        {"tokenizer_config_json": {"eos_token": "</s>", "pad_token": "<pad>"}},
        {"tokenizer_config_json": {"eos_token": "</s>", "additional_special_tokens": ["<pad>"], "pad_token": "<pad>"}},
        {
            "tokenizer_config_json": {
                "eos_token": "</s>",
                "pad_token": "<pad>",
                "added_tokens_decoder": {str(END_ID + 2): {"content": "<pad>"}},
            }
        },
    ],
)
def test_special_wherever_named(tmp_path, files):
    """TOK-17: what the files name as special is one id in a text and skipped on request, whichever file names it."""
    loaded = Tokenizer.from_pretrained(write(tmp_path, **SPECIALS, **files))
    assert (loaded.eos_token_id, loaded.pad_token_id) == (END_ID + 1, END_ID + 2)
    assert loaded.encode("hello</s><pad> world") == [HELLO, END_ID + 1, END_ID + 2, WORLD]
    ids = [HELLO, END_ID + 1, WORLD, END_ID + 2]
    assert (loaded.decode(ids), loaded.decode(ids, skip_special_tokens=True)) == ("hello</s> world<pad>", "hello world")


def test_tokens_by_other_names(tmp_path):
    """TOK-17: tokens with names of their own are attributes, and survive saving."""
    config = {"image_token": "<img>", "extra_special_tokens": {"box": "<box>"}, "additional_special_tokens": ["<x>"]}
    loaded = Tokenizer.from_pretrained(bare(tmp_path, tokenizer_config_json=config))
    assert (loaded.image_token, loaded.box_id) == ("<img>", END_ID + 2)
    loaded.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.special_tokens_map == loaded.special_tokens_map
    assert (again.image_token_id, again.box) == (END_ID + 1, "<box>")


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_other_class(tmp_path, kind):
    """TOK-17: the class that reads tokenizer.json as it is names no token by itself; `config.json` may name the class."""
    write(tmp_path, tokenizer_json=json.loads(backend().to_str()), tokenizer_config_json={"tokenizer_class": kind})
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (None, None, None)
    assert loaded.encode(f"hello{END}") == [HELLO, END_ID]
    write(tmp_path, tokenizer_config_json={}, config_json={"tokenizer_class": kind})
    assert Tokenizer.from_pretrained(tmp_path).eos_token is None


def test_special_for_good(tmp_path):
    """TOK-17: what one file calls special and the next does not stays special, after saving too."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {END_ID: {"content": END}}}
    write(tmp_path, tokenizer_json=json.loads(backend().to_str()), tokenizer_config_json=config)
    loaded = Tokenizer.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "saved")
    for each in (loaded, Tokenizer.from_pretrained(tmp_path / "saved")):
        assert each.decode([HELLO, END_ID], skip_special_tokens=True) == "hello"
        assert END_ID not in each.encode(END, split_special_tokens=True)


def test_sides_in_the_file(tmp_path):
    """TOK-18: the sides that `tokenizer.json` was saved with hold where the settings have none."""
    saved = backend()
    saved.enable_truncation(1, direction="left")
    saved.enable_padding(direction="left")
    write(tmp_path, tokenizer_json=json.loads(saved.to_str()), tokenizer_config_json={"padding_side": "right"})
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.truncation_side, loaded.padding_side) == ("left", "right")


def test_tokenizer_json_of_2020(tmp_path):
    """TOK-01: GPT-2's own tokenizer.json does not say the type of its model."""
    entries = json.loads(backend().to_str())
    del entries["model"]["type"]
    assert Tokenizer.from_pretrained(write(tmp_path, tokenizer_json=entries)).get_vocab() == VOCAB


@pytest.mark.parametrize("files", ["vocab.bpe", "tokenizer.json"])
def test_prefix_space(tmp_path, files):
    """`add_prefix_space` in the settings puts a space before a text, whichever files hold the vocabulary."""
    settings = {"tokenizer_config_json": {"add_prefix_space": True}}
    if files == "vocab.bpe":
        bare(tmp_path, **settings)
    else:
        write(tmp_path, tokenizer_json=json.loads(backend().to_str()), **settings)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.encode("world") == loaded.encode(" world") == [WORLD]
    loaded.save_pretrained(tmp_path / "saved")
    assert Tokenizer.from_pretrained(tmp_path / "saved").encode("world") == [WORLD]


def test_added_tokens(tmp_path):
    """Tokens of `added_tokens.json` are found in text and shown when decoding."""
    loaded = Tokenizer.from_pretrained(bare(tmp_path, added_tokens_json={"<me>": END_ID + 1, "a b": END_ID + 2}))
    ids = loaded.encode("hello<me>a bhello")
    assert ids == [HELLO, END_ID + 1, END_ID + 2, HELLO]
    assert loaded.decode(ids) == loaded.decode(ids, skip_special_tokens=True) == "hello<me>a bhello"
    assert loaded.token_bytes(END_ID + 2) == b"a b"
    assert len(loaded) == END_ID + 3
    assert loaded.all_special_ids == loaded.skipped_ids == [END_ID]


def test_added_tokens_decoder(tmp_path):
    """The `added_tokens_decoder` of the settings says which added tokens are special and which eat spaces."""
    added = {
        str(END_ID): {"content": END, "special": True},
        str(END_ID + 1): {"content": "<me>", "special": True, "lstrip": True},
    }
    loaded = Tokenizer.from_pretrained(bare(tmp_path, tokenizer_config_json={"added_tokens_decoder": added}))
    ids = loaded.encode("hello  <me>hello")
    assert ids == [HELLO, END_ID + 1, HELLO]
    assert loaded.decode(ids, skip_special_tokens=True) == "hellohello"
    assert (loaded.all_special_ids, loaded.skipped_ids) == ([END_ID], [END_ID, END_ID + 1])


WORDPIECE = json.loads(tokenizers.Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).to_str())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no tokenizer \[TOK-01\]\. It needs tokenizer.json, or vocab.json and merges.txt, or GPT-2's"),
        ({"vocab_json": VOCAB}, "holds no tokenizer"),
        ({"vocab_json": "{", "merges_txt": ""}, r"vocab.json: cannot be read as JSON: .* \[TOK-01\]"),
        ({"vocab_json": "[]", "merges_txt": ""}, r"vocab.json: must hold a JSON object"),
        ({"vocab_json": {"a": "one"}, "merges_txt": ""}, r"vocab.json: token 'a' has id 'one', must be a whole number"),
        ({"vocab_json": {"a": True}, "merges_txt": ""}, r"token 'a' has id True"),
        ({"vocab_json": {"a": 2**32}, "merges_txt": ""}, r"token 'a' has id 4294967296"),
        ({"tokenizer_json": {"model": {"merges": []}, "pre_tokenizer": ["x"]}}, "its pre_tokenizer must be an object"),
        ({"vocab_json": {"a": 0}, "merges_txt": "a b"}, r"cannot be read: .*Token `b` out of vocabulary \[TOK-01\]"),
        ({"vocab_bpe": "#version: 0.2\nh e\nhe"}, r"vocab.bpe, line 3: must be two tokens and a space, is 'he'"),
        ({"vocab_bpe": "h e l"}, r"vocab.bpe, line 1: must be two tokens and a space, is 'h e l' \[TOK-05\]"),
        ({"vocab_bpe": " e"}, "vocab.bpe, line 1: must be two tokens"),
        ({"tokenizer_json": "nothing"}, r"tokenizer.json: cannot be read as JSON"),
        ({"tokenizer_json": WORDPIECE}, r"tokenizer.json: its model is WordPiece, GPT-2's is BPE \[TOK-01\]"),
        ({"tokenizer_json": {"model": [1]}}, r"tokenizer.json: its model must be an object \[TOK-01\]"),
        ({"tokenizer_json": json.loads(backend().to_str()) | {"version": "x"}}, "its tokenizer files cannot be read"),
        ({"vocab_bpe": "h e", "tokenizer_config_json": "{"}, "tokenizer_config.json: cannot be read as JSON"),
        (
            {"vocab_bpe": "h e", "added_tokens_json": {"<a>": 900}},
            r"added token '<a>': cannot have id 900: its id is 258 \[TOK",
        ),
        (
            {"vocab_bpe": "h e", "added_tokens_json": {"<a>": None}},
            "added token '<a>': id None: must be a whole number",
        ),
        ({"vocab_bpe": "h e", "added_tokens_json": {"<a>": 258, "<b>": 258}}, "id 258: is that of two added tokens"),
        ({"vocab_json": VOCAB | {"a": 70}, "merges_txt": ""}, r"id 70: is that of two tokens, .* \[TOK-01\]"),
        (
            {"vocab_bpe": "h e", "special_tokens_map_json": {"padding_side": "left"}},
            "must be a special token or a list",
        ),
        (
            {"vocab_bpe": "h e", "tokenizer_config_json": {"added_tokens_decoder": {"257": {"lstrip": True}}}},
            "a content",
        ),
        (
            {"vocab_bpe": "h e", "tokenizer_config_json": {"tokenizer_class": "T5Tokenizer"}},
            r"must be one of GPT2.*TOK-17",
        ),
        (
            {"vocab_bpe": "h e", "tokenizer_config_json": {"tokenizer_class": "TokenizersBackend"}},
            "needs a tokenizer.json",
        ),
        ({"vocab_bpe": "h e", "tokenizer_config_json": {"eos_token": 5}}, r"eos_token=5: must be a text, or an object"),
        (
            {"vocab_bpe": "h e", "tokenizer_config_json": {"eos_token": {"content": "e"}}},
            "an object marked as AddedToken",
        ),
        ({"vocab_bpe": "h e", "tokenizer_config_json": {"eos_token": ""}}, r"eos_token='': must be a text"),
        ({"vocab_bpe": "h e", "tokenizer_config_json": {"extra_special_tokens": "ab"}}, "must be a list of texts"),
    ],
)
def test_broken_files(tmp_path, files, message):
    """A folder that holds no readable GPT-2 tokenizer is a `TokenizerError` that names the file and the fault."""
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("padding_side", "up", "TOK-10"),
        ("truncation_side", None, "TOK-16"),
        ("split_special_tokens", "false", "TOK-02"),
        ("add_prefix_space", "false", "TOK-18"),
        ("add_bos_token", "true", "TOK-07"),
        ("add_eos_token", 1, "TOK-07"),
        ("model_max_length", -5, "TOK-16"),
        ("model_max_length", "1024", "TOK-16"),
        ("model_max_length", 6.5, "TOK-16"),
        ("model_max_length", True, "TOK-16"),
    ],
)
def test_wrong_settings(tmp_path, tokenizer, name, value, rule):
    """TOK-18: a setting with a value that it cannot have is refused, in a file and on a tokenizer."""
    expected = rf"{name}={value!r}: must be .* \[{rule}\]"
    with pytest.raises(TokenizerError, match=expected):
        Tokenizer.from_pretrained(bare(tmp_path, tokenizer_config_json={name: value}))
    with pytest.raises(TokenizerError, match=expected):
        setattr(tokenizer, name, value)


@pytest.mark.parametrize(
    "settings", [{"errors": "strict"}, {"init_inputs": ["x"]}, {"vocab": {}}, {"fast_tokenizer_files": ["x.json"]}]
)
def test_settings_with_one_value(tmp_path, settings):
    """TOK-18: settings of transformers that refgen has with one value only are refused with any other."""
    with pytest.raises(TokenizerError, match=r"refgen does not support another value \[TOK-18\]"):
        Tokenizer.from_pretrained(bare(tmp_path, tokenizer_config_json=settings))


def test_two_prefix_spaces(tmp_path):
    """TOK-18: `add_prefix_space` of tokenizer.json, which transformers' GPT2Tokenizer passes over, must be the settings'."""
    entries = json.loads(backend(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)).to_str())
    with pytest.raises(TokenizerError, match=r"add_prefix_space=false: the pre_tokenizer of tokenizer\.json says true"):
        Tokenizer.from_pretrained(write(tmp_path, tokenizer_json=entries))
    write(tmp_path, tokenizer_config_json={"add_prefix_space": False})
    assert Tokenizer.from_pretrained(tmp_path).add_prefix_space is False


@pytest.mark.parametrize(
    ("part", "other", "message"),
    [
        ("normalizer", normalizers.Lowercase(), "its normalizer is Lowercase, GPT-2's is None"),
        ("pre_tokenizer", pre_tokenizers.Whitespace(), "its pre_tokenizer is Whitespace, GPT-2's is ByteLevel"),
        (
            "pre_tokenizer",
            pre_tokenizers.ByteLevel(use_regex=False),
            "its pre_tokenizer's use_regex is False, GPT-2's is True",
        ),
        ("model", models.BPE(VOCAB, [], dropout=0.1), "its model's dropout is 0.1, GPT-2's is None"),
        ("decoder", decoders.BPEDecoder(), "its decoder is BPEDecoder, GPT-2's is ByteLevel"),
        ("model", models.BPE(VOCAB, [], end_of_word_suffix="##"), "end_of_word_suffix is ##, GPT-2's is empty"),
        ("model", models.BPE(VOCAB, [], ignore_merges=True), "its model's ignore_merges is True, GPT-2's is False"),
    ],
)
def test_other_parts(tmp_path, part, other, message):
    """A `tokenizer.json` that changes text before or after in another way than GPT-2's is refused."""
    write(tmp_path, tokenizer_json=json.loads(backend(**{part: other}).to_str()))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


def test_bytes_without_a_token(tmp_path):
    """TOK-04: a vocabulary that lacks a byte reads every text without it, and refuses, not shortens, one with it."""
    vocab = {token: i for i, token in enumerate([c for c in byte_characters().values() if c != "z"])}
    loaded = Tokenizer.from_pretrained(write(tmp_path, vocab_json=vocab, merges_txt=""))
    assert loaded.decode(loaded.encode("a bé")) == "a bé"
    with pytest.raises(
        TokenizerError, match=r"a text: holds the byte 0x7a, for which the vocabulary has no token \[TOK-04\]"
    ):
        loaded.encode("abz")


def test_bytes_not_utf8(tmp_path):
    """Merges that are not UTF-8 are a `TokenizerError`."""
    (tmp_path / "vocab.bpe").write_bytes(b"\xff \xfe\n")
    with pytest.raises(TokenizerError, match=r"its tokenizer files cannot be read: .*utf-8"):
        Tokenizer.from_pretrained(tmp_path)


# --- Text to ids ---


def test_call(tokenizer):
    """A call gives ids and a mask of ones, as keys and as attributes; a list of texts gives lists."""
    one, several = tokenizer("hello world"), tokenizer(["hello world", "é"])
    assert one == {"input_ids": [HELLO, WORLD], "attention_mask": [1, 1]}
    assert (one.input_ids, one.attention_mask) == (one["input_ids"], one["attention_mask"])
    assert several == {"input_ids": [[HELLO, WORLD], [ACUTE]], "attention_mask": [[1, 1], [1]]}
    assert tokenizer([]) == {"input_ids": [], "attention_mask": []}
    with pytest.raises(AttributeError, match="labels"):
        _ = one.labels


@pytest.mark.parametrize(
    ("text", "shape"), [("hello world", (1, 2)), (["hello world"], (1, 2)), (["é", "o"], (2, 1)), ("", (1, 0))]
)
def test_arrays(tokenizer, text, shape):
    """`return_tensors="np"` gives int64 arrays of two axes, also of one text."""
    for array in tokenizer(text, return_tensors="np").values():
        assert (array.shape, array.dtype) == (shape, np.dtype("int64"))


@pytest.mark.parametrize("kind", ["pt", "tf", "mlx", "jax", True])
def test_other_tensors(tokenizer, kind):
    """Tensors of other libraries are refused with the way to get them."""
    with pytest.raises(TokenizerError, match=r'TOK-08\]\. Use return_tensors="np"; torch.from_numpy turns them'):
        tokenizer("hello", return_tensors=kind)


def test_ragged(padder):
    """Texts of different lengths are no array without padding."""
    texts = ["hello world", "hello"]
    with pytest.raises(TokenizerError, match=r"texts of \[1, 2\] tokens: cannot be one array .* Use padding=True"):
        padder(texts, return_tensors="np")
    assert padder(texts, return_tensors="np", padding=True)["input_ids"].tolist() == [[HELLO, WORLD], [HELLO, END_ID]]


@pytest.mark.parametrize(
    ("settings", "ids", "mask"),
    [
        ({}, [[END_ID, HELLO], [HELLO, WORLD]], [[0, 1], [1, 1]]),
        ({"padding": "longest"}, [[END_ID, HELLO], [HELLO, WORLD]], [[0, 1], [1, 1]]),
        ({"padding_side": "right"}, [[HELLO, END_ID], [HELLO, WORLD]], [[1, 0], [1, 1]]),
        (
            {"padding": "max_length", "max_length": 3},
            [[END_ID, END_ID, HELLO], [END_ID, HELLO, WORLD]],
            [[0, 0, 1], [0, 1, 1]],
        ),
        ({"padding": "max_length", "max_length": 1}, [[HELLO], [HELLO, WORLD]], [[1], [1, 1]]),
        ({"padding": "max_length", "max_length": 1, "truncation": True}, [[HELLO], [HELLO]], [[1], [1]]),
        ({"max_length": 1}, [[END_ID, HELLO], [HELLO, WORLD]], [[0, 1], [1, 1]]),
        ({"max_length": 1, "truncation": True}, [[HELLO], [HELLO]], [[1], [1]]),
    ],
)
def test_padding(padder, settings, ids, mask):
    """Rows are filled on the tokenizer's side, or the call's, to the longest or to `max_length`."""
    padder.padding_side = "left"
    encoded = padder(["hello", "hello world"], **({"padding": True} | settings))
    assert encoded == {"input_ids": ids, "attention_mask": mask}


def test_padding_one(padder):
    """One text can be padded too."""
    encoded = padder("hello", padding="max_length", max_length=2)
    assert encoded == {"input_ids": [HELLO, END_ID], "attention_mask": [1, 0]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"truncation": True, "max_length": 1}, [HELLO]),
        ({"truncation": True, "max_length": 0}, []),
        ({"truncation": True, "max_length": 9}, [HELLO, WORLD]),
        ({"max_length": 1}, [HELLO]),
        ({"max_length": 1, "truncation": False}, [HELLO, WORLD]),
    ],
)
def test_truncation(tokenizer, settings, expected):
    """`truncation`, or `max_length` alone, keeps the first tokens."""
    encoded = tokenizer("hello world", **settings)
    assert encoded == {"input_ids": expected, "attention_mask": [1] * len(expected)}


def test_model_max_length(padder):
    """`model_max_length` stands in for `max_length`; without either, nothing is guessed."""
    for settings in ({"truncation": True}, {"padding": "max_length"}):
        with pytest.raises(TokenizerError, match=r"knows no model_max_length \[TOK-16\]\. Pass max_length"):
            padder("hello world", **settings)
    padder.model_max_length = 1
    assert padder("hello world")["input_ids"] == [HELLO, WORLD]
    assert padder("hello world", truncation=True)["input_ids"] == [HELLO]
    assert padder("", padding="max_length")["input_ids"] == [END_ID]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": "do_not_pad"}, r"padding='do_not_pad': must be a bool, 'longest' or 'max_length' \[TOK-08\]"),
        ({"padding": 1}, "padding=1: must be a bool"),
        ({"truncation": "longest_first"}, "truncation='longest_first': must be True or False"),
        ({"max_length": -1}, "max_length=-1: must be a whole number, at least 0"),
        ({"max_length": 2.0}, "max_length=2.0: must be a whole number"),
        ({"padding": True, "padding_side": "up"}, r"padding_side='up': must be 'left' or 'right' \[TOK-10\]"),
    ],
)
def test_other_lengths(padder, settings, message):
    """Settings of length that refgen does not know are refused, never read as yes."""
    with pytest.raises(TokenizerError, match=message):
        padder("hello", **settings)


def test_no_pad_token(tokenizer):
    """Padding without a `pad_token` is refused with the usual remedy, even where there is nothing to fill."""
    with pytest.raises(TokenizerError, match=r"no pad_token \[TOK-09\]\. Usual: tokenizer.pad_token = tokenizer.eos"):
        tokenizer(["hello", "o"], padding=True)


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "unk_token", "pad_token"])
def test_special_tokens(tokenizer, name):
    """Each special token can be set by text or by id, or taken away, and must be in the vocabulary."""
    setattr(tokenizer, name, "hello")
    assert getattr(tokenizer, f"{name}_id") == HELLO
    setattr(tokenizer, f"{name}_id", WORLD)
    assert (getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")) == ("Ġworld", WORLD)
    for unknown in ("<pad>", "hello world", 5):
        with pytest.raises(TokenizerError, match=rf"{name}={unknown!r}: is not in the vocabulary \[TOK-09\]"):
            setattr(tokenizer, name, unknown)
    with pytest.raises(TokenizerError, match=rf"{name}_id=900: is not one of the 267 ids .*TOK-09"):
        setattr(tokenizer, f"{name}_id", 900)
    assert getattr(tokenizer, name) == "Ġworld"
    setattr(tokenizer, f"{name}_id", None)
    assert getattr(tokenizer, name) is getattr(tokenizer, f"{name}_id") is None


def test_pad_token_id(tokenizer):
    """A `pad_token_id` that was set is what rows are padded with, until `pad_token` says otherwise."""
    tokenizer.pad_token_id = tokenizer.eos_token_id
    assert tokenizer(["hello", ""], padding=True)["input_ids"] == [[HELLO], [END_ID]]
    tokenizer.pad_token = "h"
    assert tokenizer(["hello", ""], padding=True)["input_ids"] == [[HELLO], [VOCAB["h"]]]


def test_padding_side(tokenizer):
    """`padding_side` is "right" at first; what is neither left nor right is refused and changes nothing."""
    assert tokenizer.padding_side == "right"
    with pytest.raises(TokenizerError, match=r"padding_side='middle': must be 'left' or 'right' \[TOK-10\]"):
        tokenizer.padding_side = "middle"
    assert tokenizer.padding_side == "right"


def test_add_bos_token(tokenizer):
    """`add_bos_token` puts one bos token first, before truncation, unless `add_special_tokens=False`."""
    tokenizer.add_bos_token = True
    assert tokenizer.encode("hello") == tokenizer("hello")["input_ids"] == [END_ID, HELLO]
    assert tokenizer.encode("") == [END_ID]
    assert tokenizer("hello", truncation=True, max_length=1)["input_ids"] == [END_ID]
    assert tokenizer.encode("hello", add_special_tokens=False) == [HELLO]
    assert tokenizer("hello", add_special_tokens=False)["input_ids"] == [HELLO]
    with pytest.raises(TokenizerError, match=r"max_length=0: has no room for bos_token and eos_token \[TOK-16\]"):
        tokenizer("hello", truncation=True, max_length=0)
    tokenizer.bos_token = None
    with pytest.raises(TokenizerError, match=r"add_bos_token=True: the tokenizer has no bos_token \[TOK-07\]"):
        tokenizer.encode("hello")


def test_truncation_side(tokenizer):
    """TOK-16: `truncation_side` "left" keeps the last tokens, beside those that are added."""
    tokenizer.truncation_side = "left"
    assert tokenizer("hello world", truncation=True, max_length=1)["input_ids"] == [WORLD]
    assert tokenizer("hello world", truncation=True, max_length=0)["input_ids"] == []
    tokenizer.add_bos_token = tokenizer.add_eos_token = True
    assert tokenizer("hello world", truncation=True, max_length=3)["input_ids"] == [END_ID, WORLD, END_ID]


def test_split_special_tokens(tokenizer):
    """TOK-02: `split_special_tokens` of the tokenizer holds where a call does not say otherwise."""
    tokenizer.split_special_tokens = True
    assert END_ID not in tokenizer.encode(END) + tokenizer(END)["input_ids"]
    assert tokenizer.encode(END, split_special_tokens=False) == [END_ID]
    with pytest.raises(TokenizerError, match=r"split_special_tokens='no': must be true or false \[TOK-02\]"):
        tokenizer.encode(END, split_special_tokens="no")


def test_special_in_text(tokenizer):
    """A special token written in a text is one id, unless `split_special_tokens` makes it plain text."""
    text = f"hello{END} world"
    assert tokenizer.encode(text) == [HELLO, END_ID, WORLD]
    split = tokenizer.encode(text, split_special_tokens=True)
    assert split == tokenizer(text, split_special_tokens=True)["input_ids"]
    assert END_ID not in split
    assert tokenizer.decode(split, skip_special_tokens=True) == tokenizer.decode(split) == text
    assert tokenizer.encode(text) == [HELLO, END_ID, WORLD]


@pytest.mark.parametrize("text", [5, None, b"hello", {"a": 1}, ["hello", 5], [b"hello"], [["hello"]], np.array(["a"])])
def test_no_text(tokenizer, text):
    """What is no str is refused by the name of its type."""
    named = text[-1] if isinstance(text, list) else text
    with pytest.raises(TokenizerError, match=rf"a text of type {type(named).__name__}: must be a str.* \[TOK-08\]"):
        tokenizer(text)
    with pytest.raises(TokenizerError, match=rf"a text of type {type(text).__name__}: must be a str \[TOK-08\]"):
        tokenizer.encode(text)


def test_half_a_pair(tokenizer):
    """Half of a surrogate pair is no text: UTF-8 has no bytes for it."""
    with pytest.raises(TokenizerError, match=r"cannot be written in UTF-8: .*position 1: surrogates not allowed"):
        tokenizer("a\ud800")


# --- Ids to text ---


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (HELLO, "hello"),
        (np.int32(HELLO), "hello"),
        (np.array(HELLO), "hello"),
        ([HELLO, WORLD], "hello world"),
        ((HELLO, WORLD), "hello world"),
        ([np.int64(HELLO), np.array(WORLD)], "hello world"),
        (np.array([HELLO, WORLD]), "hello world"),
        ([], ""),
        ([[HELLO, WORLD], [WORLD]], ["hello world", " world"]),
        ([np.array([HELLO, WORLD]), (WORLD,)], ["hello world", " world"]),
        (np.array([[HELLO], [WORLD]], dtype=np.uint16), ["hello", " world"]),
        ([[], [HELLO]], ["", "hello"]),
    ],
)
def test_decode(tokenizer, ids, expected):
    """One id or a sequence is one text, nested sequences are a list of texts; `batch_decode` always gives a list."""
    assert tokenizer.decode(ids) == expected
    assert tokenizer.batch_decode(ids) == ([expected] if isinstance(expected, str) else expected)


def test_skip_special(tokenizer):
    """`skip_special_tokens` leaves out special tokens, wherever they stand and however deep."""
    ids = [END_ID, HELLO, END_ID, WORLD, END_ID]
    assert tokenizer.decode(ids) == f"{END}hello{END} world{END}"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello world"
    assert tokenizer.batch_decode([ids, [END_ID]], skip_special_tokens=True) == ["hello world", ""]
    assert tokenizer.decode([ids], skip_special_tokens=True) == ["hello world"]


@pytest.mark.parametrize("text", ["a , b  .", "do n't", "' s", "x ?", " , . !"])
def test_no_cleaning_up(tokenizer, text):
    """TOK-12: decoding moves and removes no space, where older tokenizers cleaned up before marks."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_broken_characters(tokenizer):
    """Bytes that are no whole character are shown as U+FFFD, and a character split over two tokens is whole."""
    first, second = VOCAB["Ã"], VOCAB["©"]
    assert tokenizer.decode([first, second]) == tokenizer.decode(ACUTE) == "é"
    assert tokenizer.decode([first]) == tokenizer.decode([second]) == "\ufffd"
    assert tokenizer.decode([first, HELLO]) == "\ufffdhello"
    assert tokenizer.decode([first, END_ID, second], skip_special_tokens=True) == "é"


@pytest.mark.parametrize("unknown", [END_ID + 1, 50_000, 2**32 - 1])
def test_unknown_ids(tokenizer, unknown):
    """TOK-14: an id that no token has is no text, wherever it stands."""
    assert tokenizer.decode(unknown) == tokenizer.decode([unknown, unknown]) == ""
    assert tokenizer.decode([[HELLO, unknown, WORLD], [unknown]], skip_special_tokens=True) == ["hello world", ""]
    assert tokenizer.decode([VOCAB["Ã"], unknown, VOCAB["©"]]) == "é"
    assert tokenizer.token_bytes(unknown) == b""
    assert tokenizer.convert_ids_to_tokens([HELLO, unknown]) == ["hello", None]


@pytest.mark.parametrize("bad", [-1, 2**32, 10**30])
def test_no_id(tokenizer, bad):
    """TOK-14: what cannot be an id is refused, not wrapped round."""
    for call in (tokenizer.decode, tokenizer.token_bytes, tokenizer.convert_ids_to_tokens):
        with pytest.raises(TokenizerError, match=rf"id {bad}: must be from 0 to 2\*\*32 - 1 \[TOK-14\]"):
            call(bad)
    with pytest.raises(TokenizerError, match="TOK-14"):
        tokenizer.decode([[HELLO], [HELLO, bad]])


@pytest.mark.parametrize("ids", ["hello", None, 1.0, [1.0], np.array([1.5]), ["hello"], {"a": 1}])
def test_no_ids(tokenizer, ids):
    """What is no whole number is refused by the name of its type."""
    for call in (tokenizer.decode, tokenizer.convert_ids_to_tokens):
        with pytest.raises(TokenizerError, match=r"ids of type \w+: must be whole numbers \[TOK-11\]"):
            call(ids)


def test_token_bytes(tokenizer):
    """Each of the first 256 ids is one byte, the others are the bytes of their text."""
    assert [tokenizer.token_bytes(VOCAB[c]) for c in byte_characters().values()] == [
        bytes([byte]) for byte in byte_characters()
    ]
    assert tokenizer.token_bytes(WORLD) == b" world"
    assert tokenizer.token_bytes(np.int64(ACUTE)) == "é".encode()
    assert tokenizer.token_bytes(END_ID) == END.encode()


# --- The vocabulary ---


def test_conversions(tokenizer):
    """Tokens as written in the files turn into ids and back; unknown ones into `unk_token_id`."""
    assert len(tokenizer) == len(VOCAB)
    assert tokenizer.convert_tokens_to_ids(["Ġworld", "nothing"]) == [WORLD, END_ID]
    assert tokenizer.convert_tokens_to_ids("hello") == HELLO
    assert tokenizer.convert_ids_to_tokens(np.array([WORLD, END_ID])) == ["Ġworld", END]
    assert tokenizer.convert_ids_to_tokens(HELLO) == "hello"
    tokenizer.unk_token = None
    assert tokenizer.convert_tokens_to_ids("nothing") is None


def test_copies(padder):
    """A copy is a tokenizer of its own settings."""
    for copied in (copy.copy, copy.deepcopy):
        other = copied(padder)
        other.pad_token = "h"
        assert (padder.pad_token, other.pad_token) == (END, "h")
        assert other.encode("hello") == [HELLO]
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = padder.no_such_name


def test_no_end(tmp_path):
    """TOK-17: a vocabulary without <|endoftext|> gets it as transformers' GPT2Tokenizer adds it, unless the files name none."""
    files = {"vocab_json": {token: i for token, i in VOCAB.items() if token != END}, "merges_txt": "\n".join(MERGES)}
    assert Tokenizer.from_pretrained(write(tmp_path, **files)).encode(END) == [END_ID]
    write(tmp_path, tokenizer_config_json={"bos_token": None, "eos_token": None, "unk_token": None})
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token, loaded.eos_token_id, loaded.unk_token, loaded.all_special_ids) == (None, None, None, [])
    assert loaded.decode(loaded.encode(END)) == END
