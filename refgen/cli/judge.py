"""`refgen judge TOKENS.json`: is a greedy continuation that differs a bug or a tie?"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refgen import checkpoints
from refgen.cli.options import add_model
from refgen.errors import OracleError
from refgen.json_files import read_object
from refgen.names import find_model
from refgen.oracle.formats import FORMATS
from refgen.oracle.margins import Judgement, judge_tokens, together
from refgen.oracle.suspects import suspects
from refgen.progress import tell

ENOUGH = 8  # rows to tell a fault by


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "judge",
        help="tell a bug from a tie in greedily chosen tokens",
        description="Judge tokens that an implementation chose greedily: does rounding explain each that is not the best? "
        "The exit code is 1 if it does not.",
        epilog='TOKENS.json: {"prompt_ids": [813, 25], "new_ids": [198, 40, 457], "eos_token_id": 1023}. '
        "Both lists may hold lists, one a row; eos_token_id is one id, several or null, and may be left out.",
    )
    command.set_defaults(run=run)
    command.add_argument("tokens", metavar="TOKENS.json", type=Path, help="the tokens, or rows of them")
    add_model(command)
    command.add_argument(
        "--dtype",
        default="float32",
        choices=tuple(FORMATS),
        help="what the implementation computes in (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    """Tokens in, verdict out; the exit code is the verdict."""
    rows, end_ids = read_tokens(options.tokens)
    gpt2 = checkpoints.load(find_model(options.model))
    judgements = []
    for number, (prompt, new) in enumerate(rows, start=1):
        tell(f"row {number} of {len(rows)}")
        judgements.append(judge_tokens(gpt2, prompt, new, options.dtype, end_ids))
    whole = together(judgements)
    found = None
    if not whole.explained:
        shown = [row for row, each in zip(rows, judgements, strict=True) if not each.explained] or rows
        found = suspects(gpt2, shown[:ENOUGH], options.dtype, end_ids, progress=tell)
    tell("")
    sentence = whole.sentence if found is None else f"{whole.sentence} {found.sentence}"
    if options.json:
        known = [] if found is None else [fault.name for fault, _ in found.faults]
        about = {"sentence": sentence, "suspects": known, "rows": [told(each) for each in judgements]}
        print(json.dumps(told(whole) | about))
    elif len(judgements) == 1:
        print("\n".join([sentence, *map(str, whole.flips)]))
    else:
        print("\n".join([sentence, *(f"row {row}: {each.sentence}" for row, each in enumerate(judgements))]))
    return int(whole.verdict == "FAIL")


def told(judgement: Judgement) -> dict[str, Any]:
    """What there is to say about it."""
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
    entries = read_object(path, OracleError, "", "It names prompt_ids and new_ids; see refgen judge --help.")
    unknown = sorted(entries.keys() - {"prompt_ids", "new_ids", "eos_token_id"})
    if unknown:
        raise OracleError(
            f"{path}: {unknown[0]}", "is no entry", remedy="There are prompt_ids, new_ids and eos_token_id."
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
