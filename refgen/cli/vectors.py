"""`refgen export vectors DIR`: the cases of the conformance kit and all models they name."""

import shutil
from pathlib import Path

from refgen.conformance.questions.cases import VECTORS, read, suites
from refgen.conformance.questions.designed import DESIGNED
from refgen.conformance.questions.fresh import OTHERS, RELEASED, fresh
from refgen.conformance.questions.models import WRITERS
from refgen.names import find_model
from refgen.progress import tell
from refgen.shipped import BUILT_IN


def write(root: Path, seed: int | None = None) -> None:
    """Writes them to `root`, with the networks that `seed` draws if there is one, and prints what there is."""
    shutil.copytree(VECTORS, root / "cases", dirs_exist_ok=True)
    drawn = [] if seed is None else [fresh(seed, number) for number in range(RELEASED + OTHERS)]
    for name, make in [*WRITERS.items(), *drawn]:
        tell(f"writing {name}")
        make(root / "models" / name)
    for name in BUILT_IN:
        shutil.copytree(find_model(name), root / "models" / name, dirs_exist_ok=True)
    tell("")
    cases = sum(len(read(path)) for path in suites())
    probes = len(WRITERS) - len(DESIGNED)
    print(
        f"{root}: {cases} cases in {len(suites())} files, {len(DESIGNED)} designed networks, {probes} probes, "
        f"the shipped model{f', {len(drawn)} drawn networks' * bool(drawn)}"
    )
