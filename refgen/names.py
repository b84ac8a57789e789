"""A model's name → the folder, or the file, that holds it. Rule CKPT-15 of SPEC.md.

refgen looks for a path on this machine, then among its own models, then in the local cache of the Hugging Face Hub, and last on
the Hub. hub.py, imported only when it is needed, does the last two.
"""

import os
import re
from pathlib import Path

from refgen.errors import CheckpointError, listed
from refgen.shipped import BUILT_IN, shipped

REPOSITORY = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*", re.ASCII)
CACHED = "models--"  # how the Hub's cache begins the name of a model's folder


def find_model(
    path_or_name: str | os.PathLike[str],
    needs: str = "all",
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """CKPT-15. The folder of a model, or the one file that it is.

    needs             "config", "model" (config and weights), "tokenizer" or "all": the files to find
    revision          a branch, tag or commit of the Hub's repository; `main` by default
    cache_dir         a folder to use instead of the Hub's usual cache
    local_files_only  True uses no network

    Raises `CheckpointError`, which lists the places that were searched.
    """
    if not isinstance(path_or_name, str | os.PathLike):
        raise CheckpointError(f"{path_or_name!r}", "must be a folder or a name", "CKPT-15")
    name, path = os.fspath(path_or_name), Path(path_or_name)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)[:100]
        raise CheckpointError(f"{name[:200]!r}", f"cannot be looked at: {why}", "CKPT-15") from None
    if is_folder and path.resolve().name.startswith(CACHED) and (path / "snapshots").is_dir():
        return snapshot(path, revision)
    if exists or name in BUILT_IN:
        if revision not in (None, "main"):
            problem = f"has no revisions: {name} is on this machine"
            raise CheckpointError(f"revision={revision!r}", problem, "CKPT-15", "Leave revision out.")
        return path if exists else shipped("weights") / name
    if not REPOSITORY.fullmatch(name) or not name[-1].isalnum() or ".." in name or "--" in name or len(name) > 96:
        remedy = (
            f"Give the folder with config.json, one of {', '.join(BUILT_IN)}, or a name such as openai-community/gpt2."
        )
        raise CheckpointError(f"{name[:200]!r}", "does not exist, and cannot be the name of a model", "CKPT-15", remedy)
    from refgen.hub import fetch  # noqa: PLC0415 - only for names of the Hub

    return fetch(name, needs, revision or "main", cache_dir, local_files_only=local_files_only)


def snapshot(cached: Path, revision: str | None) -> Path:
    """CKPT-15. The folder of one revision inside a `models--…` folder of a cache.

    Without `revision` it is `main`, or the only one in the cache. Raises `CheckpointError`.
    """
    wanted = revision or "main"
    reference = cached / "refs" / wanted
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else wanted
    there = sorted(each.name for each in (cached / "snapshots").iterdir() if each.is_dir())
    if commit not in there and revision is None and len(there) == 1:
        (commit,) = there
    if commit not in there:
        problem = f"holds no revision {wanted}, only {listed(there) or 'none'}"
        raise CheckpointError(str(cached), problem, "CKPT-15", "Pass revision=.")
    return cached / "snapshots" / commit


def beside(model: Path) -> Path:
    """The folder with a model's other files: the model's own folder, or the folder of its file."""
    return model if model.is_dir() else model.parent


def short_name(folder: Path) -> str:
    """The short name of a model: its folder's name, or in the Hub's cache the repository's."""
    repository = folder.parent.parent.name
    inside = folder.parent.name == "snapshots" and repository.startswith(CACHED)
    return repository.rpartition("--")[2] if inside else folder.name
