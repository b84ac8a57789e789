"""`refgen spec`: the rules, from the SPEC.md that belongs to this version."""

import argparse
import json
from typing import Any

from refgen.cli.options import add_json
from refgen.cli.width import columns


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "spec",
        help="show the rules",
        description="List all rules, or show the rules of a FAMILY, or the rule with this ID, in full.",
        epilog="Example: refgen spec TOPP-01",
    )
    command.set_defaults(run=run)
    command.add_argument("name", nargs="?", metavar="ID|FAMILY", help="such as TOPP-01 or TOPP")
    add_json(command, "an array with one object for each rule")


def run(options: argparse.Namespace) -> None:
    """Rules out."""
    from dataclasses import asdict

    from refgen import spec

    found = spec.find(options.name)
    if options.json:
        print(json.dumps([asdict(rule) for rule in found], ensure_ascii=False, indent=2))
    elif options.name is None:
        print(spec.index(found))
    else:
        width = min(spec.WIDTH, columns())
        print("\n\n\n".join(spec.show(rule, width) for rule in found))
