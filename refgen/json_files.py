"""JSON files: the one way refgen reads an object from one."""

import json
from pathlib import Path
from typing import Any

from refgen.errors import RefgenError

MODEL_FOLDER = "A model folder holds config.json, model.safetensors and the tokenizer's files."


def read_object(path: Path, error: type[RefgenError], rule: str, remedy: str = MODEL_FOLDER) -> dict[str, Any]:
    """The object in `path`; raises `error`, citing `rule`, if there is no object, with `remedy` for a file that is not
    there.
    """
    if path.exists() and not path.is_file():
        raise error(str(path), "is not a file", rule)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise error(str(path), what, rule, remedy) from None
    except RecursionError:
        raise error(str(path), "cannot be read as JSON: it is nested too deeply", rule) from None
    except (OSError, ValueError) as problem:
        raise error(str(path), f"cannot be read as JSON: {problem}", rule) from None
    return object_of(text, str(path), error, rule)


def object_of(text: str, source: str, error: type[RefgenError], rule: str = "") -> dict[str, Any]:
    """The object that `text` is; raises `error`, naming `source`, for anything else."""
    try:
        entries = json.loads(text)
    except ValueError as problem:
        raise error(source, f"cannot be read as JSON: {problem}", rule) from None
    if not isinstance(entries, dict):
        raise error(source, "must hold a JSON object", rule)
    return entries
