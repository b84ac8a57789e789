"""Text ↔ token ids: GPT-2's byte-level BPE, on the `tokenizers` library. Rules TOK-01 to TOK-16 of SPEC.md.

`bpe.py` defines the ids of a text. Here the library computes them, because it is fast; the files are
read by `vocabulary.py`. This file is the small API that users of transformers type: call, encode, decode,
batch_decode, and the special tokens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tokenizers
from tokenizers import processors

from refgen import bpe
from refgen.errors import TokenizerError
from refgen.vocabulary import read_backend, read_settings

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class Encoding(dict[str, Any]):
    """What calling a tokenizer returns: `input_ids` and `attention_mask`, as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tokenizer:
    """A byte-level BPE with its special tokens. Make one with `Tokenizer.from_pretrained(folder)`.

    `bos_token`, `eos_token`, `unk_token`, `pad_token` are texts or None and can be set; with `_id` they are
    ids. `padding_side` is "right" unless the files or you say "left", which batches for `generate` need.
    """

    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None

    def __init__(self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        settings = settings or {}
        self._backend = backend
        self._bytes_without_token = {
            byte for character, byte in bpe.BYTE_OF.items() if backend.token_to_id(character) is None
        }
        self.model_max_length: int | None = settings.get("model_max_length")
        self.add_bos_token = bool(settings.get("add_bos_token", False))
        self.padding_side = settings.get("padding_side", "right")
        default = bpe.END if backend.token_to_id(bpe.END) is not None else None
        for name in SPECIAL:
            token = settings.get(name, None if name == "pad_token" else default)
            setattr(self, name, token["content"] if isinstance(token, dict) else token)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.removesuffix("_id") in SPECIAL and name.endswith("_id"):
            name, value = name.removesuffix("_id"), None if value is None else self.convert_ids_to_tokens(value)
        if name in SPECIAL and value is not None and not self._knows(value):
            raise TokenizerError(
                f"{name}={value!r}",
                "is not in the vocabulary",
                "TOK-09",
                "The usual choice for padding is tokenizer.pad_token = tokenizer.eos_token.",
            )
        if name == "padding_side" and value not in ("left", "right"):
            raise TokenizerError(f"padding_side={value!r}", "must be 'left' or 'right'", "TOK-10")
        super().__setattr__(name, value)

    def _knows(self, token: Any) -> bool:
        """Whether `token` is a text of the vocabulary."""
        return isinstance(token, str) and self._backend.token_to_id(token) is not None

    def __getattr__(self, name: str) -> Any:
        text_name = name.removesuffix("_id")
        if text_name != name and text_name in SPECIAL:
            token = getattr(self, text_name)
            return None if token is None else self._backend.token_to_id(token)
        raise AttributeError(name)

    # --- Files ---

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """TOK-01. From `tokenizer.json`, or `vocab.json` and `merges.txt`, or GPT-2's `vocab.bpe` alone."""
        folder = Path(folder)
        try:
            settings = read_settings(folder)
            return cls(read_backend(folder, settings), settings)
        except TokenizerError:
            raise
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for every kind of broken file
            raise TokenizerError(str(folder), f"its tokenizer files cannot be read: {error}", "TOK-01") from None

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which transformers reads too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.add_bos_token and self.bos_token is not None:  # where transformers looks for it
            self._backend.post_processor = processors.TemplateProcessing(
                single=[self.bos_token, "$A"], special_tokens=[(self.bos_token, self.bos_token_id)]
            )
        self._backend.save(str(folder / "tokenizer.json"))
        self._backend.post_processor = processors.ByteLevel()
        settings: dict[str, Any] = {name: getattr(self, name) for name in SPECIAL}
        settings |= {"tokenizer_class": "GPT2Tokenizer", "padding_side": self.padding_side}
        settings |= {
            "add_bos_token": self.add_bos_token,
            "add_prefix_space": self._backend.pre_tokenizer.add_prefix_space,
        }
        if self.model_max_length is not None:
            settings["model_max_length"] = self.model_max_length
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

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
        split_special_tokens: bool = False,
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
        rows = [self._ids(each, add_special_tokens, split_special_tokens) for each in texts]
        if truncation:
            rows = [row[:max_length] for row in rows]
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
        split_special_tokens: bool = False,
        return_tensors: str | None = None,
    ) -> Any:
        """TOK-02 to TOK-07. The ids of one text; special tokens written in it count unless `split_special_tokens`.

        A list, or with `return_tensors="np"` an array `[1, T]`.
        """
        if return_tensors is None:
            return self._ids(text, add_special_tokens, split_special_tokens)
        return self(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=split_special_tokens,
            return_tensors=return_tensors,
        )["input_ids"]

    def _ids(self, text: str, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """The ids of one text, as a list."""
        if not isinstance(text, str):
            raise TokenizerError(f"a text of type {type(text).__name__}", "must be a str", "TOK-08")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError("a text", f"cannot be written in UTF-8: {error}", "TOK-08") from None
        self._backend.encode_special_tokens = split_special_tokens
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        self._check_nothing_lost(text, ids)
        if not (add_special_tokens and self.add_bos_token):
            return ids
        if self.bos_token_id is None:
            raise TokenizerError("add_bos_token=True", "the tokenizer has no bos_token", "TOK-07")
        return [self.bos_token_id, *ids]

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

        Bytes that are not whole UTF-8 characters become U+FFFD; nothing is cleaned up. Raises `TokenizerError`
        for an id outside the vocabulary.
        """
        several = ids.tolist() if hasattr(ids, "tolist") else ids  # arrays and tensors
        several = [several] if isinstance(several, int) else several
        if not isinstance(several, list | tuple):
            raise TokenizerError(f"ids of type {type(ids).__name__}", "must be whole numbers", "TOK-11")
        several = [each.tolist() if hasattr(each, "tolist") else each for each in several]
        if any(not isinstance(each, int) for each in several):
            return [self.decode(each, skip_special_tokens) for each in several]
        self._check_ids(several)
        return self._backend.decode(several, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        """TOK-11. The texts of several sequences of ids; of one sequence, a list of its one text."""
        decoded = self.decode(rows, skip_special_tokens)
        return [decoded] if isinstance(decoded, str) else decoded

    def token_bytes(self, token_id: int) -> bytes:
        """TOK-04. The bytes one token stands for; the text of ids is their bytes joined, read as UTF-8."""
        self._check_ids([token_id])
        token = str(self._backend.id_to_token(token_id))
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
    def all_special_ids(self) -> list[int]:
        """The ids that `skip_special_tokens` skips."""
        return [i for i, token in sorted(self._backend.get_added_tokens_decoder().items()) if token.special]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token as written in the files, or a list of them; unknown ones give `unk_token_id` (TOK-14)."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self._backend.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id as written in the files, or a list of them."""
        if isinstance(ids, int | np.integer):
            self._check_ids([int(ids)])
            return self._backend.id_to_token(int(ids))
        if isinstance(ids, str) or not hasattr(ids, "__iter__"):
            raise TokenizerError(f"ids of type {type(ids).__name__}", "must be whole numbers", "TOK-11")
        return [self.convert_ids_to_tokens(each) for each in ids]

    def _check_ids(self, ids: list[int]) -> None:
        """TOK-14. transformers decodes unknown ids to nothing; here they are errors."""
        for token_id in ids:
            if not 0 <= token_id < 2**32 or self._backend.id_to_token(token_id) is None:
                raise TokenizerError(
                    f"id {token_id}",
                    f"is not one of the {len(self)} in the vocabulary",
                    "TOK-14",
                    "Use the tokenizer that belongs to the model.",
                )


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
