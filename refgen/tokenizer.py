"""Text ↔ token ids: GPT-2's byte-level BPE, on the `tokenizers` library. Rules TOK-01 to TOK-18 of SPEC.md.

`bpe.py` defines the ids of a text. Here the library computes them, because it is fast. The files are read by
`vocabulary.py`, `special_tokens.py` and `tokenizer_settings.py`. This file is the small API that users of transformers
type: call, encode, decode, batch_decode, and the special tokens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tokenizers
from tokenizers import pre_tokenizers, processors

from refgen import bpe
from refgen.errors import TokenizerError
from refgen.special_tokens import EXTRA, NAMED, SPECIFIC, add_tokens, content, read_special_tokens
from refgen.tokenizer_files import read_files
from refgen.tokenizer_settings import SETTINGS, check_setting, read_settings
from refgen.vocabulary import read_backend, read_template


class Encoding(dict[str, Any]):
    """What calling a tokenizer returns: `input_ids` and `attention_mask`, as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tokenizer:
    """A byte-level BPE with its special tokens. Make one with `Tokenizer.from_pretrained(folder)`.

    `bos_token`, `eos_token`, `unk_token`, `pad_token` are texts or None and can be set; with `_id` they are ids. So are
    `sep_token`, `cls_token`, `mask_token` and those that the files name otherwise. The settings of TOK-18 are
    attributes too: `padding_side` for instance, which batches for `generate` need to be "left".
    """

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None
    model_max_length: int | None
    padding_side: str
    truncation_side: str
    split_special_tokens: bool
    add_bos_token: bool
    add_eos_token: bool

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: Mapping[str, Any] | None = None,
        special: Mapping[str, str] | None = None,
        extra_special_tokens: Sequence[str] = (),
    ) -> None:
        """`special` has tokens by name, by default `<|endoftext|>` as bos, eos and unk if the vocabulary has it."""
        self._backend = backend
        self._bytes_without_token = {
            byte for character, byte in bpe.BYTE_OF.items() if backend.token_to_id(character) is None
        }
        if special is None:
            known = backend.token_to_id(bpe.END) is not None
            special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), bpe.END) if known else {}
        self._named: dict[str, str | None] = dict.fromkeys((*NAMED, *special))
        self.extra_special_tokens = list(extra_special_tokens)
        for name, token in special.items():
            setattr(self, name, token)
        for name, setting in SETTINGS.items():
            if name != "add_prefix_space":  # which the backend has
                setattr(self, name, setting.default)
        for name, value in (settings or {}).items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        named = self.__dict__.get("_named", {})
        if name.endswith("_id") and name.removesuffix("_id") in named:
            if value is not None and self.convert_ids_to_tokens(value) is None:
                raise TokenizerError(
                    f"{name}={value}", f"is not one of the {len(self)} ids of the vocabulary", "TOK-09"
                )
            name, value = name.removesuffix("_id"), None if value is None else self.convert_ids_to_tokens(value)
        if name in named and value is not None and not self._knows(value):
            raise TokenizerError(
                f"{name}={value!r}",
                "is not in the vocabulary",
                "TOK-09",
                "The usual choice for padding is tokenizer.pad_token = tokenizer.eos_token.",
            )
        if name in SETTINGS:
            check_setting(name, value)
        if name in named:
            super().__setattr__("_named", named | {name: value})
        else:
            super().__setattr__(name, value)

    def _knows(self, token: Any) -> bool:
        """Whether `token` is a text of the vocabulary."""
        return isinstance(token, str) and self._backend.token_to_id(token) is not None

    def __getattr__(self, name: str) -> Any:
        named = self.__dict__.get("_named", {})
        if name in named:
            return named[name]
        if name.endswith("_id") and name.removesuffix("_id") in named:
            token = named[name.removesuffix("_id")]
            return None if token is None else self._backend.token_to_id(token)
        raise AttributeError(f"a tokenizer has no attribute {name!r}")

    @property
    def add_prefix_space(self) -> bool:
        """TOK-18. Whether a space is put before every text."""
        return bool(self._backend.pre_tokenizer.add_prefix_space)

    @add_prefix_space.setter
    def add_prefix_space(self, value: bool) -> None:
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=value)

    # --- Files ---

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """TOK-01, TOK-17, TOK-18. From `tokenizer.json`, or `vocab.json` and `merges.txt`, or GPT-2's `vocab.bpe` alone,
        with what the files beside them say. Raises `TokenizerError` for a folder that holds no GPT-2 tokenizer.
        """
        folder = Path(folder)
        try:
            files = read_files(folder)
            settings = read_settings(files)
            backend = read_backend(files, settings.get("add_prefix_space", False))
            tokens = read_special_tokens(files)
            add_tokens(backend, tokens, files)
            special = {name: content(token) for name, token in tokens.named.items()}
            settings |= read_template(files, special, backend.get_vocab())
            return cls(backend, settings, special, list(map(content, tokens.extra)))
        except TokenizerError:
            raise
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for every kind of broken file
            raise TokenizerError(str(folder), f"its tokenizer files cannot be read: {error}", "TOK-01") from None

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which transformers reads too.

        A token that was given a name after loading is special when it is read again.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        first, last = self._around()
        if first or last:  # where transformers looks for it
            self._backend.post_processor = processors.TemplateProcessing(
                single=[*first, "$A", *last],
                special_tokens=[(token, self.convert_tokens_to_ids(token)) for token in {*first, *last}],
            )
        self._backend.save(str(folder / "tokenizer.json"))
        self._backend.post_processor = processors.ByteLevel()
        named = {name: token for name, token in self._named.items() if name in NAMED}
        settings = {"tokenizer_class": "GPT2Tokenizer", **named, **{name: getattr(self, name) for name in SETTINGS}}
        if self.model_max_length is None:
            del settings["model_max_length"]
        if self.extra_special_tokens:
            settings[EXTRA] = self.extra_special_tokens
        if specific := {name: token for name, token in self._named.items() if name not in NAMED}:
            settings[SPECIFIC] = specific
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if (folder / "special_tokens_map.json").exists():  # whose names would count before those just written
            (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")

    # --- Text to ids ---

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | Literal["longest", "max_length"] = False,
        truncation: bool | None = None,
        max_length: int | None = None,
        padding_side: str | None = None,
        add_special_tokens: bool = True,
        split_special_tokens: bool | None = None,
        return_tensors: str | None = None,
    ) -> Encoding:
        """TOK-08. `input_ids` and `attention_mask` of one text or of several.

        Lists of ints by default; with `return_tensors="np"` int64 arrays `[B, T]`, B = 1 for one text. Several
        texts of different lengths then need `padding=True` and a `pad_token` (TOK-09). `max_length` alone
        truncates; with `padding=True` it needs `truncation=True` to count.
        """
        check_texts(text)
        check_lengths(padding, truncation, max_length)
        if return_tensors not in (None, "np"):
            raise TokenizerError(
                f"return_tensors={return_tensors!r}",
                "refgen returns NumPy arrays",
                "TOK-08",
                'Use return_tensors="np"; torch.from_numpy turns them into tensors.',
            )
        if truncation is None:
            truncation = max_length is not None and padding is False
        if max_length is None and (truncation or padding == "max_length"):
            max_length = self.model_max_length
            if max_length is None:
                raise TokenizerError(
                    "max_length=None", "the tokenizer knows no model_max_length", "TOK-16", "Pass max_length."
                )
        texts = [text] if isinstance(text, str) else list(text)
        limit = max_length if truncation else None
        rows = [self._ids(each, add_special_tokens, split_special_tokens, limit) for each in texts]
        masks = [[1] * len(row) for row in rows]
        if padding:
            rows, masks = self._padded(rows, max_length if padding == "max_length" else None, padding_side)
        if return_tensors == "np":
            if len({len(row) for row in rows}) > 1:
                raise TokenizerError(
                    f"texts of {sorted({len(row) for row in rows})} tokens",
                    "cannot be one array",
                    "TOK-09",
                    "Use padding=True.",
                )
            return Encoding(input_ids=np.array(rows, dtype=np.int64), attention_mask=np.array(masks, dtype=np.int64))
        if isinstance(text, str):
            return Encoding(input_ids=rows[0], attention_mask=masks[0])
        return Encoding(input_ids=rows, attention_mask=masks)

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        split_special_tokens: bool | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """TOK-02 to TOK-07. The ids of one text; special tokens written in it count unless `split_special_tokens`.

        None for `split_special_tokens` is the tokenizer's own setting. A list, or with `return_tensors="np"` an array `[1, T]`.
        """
        if return_tensors is None:
            return self._ids(text, add_special_tokens, split_special_tokens)
        return self(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=split_special_tokens,
            return_tensors=return_tensors,
        )["input_ids"]

    def _ids(
        self, text: str, add_special_tokens: bool, split_special_tokens: bool | None, limit: int | None = None
    ) -> list[int]:
        """The ids of one text as a list, at most `limit` with those that are added (TOK-07, TOK-16)."""
        if not isinstance(text, str):
            raise TokenizerError(f"a text of type {type(text).__name__}", "must be a str", "TOK-08")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError("a text", f"cannot be written in UTF-8: {error}", "TOK-08") from None
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        check_setting("split_special_tokens", split)
        self._backend.encode_special_tokens = split
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        self._check_nothing_lost(text, ids)
        around = self._around() if add_special_tokens else ([], [])
        first, last = map(self.convert_tokens_to_ids, around)
        if limit is not None:
            room = limit - len(first) - len(last)
            if room < 0:
                raise TokenizerError(f"max_length={limit}", "has no room for bos_token and eos_token", "TOK-16")
            ids = ids[:room] if self.truncation_side == "right" else ids[max(0, len(ids) - room) :]
        return [*first, *ids, *last]

    def _around(self) -> tuple[list[str], list[str]]:
        """TOK-07. The tokens that are put before and after every text, if any."""
        around: dict[str, list[str]] = {}
        for name, adds in (("bos_token", self.add_bos_token), ("eos_token", self.add_eos_token)):
            token = self._named[name]
            if adds and token is None:
                raise TokenizerError(f"add_{name}=True", f"the tokenizer has no {name}", "TOK-07")
            around[name] = [token] if adds and token is not None else []
        return around["bos_token"], around["eos_token"]

    def _check_nothing_lost(self, text: str, ids: list[int]) -> None:
        """TOK-04. The library drops bytes that have no token; here that is an error."""
        if not self._bytes_without_token:
            return
        lost = self._bytes_without_token.intersection(text.encode()) - set(b"".join(map(self.token_bytes, ids)))
        if lost:
            raise TokenizerError(
                "a text", f"holds the byte {min(lost):#04x}, for which the vocabulary has no token", "TOK-04"
            )

    def _padded(
        self, rows: list[list[int]], width: int | None, side: str | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """TOK-09, TOK-10. Rows filled with `pad_token_id` to one width, and masks with 0 where they were."""
        side = self.padding_side if side is None else side
        if side not in ("left", "right"):
            raise TokenizerError(f"padding_side={side!r}", "must be 'left' or 'right'", "TOK-10")
        if self.pad_token_id is None:
            raise TokenizerError(
                "padding=True",
                "the tokenizer has no pad_token",
                "TOK-09",
                "Usual: tokenizer.pad_token = tokenizer.eos_token.",
            )
        width = max(map(len, rows), default=0) if width is None else width
        padded, masks = [], []
        for row in rows:
            pads = [self.pad_token_id] * (width - len(row))
            zeros, ones = [0] * len(pads), [1] * len(row)
            padded.append(pads + row if side == "left" else row + pads)
            masks.append(zeros + ones if side == "left" else ones + zeros)
        return padded, masks

    # --- Ids to text ---

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """TOK-11 to TOK-14. The text of one id or of a sequence of ids; of nested sequences, a list of texts.

        Bytes that are not whole UTF-8 characters become U+FFFD; nothing is cleaned up. An id that no token has gives
        no text.
        """
        several = ids.tolist() if hasattr(ids, "tolist") else ids  # arrays and tensors
        several = [several] if isinstance(several, int) else several
        if not isinstance(several, list | tuple):
            raise TokenizerError(f"ids of type {type(ids).__name__}", "must be whole numbers", "TOK-11")
        several = [each.tolist() if hasattr(each, "tolist") else each for each in several]
        if any(not isinstance(each, int) for each in several):
            return [self.decode(each, skip_special_tokens) for each in several]
        check_ids(several)
        return self._backend.decode(several, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        """TOK-11. The texts of several sequences of ids; of one sequence, a list of its one text."""
        decoded = self.decode(rows, skip_special_tokens)
        return [decoded] if isinstance(decoded, str) else decoded

    def token_bytes(self, token_id: int) -> bytes:
        """TOK-04, TOK-14. The bytes one id stands for; the text of ids is their bytes joined, read as UTF-8."""
        token = self.convert_ids_to_tokens(token_id) or ""
        if all(character in bpe.BYTE_OF for character in token):
            return bpe.token_bytes(token)
        return token.encode()

    # --- The vocabulary ---

    def __len__(self) -> int:
        """The number of tokens, added ones included."""
        return int(self._backend.get_vocab_size())

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the vocabulary itself, without added ones."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    def get_vocab(self) -> dict[str, int]:
        """Every token, as written in the files, and its id."""
        return dict(self._backend.get_vocab())

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """TOK-17. The tokens that have a name, by name."""
        return {name: token for name, token in self._named.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """TOK-17. The tokens that have a name, in the order of their names, and the extra ones, each once."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """TOK-17. The ids of `all_special_tokens`. `skipped_ids` are those that decoding can skip."""
        return [self.convert_tokens_to_ids(token) for token in self.all_special_tokens]

    @property
    def skipped_ids(self) -> list[int]:
        """TOK-11. The ids that `skip_special_tokens` skips: of all added tokens that are special."""
        return [i for i, token in sorted(self._backend.get_added_tokens_decoder().items()) if token.special]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token as written in the files, or a list of them; unknown ones give `unk_token_id` (TOK-14)."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self._backend.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id as written in the files, or a list of them; None for an id that no token has (TOK-14)."""
        if isinstance(ids, int | np.integer):
            check_ids([int(ids)])
            return self._backend.id_to_token(int(ids))
        if isinstance(ids, str) or not hasattr(ids, "__iter__"):
            raise TokenizerError(f"ids of type {type(ids).__name__}", "must be whole numbers", "TOK-11")
        return [self.convert_ids_to_tokens(each) for each in ids]


def check_ids(ids: list[int]) -> None:
    """TOK-14. Refuses what no tokenizer can have as an id."""
    for token_id in ids:
        if not 0 <= token_id < 2**32:
            raise TokenizerError(f"id {token_id}", "must be from 0 to 2**32 - 1", "TOK-14")


def check_texts(text: Any) -> None:
    """One str or several: everything else is refused by name."""
    if isinstance(text, str):
        return
    if isinstance(text, bytes) or not isinstance(text, Sequence):
        raise TokenizerError(f"a text of type {type(text).__name__}", "must be a str or a list of str", "TOK-08")
    for each in text:
        if not isinstance(each, str):
            raise TokenizerError(f"a text of type {type(each).__name__}", "must be a str", "TOK-08")


def check_lengths(padding: Any, truncation: Any, max_length: Any) -> None:
    """The settings of a call that say how long rows may be; what is not named here is refused, not guessed."""
    if not isinstance(padding, bool) and padding not in ("longest", "max_length"):
        raise TokenizerError(f"padding={padding!r}", "must be a bool, 'longest' or 'max_length'", "TOK-08")
    if truncation is not None and not isinstance(truncation, bool):
        raise TokenizerError(f"truncation={truncation!r}", "must be True or False", "TOK-08")
    if max_length is not None and (not isinstance(max_length, int | np.integer) or max_length < 0):
        raise TokenizerError(f"max_length={max_length!r}", "must be a whole number, at least 0", "TOK-08")
