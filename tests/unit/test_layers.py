"""Imports go down: what a reader has read of a layer never sends him to one above it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import refgen

ROOT = Path(refgen.__file__).parent
LAYERS = (
    "",
    "generation",
    "oracle",
    "bench",
    "auto",
    "conformance",
    "cli",
)  # bottom up; "" is what lies in refgen/ itself
OUTSIDE = {"__init__", "__main__"}  # the names that refgen offers, and the way in


def imports() -> dict[str, set[str]]:
    """The modules of refgen, `generation.loop` for instance, and those that each imports."""
    found = {}
    for file in ROOT.rglob("*.py"):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        lines = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        modules = [(line.module or "", alias.name) for line in lines for alias in line.names]
        found[name] = {
            ".".join([*module.split(".")[1:], alias] if is_module(module, alias) else module.split(".")[1:])
            for module, alias in modules
            if module.split(".")[0] == "refgen"
        }
    return {name: targets for name, targets in found.items() if name not in OUTSIDE}


def is_module(package: str, name: str) -> bool:
    """Whether `from package import name` imports a file."""
    return (ROOT.joinpath(*package.split(".")[1:]) / f"{name}.py").is_file()


def layer(module: str) -> int:
    """How high a module lies."""
    first = module.split(".", maxsplit=1)[0]
    return LAYERS.index(first) if first in LAYERS else 0


def test_imports_go_down():
    """No module imports from a layer above its own, and none in a circle."""
    graph = imports()
    assert len(graph) > 40
    upward = [(name, target) for name, targets in graph.items() for target in targets if layer(target) > layer(name)]
    assert not upward
    list(TopologicalSorter(graph).static_order())
