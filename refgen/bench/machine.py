"""The machine that a figure was measured on: processor, caches, memory, versions. Unreadable values are left out."""

import contextlib
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import refgen

PROCESSOR, MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(threads: int) -> dict[str, Any]:
    """All of it."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": field(PROCESSOR, "model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": threads,
        "caches": caches(),
        "memory": field(MEMORY, "MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": f"{np.__version__}, {blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "refgen": refgen.__version__,
    }


def field(path: Path, name: str) -> str:
    """The first value of `name : value` in a file of the kernel's."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def caches() -> str:
    """Such as "L1d 32K, L2 1024K, L3 36608K"."""
    found = []
    with contextlib.suppress(OSError):
        for index in sorted(CACHES.glob("index*")):
            level, kind, size = (
                (index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found)
