"""Finds the SUBJECT of `refgen check`: a Python factory, a server, a program or a recording. For anything else, suggests a form."""

import ast
import re
import shlex
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from refgen.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from refgen.conformance.subjects.protocol import Subject
    from refgen.conformance.subjects.recorded import Replayed

TIMEOUT = 30.0
PYTHON = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
HOST = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+):\d+(/.*)?")
FORMS = "Write module:Class, a URL, a command in quotes, or a recording."


def connected(
    text: str, model: str | None = None, dtype: str | None = None, timeout: float | None = None
) -> "tuple[Subject, Mapping[str, Path] | None]":
    """The subject, and the models it may be asked about; None for those of the kit. Raises `UsageError` for any other text."""
    from refgen.conformance.questions.models import only

    timeout = TIMEOUT if timeout is None else timeout
    if text.startswith(("http://", "https://")):
        from refgen.conformance.subjects.http import connect

        models = only(model or "shakespeare")
        (folder,) = models.values()
        return connect(text, folder, dtype=dtype or "float32", timeout=timeout), models
    alone = None if model is None else only(model)
    if is_recording(text):
        return replayed(Path(text), model), alone
    from refgen.conformance.subjects.process import ProcessSubject

    if PYTHON.fullmatch(text) and not text.partition(":")[0].endswith(".py"):
        command = [sys.executable, "-m", "refgen.conformance.subjects.worker", text]
        command += [] if alone is None else map(str, alone.values())
    else:
        command = program(text)
    return ProcessSubject(command, timeout), alone


def is_recording(text: str) -> bool:
    """Whether it is a file that --traffic has written: by its name, or by how it begins."""
    path = Path(text)
    if path.suffix == ".jsonl":
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except (OSError, ValueError):
        return False


def replayed(path: Path, model: str | None) -> "Replayed":
    """The recording as a subject."""
    from refgen.conformance.subjects.recorded import Replayed

    subject = Replayed(path)
    if model is None and not subject.about.loads:
        raise UsageError("--model", "missing", remedy=f"{subject.about.name} had its own model. Name it.")
    return subject


def program(text: str) -> list[str]:
    """The command of a program. Raises `UsageError` if there is no such program, with what may be meant."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(text, f"is not a command: {str(error).lower()}") from None
    if not words:
        raise UsageError("SUBJECT", "is empty", remedy=FORMS)
    if len(words) > 1 and shutil.which(words[0]):
        return words
    if HOST.fullmatch(text):
        raise UsageError(text, "is not a URL", remedy=f"Write http://{text}")
    file = Path(words[0].partition(":")[0])
    source = file if file.suffix == ".py" else file.with_name(f"{file.name}.py") if file.name else file
    if source.is_file() and not shutil.which(words[0]):
        raise UsageError(text, "is a Python file", remedy=f"Write {as_factory(source)}")
    if file.is_dir():
        raise UsageError(text, "is a folder", remedy=f"{FORMS} --model DIR names the model.")
    if not shutil.which(words[0]):
        nearest = did_you_mean(words[0], (each.name for each in Path().iterdir())) if len(words) == 1 else ""
        raise UsageError(text, f"there is no program {words[0]}", remedy=nearest or FORMS)
    return words


def as_factory(file: Path) -> str:
    """How to name what a Python file defines, found without running it: `mine:Mine`."""
    names = factories(file)
    try:
        module = ".".join(file.resolve().relative_to(Path.cwd()).with_suffix("").parts)
        where = ""
    except ValueError:
        module, where = file.stem, f" in the folder {file.parent}"
    several = f" ({', '.join(names[1:4])} too)" if names[1:] else ""
    return f"{module}:{names[0] if names else 'CLASS'}{where}{several}"


def factories(file: Path) -> list[str]:
    """The classes of a Python file, those first that answer a question of the kit."""
    from refgen.conformance.subjects.protocol import OPERATIONS

    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    classes = [each for each in body if isinstance(each, ast.ClassDef) and not each.name.startswith("_")]
    answers = {each.name for each in classes if {getattr(own, "name", "") for own in each.body} & {*OPERATIONS}}
    return sorted((each.name for each in classes), key=lambda name: name not in answers)
