"""Compares the memory that a call needs with the memory that is free, and refuses a call that cannot fit. Rule ROOM-01 of SPEC.md."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from refgen.errors import RefgenError

SMALL = 2**26  # a smaller need is not checked; the check takes longer than a step of a small model


def available(root: Path = Path("/")) -> int | None:
    """The bytes that this process can still use within its control group's limit and the machine, or None if unknown."""
    found = [free for free in (*free_in_groups(root), free_on_machine(root)) if free is not None]
    return min(found, default=None)


def free_on_machine(root: Path) -> int | None:
    """Linux's MemAvailable: the bytes that are free without swapping."""
    for line in lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def free_in_groups(root: Path) -> Iterator[int | None]:
    """The bytes left in this process's control group and in each group above it, for both versions of Linux's control groups."""
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        version_2 = controllers == ""
        mount = root / "sys/fs/cgroup" / ("" if version_2 else "memory")
        limit, usage = (
            ("memory.max", "memory.current") if version_2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        for folder in {mount, *(mount / each.relative_to("/") for each in (Path(path), *Path(path).parents))}:
            numbers = [int(text) for name in (limit, usage) for text in lines(folder / name)[:1] if text.isdecimal()]
            if len(numbers) == 2:  # "max" means no limit
                yield max(0, numbers[0] - numbers[1] + cached(folder))


def cached(folder: Path) -> int:
    """The bytes of cached files that a group can release, such as mapped weights."""
    counted = dict(line.split()[:2] for line in lines(folder / "memory.stat") if " " in line)
    return int(counted.get("total_inactive_file", counted.get("inactive_file", 0)))


def lines(path: Path) -> list[str]:
    """The lines of a system file, or an empty list without the file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


@dataclass(frozen=True)
class Need:
    """The memory of a call: its name, bytes by purpose, the class of the error, and the remedy in it."""

    subject: str
    parts: Mapping[str, int]
    error: type[RefgenError]
    remedy: str

    def check(self) -> Self:
        """ROOM-01. Raises the error if less memory is free."""
        total = sum(self.parts.values())
        free = available() if total >= SMALL else None
        if free is not None and total > free:
            raise self.refusal(f"{free:,} bytes are free")
        return self

    @contextmanager
    def or_refused(self) -> Iterator[None]:
        """ROOM-01. Turns NumPy's `MemoryError` into the same error, for systems that do not report free memory."""
        try:
            yield
        except MemoryError as failure:
            why = f" ({str(failure)[:100]})" if str(failure) else ""
            raise self.refusal(f"NumPy could not have them{why}") from None

    def refusal(self, why: str) -> RefgenError:
        """The error, with the bytes of each part."""
        parts = ", ".join(f"{name} {count:,} bytes" for name, count in self.parts.items() if count)
        problem = f"needs {sum(self.parts.values()):,} bytes ({parts}), and {why}"
        return self.error(self.subject, problem, "ROOM-01", self.remedy)
