"""Files and folders that commands write: checked before any work is done for them, and never overwritten without --force."""

import os
from pathlib import Path

from refgen.errors import UsageError

REPLACE = "Add --force to replace it."


def check_output(path: Path, flag: str, *, force: bool) -> None:
    """Raises `UsageError` for a file that cannot be written, or exists and is not to be replaced."""
    named = f"{flag} {path}"
    if path.is_dir():
        raise UsageError(named, "is a folder, must be a file")
    if not path.parent.is_dir():
        raise UsageError(named, f"folder {path.parent} does not exist")
    if path.is_file() and not force:
        raise UsageError(named, "exists already", remedy=REPLACE)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(named, "cannot be written: permission denied")


def check_folder(folder: Path, *, force: bool) -> None:
    """Raises `UsageError` for a folder that is a file, or holds something already that is not to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(str(folder), "is a file, must be a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(str(folder), "exists already", remedy="Add --force to replace its files.")
