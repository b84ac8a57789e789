"""The definitions stay short enough to be read in ten minutes."""

from pathlib import Path

import pytest

import refgen
from scripts.count_lines import counted

ROOT = Path(refgen.__file__).parent


@pytest.mark.parametrize(("file", "most"), [("model.py", 150), ("bpe.py", 70)])
def test_definitions_are_short(file, most, figures):
    """So many lines of code at most, and no function longer than 15."""
    lines, functions = counted(ROOT / file)
    figures.append(f"{file}: {lines} lines of code, longest function {functions[0][1]} with {functions[0][0]}")
    assert lines <= most
    assert functions[0][0] <= 15
