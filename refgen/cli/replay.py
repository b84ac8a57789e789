"""`refgen replay TRAFFIC.jsonl`: judges recorded answers again, without the subject that gave them."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli.options import add_reports, check_reports, kit_failed, write_reports
from refgen.errors import ConformanceError, RefgenError
from refgen.progress import tell

if TYPE_CHECKING:
    from refgen.conformance.judging.run import Run

BROKEN = 2  # the recording, or how it was called
INCONCLUSIVE = 3  # a recording that was cut off


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "replay",
        help="judge recorded answers of an implementation again",
        description="Judge the traffic that `refgen check --traffic` has written, with this version's checks and the seed of "
        "the recording. Questions that were not asked then are skipped. The exit code is that of refgen check; a recording that "
        "was cut off gives no verdict, and exit code 3.",
        epilog="Example: refgen replay traffic.jsonl --html report.html",
    )
    command.set_defaults(run=run)
    command.add_argument("traffic", metavar="TRAFFIC.jsonl", type=Path, help="the recording")
    command.add_argument(
        "--model", metavar="DIR|NAME", help="the model of a subject that had one of its own, such as a server"
    )
    command.add_argument(
        "--only", action="append", metavar="CLAIM|ID", help="only this claim, or checks that match: 'loop.*'"
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="for everything that is drawn (default: the recording's)"
    )
    add_reports(command)


def run(options: argparse.Namespace) -> int:
    """A recording in, a report out; the exit code is the verdict."""
    from refgen.conformance.judging.verdicts import KitError  # noqa: PLC0415 - only for this command
    from refgen.conformance.subjects.json_lines import CutOffError  # noqa: PLC0415

    try:
        check_reports(options)
        done = judged(options)
    except CutOffError as error:
        tell("")
        print(f"refgen: inconclusive: {error}", file=sys.stderr)
        return INCONCLUSIVE
    except KitError as error:
        tell("")
        return kit_failed(error)
    except RefgenError as error:
        tell("")
        print(f"refgen: error: {error}", file=sys.stderr)
        return BROKEN
    return write_reports(done, options)


def judged(options: argparse.Namespace) -> "Run":
    """The run that the recording makes."""
    from refgen.conformance import runner  # noqa: PLC0415 - only for this command
    from refgen.conformance.questions.models import only  # noqa: PLC0415
    from refgen.conformance.subjects.recorded import Replayed  # noqa: PLC0415

    subject = Replayed(options.traffic)
    if options.model is None and not subject.about.loads:
        raise ConformanceError("--model", "is missing", remedy=f"{subject.about.name} had a model of its own: which?")
    command = shlex.join(
        ["refgen", "replay", str(options.traffic), *(["--model", options.model] if options.model else [])]
    )
    return runner.check(
        subject,
        models=None if options.model is None else only(options.model),
        only=options.only or subject.only,
        seed=subject.seed if options.seed is None else options.seed,
        command=command,
        progress=lambda done, of, name: tell(f"{done} of {of} {name}" if name else ""),
    )
