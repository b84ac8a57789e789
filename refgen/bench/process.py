"""The parent's end of a worker: starts it, asks it, waits no longer than patience allows, ends it."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from refgen.errors import BenchError

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
# Every library that brings threads of its own has a variable for their number.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def environment(threads: int) -> dict[str, str]:
    """This process's, with the number of threads pinned and this refgen to be imported."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | dict.fromkeys(THREADS, str(threads)) | QUIET | {"PYTHONPATH": path}


class Worker:
    """One subject's process. Raises `BenchError` whenever it does not answer."""

    def __init__(self, name: str, adapter: Path, threads: int, patience: float = 1800) -> None:
        self.name, self._patience = name, patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a file, so that nobody has to empty a pipe
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, "-P", str(WORKER), str(adapter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment(threads),
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Passes lines on; an empty one is the end."""
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to one request."""
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=self._patience)
        except queue.Empty:
            self.close(kill=True)
            raise BenchError(f"{self.name}: {do}", f"gave no answer within {self._patience:g} seconds") from None
        except OSError:
            line = ""
        if not line:
            code = self._process.wait()
            last = self.last_words()
            self.close(kill=True)
            raise BenchError(f"{self.name}: {do}", f"ended with exit code {code}{f': {last}' if last else ''}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {do}", answer["error"])
        return answer

    def last_words(self) -> str:
        """The last line it wrote to stderr."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self, *, kill: bool = False) -> None:
        """Ends it; asks first, unless it has to be killed."""
        if kill:
            self._process.kill()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it is gone already
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._errors.closed:
            self.close()
