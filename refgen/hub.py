"""Models of the Hugging Face Hub: the files a task needs, from the local cache or downloaded into it. Rule CKPT-15 of SPEC.md.

Everything about the cache and the network is `huggingface_hub`'s, so its variables hold: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT,
HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DISABLE_PROGRESS_BARS. What is here is which files are wanted, that all are of one commit, and
errors. The network is asked only about files of which the cache does not know whether they exist.
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
    """CKPT-15. The folder in the cache with what `needs` names, all of one commit; what is missing is downloaded.

    Raises `CheckpointError` that says where it looked.
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
        raise repository.error("is not there" if not found else f"has no {CONFIG} there")
    if needs == "tokenizer" and not tokenizer:
        raise repository.error("has no tokenizer there")
    if not weights:
        raise repository.error("has no weights there that refgen reads")
    return repository.folder


def find_weights(repository: "Repository") -> bool:
    """Whether the weights are there: the first file that a format of checkpoints looks for, with all its shards.

    Weights that the cache has are not fetched again in another form.
    """
    for look in (repository.cached, repository.holds):
        for file in WEIGHTS:
            if look(file):
                if not file.endswith(INDEX_END) or all(map(repository.holds, shards(repository.folder / file))):
                    return True
                break
    return False


def shards(index: Path) -> list[str]:
    """The files that an index names; none for an index that is damaged, which is an error once it is read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(name for name in names if Path(name).name == name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


class Repository:
    """One model of the Hub at one revision. `folder` is where its files lie in the cache, once one was found."""

    def __init__(self, name: str, revision: str, cache_dir: str | os.PathLike[str] | None, *, offline: bool) -> None:
        self.name, self.revision, self.asked = name, revision, revision
        self.cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir).expanduser()
        self.folder = self.cache
        self.answers: bool | None = None
        self.why_offline = "local_files_only=True" if offline else ""
        if constants.HF_HUB_OFFLINE and not offline:
            self.why_offline = "HF_HUB_OFFLINE is set"

    def holds(self, file: str) -> bool:
        """Whether the repository has `file`, which is then in `folder`. Raises `CheckpointError` if that cannot be known."""
        found = try_to_load_from_cache(self.name, file, self.cache, self.revision)
        if found is None and self.may_ask():
            found = self.download(file)
        return self.take(found)

    def cached(self, file: str) -> bool:
        """Whether the cache has `file`; asks nobody."""
        return self.take(try_to_load_from_cache(self.name, file, self.cache, self.revision))

    def take(self, found: Any) -> bool:
        """Whether that is a file. Where it lies is then `folder`."""
        if not isinstance(found, str):
            return False
        self.folder = Path(found).parent
        self.revision = self.folder.name  # from here on the commit, so that nobody's push comes in between
        return True

    def may_ask(self) -> bool:
        """Whether the Hub may be asked. One try shows whether it answers at all, for the library would wait long for it."""
        if self.answers is None and not self.why_offline:
            self.answers = True
            if why := silent(constants.ENDPOINT):
                self.why_offline = f"cannot be reached: {why}"
        return not self.why_offline

    def download(self, file: str, again: bool = True) -> str | None:
        """The path of `file`, fetched; None if the Hub has none, or cannot be reached."""
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
            self.refused("is not there", "For a private model set HF_TOKEN.")
        except Exception as error:  # noqa: BLE001 - whatever the network, the server or the disk did: one clear error
            if again and type(error).__name__ == "ChunkedEncodingError":  # version 0 goes on only if it is called again
                return self.download(file, again=False)
            problem = f"{file} could not be downloaded: {type(error).__name__}: {first_line(error)}"
            raise self.error(problem, "Try again.") from None
        return None

    def refused(self, problem: str, remedy: str = "") -> None:
        """The Hub shows nothing of it. Raises `CheckpointError` unless the cache has some of it; then the cache is all there is."""
        if self.folder == self.cache:
            raise self.error(problem, remedy)
        self.why_offline = f"it {problem}"

    def error(self, problem: str, remedy: str = "") -> CheckpointError:
        """CKPT-15. The error, with all places that were looked at."""
        hub = f"{constants.ENDPOINT}" + (f" ({self.why_offline})" if self.why_offline else "")
        places = f"the folder {self.name}; the models of refgen ({', '.join(BUILT_IN)}); the cache {self.cache}"
        looked = f"Looked in: {places}, revision {self.asked}; {hub}."
        remedy = remedy or did_you_mean(self.name, BUILT_IN)
        return CheckpointError(self.name, problem, "CKPT-15", f"{looked} {remedy}".strip())


def silent(url: str) -> str:
    """Why nothing answers at `url`; nothing if something does, an error or an unknown certificate included."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10):  # noqa: S310 - the Hub's own address
            return ""
    except HTTPError:
        return ""
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else first_line(reason)


def first_line(error: object) -> str:
    """The first line of an error's text, no longer than a line is."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
