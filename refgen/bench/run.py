"""A whole benchmark, from options to report."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refgen.bench import machine, report
from refgen.bench.sections import SECTIONS, Bench, Sizes, Table
from refgen.bench.subjects import PEERS, Subject, chosen
from refgen.bench.weights import endless_folder, random_folder, shape_config
from refgen.config import GPT2Config
from refgen.errors import BenchError, did_you_mean
from refgen.json_files import read_object
from refgen.progress import tell
from refgen.shipped import BUILT_IN

MODELS = ("random", *BUILT_IN)
Done = Callable[[dict[str, Any], list[Table]], None]


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    only: str | None = None
    models: str | None = None
    peers: str | None = None
    shape: str = "124M"
    rounds: int | None = None
    prompts: int = 200
    threads: int | None = None
    quick: bool = False
    weights: Path | None = None
    pause: float = 0.1


def several(flag: str, names: str | None, known: Sequence[str]) -> list[str]:
    """The names in a list with commas, in the order in which they are known; all, if there is no list."""
    asked = list(known) if names is None else names.split(",")
    for name in asked:
        if name not in known:
            raise BenchError(
                f"{flag} {name}",
                "is not known",
                remedy=f"{did_you_mean(name, known)} Known are {', '.join(known)}.".strip(),
            )
    return [name for name in known if name in asked]


def at_least_one(flag: str, number: int) -> int:
    """A count."""
    if number < 1:
        raise BenchError(f"{flag} {number}", "must be at least 1")
    return number


def run(options: Options, known_peers: Sequence[Subject] = PEERS, done: Done | None = None) -> dict[str, Any]:
    """Everything measured, in the form of `report.as_json`. After each section `done` gets all results so far, and the
    new ones.

    Raises `BenchError` for options that cannot be used.
    """
    sections = several("--only", options.only, list(SECTIONS))
    models = several("--models", options.models, MODELS)
    peers, skipped = chosen(options.peers, known_peers)
    threads = machine.usable_cores() if options.threads is None else at_least_one("--threads", options.threads)
    rounds = at_least_one("--rounds", options.rounds if options.rounds is not None else 2 if options.quick else 5)
    at_least_one("--prompts", options.prompts)
    shape = shape_config(options.shape)
    if shape.n_positions < 16:
        raise BenchError(f"--shape {options.shape}", "must have at least 16 positions")
    settings = {
        "sections": sections,
        "models": models,
        "shape": options.shape,
        "rounds": rounds,
        "prompts": options.prompts,
        "quick": options.quick,
    }
    versions: dict[str, str] = {}
    tables: list[Table] = []
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.callback(tell, "")
        parent = options.weights or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refgen-bench-")))
        for model in models:
            tell(f"{model}: weights")
            folder = random_folder(shape, parent) if model == "random" else endless_folder(model, parent)
            config = GPT2Config.from_dict(read_object(folder / "config.json", BenchError, ""))
            bench = Bench(
                model=f"random {options.shape}" if model == "random" else model,
                folder=folder,
                config=config,
                sizes=Sizes.of(config, options.prompts, quick=options.quick),
                peers=peers,
                rounds=rounds,
                threads=threads,
                pause=options.pause,
                versions=versions,
                built_in=model != "random",
            )
            stack.callback(bench.close)
            for section in sections:
                bench.progress = lambda text, at=f"{bench.model}, {section}": tell(f"{at}: {text}")  # type: ignore[misc]
                new = SECTIONS[section](bench)
                tell("")
                tables += new
                told = {peer.name: versions[peer.name] for peer in peers if peer.name in versions}
                found = report.as_json(machine.facts(threads) | {"versions": told}, settings, tables, skipped)
                if done is not None:
                    done(found, new)
            bench.close()
    return found
