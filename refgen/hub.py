"""Finds models of the Hugging Face Hub in the local cache, and downloads what is missing. Rule CKPT-15 of SPEC.md.

`huggingface_hub` does the work on the cache and the network, so its variables apply: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT,
HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DISABLE_PROGRESS_BARS. This module chooses the files, takes all of them from one commit, and
explains errors. It uses the network only if the cache does not know whether a file exists.
"""

import json
import os
import ssl
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from refgen.errors import CheckpointError, did_you_mean
from refgen.shipped import BUILT_IN

CONFIG, INDEX_END = "config.json", ".index.json"
WEIGHTS = (  # the first that is there, as in checkpoints.FORMATS
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "ckpt.pt",
)  # fmt: skip
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.bpe",
)  # fmt: skip
VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"vocab.bpe"})  # any of these is a tokenizer


def fetch(
    name: str, needs: str, revision: str, cache_dir: str | os.PathLike[str] | None, *, local_files_only: bool
) -> Path:
    """CKPT-15. The folder in the cache with the files for `needs`, all of one commit. Missing files are downloaded.

    `needs` is as in `names.find_model`. Raises `CheckpointError`, which lists the places that were searched.
    """
    repository = Repository(name, revision, cache_dir, offline=local_files_only)
    found = {file for file in (CONFIG, *(TOKENIZER if needs in ("tokenizer", "all") else ())) if repository.holds(file)}
    if needs in ("model", "all"):
        repository.holds("generation_config.json")
        weights = find_weights(repository)
    else:
        weights = True
    tokenizer = needs in ("config", "model") or any(each <= found for each in VOCABULARIES)
    if repository.folder == repository.cache or (needs != "tokenizer" and CONFIG not in found):
        raise repository.error("was not found" if not found else f"has no {CONFIG} there")
    if needs == "tokenizer" and not tokenizer:
        raise repository.error("has no tokenizer there")
    if not weights:
        raise repository.error("has no weights there that refgen reads")
    return repository.folder


def find_weights(repository: "Repository") -> bool:
    """Whether the repository has weights: the first of `WEIGHTS` that exists, with all its shards.

    Weights in the cache are not downloaded again in another form.
    """
    for look in (repository.cached, repository.holds):
        for file in WEIGHTS:
            if look(file):
                if not file.endswith(INDEX_END) or all(map(repository.holds, shards(repository.folder / file))):
                    return True
                break
    return False


def shards(index: Path) -> list[str]:
    """The files that an index names. It is empty for a damaged index, which is an error when the weights are read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(name for name in names if Path(name).name == name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


class Repository:
    """One model of the Hub at one revision. `folder` is its folder in the cache, known once a file was found."""

    def __init__(self, name: str, revision: str, cache_dir: str | os.PathLike[str] | None, *, offline: bool) -> None:
        self.name, self.revision, self.asked = name, revision, revision
        self.cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir).expanduser()
        self.folder = self.cache
        self.answers: bool | None = None
        self.why_offline = "local_files_only=True" if offline else ""
        if constants.HF_HUB_OFFLINE and not offline:
            self.why_offline = "HF_HUB_OFFLINE is set"

    def holds(self, file: str) -> bool:
        """Whether the repository has `file`; if so, it is now in `folder`. Raises `CheckpointError` if the download fails."""
        found = try_to_load_from_cache(self.name, file, self.cache, self.revision)
        if found is None and self.may_ask():
            found = self.download(file)
        return self.take(found)

    def cached(self, file: str) -> bool:
        """Whether the cache has `file`. Does not use the network."""
        return self.take(try_to_load_from_cache(self.name, file, self.cache, self.revision))

    def take(self, found: Any) -> bool:
        """Whether `found` is the path of a file. If so, remembers its folder and its commit."""
        if not isinstance(found, str):
            return False
        self.folder = Path(found).parent
        self.revision = self.folder.name  # from here on the commit, so that a push in between changes nothing
        return True

    def may_ask(self) -> bool:
        """Whether to ask the Hub. One short request shows whether it answers, because the library would wait long."""
        if self.answers is None and not self.why_offline:
            self.answers = True
            if why := silent(constants.ENDPOINT):
                self.why_offline = f"cannot be reached: {why}"
        return not self.why_offline

    def download(self, file: str, again: bool = True) -> str | None:
        """Downloads `file` and returns its path, or None if the Hub does not have it or cannot be reached."""
        try:
            return str(hf_hub_download(self.name, file, revision=self.revision, cache_dir=self.cache))
        except LocalEntryNotFoundError as error:
            self.why_offline = f"cannot be reached: {first_line(error.__cause__ or error)}"
        except EntryNotFoundError:
            pass
        except RevisionNotFoundError:
            self.refused(f"has no revision {self.asked}")
        except GatedRepoError:
            self.refused("is gated", "Ask for access on its page, and set HF_TOKEN.")
        except RepositoryNotFoundError:
            self.refused("was not found", "For a private model set HF_TOKEN.")
        except Exception as error:  # noqa: BLE001 - any failure of the network, the server or the disk is one clear error
            if again and type(error).__name__ == "ChunkedEncodingError":  # version 0 resumes only if it is called again
                return self.download(file, again=False)
            problem = f"{file} could not be downloaded: {type(error).__name__}: {first_line(error)}"
            raise self.error(problem, "Try again.") from None
        return None

    def refused(self, problem: str, remedy: str = "") -> None:
        """The Hub does not show the model. Raises `CheckpointError` unless the cache has a part of it, which is then used."""
        if self.folder == self.cache:
            raise self.error(problem, remedy)
        self.why_offline = f"it {problem}"

    def error(self, problem: str, remedy: str = "") -> CheckpointError:
        """CKPT-15. The error, with all places that were searched."""
        hub = f"{constants.ENDPOINT}" + (f" ({self.why_offline})" if self.why_offline else "")
        places = f"the folder {self.name}, the models of refgen ({', '.join(BUILT_IN)}), the cache {self.cache}"
        looked = f"Looked in {places} (revision {self.asked}), and {hub}."
        remedy = remedy or did_you_mean(self.name, BUILT_IN)
        return CheckpointError(self.name, problem, "CKPT-15", f"{looked} {remedy}".strip())


def silent(url: str) -> str:
    """The reason why `url` does not answer, or an empty text if it does. An error or an unknown certificate is an answer."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10):  # noqa: S310 - the Hub's own address
            return ""
    except HTTPError:
        return ""
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else first_line(reason)


def first_line(error: object) -> str:
    """The first line of an error's text, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
