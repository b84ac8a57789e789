"""`refgen vectors DIR`: the cases of the conformance kit and all models they name, for programs in any language."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from refgen.errors import ConformanceError
from refgen.names import find_model
from refgen.progress import tell
from refgen.shipped import BUILT_IN


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "vectors",
        help="write the kit's cases and models to a folder",
        description="Write all cases of the conformance kit, their schema, and the models they name. docs/cases.md describes them.",
        epilog="Example: refgen vectors vectors",
    )
    command.set_defaults(run=run)
    command.add_argument(
        "--seed", type=int, metavar="N", help="write the networks that refgen check --seed N draws, too"
    )
    command.add_argument("folder", metavar="DIR", type=Path, help="is made if it is not there")


def run(options: argparse.Namespace) -> None:
    """Files out, one line that counts them."""
    from refgen.conformance.questions.cases import VECTORS, read, suites  # noqa: PLC0415 - only for this command
    from refgen.conformance.questions.designed import DESIGNED  # noqa: PLC0415
    from refgen.conformance.questions.fresh import OTHERS, RELEASED, fresh  # noqa: PLC0415
    from refgen.conformance.questions.models import WRITERS  # noqa: PLC0415

    if options.folder.is_file():
        raise ConformanceError(str(options.folder), "is a file, not a folder")
    shutil.copytree(VECTORS, options.folder / "cases", dirs_exist_ok=True)
    drawn = [] if options.seed is None else [fresh(options.seed, number) for number in range(RELEASED + OTHERS)]
    for name, write in [*WRITERS.items(), *drawn]:
        tell(f"writing {name}")
        write(options.folder / "models" / name)
    for name in BUILT_IN:
        shutil.copytree(find_model(name), options.folder / "models" / name, dirs_exist_ok=True)
    tell("")
    cases = sum(len(read(path)) for path in suites())
    probes = len(WRITERS) - len(DESIGNED)
    print(
        f"{options.folder}: {cases} cases in {len(suites())} files, {len(DESIGNED)} designed networks, {probes} probes, "
        f"the shipped model{f', {len(drawn)} drawn networks' * bool(drawn)}"
    )
