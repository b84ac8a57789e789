"""What a setting may hold: checks, which turn what a caller wrote into what the code uses.

Each returns the value or raises ValueError with what it must be. `config.py` says which setting has which check.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any


def whole(least: int) -> Callable[[Any], int]:
    """Whole numbers from `least` on; bool is refused."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or (number := operator.index(value)) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return number

    return check


def real(allowed: Callable[[float], bool], must: str) -> Callable[[Any], float]:
    """Numbers for which `allowed` holds; NaN, bool and text are refused."""

    def check(value: Any) -> float:
        if isinstance(value, bool | str) or not allowed(number := float(value)):
            raise ValueError(must)
        return number

    return check


finite = real(math.isfinite, "must be a finite number")
finite_from_0 = real(lambda x: 0 <= x < math.inf, "must be a finite number of at least 0")
finite_above_0 = real(lambda x: 0 < x < math.inf, "must be a finite number above 0")
from_0_to_1 = real(lambda x: 0 <= x <= 1, "must be a number from 0 to 1")
from_0_below_1 = real(lambda x: 0 <= x < 1, "must be a number from 0 to below 1")
above_0_to_1 = real(lambda x: 0 < x <= 1, "must be a number above 0, at most 1")
seconds = real(lambda x: 0 <= x < math.inf, "must be a number of seconds")


def flag(value: Any) -> bool:
    """True or False, nothing that merely counts as one (CFG-11)."""
    if type(value) is not bool:
        raise ValueError("must be True or False")
    return value


def true_false_never(value: Any) -> bool | str:
    """True, False or "never" (BEAM-07)."""
    if value != "never" and type(value) is not bool:
        raise ValueError('must be True, False or "never"')
    return bool(value) if type(value) is bool else "never"


def token(value: Any) -> int:
    """One token id; -1, the field's old word for no token, is refused."""
    return whole(0)(value)


def tokens(value: Any) -> tuple[int, ...]:
    """One token id or several (STOP-03)."""
    several = value.tolist() if hasattr(value, "tolist") else value
    several = tuple(several) if isinstance(several, list | tuple | set) else (several,)
    if not several:
        raise ValueError("must name at least one id")
    return tuple(map(token, several))


def sequences(value: Any) -> tuple[tuple[int, ...], ...]:
    """Several sequences of token ids, none of them empty (BAD-01)."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, list | tuple) for each in value):
        raise ValueError("must be a list of lists of ids, such as [[5], [7, 8]]")
    return tuple(tokens(each) for each in value)


def biases(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Sequences of token ids with the number to add, as {(5,): 1.0} or in the form of JSON, [[[5], 1.0]] (BIAS-01)."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list | tuple) or not pairs or not all(len(pair) == 2 for pair in pairs):
        raise ValueError("must be {(ids): bias} or [[ids, bias]], and not empty")
    check = real(lambda bias: not math.isnan(bias) and bias < math.inf, "must have biases that are numbers")
    return tuple((tokens(list(ids)), check(bias)) for ids, bias in pairs)


def texts(value: Any) -> tuple[str, ...]:
    """One text or several, none of them empty (SSTR-04)."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several or not all(isinstance(t, str) and t for t in several):
        raise ValueError("must be a text or a list of texts, none of them empty")
    return tuple(several)


def start_and_factor(value: Any) -> tuple[int, float]:
    """A number of new tokens and a factor of at least 1 (EXPD-01)."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be (start, factor)")
    return whole(0)(value[0]), real(lambda factor: 1 <= factor < math.inf, "must have a factor of at least 1")(value[1])


def one_of(*words: str) -> Callable[[Any], str]:
    """One of these words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return check


def entries(value: Any, checks: Mapping[str, Callable[[Any], Any]], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Named entries, each checked; those without a default must be there."""
    for name in value.keys() - checks.keys():
        raise ValueError(f"holds {name!r}, which is not one of {', '.join(checks)}")
    for name in checks.keys() - defaults.keys() - value.keys():
        raise ValueError(f"must hold {name}")
    checked = {}
    for name, entry in ({**defaults} | {**value}).items():
        try:
            checked[name] = checks[name](entry)
        except (TypeError, ValueError) as error:
            raise ValueError(f"holds {name}={entry!r}, which {error}") from None
    return checked


GREEN_LIST: Mapping[str, Callable[[Any], Any]] = {
    "greenlist_ratio": real(lambda r: 0 < r < 1, "must be a number above 0, below 1"),
    "bias": finite,
    "hashing_key": whole(0),
    "seeding_scheme": one_of("lefthash", "selfhash"),
    "context_width": whole(1),
}
SYNTHID: Mapping[str, Callable[[Any], Any]] = {
    "ngram_len": whole(2),
    "keys": tokens,
    "context_history_size": whole(1),
    "sampling_table_seed": whole(0),
    "sampling_table_size": whole(1),
    "skip_first_ngram_calls": flag,
}


def watermarking(value: Any) -> dict[str, Any]:
    """The settings of one of the two watermarks, all of them (WMARK-01, WMARK-03)."""
    if not isinstance(value, Mapping):
        raise ValueError("must be {name: value}")  # noqa: TRY004 - its text is the message
    value = {name: entry for name, entry in value.items() if (name, entry) != ("debug_mode", False)}
    if value.keys() & {"ngram_len", "keys"}:
        defaults: dict[str, Any] = {
            "context_history_size": 1024,
            "sampling_table_seed": 0,
            "sampling_table_size": 2**16,
        }
        return entries(value, SYNTHID, defaults | {"skip_first_ngram_calls": False})
    defaults = {"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": 15485863, "seeding_scheme": "lefthash"}
    return entries(value, GREEN_LIST, defaults | {"context_width": 1})
