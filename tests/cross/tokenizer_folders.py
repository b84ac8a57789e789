"""Tokenizer folders drawn at random, and what refgen and transformers make of them.

A folder is a dictionary of file names and what they hold. `folders()` draws which files there are and what each says of
added and special tokens and of settings, `asked()` what a tokenizer answers about texts and ids, and `verdict()` how the
two compare. `DIFFERENCES` are the folders where they may differ, known from the files before refgen reads them;
docs/differences.md tells the reader.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

import refgen
from refgen.bpe import END, byte_characters

Folder = dict[str, Any]

UNEXPLAINED = "UNEXPLAINED"  # a verdict begins so if docs/differences.md does not know why two answers differ

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r"), ("Ġw", "or"), ("<", "s")]
BASE = [*byte_characters().values(), *(left + right for left, right in MERGES)]
IN_VOCABULARY = [END, "</s>", "<pad>", "<unk>"]  # tokens that the vocabulary itself may hold
STRAYS = ["</s>", "<pad>", "<s1>", "<x y>", "<pad", "Ünï", "None", " q ", "hel", END]
ORDINARY = ["hello", "h", "Ġw"]  # tokens that every vocabulary here holds
PIECES = [*IN_VOCABULARY, *STRAYS, "hello", " world", " ", "  ", "\n", "é", "<s", "s1>", "q", "x", "y>", "h"]
NAMES = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"]
FLAGS = ["single_word", "lstrip", "rstrip", "normalized", "special"]
CLASSES: list[str | None] = [None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]


# --- Folders -----------------------------------------------------------------------------------------------


def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Mostly `usual`; one time in twenty one of the others."""
    return st.integers(0, 19).flatmap(lambda n: st.sampled_from(others) if n == 19 else st.just(usual))


