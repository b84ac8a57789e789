"""The worked examples in docstrings give the numbers they show."""

import doctest
import importlib
import pkgutil

from refgen import generation

MODULES = sorted(each.name for each in pkgutil.walk_packages(generation.__path__, "refgen.generation."))


def test_every_example_runs():
    """Top-p from the tail, the exponential race, and whatever else a docstring of generation/ shows."""
    results = {name: doctest.testmod(importlib.import_module(name)) for name in MODULES}
    assert [name for name, result in results.items() if result.failed] == []
    shown = {name for name, result in results.items() if result.attempted}
    assert shown >= {"refgen.generation.pick", "refgen.generation.processors.sampling"}
