"""The wire: one HTTP request, one answer, or one of the exceptions of protocol.py. Needs httpx2, the extra `http`."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from refgen.conformance.subjects.border import BODY, read_events, read_json
from refgen.conformance.subjects.deadline import within
from refgen.conformance.subjects.protocol import (
    CrashedError,
    GarbledError,
    RefusedError,
    SkippedError,
    TimedOutError,
)
from refgen.conformance.subjects.values import shown, words
from refgen.errors import OracleError

try:
    import httpx2
except ImportError:  # an extra; `Wire` says how to get it
    httpx2 = None

T = TypeVar("T")
BUSY = (429, 503)  # asks to come again later
PATIENCE = 3  # times


class Wire:
    """Requests to the server at `url`, such as http://127.0.0.1:8000/v1, one after the other unless the caller has threads.

    Each has `timeout` seconds in all, a streamed one too. After `budget` requests nothing more is asked.
    """

    def __init__(self, url: str, timeout: float = 60.0, budget: int = 2000, key: str | None = None) -> None:
        if httpx2 is None:
            raise OracleError(url, "asking a server needs httpx2", remedy="pip install 'refgen[http]'")
        self.url, self.timeout, self.budget = url.rstrip("/"), timeout, budget
        self.spent = 0
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        alone = httpx2.Limits(max_keepalive_connections=0)  # one that the server closes meanwhile looks like a crash
        self._client = httpx2.Client(timeout=timeout, headers=headers, trust_env=False, limits=alone)

    def get(self, path: str) -> Any:
        """The JSON at `path`, from the server's root if it begins with //."""
        return self._ask("GET", path, None, decode_json)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that comes back."""
        return self._ask("POST", path, body, decode_json)

    def stream(self, path: str, body: Mapping[str, Any]) -> list[str]:
        """The data of all server-sent events."""
        return self._ask("POST", path, body, decode_events)

    def close(self) -> None:
        """No more requests."""
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]) -> T:
        """The answer as `read` understands it; a server that never ends its answer is given up."""
        try:
            seconds = self.timeout + 1  # a silent server is named by the client before
            value, error = within(seconds, lambda: self._exchange(method, path, body, read))
        except TimeoutError:
            raise TimedOutError(f"no end of the answer after {self.timeout:g} s") from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]) -> T:
        """Sends, again if the server is busy, and reads."""
        root, _, _ = self.url.rpartition("/v1")
        url = (root or self.url) + path[1:] if path.startswith("//") else self.url + path
        for patience in reversed(range(PATIENCE)):
            if self.spent >= self.budget:
                raise SkippedError(f"the budget of {self.budget} requests is spent")
            self.spent += 1
            try:
                with self._client.stream(method, url, json=body) as response:
                    if response.status_code in BUSY and patience:
                        time.sleep(waiting(response.headers.get("retry-after")))
                        continue
                    refuse_errors(response)
                    return read(response)
            except httpx2.TimeoutException:
                raise TimedOutError(f"no answer after {self.timeout:g} s") from None
            except httpx2.DecodingError as error:
                raise GarbledError(words(str(error))) from None
            except httpx2.TransportError as error:
                raise CrashedError(f"{url}: {words(str(error)) or type(error).__name__}") from None
        raise CrashedError("busy")  # not reached: the last try is read


def waiting(asked: str | None) -> float:
    """Seconds until the next try, at most 5."""
    try:
        seconds = float(asked or 0.5)
    except ValueError:
        return 0.5
    return min(max(seconds, 0.0), 5.0) if math.isfinite(seconds) else 0.5


def refuse_errors(response: Any) -> None:
    """An exception of protocol.py for an error of the server; one that is still busy has crashed."""
    code = response.status_code
    said = "failure" if code in BUSY else meaning(code)
    if said != "answer":
        said_more = whole(response)
        kinds = {"refusal": RefusedError, "cannot": SkippedError, "failure": CrashedError}
        raise kinds[said](f"{code}: {told(said_more)}")


def meaning(code: int) -> str:
    """SERVE-10. What a status code says: an answer, a refusal, that the server cannot do this, that it failed."""
    if code == 200:
        return "answer"
    if code == 501:
        return "cannot"
    return "refusal" if 400 <= code < 500 else "failure"


def told(raw: bytes) -> str:
    """The message of an error, wherever the server puts it."""
    try:
        body = read_json(raw, "the error")
    except GarbledError:
        return words(raw[:1000].decode("utf-8", "replace"))
    for name in ("error", "message", "detail"):
        if isinstance(body, Mapping) and name in body:
            body = body[name]
    return words(body, 200)


def whole(response: Any) -> bytes:
    """The body, up to the most that is read of one."""
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > BODY:
            raise GarbledError(f"the answer is longer than {BODY} bytes")
    return bytes(raw)


def decode_events(response: Any) -> list[str]:
    """The data of server-sent events."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise GarbledError(f"the answer is {shown(kind)}, must be text/event-stream")
    return read_events(whole(response))


def decode_json(response: Any) -> Any:
    """The JSON; an error that came with code 200 is a refusal all the same."""
    raw = whole(response)
    body = read_json(raw, "the answer")
    if isinstance(body, Mapping) and "error" in body and "choices" not in body:
        raise RefusedError(told(raw))
    return body
