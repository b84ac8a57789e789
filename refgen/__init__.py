"""refgen: the executable specification of GPT-2 text generation, in NumPy.

    from refgen import AutoModelForCausalLM, AutoTokenizer

Read `refgen/model.py` first, then `refgen/generation/loop.py`; SPEC.md has the rules they cite.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refgen.public import *  # noqa: F403

__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """A module of refgen's, or a name of `public.py`: imported when it is needed, and the command line's --help needs none."""
    if not name.startswith("_") and find_spec(f"refgen.{name}") is not None:
        return import_module(f"refgen.{name}")
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'refgen' has no attribute {name!r}")
    public = import_module("refgen.public")
    if name == "__all__":
        return sorted([*public.__all__, "__version__"])
    if name not in public.__all__:
        raise AttributeError(f"module 'refgen' has no attribute {name!r}")
    return getattr(public, name)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