def some(entries: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these entries."""
    return st.fixed_dictionaries({}, optional=entries)


texts_of_tokens = st.sampled_from([*IN_VOCABULARY, *STRAYS, *ORDINARY])
flags = some(dict.fromkeys(FLAGS, st.booleans())).flatmap(
    lambda kind: often(kind, kind | {"lstrip": "false"}, kind | {"rstrip": None}, kind | {"other": True})
)
marked = st.builds(lambda text, kind: {"__type": "AddedToken", "content": text} | kind, texts_of_tokens, flags)
bare = st.builds(lambda text, kind: {"content": text} | kind, texts_of_tokens, flags)
rarely_wrong = st.sampled_from([5, True, [], "", {"content": "<s1>"}])
named = st.one_of(texts_of_tokens, texts_of_tokens, marked, st.none(), often("<pad>", 5, "", {"content": "<s1>"}))
listed = st.lists(st.one_of(texts_of_tokens, texts_of_tokens, marked), max_size=3)
by_name = st.dictionaries(
    st.sampled_from(["image_token", "boi", "pad_token"]), st.one_of(texts_of_tokens, marked), max_size=2
)


def names(values: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Entries that name tokens; the first four are more usual than the others."""
    return dict.fromkeys([*NAMES, "image_token"], values)


@st.composite
def places(draw: Any) -> tuple[list[str], dict[str, int]]:
    """The tokens of a vocabulary in the order of their ids, and the id of each token that files may list as added."""
    held = draw(st.lists(st.sampled_from(IN_VOCABULARY), unique=True))
    tokens = [*BASE, *held]
    others = st.sampled_from([text for text in STRAYS if text not in held])
    strays = draw(st.lists(others, unique=True, min_size=draw(st.integers(0, 2)), max_size=3))
    ids = {text: tokens.index(text) for text in [*held, *draw(st.sampled_from([[], [], ["hello"]]))]}
    return tokens, ids | {text: len(tokens) + i for i, text in enumerate(strays)}


def renumbered(tokens: list[str], how: str) -> dict[str, int]:
    """A vocabulary's ids: as they follow, the last one number later, or the last twice."""
    ids = {text: i for i, text in enumerate(tokens)}
    return ids | {tokens[-1]: len(tokens) - {"in order": 1, "gap": 0, "twice": 2}[how]}


@st.composite
def shares(draw: Any, ids: dict[str, int]) -> dict[str, int]:
    """The added tokens that one file lists: up to some id, so that ids without a token stay rare. Seldom a wrong id."""
    top = draw(st.just(len(ids)) | st.integers(0, len(ids)))
    chosen = {text: token_id for text, token_id in list(ids.items())[:top] if draw(often(True, False))}
    if chosen and draw(st.integers(0, 15)) == 15:
        chosen[draw(st.sampled_from(sorted(chosen)))] += draw(st.sampled_from([1, 7, -3]))
    return chosen


@st.composite
def tokenizer_configs(draw: Any, ids: dict[str, int], classes: list[str | None]) -> dict[str, Any]:
    """A `tokenizer_config.json`."""
    config = draw(some(names(named)))
    config |= draw(
        some(
            {
                "additional_special_tokens": st.one_of(listed, st.none()),
                "extra_special_tokens": st.one_of(listed, by_name, st.none()),
                "model_specific_special_tokens": by_name,
                "padding_side": st.just("left") | often("right", "up", None),
                "truncation_side": st.just("left") | often("right", "up", 1),
                "split_special_tokens": st.just(True) | often(False, "false", None),
                "add_prefix_space": st.just(True) | often(False, "false", 1),
                "model_max_length": st.sampled_from([6, 1, 1024, 10**30]) | often(1e30, 0, None, -5, "6", 6.5, True),
                "max_len": st.just(7),
                "add_bos_token": st.just(True) | often(False, "false", None),
                "add_eos_token": st.just(True) | often(False, "false", None),
                "clean_up_tokenization_spaces": st.booleans(),
                "errors": often("replace", "strict"),
                "name_or_path": st.just("somewhere"),
                "tokenizer_class": st.sampled_from(classes) | often("GPT2Tokenizer", "RobertaTokenizer", "MyTokenizer"),
            }
        )
    )
    if draw(st.integers(0, 2)) == 0:
        chosen = draw(shares(ids))
        config["added_tokens_decoder"] = {str(i): {"content": text} | draw(flags) for text, i in chosen.items()}
    return config


@st.composite
def special_tokens_maps(draw: Any) -> dict[str, Any]:
    """A `special_tokens_map.json`."""
    said = draw(some(names(st.one_of(texts_of_tokens, texts_of_tokens, bare, st.none(), often("<pad>", 5, "")))))
    lists = {
        "additional_special_tokens": st.one_of(listed, st.none()),
        "extra_special_tokens": st.one_of(listed, st.lists(bare, max_size=2), by_name, st.none()),
        "padding_side": st.just("left"),
    }
    return said | draw(some({name: lists[name] for name in lists if draw(often(name != "padding_side", True))}))


@st.composite
def templates(draw: Any, config: dict[str, Any], token_ids: dict[str, int]) -> dict[str, Any]:
    """A post-processor that puts the bos token before a text and the eos token after it, or something else."""
    pieces = [{"Sequence": {"id": "A", "type_id": 0}}]
    texts = [config[name] if isinstance(config.get(name), str) else END for name in ("bos_token", "eos_token")]
    bos, eos = (draw(often(text, "hello", END)) for text in texts)
    if draw(st.booleans()):
        pieces = [{"SpecialToken": {"id": bos, "type_id": 0}}, *pieces]
    if draw(st.booleans()):
        pieces = [*pieces, {"SpecialToken": {"id": eos, "type_id": 0}}]
    if draw(often(False, True)):
        pieces = [*pieces, pieces[0]]
    return {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            text: {"id": text, "ids": [token_ids.get(text, len(token_ids)) + draw(often(0, 1))], "tokens": [text]}
            for text in (bos, eos)
        },
    }


