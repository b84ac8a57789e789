"""The ways to compute the network that model.py defines, each chosen by its name.

    plain       the definition itself, slow and easy to follow
    numpy       the default: long prompts in parts, a thread each; weights as one row's product reads them fastest
    canonical   every operation rounded once, so that logits have the same bits on every machine (CANON-01)

engine.py has the contract. To add an engine, write a file with a class here and a line in `ENGINES`. The laws of
tests/properties/test_engine_laws.py then test it too.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from refgen.engines.engine import Engine, Work
from refgen.errors import ConfigError, did_you_mean

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "plain": "refgen.engines.plain:PlainEngine",
        "numpy": "refgen.engines.numpy:NumpyEngine",
        "canonical": "refgen.engines.canonical:CanonicalEngine",
    }
)
DEFAULT = "numpy"


def find_engine(name: Any) -> type[Engine]:
    """The class of an engine, imported at its first use. Raises `ConfigError` for an unknown name."""
    if not isinstance(name, str) or name not in ENGINES:
        remedy = did_you_mean(name, ENGINES)
        raise ConfigError(f"engine={name!r}", f"must be one of {', '.join(ENGINES)}", "CANON-01", remedy)
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


__all__ = ["DEFAULT", "ENGINES", "Engine", "Work", "find_engine"]
