"""`refgen probes list | build DIR [NAME...] | show NAME`: networks written by hand whose tokens say whether a rule is kept."""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen.cli.options import check_picture
from refgen.conformance.questions import probes
from refgen.conformance.questions.probes import show
from refgen.errors import ConformanceError


def add(commands: Any) -> None:
    """Declares the command and what it can do."""
    command = commands.add_parser(
        "probes",
        help="write checkpoints whose tokens say whether an implementation is right",
        description="Probes are GPT-2 checkpoints written by hand, in which one rule decides which token comes out; docs/probes.md.",
        epilog="Example: refgen probes build probes copy-3 clock",
    )
    ways = command.add_subparsers(title="ways", required=True, metavar="list|build|show")
    listing = ways.add_parser("list", help="one line a probe", description="Say what each probe says.")
    listing.set_defaults(run=run_list)
    listing.add_argument("--json", action="store_true", help="an array with one object a probe")
    building = ways.add_parser(
        "build",
        help="write Hugging Face folders",
        description="Write a Hugging Face folder for each NAME, or for all: config, weights, tokenizer and expectations.json.",
    )
    building.set_defaults(run=run_build)
    building.add_argument("folder", type=Path, metavar="DIR", help="where the folders go, each by its name")
    building.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    showing = ways.add_parser("show", help="what a probe is asked", description="Show questions, answers and weights.")
    showing.set_defaults(run=run_show)
    showing.add_argument("name", metavar="NAME")
    showing.add_argument("--tensor", metavar="TENSOR", help="show that weight instead, such as h.0.attn.c_proj.weight")
    showing.add_argument("--json", action="store_true", help="what expectations.json holds")
    showing.add_argument("--plot", type=Path, metavar="FILE", help="draw all weights there (needs matplotlib)")


def run_list(options: argparse.Namespace) -> None:
    """Names and sentences out."""
    built = [probes.find(name) for name in probes.PROBES]
    if options.json:
        entries = [{"name": each.name, "sentence": each.sentence, "rules": each.rules} for each in built]
        print(json.dumps(entries, ensure_ascii=False, indent=2))
        return
    width = max(map(len, probes.PROBES))
    for probe in built:
        print(f"{probe.name:{width}}  {probe.sentence}")


def run_build(options: argparse.Namespace) -> None:
    """Folders out, a line each."""
    for probe in [probes.find(name) for name in options.names or probes.PROBES]:
        probes.write(probe, options.folder / probe.name)
        print(options.folder / probe.name)


def run_show(options: argparse.Namespace) -> None:
    """One probe out."""
    check_picture(options.plot, ConformanceError)
    probe = probes.find(options.name)
    if options.plot is not None:
        show.save(probe, options.plot)
    elif options.json:
        print(json.dumps(probes.expectations(probe), ensure_ascii=False, indent=2))
    else:
        print("\n".join(show.matrix(show.tensor(probe, options.tensor)) if options.tensor else show.about(probe)))