@st.composite
def tokenizer_jsons(draw: Any, vocab: dict[str, int], ids: dict[str, int], config: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizer.json`."""
    pairs = [" ".join(pair) for pair in MERGES] if draw(st.booleans()) else [list(pair) for pair in MERGES]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": draw(often(None, "<unk>")),
        "continuing_subword_prefix": draw(st.sampled_from([None, "", ""])),
        "end_of_word_suffix": draw(st.sampled_from([None, "", ""])),
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": draw(often(False, False, True)),
        "vocab": vocab,
        "merges": pairs,
    }
    if draw(st.booleans()):
        del model["type"], model["byte_fallback"], model["ignore_merges"]
    chosen = draw(shares(ids))
    every_id = vocab | ids
    every_flag = st.fixed_dictionaries(dict.fromkeys(FLAGS, st.booleans()))
    byte_level = {"type": "ByteLevel", "add_prefix_space": draw(often(False, True)), "trim_offsets": True}
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": "BatchLongest", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    sides = st.sampled_from(["Left", "Right"])
    return {
        "version": "1.0",
        "truncation": draw(st.none() | st.builds(lambda side: truncation | {"direction": side}, sides)),
        "padding": draw(
            st.none()
            | st.builds(lambda side, pad: padding | {"direction": side, "pad_token": pad}, sides, texts_of_tokens)
        ),
        "added_tokens": [
            {"id": i, "content": text} | draw(every_flag)
            for text, i in sorted(chosen.items(), key=lambda pair: pair[1])
        ],
        "normalizer": draw(often(None, None, {"type": "Lowercase"})),
        "pre_tokenizer": byte_level | draw(often({}, {}, {"use_regex": False})),
        "post_processor": draw(st.one_of(st.none(), st.just(byte_level), templates(config, every_id))),
        "decoder": byte_level,
        "model": model,
    }


@st.composite
def folders(draw: Any) -> Folder:
    """A folder with a GPT-2 tokenizer: its vocabulary in one form or both, and any of the files beside it."""
    tokens, ids = draw(places())
    vocab = renumbered(tokens, draw(often("in order", "gap", "twice")))
    files: Folder = {
        "config.json": {"model_type": "gpt2"} | draw(often({}, {"tokenizer_class": "PreTrainedTokenizerFast"}))
    }
    form = draw(st.sampled_from(["two", "two", "one", "one", "both"]))
    if form != "one":
        files["vocab.json"] = vocab
        files["merges.txt"] = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in MERGES)
    config = draw(tokenizer_configs(ids, CLASSES[:3] if form == "two" else CLASSES))
    if form != "two":
        files["tokenizer.json"] = draw(tokenizer_jsons(vocab, ids, config))
    if draw(st.integers(0, 4)):
        files["tokenizer_config.json"] = config
    if draw(st.booleans()):
        files["special_tokens_map.json"] = draw(special_tokens_maps())
    if draw(st.booleans()):
        files["added_tokens.json"] = draw(shares(ids))
    return files


@st.composite
def damaged_folders(draw: Any) -> Folder:
    """A folder in which one place of one file holds something else, or nothing."""
    files = copy.deepcopy(draw(folders()))
    held = files[draw(st.sampled_from(sorted(name for name, said in files.items() if isinstance(said, dict) and said)))]
    while True:
        place = draw(st.sampled_from(sorted(held) if isinstance(held, dict) else range(len(held))))
        if not (isinstance(held[place], dict | list) and held[place] and draw(st.booleans())):
            break
        held = held[place]
    odd = st.sampled_from([None, 0, -1, 5, 2**70, 1.5, True, "", "hello", "\ud800", [None], ["a"], {"content": "x"}])
    held[place] = copy.deepcopy(draw(odd))
    return files


def write(folder: Path, files: Folder) -> Path:
    """The folder, written."""
    folder.mkdir(parents=True)
    for name, held in files.items():
        (folder / name).write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
    return folder


texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
ids = st.lists(st.integers(0, len(BASE) + 12), max_size=8)


# --- What a tokenizer answers ------------------------------------------------------------------------------


def known_length(tokenizer: Any) -> int | None:
    """The longest text, or None where it is not known; transformers writes 10**30 for that."""
    length = tokenizer.model_max_length
    return None if length is None or length > 10**9 else length


def asked(tokenizer: Any, texts: list[str], rows: list[list[int]]) -> dict[str, Any]:
    """All that a tokenizer says of itself, and what it makes of texts and of rows of ids. Errors are answers, too."""
    named = tokenizer.special_tokens_map
    questions: dict[str, Callable[[], Any]] = {
        "sizes": lambda: (len(tokenizer), tokenizer.vocab_size),
        "vocabulary": lambda: {text: i for text, i in tokenizer.get_vocab().items() if BASE[i : i + 1] != [text]},
        "names": lambda: {
            name: (getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")) for name in {*NAMES, *named}
        },
        "special_tokens_map": lambda: tokenizer.special_tokens_map,
        "extra_special_tokens": lambda: tokenizer.extra_special_tokens,
        "all_special_tokens": lambda: tokenizer.all_special_tokens,
        "all_special_ids": lambda: tokenizer.all_special_ids,
        "sides": lambda: (tokenizer.padding_side, tokenizer.truncation_side),
        "split_special_tokens": lambda: tokenizer.split_special_tokens,
        "model_max_length": lambda: known_length(tokenizer),
        "token of each id": lambda: [tokenizer.convert_ids_to_tokens(row) for row in rows],
        "decoded": lambda: [tokenizer.decode(row) for row in rows],
        "decoded without special tokens": lambda: [tokenizer.decode(row, skip_special_tokens=True) for row in rows],
        "ids": lambda: [tokenizer.encode(text) for text in texts],
        "ids without a template": lambda: [tokenizer.encode(text, add_special_tokens=False) for text in texts],
        "ids of split tokens": lambda: [tokenizer(text, split_special_tokens=True)["input_ids"] for text in texts],
        "ids of whole tokens": lambda: [tokenizer(text, split_special_tokens=False)["input_ids"] for text in texts],
        "ids of a cut text": lambda: [tokenizer(text, truncation=True, max_length=3)["input_ids"] for text in texts],
        "there and back": lambda: [
            tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) for text in texts
        ],
    }
    if known_length(tokenizer) is not None:
        questions["ids of the longest text"] = lambda: [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    if tokenizer.pad_token is not None:
        questions["padded"] = lambda: dict(tokenizer(texts, padding=True))
    return {name: answer(question) for name, question in questions.items()}


def answer(question: Callable[[], Any]) -> Any:
    """What a question gives, or the error."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - transformers refuses by any exception
        return error


# --- Where the two may differ ------------------------------------------------------------------------------


def flag(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def read_as_gpt2(files: Folder) -> bool:
    """Whether transformers reads the folder as GPT2Tokenizer's."""
    config = files.get("tokenizer_config.json", {})
    return (config.get("tokenizer_class") or files["config.json"].get("tokenizer_class")) in CLASSES[:3]


def claims(files: Folder) -> list[tuple[str, int]]:
    """The added tokens and their ids in the files that transformers reads."""
    config = files.get("tokenizer_config.json", {})
    own = [(entry["content"], entry["id"]) for entry in files.get("tokenizer.json", {}).get("added_tokens", [])]
    if "added_tokens_decoder" in config:
        decoder = [(entry["content"], int(i)) for i, entry in config["added_tokens_decoder"].items()]
        return decoder if read_as_gpt2(files) else own + decoder
    return [*files.get("added_tokens.json", {}).items(), *own]


def wrong_ids(files: Folder, theirs: Any) -> bool:
    """Whether an added token has another id in transformers than in a file."""
    return any(theirs.get_vocab().get(text) != i for text, i in claims(files))


def one_id_twice(files: Folder, theirs: Any) -> bool:
    """Whether two tokens have one id."""
    vocab = theirs.get_vocab()
    return len(set(vocab.values())) < len(vocab)


def odd_flags(files: Folder, theirs: Any) -> bool:
    """Whether the description of a token holds something that is no flag, which is printed there and passed over."""
    return '"other": true' in json.dumps(files)


def no_names(files: Folder, theirs: Any) -> bool:
    """Whether special_tokens_map.json is read and holds what names no token."""
    if "added_tokens_decoder" in files.get("tokenizer_config.json", {}):
        return False
    said = files.get("special_tokens_map.json", {})
    return "padding_side" in said or not isinstance(said.get("image_token"), str | dict | None)


def foreign_parts(files: Folder, theirs: Any) -> bool:
    """Whether a tokenizer.json is not GPT-2's kind."""
    held = files.get("tokenizer.json", {"normalizer": None, "model": {}, "pre_tokenizer": {}})
    return bool(
        held["normalizer"] or held["model"].get("ignore_merges") or held["pre_tokenizer"].get("use_regex") is False
    )


def foreign_template(files: Folder, theirs: Any) -> bool:
    """Whether a tokenizer.json adds more than bos and eos, or other ids than theirs."""
    template = files.get("tokenizer.json", {}).get("post_processor") or {}
    pieces = [piece.get("SpecialToken", {}).get("id") for piece in template.get("single", [])]
    if not pieces:
        return False
    before, after = pieces[: pieces.index(None)], pieces[pieces.index(None) + 1 :]
    if None in after:
        return True
    wrong = any(template["special_tokens"][text]["ids"] != [theirs.get_vocab().get(text)] for text in before + after)
    return wrong or before not in ([], [theirs.bos_token]) or after not in ([], [theirs.eos_token])


def two_prefix_spaces(files: Folder, theirs: Any) -> bool:
    """Whether the settings and tokenizer.json have different add_prefix_space, one of them passed over there."""
    held, config = files.get("tokenizer.json"), files.get("tokenizer_config.json", {})
    if not held:
        return False
    in_tokenizer = held["pre_tokenizer"]["add_prefix_space"]
    if read_as_gpt2(files):
        return in_tokenizer and "add_prefix_space" not in config
    return config.get("add_prefix_space", in_tokenizer) != in_tokenizer


def wrong_values(files: Folder, theirs: Any) -> bool:
    """Whether a setting has a value that it cannot have, which transformers takes, or fails at when it is used."""
    config = files.get("tokenizer_config.json", {})
    length = config.get("model_max_length", config.get("max_len"))
    adds = () if "tokenizer.json" in files else ("add_bos_token", "add_eos_token")
    return (
        config.get("errors", "replace") != "replace"
        or not (
            length is None
            or (isinstance(length, int | float) and length > 10**9)
            or (type(length) is int and length >= 0)
        )
        or not flag(config.get("add_prefix_space", False))
        or not all(flag(config.get(name) or False) for name in adds)
    )


def empty_names(files: Folder, theirs: Any) -> bool:
    """Whether a special token is empty."""
    return "" in theirs.special_tokens_map.values() or "" in theirs.extra_special_tokens


def template_without_room(files: Folder, theirs: Any) -> bool:
    """Whether a text of `model_max_length` tokens has no room for what the template adds, and is not cut at all there."""
    return theirs.model_max_length < theirs.num_special_tokens_to_add()


def template_without_token(files: Folder, theirs: Any) -> bool:
    """Whether the settings ask for a bos or eos token that there is not."""
    config = files.get("tokenizer_config.json", {})
    return any(config.get(f"add_{name}") and getattr(theirs, name) is None for name in ("bos_token", "eos_token"))


def template_of_spaces(files: Folder) -> bool:
    """Whether the settings ask for a bos or eos token, and a token holds a space."""
    config = files.get("tokenizer_config.json", {})
    return bool(config.get("add_bos_token") or config.get("add_eos_token"))


def says_special(files: Folder) -> bool:
    """Whether special_tokens_map.json says of one of its extra tokens that it is special."""
    extra = files.get("special_tokens_map.json", {}).get("extra_special_tokens")
    return isinstance(extra, list) and any("special" in token for token in extra if isinstance(token, dict))


class Refused(NamedTuple):
    """A kind of folder that refgen refuses and transformers reads: its name in docs/differences.md, and the rules cited."""

    name: str
    rules: tuple[str, ...]
    holds: Callable[[Folder, Any], bool]
    perhaps: bool = False  # refgen may also read it, for instance if what is odd stands in a file that does not count


class Taken(NamedTuple):
    """A kind of folder that transformers fails at and refgen reads: its name in docs/differences.md, and their error."""

    name: str
    error: str
    holds: Callable[[Folder], bool]


REFUSED = [
    Refused(
        "Classes of other tokenizers",
        ("TOK-17",),
        lambda files, theirs: files.get("tokenizer_config.json", {}).get("tokenizer_class") not in CLASSES,
    ),
    Refused("Added tokens whose ids do not fit", ("TOK-17",), wrong_ids),
    Refused("Two tokens with one id", ("TOK-01",), one_id_twice),
    Refused("Tokens with entries that are not flags", ("TOK-17",), odd_flags, perhaps=True),
    Refused("Empty special tokens", ("TOK-17",), empty_names),
    Refused("Settings in special_tokens_map.json", ("TOK-17",), no_names),
    Refused("A tokenizer.json of another kind", ("TOK-01",), foreign_parts),
    Refused("Templates of another kind", ("TOK-07",), foreign_template),
    Refused("Two values of `add_prefix_space`", ("TOK-18",), two_prefix_spaces),
    Refused("Invalid values of settings", ("TOK-02", "TOK-07", "TOK-16", "TOK-18"), wrong_values),
]
REFUSED_CALLS = [
    Refused("Templates without their token", ("TOK-07",), template_without_token),
    Refused("Templates without room", ("TOK-16",), template_without_room),
]
TAKEN = [
    Taken("Templates whose token contains a space", "Missing SpecialToken(s)", template_of_spaces),
    Taken("Extra tokens with the entry `special`", "multiple values for keyword argument 'special'", says_special),
]


def verdict(path: Path, files: Folder, texts: list[str], rows: list[list[int]]) -> str:
    """What comes of a folder: `equal`, `refused by both`, the name of a difference, or a text that begins with UNEXPLAINED."""
    from transformers import AutoTokenizer

    theirs = answer(lambda: AutoTokenizer.from_pretrained(path))
    mine = answer(lambda: refgen.AutoTokenizer.from_pretrained(path))
    if is_refusal(theirs) and is_refusal(mine):
        return "refused by both"
    if is_refusal(mine):
        return refused_here(REFUSED, mine, files, theirs)
    if is_refusal(theirs):
        known = [each.name for each in TAKEN if each.error in str(theirs) and each.holds(files)]
        return [*known, f"{UNEXPLAINED}: refused by transformers alone: {theirs}"][0]
    ours, expected = asked(mine, texts, rows), asked(theirs, texts, rows)
    reasons = [
        f"{UNEXPLAINED}: refgen reads what docs/differences.md says it refuses: {each.name}"
        for each in REFUSED
        if not each.perhaps and each.holds(files, theirs)
    ]
    reasons += [
        refused_here(REFUSED_CALLS, ours[name], files, theirs)
        if is_refusal(ours[name])
        else f"{UNEXPLAINED}: {name}: {ours[name]} here, {expected[name]} there"
        for name in expected
        if ours[name] != expected[name]
    ]
    reasons += [] if reasons else lost(mine, path / "saved", ours, texts, rows)
    return max(reasons, key=lambda reason: reason.startswith(UNEXPLAINED), default="equal")


def lost(
    mine: refgen.tokenizer.Tokenizer, path: Path, ours: dict[str, Any], texts: list[str], rows: list[list[int]]
) -> list[str]:
    """What a tokenizer no longer answers alike, in refgen or in transformers, when it was saved and read again."""
    from transformers import AutoTokenizer

    if not set(map(mine.convert_tokens_to_ids, mine.special_tokens_map.values())) <= set(mine.skipped_ids):
        return []  # differences.md: a named token that is not special is so after saving
    mine.save_pretrained(path)
    found = []
    for reader in (refgen.AutoTokenizer, AutoTokenizer):
        again = asked(reader.from_pretrained(path), texts, rows)
        found += [
            f"{UNEXPLAINED}: saved, read by {reader.__module__}: {name}: {again[name]}, before {ours[name]}"
            for name in ours
            if again[name] != ours[name]
        ]
    return found


def is_refusal(answered: Any) -> bool:
    """Whether an answer is an error of refgen's, or any of transformers'."""
    return isinstance(answered, Exception)


def refused_here(kinds: list[Refused], error: Exception, files: Folder, theirs: Any) -> str:
    """The name of the difference that makes refgen refuse what transformers takes."""
    known = [each.name for each in kinds if getattr(error, "rule", None) in each.rules and each.holds(files, theirs)]
    return [*known, f"{UNEXPLAINED}: refused by refgen alone: {error!r}"][0]
