"""`refgen check SUBJECT`: is an implementation of GPT-2 right, and if not, which rule does it break?"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli import exit_codes
from refgen.cli.messages import complain
from refgen.cli.options import DTYPES, add_reports, check_reports, write_reports
from refgen.cli.parser import Names, add_choice, number, whole
from refgen.cli.subject import TIMEOUT, connected
from refgen.errors import ConformanceError, UsageError
from refgen.progress import tell

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run
    from refgen.conformance.subjects.protocol import About, Subject


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "check",
        help="test an implementation, and name the rules that it breaks",
        description="Test SUBJECT against every rule of SPEC.md that applies, and report a verdict.  "
        "The exit code is the verdict (`refgen --help`). A recording is judged with this version's checks. Questions that are not "
        "in the recording are skipped.",
        epilog="SUBJECT is one of four things. pkg.module:factory is a Python factory. A URL such as http://127.0.0.1:8000/v1 is a "
        "server. A command is any program that follows the protocol of docs/subjects.md. A file is a recording that --traffic has "
        "written. Example: refgen check refgen.demo:WrongGelu --only network",
    )
    command.set_defaults(run=run)
    command.add_argument("subject", metavar="SUBJECT", help="factory, URL, command or recording")
    command.add_argument(
        "-m",
        "--model",
        metavar="DIR|NAME",
        help="test SUBJECT on this model only, not on the kit's small networks, if it can load only one model. For a server, "
        "the model that it has loaded (default: shakespeare)",
    )
    command.add_argument(
        "--only",
        action="append",
        metavar="CLAIM|ID",
        help="only this claim, or the checks that match, such as 'loop.*'; repeatable",
    )
    add_choice(
        command,
        "--claim",
        action="append",
        names=Names("refgen.conformance.judging.claims:CLAIMS"),
        default=[],
        metavar="CLAIM",
        help="a claim that SUBJECT must fulfil; repeatable",
    )
    add_choice(
        command,
        "--probe",
        action="append",
        names=Names("refgen.conformance.questions.probes:PROBES"),
        default=[],
        metavar="NAME",
        help="only the questions of this probe",
    )
    add_choice(
        command,
        "--dtype",
        names=DTYPES,
        metavar="DTYPE",
        help="the dtype of SUBJECT's arithmetic, if it does not declare it: %(choices)s (default: float32)",
    )
    command.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="NAME=OPTION",
        help="an option of SPEC.md that SUBJECT has taken",
    )
    command.add_argument(
        "-s",
        "--seed",
        type=whole,
        metavar="N",
        help="for everything that is drawn (default: 0, or that of the recording)",
    )
    command.add_argument("--timeout", type=number, metavar="S", help=f"seconds for an answer (default: {TIMEOUT:g})")
    command.add_output("--traffic", help="record all questions and answers there, to be judged again")
    add_reports(command)


def run(options: argparse.Namespace) -> int:
    """A subject in, a report out; the exit code is the verdict."""
    from refgen.conformance import runner
    from refgen.conformance.judging.verdicts import KitError
    from refgen.conformance.subjects.json_lines import CutOffError
    from refgen.conformance.subjects.protocol import SubjectError
    from refgen.conformance.subjects.recorded import Recorded, Replayed

    check_reports(options)
    subject: Subject | None = None
    done: Run | None = None
    try:
        choices = declared_choices(options.choice)
        subject, models = connected(options.subject, options.model, options.dtype, options.timeout)
        if options.model is not None and models is not None:
            tell_released(next(iter(models.values())))
        only = [*(options.only or ()), *(f"probe.{name}.*" for name in options.probe)]
        seed = options.seed
        if isinstance(subject, Replayed):
            refuse_for_recordings(options)
            only, seed = only or subject.only, subject.seed if seed is None else seed
        seed = seed or 0
        declared: Subject = Declared(subject, settled(subject.about, choices, options))
        if options.traffic is not None:
            subject = declared = Recorded(declared, options.traffic, seed, only)
        done = runner.check(declared, models, only, seed, command=command_of(options), progress=told)
    except CutOffError as error:
        complain("inconclusive", str(error))
        return exit_codes.INCONCLUSIVE
    except KitError as error:
        complain("kit error", str(error))
        return exit_codes.FAILED
    except SubjectError as error:
        complain("error", str(error))
        return exit_codes.USAGE
    finally:
        if subject is not None:
            if done is None and isinstance(subject, Recorded):
                subject.interrupted = True
            subject.close()
    return write_reports(done, options)


def tell_released(folder: Path) -> None:
    """On stderr, of a model that claims to be a released GPT-2: whether it is, fact by fact."""
    from refgen.auto import AutoModelForCausalLM, AutoTokenizer
    from refgen.config import GPT2Config
    from refgen.oracle import released

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


def refuse_for_recordings(options: argparse.Namespace) -> None:
    """Raises `UsageError` for what only a live subject has."""
    for flag, given in (("--traffic", options.traffic), ("--timeout", options.timeout)):
        if given is not None:
            raise UsageError(flag, "does not go with a recording", remedy="Leave it out.")


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


def declared_choices(words: Sequence[str]) -> dict[str, str]:
    """What --choice says. Raises `UsageError`."""
    from refgen.conformance.judging import choices

    for word in words:
        if "=" not in word:
            raise UsageError(f"--choice {word}", "must be NAME=OPTION", remedy="Such as top_k_ties=exactly_k.")
    try:
        return choices.settled({name: option for name, _, option in (word.partition("=") for word in words)})
    except ConformanceError as error:
        raise UsageError(f"--{error.subject}", error.problem, remedy=error.remedy) from None


def settled(about: "About", choices: Mapping[str, str], options: argparse.Namespace) -> "About":
    """What it says of itself, and what the options say of it."""
    return replace(
        about,
        dtype=options.dtype or about.dtype,
        choices={**about.choices, **choices},
        claims=about.claims | {*options.claim},
    )


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
