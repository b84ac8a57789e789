"""Probe checkpoints: real GPT-2 networks written by hand, each of which says by its tokens whether a rule is kept. docs/probes.md."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from refgen.conformance.cases import Case
from refgen.conformance.probes import chance, known
from refgen.conformance.probes.probe import Probe, write

__all__ = ["PROBES", "Probe", "cases_of", "write"]

PROBES: Mapping[str, Callable[[], Probe]] = MappingProxyType(
    {
        "dice-dyadic": known.dice_dyadic,
        "dice-ties": known.dice_ties,
        "dice-wide": known.dice_wide,
        "dice-signs": known.dice_signs,
        "dice-end": known.dice_end,
        "dice-loaded": chance.dice_loaded,
        "dice-peak": chance.dice_peak,
        "dice-pair": chance.dice_pair,
        "clock": known.clock_plain,
        "clock-stop": known.clock_stop,
        "clock-utf8": known.clock_utf8,
    }
)


def cases_of(name: str) -> tuple[Case, ...]:
    """The questions of one probe."""
    return PROBES[name]().cases
