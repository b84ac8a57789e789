"""`refgen check SUBJECT`: is an implementation of GPT-2 right, and if not, which rule does it break?"""

import argparse
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.auto import AutoModelForCausalLM, AutoTokenizer
from refgen.cli.options import add_reports, check_output, check_reports, kit_failed, write_reports
from refgen.errors import ConformanceError, RefgenError
from refgen.progress import tell

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run
    from refgen.conformance.subjects.protocol import About, Subject

PYTHON = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
BROKEN = 2  # of the adapter or of how it was called


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "check",
        help="say whether an implementation is right, claim by claim, and which rule it breaks",
        description="Test SUBJECT against every rule of SPEC.md that applies, and say what is right and what is wrong. "
        "Exit codes: 0 every claim that it makes is right, 1 a claim is wrong, 2 a wrong option or file or an adapter that "
        "does not start, 3 too little was shown, 4 refgen itself failed.",
        epilog="SUBJECT is pkg.module:factory for a Python factory, a URL such as http://127.0.0.1:8000/v1 for a server, or a command "
        "for any program that speaks the protocol of docs/subjects.md. refgen itself: "
        "refgen check refgen.conformance.subjects.reference:ReferenceSubject",
    )
    command.set_defaults(run=run)
    command.add_argument("subject", metavar="SUBJECT", help="factory, URL or command")
    command.add_argument(
        "--model",
        metavar="DIR|NAME",
        help="examine SUBJECT on this model alone, not on the kit's small networks: for programs of a fixed size. Of a server, "
        "the model that it has loaded (default: shakespeare)",
    )
    command.add_argument(
        "--only",
        action="append",
        default=[],
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
    command.add_argument("--seed", type=int, default=0, metavar="N", help="for everything that is drawn (default: 0)")
    command.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for an answer (default: 30)")
    command.add_argument(
        "--traffic", type=Path, metavar="FILE", help="write all questions and answers there, for refgen replay"
    )
    add_reports(command)


def run(options: argparse.Namespace) -> int:
    """A subject in, a report out; the exit code is the verdict."""
    from refgen.conformance import runner  # noqa: PLC0415 - only for this command
    from refgen.conformance.judging.verdicts import KitError  # noqa: PLC0415
    from refgen.conformance.subjects.protocol import SubjectError  # noqa: PLC0415
    from refgen.conformance.subjects.recorded import Recorded  # noqa: PLC0415

    check_reports(options)
    check_output(options.traffic, ConformanceError)
    subject: Subject | None = None
    done: Run | None = None
    try:
        subject, models = connected(options)
        if options.model is not None and models is not None:
            tell_released(next(iter(models.values())))
        only = [*options.only, *(f"probe.{name}.*" for name in options.probe)]
        declared: Subject = Declared(subject, settled(subject.about, options))
        if options.traffic is not None:
            subject = declared = Recorded(declared, options.traffic, options.seed, only)
        done = runner.check(declared, models, only, options.seed, command=command_of(options), progress=told)
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


def tell_released(folder: Path) -> None:
    """On stderr, of a model that says it is a released GPT-2: whether it is, fact by fact."""
    from refgen.config import GPT2Config  # noqa: PLC0415 - only for this option
    from refgen.oracle import released  # noqa: PLC0415

    name = released.released_name(folder, GPT2Config.from_pretrained(folder))
    if name is None:
        return
    has_tokenizer = any((folder / file).exists() for file in ("tokenizer.json", "vocab.json", "vocab.bpe"))
    tokenizer = AutoTokenizer.from_pretrained(folder) if has_tokenizer else None
    findings = list(released.compare(AutoModelForCausalLM.from_pretrained(folder), name, tokenizer))
    for finding in findings:
        print(f"refgen: {finding.line}", file=sys.stderr)
    holding = sum(finding.holds for finding in findings)
    print(f"refgen: {folder}: {holding} of {len(findings)} published facts of {name} hold", file=sys.stderr)


def connected(options: argparse.Namespace) -> "tuple[Subject, Mapping[str, Path] | None]":
    """The subject, and the models it may be asked about; None for those of the kit."""
    from refgen.conformance.questions.models import only  # noqa: PLC0415 - only for this command

    if options.subject.startswith(("http://", "https://")):
        from refgen.conformance.subjects.http import connect  # noqa: PLC0415 - an extra

        models = only(options.model or "shakespeare")
        (folder,) = models.values()
        dtype = options.dtype or "float32"
        return connect(options.subject, folder, dtype=dtype, timeout=options.timeout), models
    from refgen.conformance.subjects.process import ProcessSubject  # noqa: PLC0415 - only for this command

    alone = None if options.model is None else only(options.model)
    if PYTHON.fullmatch(options.subject):
        command = [sys.executable, "-m", "refgen.conformance.subjects.worker", options.subject]
        command += [] if alone is None else map(str, alone.values())
    else:
        command = shlex.split(options.subject)
    return ProcessSubject(command, options.timeout), alone


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
