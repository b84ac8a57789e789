"""The border: whatever a subject sends becomes a typed, bounded answer here, or a `GarbledError` that says what was expected.

Past the border there are only these types: int within 64 bits, float, str of valid Unicode, float64 arrays of class
ndarray, and lists and objects of them. Nobody else holds the arrays. Bytes become values in `read_json` and
`read_events`, values become answers in `checked`; what an answer may be is in docs/subjects.md.

Values that are Python objects are read by values.py. How much is read is bounded by what was asked.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from refgen.conformance.subjects.protocol import DTYPES, EXPLAINING, FINISHES, OPERATIONS, About, GarbledError
from refgen.conformance.subjects.values import ENTRIES, NAME, foreign, is_scalar, refuse, shown, unwrapped

T = TypeVar("T")

BODY = 2**25  # bytes of a line or of a body
DIGITS = 20  # of an integer in JSON; 64 bits have 19
TOKENS = 2**16  # of a row
WIDEST = 2**18  # tokens of a vocabulary
TEXT = 2**20  # characters of a text
EVENTS = 2**15  # of a stream
CHOICES = 2**10  # of a completion
STAGE = 2**24  # numbers of a stage
INT64 = 2**63
SCALARS = frozenset({int, float, *(np.dtype(code).type for code in "bhilqBHILQefdg")})

# --- Bytes to values ----------------------------------------------------------------------------------------


def read_json(raw: bytes, what: str) -> Any:
    """The value of a JSON text. `what` it is, for the message: "the answer to encode"."""
    if len(raw) > BODY:
        raise GarbledError(f"{what} is longer than {BODY} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise GarbledError(f"{what} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None
    try:
        return json.loads(text, parse_int=short_int)
    except GarbledError as error:
        raise GarbledError(f"{what} holds {error}") from None
    except (RecursionError, MemoryError):
        raise GarbledError(f"{what} is nested too deep") from None
    except ValueError:
        raise GarbledError(f"{what} is no JSON: {shown(text[:NAME].strip())}") from None


def short_int(digits: str) -> int:
    """An integer of JSON. Python refuses thousands of digits with its own error, and accepts hundreds."""
    if len(digits) > DIGITS:
        raise GarbledError(f"an integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


def read_events(raw: bytes) -> list[str]:
    """The data of server-sent events."""
    try:
        lines = raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise GarbledError(f"the stream is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None
    events: list[str] = []
    data: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            events.append("\n".join(data))
            data = []
        if len(events) > EVENTS:
            raise GarbledError(f"the stream has more than {EVENTS} events")
    return events


# --- Answers ------------------------------------------------------------------------------------------------


def checked(op: str, request: Mapping[str, Any], answer: Any, vocabulary: int | None = None) -> dict[str, Any]:  # noqa: C901, PLR0911 - one for each operation
    """The answer, typed. `vocabulary` is how many tokens the model has, where that is known."""
    given = entries(answer, f"the answer to {op}")
    if op == "encode":
        return {"ids": ids(given.get("ids"), "ids")}
    if op == "decode":
        return {"text": text(given.get("text"), "text")}
    if op == "complete":
        return completion(given, vocabulary)
    if op == "complete_together":
        several = unwrapped(given.get("answers"), must := "answers must be a list of completions", CHOICES)
        if type(several) is not list or len(several) != len(request["bodies"]):
            refuse(must, several)
        return {"answers": [completion(entries(each, "a completion"), vocabulary) for each in several]}
    if op == "stages":
        return {"stages": stages(given.get("stages"))}
    B = len(request["input_ids"])
    if op == "forward":
        T = len(request["input_ids"][0])
        return {"logits": numbers(given.get("logits"), "logits", (B, T, -1 if vocabulary is None else vocabulary))}
    if op == "process":
        shape = (B, len(request["logits"][0]))
        return {"scores": numbers(given.get("scores"), "scores", shape, nothing=-math.inf)}
    if op != "generate":
        raise GarbledError(f"{shown(op)} is no operation")
    count = B * (request.get("num_return_sequences") or 1)
    bare = count == 1 and "rows" not in given and ("new_ids" in given or "text" in given)
    several = rows(given if bare else given.get("rows"), count)
    for number, row in enumerate(several):
        in_vocabulary(row.get("new_ids"), vocabulary, f"row {number}: ")
    return {"rows": several}


def stages(value: Any) -> dict[str, np.ndarray]:
    """Arrays by name, each of any shape; judging/layers.py looks at which of them fit the model."""
    given = entries(value, "stages")
    if not given:
        raise GarbledError("stages must be an object of arrays by name; got an empty one")
    return {
        text(name, "the name of a stage", NAME): array_of(each, f"stage {shown(name)} must be numbers", 4, STAGE, None)
        for name, each in given.items()
    }


def in_vocabulary(tokens: Sequence[int] | None, vocabulary: int | None, where: str = "") -> None:
    """TOK-14. Refuses ids that are not tokens of the model."""
    if vocabulary is not None and tokens and not (min(tokens) >= 0 and max(tokens) < vocabulary):
        token = next(each for each in tokens if not 0 <= each < vocabulary)
        raise GarbledError(f"{where}token {token} is not one of the model's {vocabulary}", ("TOK-14",))


def rows(value: Any, count: int) -> list[dict[str, Any]]:
    """The rows of `generate`. A row may be bare ids; a single row may come without the list around it."""
    must = f"rows must be a list of {count}, each a list of ids or an object with new_ids"
    value = unwrapped(value, must, TOKENS * count)
    if isinstance(value, np.ndarray):
        single = value.ndim == 1 and value.dtype.kind in "iu"
        value = (
            [value]
            if single
            else value.tolist()
            if value.dtype.kind == "O"
            else list(value[: count + 1])
            if value.ndim
            else 0
        )
    elif type(value) is dict or (type(value) is list and count == 1 and all(is_scalar(each) for each in value[:1])):
        value = [value]
    if type(value) is not list or len(value) != count:
        refuse(must, value)
    return [row_of(row, f"row {number}") for number, row in enumerate(value)]


def row_of(value: Any, where: str) -> dict[str, Any]:
    """One row."""
    value = unwrapped(value, f"{where} must be a list of ids or an object with new_ids", TOKENS)
    given = value if type(value) is dict else {"new_ids": value}
    row: dict[str, Any] = {}
    if given.get("new_ids") is not None:
        row["new_ids"] = ids(given["new_ids"], f"{where}: new_ids")
    if given.get("text") is not None:
        row["text"] = text(given["text"], f"{where}: text")
    if not row:
        raise GarbledError(f"{where} has neither new_ids nor text")
    if given.get("finish") is not None:
        row["finish"] = one_of(given["finish"], f"{where}: finish", FINISHES)
    if given.get("logprobs") is not None:
        row["logprobs"] = numbers(given["logprobs"], f"{where}: logprobs", (-1,), nothing=math.nan).tolist()
    if given.get("chunks") is not None:
        row["chunks"] = texts(given["chunks"], f"{where}: chunks")
    return row


def completion(value: Any, vocabulary: int | None = None) -> dict[str, Any]:
    """An answer to `/v1/completions` in the words of dialects.py."""
    given = entries(value, "a completion")
    choices = unwrapped(given.get("choices"), must := "choices must be a list", CHOICES)
    if type(choices) is not list:
        refuse(must, choices)
    answer: dict[str, Any] = {"choices": [choice_of(each, vocabulary) for each in choices], "usage": None}
    if given.get("usage") is not None:
        counts = entries(given["usage"], "usage")
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        answer["usage"] = {name: optional(whole, counts.get(name), f"usage: {name}") for name in names}
    if "done" in given:
        answer["done"] = given["done"] is True
    if "seconds" in given:
        answer["seconds"] = float(numbers(given["seconds"], "seconds", ()))
    return answer


def choice_of(value: Any, vocabulary: int | None) -> dict[str, Any]:
    """One continuation."""
    given = entries(value, "a choice")
    if type(unwrapped(given.get("text"), "text must be a text", TEXT)) is not str:
        raise GarbledError(f"a choice must have a text; got {shown(value)}")
    choice: dict[str, Any] = {
        "text": text(given["text"], "text"),
        "index": optional(whole, given.get("index"), "index"),
        "finish_reason": optional(text, given.get("finish_reason"), "finish_reason"),
        "ids": optional(ids, given.get("ids"), "ids"),
        "ids_from": text(given.get("ids_from", "text"), "ids_from"),
    }
    if choice["ids_from"] != "text":  # those were made of the text by refgen's own tokenizer
        in_vocabulary(choice["ids"], vocabulary)
    for name, read in (("deltas", texts), ("logprobs", logprobs), ("top_logprobs", tops), ("tokens", spellings)):
        if name in given:
            choice[name] = optional(read, given[name], name)
    return choice


def logprobs(value: Any, name: str) -> list[float | None]:
    """Numbers, None where one is missing. NaN compares with nothing, so it is refused."""
    several = listed(value, name, "numbers and nulls")
    found = numbers(several, name, (-1,), nothing=math.inf)
    if np.isnan(found).any() or any(
        number == math.inf for number, each in zip(found, several, strict=True) if each is not None
    ):
        raise GarbledError(f"{name} must be numbers and nulls; got nan or inf")
    return [None if each is None else number for number, each in zip(found.tolist(), several, strict=True)]


def tops(value: Any, name: str) -> list[list[list[Any]] | None]:
    """For each token its alternatives `[id or None, logprob]`, or None."""
    read: list[list[list[Any]] | None] = []
    for position in listed(value, name, "lists of alternatives"):
        if position is None:
            read.append(None)
            continue
        pairs = [listed(pair, name, "pairs") for pair in listed(position, name, "lists of alternatives", WIDEST)]
        if any(len(pair) != 2 for pair in pairs):
            raise GarbledError(f"{name} must be pairs of a token and its logprob")
        read.append(
            [
                [optional(whole, pair[0], name), number]
                for pair, number in zip(pairs, logprobs([pair[1] for pair in pairs], name), strict=True)
            ]
        )
    return read


def spellings(value: Any, name: str) -> list[str | None]:
    """Tokens as the server writes them."""
    return [optional(text, each, name) for each in listed(value, name, "texts")]


def hello(
    name: Any,
    version: Any = "",
    dtype: Any = "float32",
    can: Any = OPERATIONS,
    choices: Any = None,
    known: Sequence[str] | None = (*OPERATIONS, *EXPLAINING),
    loads: Any = True,
    takes: Any = None,
    claims: Any = None,
) -> About:
    """What a subject says of itself; `known` are the operations that it may name, any if None."""
    must = f"hello: can must be a list of some of {', '.join(known or OPERATIONS)}"
    several = unwrapped(can, must, ENTRIES)
    if type(several) is not list:
        refuse(must, several)
    chosen = {} if choices is None else entries(choices, "hello: choices")
    return About(
        name=text(name, "hello: name", NAME),
        version=text(version, "hello: version", NAME),
        dtype=one_of(dtype, "hello: dtype", DTYPES),
        can=frozenset(text(each, must, NAME) if known is None else one_of(each, must, known) for each in several),
        choices={
            text(key, "hello: choices", NAME): text(each, f"choice {shown(key)}", NAME) for key, each in chosen.items()
        },
        loads=loads is True,
        claims=frozenset(texts([] if claims is None else claims, "hello: claims")),
        takes={
            text(op, "hello: takes", NAME): frozenset(texts(names, f"hello: takes of {shown(op)}"))
            for op, names in ({} if takes is None else entries(takes, "hello: takes")).items()
        },
    )


# --- Their parts ----------------------------------------------------------------------------------------------


def entries(value: Any, what: str) -> dict[str, Any]:
    """An object."""
    must = f"{what} must be an object"
    given = unwrapped(value, must, ENTRIES)
    if type(given) is not dict:
        refuse(must, given)
    return given


def listed(value: Any, name: str, of: str, most: int = TOKENS) -> list[Any]:
    """A list."""
    must = f"{name} must be a list of {of}"
    several = unwrapped(value, must, most)
    if isinstance(several, np.ndarray) and several.ndim == 1:
        several = several.tolist()
    if type(several) is not list:
        refuse(must, several)
    return several


def optional(read: Callable[[Any, str], T], value: Any, name: str) -> T | None:
    """None, or what it must be."""
    return None if value is None else read(value, name)


def text(value: Any, name: str, most: int = TEXT) -> str:
    """Valid Unicode."""
    must = f"{name} must be a text"
    found = unwrapped(value, must, 1)
    if type(found) is not str:
        refuse(must, found)
    if len(found) > most:
        raise GarbledError(f"{must} of at most {most} characters; got {len(found)}")
    try:
        found.encode("utf-8")
    except UnicodeEncodeError as error:
        raise GarbledError(f"{must} of whole characters; got half of one, {found[error.start]!r}") from None
    return found


def texts(value: Any, name: str) -> list[str]:
    """Several, together no longer than one may be."""
    several = [text(each, name) for each in listed(value, name, "texts")]
    if sum(map(len, several)) > TEXT:
        raise GarbledError(f"{name} must be of at most {TEXT} characters together")
    return several


def one_of(value: Any, name: str, known: Sequence[str]) -> str:
    """One of some names."""
    must = name if " must be " in name else f"{name} must be one of {', '.join(known)}"
    found = unwrapped(value, must, 1)
    if type(found) is not str or found not in known:
        refuse(must, found)
    return found


def whole(value: Any, name: str) -> int:
    """A whole number within 64 bits."""
    must = f"{name} must be a whole number"
    found = unwrapped(value, must, 1)
    if isinstance(found, np.ndarray) and found.ndim == 0 and found.dtype.kind in "iu":
        found = found.item()
    if type(found) is not int or not -INT64 <= found < INT64:
        refuse(must, found)
    return found


def ids(value: Any, name: str) -> list[int]:
    """Token ids: a list, an array or a tensor, perhaps with an axis around it for the one row that it is."""
    must = f"{name} must be a list of whole numbers"
    several = unwrapped(value, must, TOKENS)
    if isinstance(several, np.ndarray):
        if several.ndim == 2 and len(several) == 1:
            several = several[0]
        if several.ndim != 1 or (several.dtype.kind not in "iuO" and several.size):
            refuse(must, several)
        several = several.tolist()
    if type(several) is not list:
        refuse(must, several)
    if all(type(each) is int for each in several):
        if several and not (min(several) >= -INT64 and max(several) < INT64):
            refuse(must, max(several, key=abs))
        return several
    if len(several) == 1 and not is_scalar(several[0]):
        inner = unwrapped(several[0], must, TOKENS)
        if type(inner) is list or (isinstance(inner, np.ndarray) and inner.ndim == 1):
            several = listed(inner, name, "whole numbers")
    return [whole(each, f"{name} must be a list of whole numbers: each") for each in several]


def numbers(value: Any, name: str, shape: Sequence[int], nothing: float | None = None) -> np.ndarray:
    """float64 in that shape, -1 for any length; None in a list is `nothing`. The first axis may be missing if it is 1."""
    must = f"{name} must be numbers of shape [{', '.join('any' if n == -1 else str(n) for n in shape)}]"
    room = math.prod(TOKENS if len(shape) == 1 else WIDEST if n == -1 else n for n in shape)
    array = array_of(value, must, len(shape), room, nothing)
    if shape and shape[0] == 1 and array.ndim == len(shape) - 1:
        array = array[None]
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        raise GarbledError(f"{must}; got shape {list(array.shape)}")
    return array


def array_of(value: Any, must: str, axes: int, room: int, nothing: float | None) -> np.ndarray:
    """An array of at most `axes` axes and `room` numbers."""
    value = unwrapped(value, must, room)
    if type(value) is dict and {"dtype", "shape", "b64"} <= value.keys():
        return floats(unpacked(value, must, room), must)
    if isinstance(value, np.ndarray):
        return floats(value, must)
    if type(value) is not list:
        value = nothing if value is None and nothing is not None else value
        return flat([value], must).reshape(()) if all_scalars([value], must) else refuse(must, value)
    if not axes:
        raise GarbledError(f"{must}; got lists that are nested deeper")
    if nothing is not None:
        value = [nothing if each is None else each for each in value]
    if all_scalars(value, must):
        return flat(value, must)
    parts: list[np.ndarray] = []
    for each in value:
        parts.append(array_of(each, must, axes - 1, room, nothing))
        room -= max(1, parts[-1].size)
        if room < 0:
            raise GarbledError(f"{must}; got more numbers than that")
        if parts[-1].shape != parts[0].shape:
            raise GarbledError(f"{must}; got rows of shapes {list(parts[0].shape)} and {list(parts[-1].shape)}")
    return np.stack(parts)


def all_scalars(value: list[Any], must: str) -> bool:
    """Whether all are numbers, Python's or NumPy's."""
    return foreign(must, lambda: SCALARS.issuperset(map(type, value)))


def flat(value: list[Any], must: str) -> np.ndarray:
    """A list of numbers, Python's or NumPy's."""
    try:
        with np.errstate(all="ignore"):
            return np.array(value, dtype=np.float64)
    except OverflowError:
        refuse(must, max((each for each in value if type(each) is int), key=abs))


def floats(array: np.ndarray, must: str) -> np.ndarray:
    """A copy in float64, which the subject cannot change any more."""
    if array.dtype.kind not in "fiu":
        refuse(must, array)
    with np.errstate(all="ignore"):
        return np.array(array, dtype=np.float64, order="C", copy=True)


def unpacked(value: dict[str, Any], must: str, room: int) -> np.ndarray:
    """An array as {"dtype": "F32" or "F64", "shape": […], "b64": its numbers in base64, little-endian}."""
    shape = ids(value["shape"], "shape")
    packed = text(value["b64"], "b64", 11 * room + 64)
    dtype = {"F32": "<f4", "F64": "<f8"}[one_of(value["dtype"], "dtype", ("F32", "F64"))]
    try:
        found = np.frombuffer(base64.b64decode(packed, validate=True), dtype)
        if len(shape) <= 8 and all(n >= 0 for n in shape):
            return found.reshape(shape)
    except ValueError:
        pass
    raise GarbledError(f"{must}; got {shown(value)}, must be dtype, shape and b64 that fit")


def filled(value: Any, nothing: float) -> Any:
    """The kit's own lists with numbers for null."""
    if isinstance(value, list | tuple):
        return [filled(each, nothing) for each in value]
    return nothing if value is None else value
