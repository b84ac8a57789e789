"""The settings of a tokenizer, apart from its tokens: their allowed values, and how files set them. Rule TOK-18.

Each is obeyed or refused. The attributes of a tokenizer pass the same checks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from refgen.errors import TokenizerError
from refgen.tokenizer_files import TokenizerFiles

CONFIG = "tokenizer_config.json: "
LONGEST = 10**9  # a greater model_max_length means "unknown"; transformers writes 10**30


@dataclass(frozen=True)
class Setting:
    """One setting: its default, its allowed values as code and as text, and its rule."""

    default: Any
    fits: Callable[[Any], bool]
    must: str
    rule: str


def whole(value: Any) -> bool:
    """Whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


SIDE: Callable[[Any], bool] = lambda value: isinstance(value, str) and value in ("left", "right")  # noqa: E731
FLAG: Callable[[Any], bool] = lambda value: isinstance(value, bool)  # noqa: E731
SETTINGS: Mapping[str, Setting] = {
    "model_max_length": Setting(
        None, lambda value: value is None or whole(value), "must be a whole number, at least 0, or None", "TOK-16"
    ),
    "padding_side": Setting("right", SIDE, "must be 'left' or 'right'", "TOK-10"),
    "truncation_side": Setting("right", SIDE, "must be 'left' or 'right'", "TOK-16"),
    "add_prefix_space": Setting(False, FLAG, "must be true or false", "TOK-18"),
    "split_special_tokens": Setting(False, FLAG, "must be true or false", "TOK-02"),
    "add_bos_token": Setting(False, FLAG, "must be true or false", "TOK-07"),
    "add_eos_token": Setting(False, FLAG, "must be true or false", "TOK-07"),
}
FIXED: Mapping[str, Any] = {  # settings of transformers that have one value here
    "errors": "replace",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": False,
    "init_inputs": [],
    "vocab": None,
    "merges": None,
    "fast_tokenizer_files": None,
}


def check_setting(name: str, value: Any, where: str = "") -> None:
    """TOK-18. Raises `TokenizerError` for an invalid value of the setting `name`; `where` names its file."""
    setting = SETTINGS[name]
    if not setting.fits(value):
        raise TokenizerError(f"{where}{name}={value!r}", setting.must, setting.rule)


def read_settings(files: TokenizerFiles) -> dict[str, Any]:
    """TOK-18. The checked settings of the files: `tokenizer_config.json`, then the sides in `tokenizer.json`."""
    for name, only in FIXED.items():
        if files.config.get(name, only) != only:
            raise TokenizerError(
                f"{CONFIG}{name}={files.config[name]!r}",
                f"must be {only!r}; refgen does not support another value",
                "TOK-18",
            )
    settings = {name: files.config[name] for name in SETTINGS if name in files.config}
    settings["model_max_length"] = known_length(files.config.get("model_max_length", files.config.get("max_len")))
    if files.parts is not None:
        for name, said in (("truncation_side", files.parts.truncation), ("padding_side", files.parts.padding)):
            if said is not None:
                settings.setdefault(name, said["direction"])
        settings["add_prefix_space"] = prefix_space(files, files.parts.pre_tokenizer.add_prefix_space)
    for name in ("add_bos_token", "add_eos_token"):
        if files.parts is not None or settings.get(name) is None:
            settings.pop(name, None)  # the template of tokenizer.json decides, not the settings
    for name, value in settings.items():
        check_setting(name, value, CONFIG)
    return settings


def known_length(value: Any) -> Any:
    """TOK-16. `model_max_length`, or None for a huge number, which means "unknown"."""
    return None if isinstance(value, int | float) and value > LONGEST else value


def prefix_space(files: TokenizerFiles, in_tokenizer: bool) -> Any:
    """TOK-18. `add_prefix_space` of a folder with a `tokenizer.json`. Raises `TokenizerError` if its files disagree.

    In transformers, GPT2Tokenizer reads only the settings, and the other class only `tokenizer.json`.
    """
    said = files.config.get("add_prefix_space", False if files.is_gpt2 else in_tokenizer)
    explicit = files.is_gpt2 and "add_prefix_space" in files.config
    if isinstance(said, bool) and said != in_tokenizer and not explicit:
        raise TokenizerError(
            f"{CONFIG}add_prefix_space={str(said).lower()}",
            f"the pre_tokenizer of tokenizer.json says {str(in_tokenizer).lower()}",
            "TOK-18",
            "Use the same value in tokenizer_config.json and in tokenizer.json.",
        )
    return said
