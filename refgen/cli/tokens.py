"""Files of greedily chosen tokens, as `refgen compare` reads them: is each that differs a bug or a tie?

{"prompt_ids": [813, 25], "new_ids": [198, 40, 457], "eos_token_id": 1023}
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refgen.cli import color
from refgen.cli.width import fitted
from refgen.errors import OracleError
from refgen.json_files import object_of, read_object
from refgen.model import GPT2
from refgen.oracle.margins import Judgement, judge_tokens, together
from refgen.oracle.suspects import suspects
from refgen.progress import tell

ENOUGH = 8  # rows to tell a fault by


STDIN = Path("-")


def judge(gpt2: GPT2, path: Path, dtype: str, as_json: bool) -> bool:
    """Prints the verdict on the tokens of a file; whether rounding explains each that is not the best."""
    rows, end_ids = read_tokens(path)
    judgements = []
    for number, (prompt, new) in enumerate(rows, start=1):
        tell(f"row {number} of {len(rows)}")
        judgements.append(judge_tokens(gpt2, prompt, new, dtype, end_ids))
    whole = together(judgements)
    found = None
    if not whole.explained:
        shown = [row for row, each in zip(rows, judgements, strict=True) if not each.explained] or rows
        found = suspects(gpt2, shown[:ENOUGH], dtype, end_ids, progress=tell)
    tell("")
    sentence = whole.sentence if found is None else f"{whole.sentence} {found.sentence}"
    if as_json:
        known = [] if found is None else [fault.name for fault, _ in found.faults]
        about = {"sentence": sentence, "suspects": known, "rows": [told(each) for each in judgements]}
        print(json.dumps(told(whole) | about))
    else:
        rows_told = [f"row {row}: {each.sentence}" for row, each in enumerate(judgements)]
        lines = [sentence, *(map(str, whole.flips) if len(judgements) == 1 else rows_told)]
        print("\n".join(color.verdicts(fitted(each), sys.stdout) for each in lines))
    return whole.verdict != "FAIL"


def told(judgement: Judgement) -> dict[str, Any]:
    """The judgement as an object for JSON."""
    return {
        "verdict": judgement.verdict,
        "sentence": judgement.sentence,
        "tokens": len(judgement.chances),
        "flips": [asdict(flip) | {"sigmas": flip.sigmas} for flip in judgement.flips],
        "expected_flips": judgement.expected,
        "odds": judgement.odds,
        "goes_on": judgement.goes_on,
    }


def read_tokens(path: Path) -> tuple[list[tuple[list[int], list[int]]], Sequence[int]]:
    """Pairs of prompt and new ids, and the end ids. Raises `OracleError`."""
    if path == STDIN:
        path = Path("standard input")
        entries = object_of(sys.stdin.read(), str(path), OracleError)
    else:
        entries = read_object(path, OracleError, "", "It names prompt_ids and new_ids; see refgen compare --help.")
    unknown = sorted(entries.keys() - {"prompt_ids", "new_ids", "eos_token_id"})
    if unknown:
        raise OracleError(
            f"{path}: {unknown[0]}", "is not an entry", remedy="There are prompt_ids, new_ids and eos_token_id."
        )
    prompts, news = (as_rows(path, name, entries.get(name)) for name in ("prompt_ids", "new_ids"))
    if len(prompts) != len(news):
        raise OracleError(f"{path}: {len(prompts)} prompt_ids", f"must be as many as new_ids, {len(news)}")
    end = entries.get("eos_token_id", [])
    end_ids = (
        [] if end is None or end == [] else as_rows(path, "eos_token_id", end if isinstance(end, list) else [end])[0]
    )
    return list(zip(prompts, news, strict=True)), end_ids


def as_rows(path: Path, name: str, value: Any) -> list[list[int]]:
    """A list of ids as its only row, lists of ids as they are."""
    rows = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if not all(isinstance(row, list) and row and all(type(each) is int for each in row) for row in rows):
        raise OracleError(f"{path}: {name}", "must be a list of token ids, or a list of such lists, none of them empty")
    return rows
