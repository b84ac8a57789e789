"""Measures how often the kit names the rule of a fault that it does not know. It runs every planted fault, with a third
of the faults unknown.

    python scripts/measure_naming.py [--family forward] [--stride 1]

A hash of the name chooses the third. While a fault is planted, its whole third is removed from the catalogues that
findings are compared with. So only the failed checks can point at the rule. All of them take some fifteen minutes on
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

from refgen.conformance.judging import judge, token_law, trial  # noqa: E402
from refgen.conformance.planted import sampler_faults  # noqa: E402
from refgen.conformance.planted.subject_faults import FAMILIES, FAULTS  # noqa: E402
from refgen.conformance.questions.models import Models  # noqa: E402
from refgen.oracle.diagnose import diagnose  # noqa: E402
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

    def among_the_rest(p: Any, views: Any, faults: Any = KNOWN) -> Any:
        return diagnose(p, views, rest(faults))

    with ExitStack() as stack:
        stack.enter_context(patch.object(judge, "diagnose", among_the_rest))
        stack.enter_context(patch.object(token_law, "FAULTS", rest(sampler_faults.FAULTS)))
        stack.enter_context(patch.object(trial, "NUMBERS", rest(sampler_faults.NUMBERS)))
        yield


def main() -> None:
    """Asks and counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=FAMILIES, help="only faults of this one")
    parser.add_argument("--stride", type=int, default=1, help="take every N-th fault")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    models = Models()
    asked, caught, named = (Counter[str]() for _ in range(3))
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
