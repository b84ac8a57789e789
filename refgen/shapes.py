"""Shapes as types: `x: Float[ndarray, "B T C"]` is an array of floats with three axes.

A letter names an axis, and stands for one size wherever it appears in a signature; each module lists its letters. A digit
is a size, `...` stands for any axes in front. Python passes over the text; `tests/axes.py` calls every function with
such types and checks both the shapes and that float32 in is float32 out.
"""

from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int
from typing import Annotated as Whole  # Python integers of any size, in an array of objects

__all__ = ["Bool", "Float", "Int", "Whole"]
