"""`refgen check SUBJECT`: is an implementation of GPT-2 right, and if not, which rule does it break?"""

import argparse
import os
import re
import shlex
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli.options import add_reports, check_output, check_reports, kit_failed, write_reports
from refgen.errors import ConformanceError, RefgenError
from refgen.progress import tell

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run
    from refgen.conformance.subjects.protocol import About, Subject

PYTHON = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
BROKEN, INCONCLUSIVE = 2, 3  # the adapter or how it was called; a recording that was cut off
TIMEOUT = 30


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "check",
        help="say whether an implementation is right, claim by claim, and which rule it breaks",
        description="Test SUBJECT against every rule of SPEC.md that applies, and say what is right and what is wrong. "
        "Exit codes: 0 every claim that it makes is right, 1 a claim is wrong, 2 a wrong option or file or an adapter that "
        "does not start, 3 too little was shown, 4 refgen itself failed. A recording is judged with this version's checks; questions "
        "that were not asked then are skipped, and one that was cut off gives no verdict and exit code 3.",
        epilog="SUBJECT is pkg.module:factory for a Python factory, a URL such as http://127.0.0.1:8000/v1 for a server, or a command "
        "for any program that speaks the protocol of docs/subjects.md, or a recording that --traffic has written. refgen itself: "
        "refgen check refgen.conformance.subjects.reference:ReferenceSubject",
    )
    command.set_defaults(run=run)
    command.add_argument("subject", metavar="SUBJECT", help="factory, URL, command or recording")
    command.add_argument(
        "--model",
        metavar="DIR|NAME",
        help="examine SUBJECT on this model alone, not on the kit's small networks: for programs of a fixed size. Of a server, "
        "the model that it has loaded (default: shakespeare)",
    )
    command.add_argument(
        "--only",
        action="append",
        metavar="CLAIM|ID",
        help="only this claim, or checks that match: 'loop.*'",
    )
    command.add_argument(
        "--claim", action="append", default=[], metavar="CLAIM", help="a claim that SUBJECT must answer for"
    )
    command.add_argument(
        "--probe", action="append", default=[], metavar="NAME", help="only the questions of this probe"
    )
    command.add_argument("--dtype", help="what SUBJECT computes in, if it does not say so itself (default: float32)")
    command.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="NAME=OPTION",
        help="an option of SPEC.md that SUBJECT has taken",
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="for everything that is drawn (default: 0, or that of the recording)"
    )
    command.add_argument("--timeout", type=float, metavar="S", help=f"seconds for an answer (default: {TIMEOUT})")
    command.add_argument(
        "--traffic", type=Path, metavar="FILE", help="record all questions and answers there, to be judged again"
    )
    add_reports(command)


def run(options: argparse.Namespace) -> int:
    """A subject in, a report out; the exit code is the verdict."""
    from refgen.conformance import runner  # noqa: PLC0415 - only for this command
    from refgen.conformance.judging.verdicts import KitError  # noqa: PLC0415
    from refgen.conformance.subjects.json_lines import CutOffError  # noqa: PLC0415
    from refgen.conformance.subjects.protocol import SubjectError  # noqa: PLC0415
    from refgen.conformance.subjects.recorded import Recorded, Replayed  # noqa: PLC0415

    check_reports(options)
    check_output(options.traffic, ConformanceError)
    subject: Subject | None = None
    done: Run | None = None
    try:
        subject, models = connected(options)
        only = [*(options.only or ()), *(f"probe.{name}.*" for name in options.probe)]
        seed = options.seed
        if isinstance(subject, Replayed):
            only, seed = only or subject.only, subject.seed if seed is None else seed
        seed = seed or 0
        declared: Subject = Declared(subject, settled(subject.about, options))
        if options.traffic is not None:
            subject = declared = Recorded(declared, options.traffic, seed, only)
        done = runner.check(declared, models, only, seed, command=command_of(options), progress=told)
    except CutOffError as error:
        tell("")
        print(f"refgen: inconclusive: {error}", file=sys.stderr)
        return INCONCLUSIVE
    except KitError as error:
        tell("")
        return kit_failed(error)
    except (SubjectError, RefgenError) as error:
        tell("")
        print(f"refgen: error: {error}", file=sys.stderr)
        return BROKEN
    finally:
        if subject is not None:
            if done is None and isinstance(subject, Recorded):
                subject.interrupted = True
            subject.close()
    return write_reports(done, options)


