"""`refgen export probes|vectors DIR`: what the conformance kit asks, as files for programs in any language."""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen.cli.files import check_folder
from refgen.cli.options import add_json, check_picture
from refgen.cli.parser import whole
from refgen.errors import ConformanceError


def add(commands: Any) -> None:
    """Declares the command and what it writes."""
    command = commands.add_parser(
        "export",
        help="write the kit's probes, or its cases and models, to a folder",
        description="Write what the conformance kit asks as files, for programs in any language.",
        epilog="Example: refgen export vectors vectors",
    )
    what = command.add_subparsers(title="what", required=True, metavar="probes|vectors")
    probe = what.add_parser(
        "probes",
        help="checkpoints whose tokens show whether an implementation is right",
        description="Probes are GPT-2 checkpoints written by hand, in which one rule decides the token (docs/probes.md). "
        "Write a Hugging Face folder for each NAME, or for all: config, weights, tokenizer and expectations.json.",
        epilog="Example: refgen export probes probes copy-3 clock",
    )
    probe.set_defaults(run=run_probes)
    probe.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="the folder to write to; each probe gets a folder in it"
    )
    probe.add_argument("names", nargs="*", metavar="NAME", help="the probes to write (default: all)")
    probe.add_argument("--list", action="store_true", help="print one line for each probe, and write nothing")
    probe.add_argument(
        "--show", metavar="NAME", help="print a probe's questions, answers and weights, and write nothing"
    )
    probe.add_argument(
        "--tensor", metavar="TENSOR", help="with --show: print only this weight, such as h.0.attn.c_proj.weight"
    )
    probe.add_output("--plot", help="with --show: draw all weights to this file (needs matplotlib)")
    add_json(probe, "with --list or --show: as JSON")
    vector = what.add_parser(
        "vectors",
        help="the cases, their schema and the models they name",
        description="Write all cases of the conformance kit, their schema, and the models they name. docs/cases.md describes them.",
        epilog="Example: refgen export vectors vectors",
    )
    vector.set_defaults(run=run_vectors)
    vector.add_argument(
        "folder", metavar="DIR", type=Path, help="the folder to write to; it is created if it does not exist"
    )
    vector.add_argument(
        "-s", "--seed", type=whole, metavar="N", help="also write the networks that refgen check --seed N draws"
    )
    vector.add_force()


def run_vectors(options: argparse.Namespace) -> None:
    """Files out, one line that counts them."""
    from refgen.cli import vectors

    check_folder(options.folder, force=options.force)
    vectors.write(options.folder, options.seed)


def run_probes(options: argparse.Namespace) -> None:
    """Folders out, a line each; or with --list and --show what is in them."""
    from refgen.conformance.questions import probes

    if options.show is None and (options.tensor is not None or options.plot is not None):
        raise ConformanceError("--tensor" if options.tensor is not None else "--plot", "goes with --show NAME")
    if [options.folder is not None, options.list, options.show is not None].count(True) != 1:
        raise ConformanceError("DIR, --list and --show", "give one of them")
    if options.list:
        list_probes(options.json)
    elif options.show is not None:
        show_probe(options)
    elif options.json:
        raise ConformanceError("--json", "goes with --list or --show")
    else:
        chosen = [probes.find(name) for name in options.names or probes.PROBES]
        for probe in chosen:
            check_folder(options.folder / probe.name, force=options.force)
        for probe in chosen:
            probes.write(probe, options.folder / probe.name)
            print(options.folder / probe.name)


def list_probes(as_json: bool) -> None:
    """Names and sentences out."""
    from refgen.conformance.questions import probes

    built = [probes.find(name) for name in probes.PROBES]
    if as_json:
        entries = [{"name": each.name, "sentence": each.sentence, "rules": each.rules} for each in built]
        print(json.dumps(entries, ensure_ascii=False, indent=2))
        return
    width = max(map(len, probes.PROBES))
    for probe in built:
        print(f"{probe.name:{width}}  {probe.sentence}")


def show_probe(options: argparse.Namespace) -> None:
    """One probe out."""
    from refgen.conformance.questions import probes
    from refgen.conformance.questions.probes import show

    check_picture(options.plot, ConformanceError)
    probe = probes.find(options.show)
    if options.plot is not None:
        show.save(probe, options.plot)
    elif options.json:
        print(json.dumps(probes.expectations(probe), ensure_ascii=False, indent=2))
    else:
        print("\n".join(show.matrix(show.tensor(probe, options.tensor)) if options.tensor else show.about(probe)))
