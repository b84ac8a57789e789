"""The subjects of the benchmark: refgen, its variants and its peers. A new one is one line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from refgen.errors import BenchError, did_you_mean

ADAPTERS = Path(__file__).with_name("adapters")


@dataclass(frozen=True)
class Subject:
    """A name, the file that uses its library, and the arguments for loading and for generating."""

    name: str
    adapter: Path = ADAPTERS / "refgen.py"
    load: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()  # that must be installed

    @property
    def missing(self) -> list[str]:
        """The packages that are not."""
        return [package for package in self.packages if find_spec(package) is None]

    @property
    def remedy(self) -> str:
        """How to get them."""
        return f"pip install {' '.join(self.missing)}"


REFGEN = Subject("refgen")
NO_CACHE = Subject("refgen, no cache", settings={"use_cache": False})
LOOKUP = Subject("refgen, prompt lookup", settings={"prompt_lookup_num_tokens": 10})

# --- Variants of refgen whose price is measured: a new one is one line ----------------------------------------
PRICED = (
    Subject("refgen, float64", load={"dtype": "float64"}),
    Subject("refgen, canonical", load={"engine": "canonical"}),
)

PEERS = (
    Subject("transformers", ADAPTERS / "transformers.py", packages=("torch", "transformers")),
    Subject("ctranslate2", ADAPTERS / "ctranslate2.py", packages=("ctranslate2",)),
    Subject("onnxruntime", ADAPTERS / "onnxruntime.py", packages=("onnxruntime", "onnx")),
    Subject("llama.cpp", ADAPTERS / "llamacpp.py", packages=("xllamacpp", "gguf")),
)

BANDWIDTH = Subject("bandwidth", ADAPTERS / "bandwidth.py")


def chosen(names: str | None, peers: Sequence[Subject] = PEERS) -> tuple[list[Subject], dict[str, str]]:
    """The peers of those names (all, if None; 'none' for none) that are installed, and why the others are missing."""
    known = {peer.name: peer for peer in peers}
    asked = list(known) if names is None else [] if names == "none" else names.split(",")
    for name in asked:
        if name not in known:
            raise BenchError(
                f"--peers {name}",
                "is not a known peer",
                remedy=f"{did_you_mean(name, known)} Known are {', '.join(known)}, or none.".strip(),
            )
    skipped = {
        name: f"{' and '.join(known[name].missing)} not installed: {known[name].remedy}"
        for name in asked
        if known[name].missing
    }
    return [known[name] for name in asked if name not in skipped], skipped
