"""Counts lines of code: without docstrings, comments, blank lines, and what a signature needs to say its shapes.

scripts/count_lines.py refgen/model.py     lines, and the longest functions
"""

import ast
import sys
from pathlib import Path

SHOWN = 3


def counted(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """The lines of a file, and those of each function's body, longest first."""
    text = path.read_text(encoding="utf-8")
    tree, left_out = ast.parse(text), set[int]()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    documented: list[ast.Module | ast.FunctionDef | ast.ClassDef] = [tree, *functions, *classes]
    for node in documented:
        if ast.get_docstring(node) is not None:
            left_out.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    for function in functions:
        left_out.update(range(function.lineno + 1, function.body[0].lineno))
    code = [
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in left_out and line.strip() and not line.strip().startswith("#")
    ]
    lengths = [
        (sum(each.body[0].lineno <= number <= (each.end_lineno or 0) for number in code), each.name)
        for each in functions
    ]
    return len(code), sorted(lengths, reverse=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        lines, longest = counted(Path(name))
        print(f"{name}: {lines} lines of code; longest: {', '.join(f'{n} {f}' for f, n in longest[:SHOWN])}")
