"""Streaming: text as it comes. Rules STREAM-01 to STREAM-05 of SPEC.md.

A token may end in the middle of a UTF-8 character, so bytes wait until their character is whole. All the streamed
pieces, joined, equal `tokenizer.decode` of all the ids.
"""

import codecs
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from numpy import ndarray

from refgen.errors import GenerationError, InputError
from refgen.tokenizer import Tokenizer


class TextDecoder:
    """Ids in, text out, one row; never half a character."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skipped = set(tokenizer.skipped_ids) if skip_special_tokens else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that are whole now."""
        return "" if token_id in self._skipped else self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """The rest at the end: U+FFFD for a character that never became complete."""
        return self._utf8.decode(b"", final=True)


class TextStreamer:
    """STREAM-02 to STREAM-04. A streamer for one row that hands text to `write` (default: print it).

    Unlike transformers' it does not wait for the end of a word.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_prompt: bool = False,
        skip_special_tokens: bool = False,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._decoder = TextDecoder(tokenizer, skip_special_tokens)
        self._skip_prompt = self._skip_next = skip_prompt
        self._write = write or (lambda text: print(text, end="", flush=True))

    def put(self, ids: ndarray) -> None:
        """Takes the prompt, the first time, or one new token."""
        rows = 1 if ids.ndim == 1 else len(ids)
        if rows > 1 or (ids.ndim == 1 and len(ids) > 1):
            raise InputError(f"{max(rows, len(ids))} rows", "a TextStreamer follows one row", "STREAM-02")
        skip, self._skip_next = self._skip_next, False
        if not skip:
            self._emit("".join(self._decoder.push(int(token_id)) for token_id in ids.ravel()))

    def end(self) -> None:
        """Hands over what is left; the next `put` is a prompt again."""
        self._emit(self._decoder.flush())
        self._skip_next = self._skip_prompt

    def _emit(self, text: str) -> None:
        if text:
            self._write(text)


class TextIteratorStreamer(TextStreamer):
    """STREAM-05. A streamer to iterate over, in another thread than the one that generates.

    Iteration ends with the text, or when generation fails. With a `timeout` in seconds, waiting longer for the next
    piece raises `GenerationError`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_prompt: bool = False,
        timeout: float | None = None,
        skip_special_tokens: bool = False,
    ) -> None:
        self._pieces: SimpleQueue[str | None] = SimpleQueue()
        self._timeout = timeout
        super().__init__(tokenizer, skip_prompt, skip_special_tokens, write=self._pieces.put)

    def end(self) -> None:
        """Hands over what is left, and that it was the last."""
        super().end()
        self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._pieces.get(timeout=self._timeout)) is not None:
                yield piece
        except Empty:
            raise GenerationError(
                f"timeout={self._timeout}", "no text came within that many seconds", "STREAM-05"
            ) from None