def connected(options: argparse.Namespace) -> "tuple[Subject, Mapping[str, Path] | None]":
    """The subject, and the models it may be asked about; None for those of the kit."""
    from refgen.conformance.questions.models import only  # noqa: PLC0415 - only for this command

    if is_recording(options.subject):
        return replayed(options), None if options.model is None else only(options.model)
    timeout = TIMEOUT if options.timeout is None else options.timeout
    if options.subject.startswith(("http://", "https://")):
        from refgen.conformance.subjects.http import connect  # noqa: PLC0415 - an extra

        models = only(options.model or "shakespeare")
        (folder,) = models.values()
        dtype = options.dtype or "float32"
        return connect(options.subject, folder, dtype=dtype, timeout=timeout), models
    from refgen.conformance.subjects.process import ProcessSubject  # noqa: PLC0415 - only for this command

    alone = None if options.model is None else only(options.model)
    if PYTHON.fullmatch(options.subject):
        command = [sys.executable, "-m", "refgen.conformance.subjects.worker", options.subject]
        command += [] if alone is None else map(str, alone.values())
    else:
        command = shlex.split(options.subject)
    return ProcessSubject(command, timeout), alone


def is_recording(subject: str) -> bool:
    """Whether SUBJECT is a file that `--traffic` has written: by its name, or by how it begins."""
    path = Path(subject)
    if path.suffix == ".jsonl":
        return True
    try:
        with path.open("rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(1) == b"{"
    except (OSError, ValueError):
        return False


def replayed(options: argparse.Namespace) -> "Subject":
    """The recording as a subject. Raises `ConformanceError`."""
    from refgen.conformance.subjects.recorded import Replayed  # noqa: PLC0415 - only for recordings

    for flag, given in (("--traffic", options.traffic), ("--timeout", options.timeout)):
        if given is not None:
            raise ConformanceError(flag, "does not go with a recording", remedy="Leave it out.")
    subject = Replayed(Path(options.subject))
    if options.model is None and not subject.about.loads:
        raise ConformanceError("--model", "is missing", remedy=f"{subject.about.name} had a model of its own: which?")
    return subject


class Declared:
    """A subject of which more is known than it says itself."""

    def __init__(self, subject: "Subject", about: "About") -> None:
        self.about, self._subject = about, subject

    def ask(self, op: str, model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer."""
        return self._subject.ask(op, model, request)

    def restart(self) -> None:
        """Lets it begin anew."""
        self._subject.restart()

    def close(self) -> None:
        """Closes it."""
        self._subject.close()


def settled(about: "About", options: argparse.Namespace) -> "About":
    """What it says of itself, and what the options say of it."""
    from refgen.conformance.subjects.protocol import DTYPES  # noqa: PLC0415 - only for this command

    if options.dtype is not None and options.dtype not in DTYPES:
        raise ConformanceError(f"--dtype {options.dtype}", f"must be one of {', '.join(DTYPES)}")
    pairs = [choice.partition("=") for choice in options.choice]
    for choice, (_, equals, _) in zip(options.choice, pairs, strict=True):
        if not equals:
            raise ConformanceError(f"--choice {choice}", "must be NAME=OPTION", remedy="Such as top_k_ties=exactly_k.")
    choices = {**about.choices, **{name: option for name, _, option in pairs}}
    claims = about.claims | {*options.claim}
    return replace(about, dtype=options.dtype or about.dtype, choices=choices, claims=claims)


def command_of(options: argparse.Namespace) -> str:
    """The command that repeats this, without what `--only` and `--seed` say."""
    words = ["refgen", "check", options.subject]
    for name in ("model", "dtype"):
        words += [f"--{name}", value] if (value := getattr(options, name)) else []
    for choice in options.choice:
        words += ["--choice", choice]
    for claim in options.claim:
        words += ["--claim", claim]
    return shlex.join(words)


def told(done: int, of: int, name: str) -> None:
    """How far it is, on a terminal."""
    tell(f"{done} of {of} checks: {name}" if name else "")
