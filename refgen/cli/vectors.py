"""`refgen export vectors DIR`: the cases of the conformance kit and all models they name."""

import argparse
import shutil

from refgen.errors import ConformanceError
from refgen.progress import tell
from refgen.shipped import BUILT_IN, find_model


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
