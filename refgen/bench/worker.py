"""The process that a subject runs in: JSON lines in, JSON lines out. `python -P worker.py ADAPTER`.

    {"do": "prepare", "folder": …}                                 → {"answer": path}
    {"do": "load", "path": …, "threads": …, "arguments": {…}}      → {"answer": version}
    {"do": "generate", "ids": […], "count": …, "settings": {…}, "ticks": false}
                                                                   → {"answer": [new ids of each row], "ticks": [seconds]}
    {"do": "read"}                                                 → {"answer": bytes a second}

Every answer has "seconds", the time of the work, and "peak", the most memory of the process so far, in bytes. After a
failure it is {"error": …}. The process ends when its input does. Whatever a library prints goes to stderr.

This file imports neither NumPy nor refgen, so that a peer's process holds the peer alone.
"""

import contextlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from time import perf_counter
from typing import Any


def peak() -> int:
    """The high-water mark of this process's resident memory, in bytes; 0 where that cannot be known.

    Not getrusage: on Linux its figure starts with what the parent held.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415 - not everywhere

        most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
    return 0


class Bench:
    """An adapter and the model it has loaded."""

    def __init__(self, adapter: str) -> None:
        self._names = runpy.run_path(adapter)
        self._model: Any = None

    def prepare(self, folder: str) -> dict[str, Any]:
        """Makes the subject's own format."""
        return {"answer": str(self._names["prepare"](Path(folder)))}

    def load(self, path: str, threads: int, arguments: dict[str, Any]) -> dict[str, Any]:
        """Makes the model ready."""
        self._model = self._names["Model"](Path(path), threads, **arguments)
        return {"answer": self._names["version"]()}

    def generate(self, ids: list[list[int]], count: int, settings: dict[str, Any], ticks: bool) -> dict[str, Any]:
        """New tokens, and when each of them came."""
        times: list[float] = []
        start = perf_counter()
        tick = {"tick": lambda: times.append(perf_counter() - start)} if ticks else {}
        return {"answer": self._model.generate(ids, count, **tick, **settings), "ticks": times}

    def read(self) -> dict[str, Any]:
        """Memory, and how fast."""
        return {"answer": self._model.read()}


def main() -> None:
    """Answers until the input ends."""
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bench = None
    for line in sys.stdin:
        request = json.loads(line)
        start = perf_counter()
        try:
            bench = bench or Bench(sys.argv[1])
            answer = getattr(bench, request.pop("do"))(**request)
            answer |= {"seconds": perf_counter() - start, "peak": peak()}
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent reports it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=wire, flush=True)
    os._exit(0)  # some libraries wait for their threads at the ordinary exit


if __name__ == "__main__":
    main()
