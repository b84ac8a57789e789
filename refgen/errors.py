"""Every error refgen raises on purpose. Each says what, which value, which rule, and what to do instead.

    RefgenError (a ValueError)
    ├── ConfigError        a model's config.json cannot be this
    ├── CheckpointError    a model folder is missing, broken, or not the model its config describes
    ├── TokenizerError     text or ids that this tokenizer cannot turn into one another
    ├── InputError         ids, masks, positions or a cache that the forward pass cannot take
    ├── GenerationError    a setting of `generate()` that is wrong, unknown or contradicts another
    ├── SpecError          a rule that SPEC.md does not have, or does not write as it writes rules
    ├── OracleError        evidence about numbers that cannot be had: a proof, a trace, a comparison
    ├── ConformanceError   a record of the conformance kit, or what was asked of the kit, that cannot be used
    ├── BenchError         an option of the benchmark that cannot be, or a subject that fails in it
    └── UsageError         a command line with a flag, a value or a file that cannot be

A valid setting without effect is not an error: it gives an `IgnoredSettingWarning`.
"""

import difflib
from collections.abc import Iterable, Sequence


def counted(names: Sequence[str], noun: str) -> str:
    """How many, for the text of an error: "1 tensor" or "2 tensors"."""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}"


def listed(names: Sequence[str]) -> str:
    """The first four names, for the text of an error."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


class RefgenError(ValueError):
    """`subject: problem [rule]. remedy`, for instance "top_k=-1: must be at least 0 [TOPK-02]. …"."""

    def __init__(self, subject: str, problem: str, rule: str = "", remedy: str = "") -> None:
        self.subject, self.problem, self.rule, self.remedy = subject, problem, rule, remedy
        cited = f" [{rule}]" if rule else ""
        advice = f" {remedy}" if remedy else ""
        super().__init__(f"{subject}: {problem}{cited}.{advice}")


class ConfigError(RefgenError):
    """A model configuration that describes no GPT-2."""


class CheckpointError(RefgenError):
    """A model folder that cannot be loaded as it is; refgen fills nothing in and rounds nothing."""


class TokenizerError(RefgenError):
    """Tokenizer files, texts or ids that do not fit."""


class InputError(RefgenError):
    """Arrays that do not fit the model or each other."""


class GenerationError(RefgenError):
    """A setting of `generate()` outside its rule."""


class SpecError(RefgenError):
    """A rule that nobody wrote, or that is not written as SPEC.md writes rules."""


class OracleError(RefgenError):
    """Evidence that cannot be given for this input."""


class ConformanceError(RefgenError):
    """A record or a request that the conformance kit cannot use; what a subject does wrong is a verdict instead."""


class BenchError(RefgenError):
    """A benchmark that cannot be run with these options."""


class UsageError(RefgenError):
    """A command line that cannot be carried out as it is written."""


class IgnoredSettingWarning(UserWarning):
    """A setting that changes nothing in the chosen mode, such as temperature without sampling."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The remedy for a name that is not `known`: the nearest one that is, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"Did you mean {close[0]}?" if close else ""
