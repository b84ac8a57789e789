"""`refgen bench`: how fast refgen is, beside other libraries. Nothing of refgen/bench is imported before it runs."""

import argparse
import json
from pathlib import Path
from typing import Any

from refgen.cli.options import check_picture
from refgen.cli.parser import whole
from refgen.errors import BenchError


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "bench",
        help="measure speed and memory beside other libraries",
        description="Measure refgen and its peers, taking turns; see docs/benchmark.md for what the figures mean.",
        epilog="Example: refgen bench --quick --only decode,memory --peers transformers",
    )
    command.set_defaults(run=run)
    sections = "decode, prefill, batch, start, memory, context, lookup, cache, price"
    command.add_argument("--only", metavar="A,B", help=f"sections: {sections} (default: all)")
    command.add_argument("--models", metavar="A,B", help="random, shakespeare (default: both)")
    command.add_argument(
        "--peers",
        metavar="A,B",
        help="transformers, ctranslate2, onnxruntime, llama.cpp, or none (default: those that are installed)",
    )
    shapes = "of the random weights: 124M (default), 355M, small, tiny, or layers,heads,width,vocabulary,positions"
    command.add_argument("--shape", default="124M", metavar="S", help=shapes)
    command.add_argument("--rounds", type=whole, metavar="N", help="turns of each (default: 5, quick 2)")
    command.add_argument("--prompts", type=whole, default=200, metavar="N", help="of the lookup (default: 200)")
    command.add_argument("--threads", type=whole, metavar="N", help="of every subject (default: all cores)")
    command.add_argument("--quick", action="store_true", help="less work, fewer rounds")
    command.add_argument("--weights", type=Path, metavar="DIR", help="keep weights and conversions there for next time")
    command.add_output("--json", help="write everything there, every single timing too")
    command.add_output("--plot", help="draw it there (needs matplotlib)")
    command.add_argument("--show", type=Path, metavar="FILE", help="measure nothing: show what --json wrote")


def run(options: argparse.Namespace) -> None:
    """A report out."""
    from refgen.bench import plot, report
    from refgen.bench.run import Options
    from refgen.bench.run import run as measure
    from refgen.json_files import read_object

    check_picture(options.plot, BenchError)
    if options.show is not None:
        found = read_object(options.show, BenchError, "")
        if "tables" not in found:
            raise BenchError(str(options.show), "is not a report of refgen bench")
        print(report.render(found))
    else:

        def done(found: dict[str, Any], new: list[Any]) -> None:
            """Prints and saves each section at once, because the whole run takes long."""
            if options.json is not None:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            for table in new:
                print(report.render_table(table), end="\n\n", flush=True)

        names = Options.__dataclass_fields__.keys() & vars(options).keys()
        found = measure(Options(**{name: getattr(options, name) for name in names}), done=done)
        print(report.render_machine(found))
    if options.plot is not None:
        plot.save(report.tables_of(found), options.plot)
