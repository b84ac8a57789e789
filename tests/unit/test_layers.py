"""Imports go down: what a reader has read of a layer never sends him to one above it."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import refgen
import refgen.conformance

ROOT = Path(refgen.__file__).parent
FLOORS = ("", "engines", "generation", "auto", "oracle", "conformance", "doors")  # "" is what lies in refgen/ itself
DOORS = ("cli", "bench", "serve")
OUTSIDE = {"__init__", "__main__", "public"}  # the names that refgen offers, and the way in


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
    first = "doors" if first in DOORS else first
    return FLOORS.index(first) if first in FLOORS else 0


def test_imports_go_down():
    """No module imports from a layer above its own, and none in a circle."""
    graph = imports()
    assert len(graph) > 40
    upward = [(name, target) for name, targets in graph.items() for target in targets if layer(target) > layer(name)]
    assert not upward
    list(TopologicalSorter(graph).static_order())


def test_rooms_of_the_kit_import_one_way():
    """A room of conformance/ imports only from those that its docstring lists above it, and from nothing at the top."""
    rooms = re.findall(r"^    (\w+)/", refgen.conformance.__doc__ or "", re.MULTILINE)
    assert sorted(rooms) == sorted(each.parent.name for each in (ROOT / "conformance").glob("*/__init__.py"))
    pairs = [
        (name.split(".")[1:], target.split(".")[1:])
        for name, targets in imports().items()
        for target in targets
        if name.startswith("conformance.") and target.startswith("conformance")
    ]
    height = {room: number for number, room in enumerate(rooms)}
    inside = [(name, target) for name, target in pairs if name[0] in height]
    assert len(inside) > 100
    wrong = [
        (name, target) for name, target in inside if not target or height.get(target[0], len(rooms)) > height[name[0]]
    ]
    assert not wrong
