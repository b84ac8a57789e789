"""Measures how often the kit names the rule of a fault that it does not know. It runs every planted fault, with a third
of the faults unknown.

    python scripts/measure_naming.py [--family forward] [--stride 1]

A hash of the name chooses the third. While a fault is planted, its whole third is removed from the catalogues that
findings are compared with. So only the failed checks can point at the rule. All of them take an hour of
one processor. One line for each fault goes to stderr, the figures to stdout.
"""

import argparse
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


from refgen.conformance.judging import judge, texts  # noqa: E402
from refgen.conformance.planted.sampler_faults import FAULTS as SAMPLER_FAULTS  # noqa: E402
from refgen.conformance.planted.subject_faults import FAMILIES as KINDS  # noqa: E402
from refgen.conformance.planted.subject_faults import FAULTS  # noqa: E402
from refgen.conformance.questions.models import Models  # noqa: E402
from refgen.oracle.diagnose import diagnose  # noqa: E402
from refgen.oracle.families import FAMILIES  # noqa: E402
from refgen.oracle.faults import FAULTS as KNOWN  # noqa: E402
from scripts.make_kills import ONLY, verdict  # noqa: E402


def third(name: str) -> int:
    """0, 1 or 2."""
    return zlib.crc32(name.encode()) % 3


@contextmanager
def unknown(number: int) -> Iterator[None]:
    """Without one third of every catalogue."""

    def rest(faults: Any) -> tuple[Any, ...]:
        return tuple(each for each in faults if third(each.name) != number)

    def among_the_rest(p: Any, views: Any, faults: Any = KNOWN, families: Any = FAMILIES) -> Any:
        return diagnose(p, views, rest(faults) if faults is KNOWN else faults, families)

    with ExitStack() as stack:
        stack.enter_context(patch.object(judge, "diagnose", among_the_rest))
        stack.enter_context(patch.object(texts.explained, "__defaults__", (rest(KNOWN),)))
        stack.enter_context(patch("refgen.conformance.judging.token_law.FAULTS", rest(SAMPLER_FAULTS)))
        yield


def main() -> None:
    """Asks and counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=KINDS, help="only faults of this one")
    parser.add_argument("--stride", type=int, default=1, help="take every Nth fault")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    models = Models()
    asked: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    named: Counter[str] = Counter()
    chosen = [each for each in FAULTS if options.family in (None, each.family)][:: options.stride]
    for fault in chosen:
        with unknown(third(fault.name)):
            bad, said, right = verdict(fault, fault.plant, models, ONLY[fault.family])
        print(
            f"{fault.family} {fault.name}: {bad} checks fail, first {said}, is {', '.join(fault.rules)}",
            file=sys.stderr,
        )
        for family in (fault.family, "all"):
            asked[family] += 1
            caught[family] += bad > 0
            named[family] += right
    for family, count in asked.items():
        print(
            f"{family}: {count} unknown faults, {caught[family]} caught, {named[family]} with one of their rules first"
        )


if __name__ == "__main__":
    main()
