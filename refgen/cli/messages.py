"""The messages of commands on stderr: one line each, in the terms of the command line."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

from refgen.cli import color
from refgen.errors import IgnoredSettingWarning
from refgen.progress import tell


def complain(kind: str, message: str) -> None:
    """Prints one line, in place of any progress."""
    tell("")
    print(f"refgen: {color.painted(f'{kind}:', color.RED, sys.stderr)} {message}", file=sys.stderr)


def text_of(error: BaseException) -> str:
    """The text of an exception. An error about a file begins with its name."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}."
    return str(error) or type(error).__name__


def show_warnings(say: Callable[[str], str]) -> None:
    """Lets warnings be one line, without the place in the code; `say` puts them in the words of the command line."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        kind = "note" if issubclass(category, IgnoredSettingWarning) else "warning"
        print(f"refgen: {kind}: {say(str(message))}", file=sys.stderr)

    warnings.showwarning = show
