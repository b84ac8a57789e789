"""A deadline for a call that may hang."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What `call()` returns, and the exception that it raises. Raises `TimeoutError` if it takes longer than `seconds`.

    The call runs in its own thread, which cannot be stopped. After the deadline it continues, and nothing waits for it.
    """
    outcomes: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - returned to the caller
            outcomes.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcomes.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
