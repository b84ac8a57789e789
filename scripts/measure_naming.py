"""Measures how often the kit names the rule of a fault that it does not know. It runs every planted fault, with a third
of the faults unknown.

    python scripts/measure_naming.py [--family forward] [--stride 1]
    python scripts/measure_naming.py --pairs 100 [--seed 0]

A hash of the name chooses the third. While a fault is planted, its whole third is removed from the catalogues that
findings are compared with. So only the failed checks can point at the rule. All of them take an hour of
one processor. One line for each fault goes to stderr, the figures to stdout.
"""

import argparse
import random
import sys
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


from refgen.conformance.judging import judge, texts  # noqa: E402
from refgen.conformance.judging.run import Run  # noqa: E402
from refgen.conformance.planted.sampler_faults import FAULTS as SAMPLER_FAULTS  # noqa: E402
from refgen.conformance.planted.subject_faults import FAMILIES as KINDS  # noqa: E402
from refgen.conformance.planted.subject_faults import FAULTS, SubjectFault, in_network  # noqa: E402
from refgen.conformance.questions.models import Models  # noqa: E402
from refgen.conformance.runner import check  # noqa: E402
from refgen.conformance.subjects.python import Factory, PythonSubject, describe  # noqa: E402
from refgen.oracle.diagnose import diagnose  # noqa: E402
from refgen.oracle.families import FAMILIES  # noqa: E402
from refgen.oracle.faults import FAULTS as KNOWN  # noqa: E402
from scripts.make_kills import ONLY  # noqa: E402


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


def pairs(count: int, seed: int) -> list[SubjectFault]:
    """Subjects with two faults of forward passes each, one after the other."""
    chance = random.Random(seed)
    known = [fault for fault in KNOWN if not fault.equivalent]
    drawn = [chance.sample(known, 2) for _ in range(count)]
    return [
        SubjectFault(
            f"{first.name} and {second.name}",
            f"{first.sentence} {second.sentence}",
            (*first.rules, *second.rules),
            "forward",
            in_network(lambda p, a=first, b=second: b.change(a.change(p))),  # type: ignore[misc]
        )
        for first, second in drawn
    ]


def repeats(run: Run, factory: Factory, models: Models) -> tuple[int, int]:
    """How many of the commands that a report prints fail again, of how many: one for each kind of failure."""
    kinds: dict[Any, str] = {}
    for each in run.results:
        if each.verdict.bad and "again" not in each.finding.facts:
            kinds.setdefault((each.claim, each.rules[:1], each.finding.fault), each.id)
    again = 0
    for check_id in kinds.values():
        subject = PythonSubject(factory, describe(factory, models["shakespeare"]))
        alone = check(subject, models, only=[check_id])
        again += any(each.id == check_id and each.verdict.bad for each in alone.results)
    return again, len(kinds)


def main() -> None:
    """Runs the kit and counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=KINDS, help="only faults of this one")
    parser.add_argument("--stride", type=int, default=1, help="take every Nth fault")
    parser.add_argument("--pairs", type=int, default=0, help="N drawn pairs of faults of forward passes instead")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the pairs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    models = Models()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    chosen = [each for each in FAULTS if options.family in (None, each.family)][:: options.stride]
    for fault in pairs(options.pairs, options.seed) if options.pairs else chosen:
        with ExitStack() as stack:
            if not options.pairs:
                stack.enter_context(unknown(third(fault.name)))
            run = check(
                PythonSubject(fault.plant, describe(fault.plant, models["shakespeare"])), models, ONLY[fault.family]
            )
            again, printed = repeats(run, fault.plant, models)
        said = f"{run.suspects[0].rule} {', '.join(run.suspects[0].faults)}".strip() if run.suspects else "nothing"
        is_right = bool(run.suspects) and run.suspects[0].rule in fault.rules
        print(
            f"{fault.family} {fault.name}: first {said}{'' if is_right else ' (wrong)'}, is {', '.join(fault.rules)}, "
            f"{again} of {printed} repeat",
            file=sys.stderr,
        )
        for family in (fault.family, "all"):
            is_caught = any(each.verdict.bad for each in run.results)
            counts[family].update(faults=1, caught=is_caught, named=is_right, again=again, printed=printed)
    for family, each in counts.items():
        print(
            f"{family}: {each['faults']} faults, {each['caught']} caught, {each['named']} with one of their rules first, "
            f"{each['again']} of {each['printed']} commands fail again"
        )


if __name__ == "__main__":
    main()
