"""Options that several commands have, and what is wrong with their values."""

from pathlib import Path
from typing import Any

from refgen.errors import RefgenError
from refgen.shipped import BUILT_IN


def add_model(command: Any) -> None:
    """--model, for `find_model`."""
    built_in = f"a Hugging Face folder, or the built-in {BUILT_IN[0]} (default)"
    command.add_argument("--model", default=BUILT_IN[0], metavar="DIR|NAME", help=built_in)


def check_output(path: Path | None, error: type[RefgenError]) -> None:
    """Refuses a file that cannot be written, before any work is done for it."""
    if path is not None and not path.parent.is_dir():
        raise error(str(path), "lies in no folder that exists")


def check_picture(path: Path | None, error: type[RefgenError]) -> None:
    """The same for a --plot, which needs the extra too."""
    if path is None:
        return
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise error("--plot", "needs matplotlib", remedy="pip install matplotlib") from None
    check_output(path, error)
