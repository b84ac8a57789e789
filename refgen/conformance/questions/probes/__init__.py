"""Probe checkpoints: real GPT-2 networks written by hand, each of which says by its tokens whether a rule is kept. docs/probes.md."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from refgen.conformance.questions.cases import Case
from refgen.conformance.questions.probes import chance, known, memory, rulers, structure, tables
from refgen.conformance.questions.probes.probe import Probe, expectations, write
from refgen.errors import ConformanceError

__all__ = ["PROBES", "Probe", "cases_of", "expectations", "find", "write"]

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
        "count": known.count,
        "clock-stop": known.clock_stop,
        "clock-utf8": known.clock_utf8,
        "copy-3": memory.copy_3,
        "copy-5": memory.copy_5,
        "first": memory.first,
        "induction": memory.induction,
        "leak": memory.leak_plain,
        "leak-large": memory.leak_large,
        "table": tables.table,
        "narrow": tables.narrow,
        "beam": tables.beam,
        "successor": structure.successor,
        "layers": structure.layers,
        "untied": structure.untied,
        "heads": rulers.heads,
        "scale": rulers.scale,
        "scale-off": rulers.scale_off,
        "scale-by-layer": rulers.scale_by_layer,
        "attention-biases": rulers.attention_biases,
        "mlp-biases": rulers.mlp_biases,
        "gelu": rulers.gelu,
        "gelu-tanh": rulers.gelu_tanh,
        "gelu-exact": rulers.gelu_exact,
        "relu": rulers.relu,
        "variance": rulers.variance,
        "epsilon": rulers.epsilon,
        "epsilon-large": rulers.epsilon_large,
    }
)


def find(name: str) -> Probe:
    """The probe of that name, built. Raises `ConformanceError`."""
    if name in PROBES:
        return PROBES[name]()
    close = difflib.get_close_matches(name, PROBES, n=1)
    remedy = f"Did you mean {close[0]}?" if close else "See refgen export probes --list."
    raise ConformanceError(f"probe {name!r}", "does not exist", remedy=remedy)


def cases_of(name: str) -> tuple[Case, ...]:
    """The questions of one probe."""
    return find(name).cases
