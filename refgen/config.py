"""`GPT2Config`: the sizes and switches of one GPT-2, named as in its `config.json`, checked once.

Rules CFG-01 and CFG-02 of SPEC.md.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from refgen.errors import CheckpointError, ConfigError
from refgen.json_files import read_object
from refgen.names import find_model

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """Sizes and switches; the defaults are those of the smallest GPT-2 (CFG-01).

    Raises `ConfigError` when a field has the wrong type or value.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width of the MLP; None is 4 * n_embd
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    other: Mapping[str, Any] = field(default_factory=dict)  # what else config.json says: kept, unused (CKPT-10)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            value = getattr(self, name)
            if name == "n_inner" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}={value!r}", "must be a whole number of at least 1", "CFG-02")
        for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name}={getattr(self, name)!r}", "must be true or false", "CFG-02")
        epsilon = self.layer_norm_epsilon
        if type(epsilon) not in (int, float) or not 0 <= epsilon < math.inf:
            raise ConfigError(f"layer_norm_epsilon={epsilon!r}", "must be a finite number of at least 0", "CFG-02")
        if type(self.activation_function) is not str:
            raise ConfigError(f"activation_function={self.activation_function!r}", "must be a name", "FWD-15")
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_embd={self.n_embd}, n_head={self.n_head}",
                f"n_embd must be a multiple of n_head, and {self.n_embd} / {self.n_head} leaves a remainder",
                "FWD-07",
            )

    @property
    def inner(self) -> int:
        """Width of the MLP (FWD-14)."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """From the object in a `config.json`; entries that change nothing here are kept in `other`."""
        own = {f.name for f in fields(cls)} - {"other"}
        for alias, name in ALIASES.items():
            if alias in entries and name in entries and entries[alias] != entries[name]:
                raise ConfigError(
                    f"{alias}={entries[alias]!r}, {name}={entries[name]!r}", "are one size and must be equal", "CFG-01"
                )
        entries = {ALIASES.get(name, name): value for name, value in entries.items()}
        refuse_other_models(entries)
        known = {name: value for name, value in entries.items() if name in own}
        return cls(**known, other={name: value for name, value in entries.items() if name not in own})

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """The configuration of a model folder, or of a name as `from_pretrained` of a model takes it (CKPT-15)."""
        folder = find_model(
            path_or_name, "config", revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return cls.from_dict(read_object(folder / "config.json", CheckpointError, "CKPT-09"))

    def to_dict(self) -> dict[str, Any]:
        """The object for a `config.json` that transformers and refgen both read."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "other"}
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **self.other, **own}


def refuse_other_models(entries: Mapping[str, Any]) -> None:
    """Entries that turn the network into one that refgen does not compute are errors, not `other`."""
    model_type = entries.get("model_type", "gpt2")
    if model_type != "gpt2":
        raise ConfigError(f"model_type={model_type!r}", "must be 'gpt2'", "CKPT-13", "refgen computes GPT-2 only.")
    if entries.get("add_cross_attention"):
        raise ConfigError("add_cross_attention=true", "refgen computes decoder-only GPT-2", "FWD-29")
    if entries.get("quantization_config"):
        raise ConfigError(
            "quantization_config",
            "refgen reads F32, F16 and BF16 weights only",
            "CKPT-13",
            "Dequantize the model first.",
        )
