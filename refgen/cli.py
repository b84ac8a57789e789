"""The command line: `refgen generate PROMPT`, `refgen spec RULE`. Results go to stdout, everything else to stderr.

Exit codes: 0 done · 1 an error in the input, said in one line · 2 wrong usage · 130 interrupted · 141 nobody
reads the output any more.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from numpy import ndarray

import refgen
from refgen import spec
from refgen.auto import BUILT_IN, GPT2LMHeadModel, find_model
from refgen.errors import IgnoredSettingWarning, InputError, RefgenError
from refgen.generation import GenerateOutput, TextStreamer
from refgen.tokenizer import Tokenizer

INTERRUPTED, BROKEN_PIPE = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = parser().parse_args(arguments)
    warnings.showwarning = show_warning
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; give it a place where that succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (RefgenError, OSError, UnicodeError, MemoryError) as error:
        print(f"refgen: error: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    return 0


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """One line, without the place in the code."""
    kind = "note" if issubclass(category, IgnoredSettingWarning) else "warning"
    print(f"refgen: {kind}: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="refgen", description="The executable specification of GPT-2 text generation.")
    top.add_argument("--version", action="version", version=f"refgen {refgen.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_generate(commands)
    add_spec(commands)
    return top


def add_generate(commands: Any) -> None:
    """`refgen generate`: its options are settings of `generate()`, by the same names."""
    command = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue PROMPT, or begin a text if there is none. Text appears as it is made.",
        epilog='Example: refgen generate "ROMEO:" --do-sample --temperature 0.8 --top-p 0.9 --seed 1',
    )
    command.set_defaults(run=run_generate)
    prompt = command.add_argument_group("prompt and model")
    prompt.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text to continue")
    prompt.add_argument("--stdin", action="store_true", help="read the prompt from standard input")
    prompt.add_argument(
        "--model",
        default=BUILT_IN[0],
        metavar="DIR|NAME",
        help="a Hugging Face folder, or the built-in %(default)s (default)",
    )
    prompt.add_argument("--dtype", default="float32", choices=("float32", "float64"), help="default: %(default)s")

    length = command.add_argument_group("length and end")
    length.add_argument("--max-new-tokens", type=int, metavar="N", help="stop after N new tokens (default: 20)")
    length.add_argument("--max-length", type=int, metavar="N", help="stop at N tokens, prompt included")
    length.add_argument("--min-new-tokens", type=int, metavar="N", help="no end before N new tokens")
    length.add_argument("--min-length", type=int, metavar="N", help="no end before N tokens, prompt included")
    length.add_argument(
        "--eos",
        action="append",
        metavar="ID|TOKEN",
        help="end token, repeatable; 'none' for no end (default: the model's)",
    )

    length.add_argument("--stop-string", action="append", metavar="TEXT", help="stop after TEXT, repeatable")
    length.add_argument("--max-time", type=float, metavar="S", help="stop after S seconds")

    choice = command.add_argument_group("choice of tokens")
    choice.add_argument("--do-sample", action="store_true", help="draw tokens by chance instead of taking the best")
    choice.add_argument(
        "--seed", type=int, metavar="N", help="the tokens torch draws on a CPU with this seed (default: fresh)"
    )
    choice.add_argument("--temperature", type=float, metavar="T", help="divide logits by T; 0 is greedy")
    choice.add_argument("--top-k", type=int, metavar="K", help="keep the K best tokens; 0 keeps all (default: 50)")
    choice.add_argument("--top-p", type=float, metavar="P", help="keep the best tokens up to probability P")
    choice.add_argument("--min-p", type=float, metavar="P", help="drop tokens below P times the best one's probability")
    choice.add_argument(
        "--typical-p", type=float, metavar="P", help="keep the least surprising tokens up to probability P"
    )
    choice.add_argument("--top-h", type=float, metavar="H", help="keep the best tokens up to a share H of the entropy")
    choice.add_argument("--epsilon-cutoff", type=float, metavar="E", help="drop tokens less likely than E")
    choice.add_argument(
        "--eta-cutoff", type=float, metavar="E", help="drop tokens less likely than E and the entropy allow"
    )
    choice.add_argument("--no-repeat-ngram-size", type=int, metavar="N", help="never say N tokens in a row twice")
    choice.add_argument("--bad-word", action="append", metavar="TEXT", help="never say TEXT, repeatable")
    choice.add_argument("--repetition-penalty", type=float, metavar="R", help="make tokens already there less likely")
    choice.add_argument("--num-beams", type=int, metavar="K", help="search with K beams")
    choice.add_argument("--length-penalty", type=float, metavar="P", help="above 0 prefers long sequences (default: 1)")
    choice.add_argument(
        "--early-stopping", action="store_true", help="end a search as soon as K sequences are finished"
    )
    choice.add_argument("--num-return-sequences", type=int, metavar="N", help="draw N continuations")

    output = command.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="one JSON object a continuation: prompt, text, ids, finish, seed"
    )
    output.add_argument("--skip-prompt", action="store_true", help="print only what is new")


SETTINGS = (
    "max_new_tokens", "max_length", "min_new_tokens", "min_length", "max_time", "temperature", "top_k", "top_p", "min_p",
    "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size", "repetition_penalty",
    "num_beams", "length_penalty", "num_return_sequences",
)  # fmt: skip


def run_generate(options: argparse.Namespace) -> None:
    """Prompt in, text out."""
    prompt = read_prompt(options)
    folder = find_model(options.model)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=options.dtype)
    settings = {name: value for name in SETTINGS if (value := getattr(options, name)) is not None}
    if options.eos:
        settings["eos_token_id"] = read_eos(options.eos, tokenizer)
    if options.early_stopping:
        settings["early_stopping"] = True
    if options.stop_string:
        settings["stop_strings"] = options.stop_string
    if options.bad_word:
        settings["bad_words_ids"] = [tokenizer.encode(word) for word in options.bad_word]
    ids = None if prompt is None else tokenizer([prompt], return_tensors="np")["input_ids"]
    several = settings.get("num_return_sequences", 1) > 1
    beams = settings.get("num_beams", 1) > 1
    streams = not (options.json or several or beams)
    streamer = TextStreamer(tokenizer, options.skip_prompt, skip_special_tokens=True) if streams else Progress()
    output: GenerateOutput = model.generate(
        ids,
        seed=options.seed,
        do_sample=options.do_sample,
        return_dict_in_generate=True,
        streamer=None if beams else streamer,
        tokenizer=tokenizer,
        **settings,
    )
    if output.seed is not None and options.seed is None and not options.json:
        print(f"\nrefgen: seed={output.seed}", file=sys.stderr)
    width = 0 if ids is None else ids.shape[1]
    for number, (row, finish) in enumerate(zip(output.sequences.tolist(), output.finish, strict=True)):
        if options.json:
            text = tokenizer.decode(row[width:], skip_special_tokens=True)
            print(json.dumps({"prompt": prompt, "text": text, "ids": row, "finish": finish, "seed": output.seed}))
        elif not streams:
            print(
                "---\n" * (number > 0) + tokenizer.decode(row[width * options.skip_prompt :], skip_special_tokens=True)
            )
    if streams:
        print()


def add_spec(commands: Any) -> None:
    """`refgen spec`: the rules, from the SPEC.md that belongs to this version."""
    command = commands.add_parser(
        "spec",
        help="show the rules",
        description="List all rules; show those of a FAMILY, or the one with this ID, in full.",
        epilog="Example: refgen spec TOPP-01",
    )
    command.set_defaults(run=run_spec)
    command.add_argument("name", nargs="?", metavar="ID|FAMILY", help="such as TOPP-01 or TOPP")
    command.add_argument("--json", action="store_true", help="an array with one object a rule")


def run_spec(options: argparse.Namespace) -> None:
    """Rules out."""
    found = spec.find(options.name)
    if options.json:
        print(json.dumps([asdict(rule) for rule in found], ensure_ascii=False, indent=2))
    elif options.name is None:
        print(spec.index(found))
    else:
        print("\n\n\n".join(map(spec.show, found)))


def read_prompt(options: argparse.Namespace) -> str | None:
    """From the command line or standard input, without the newline that ends a typed line."""
    prompt: str | None = options.prompt
    if options.stdin:
        if prompt is not None:
            raise InputError("PROMPT and --stdin", "are two prompts", "IN-01", "Give one of them.")
        if sys.stdin is None:
            raise InputError("--stdin", "is closed", "IN-01")
        prompt = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if prompt == "":
        raise InputError("PROMPT", "is empty", "IN-03", "Leave it out to begin a new text.")
    return prompt


def read_eos(names: list[str], tokenizer: Tokenizer) -> list[int] | None:
    """Ids as they are, tokens by their text, 'none' as None."""
    if names == ["none"]:
        return None
    vocabulary = tokenizer.get_vocab()
    for name in names:
        if name == "none":
            raise InputError("--eos none", "stands alone", "STOP-03")
        if not name.isdecimal() and name not in vocabulary:
            raise InputError(f"--eos {name}", "is neither an id nor a token of the vocabulary", "STOP-03")
    return [int(name) if name.isdecimal() else vocabulary[name] for name in names]


class Progress:
    """A streamer that counts steps on a terminal's stderr, and says nothing into a pipe."""

    def __init__(self) -> None:
        self._steps = -1

    def put(self, ids: ndarray) -> None:  # noqa: ARG002
        """One more step; the first call is the prompt."""
        self._steps += 1
        if sys.stderr.isatty():
            print(f"\r{self._steps} tokens", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Wipes the count away."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
