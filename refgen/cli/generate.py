"""`refgen generate PROMPT`: its options are settings of `generate()`, by the same names."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.auto import GPT2LMHeadModel
from refgen.cli.options import add_engine, add_model
from refgen.engines.numpy.threads import set_num_threads
from refgen.errors import InputError
from refgen.generation import GenerateOutput, TextStreamer
from refgen.names import beside, find_model
from refgen.progress import tell
from refgen.tokenizer import Tokenizer

# --- What an option's words mean --------------------------------------------------------------------------

Reader = Callable[[list[str], Tokenizer, str], Any]  # (the words, the tokenizer, the flag) -> the setting


def tokens(names: list[str], tokenizer: Tokenizer, flag: str) -> list[int] | None:
    """Ids as they are, tokens by their text, 'none' as None."""
    if names == ["none"]:
        return None
    vocabulary = tokenizer.get_vocab()
    for name in names:
        if name == "none":
            raise InputError(f"{flag} none", "stands alone", "STOP-03")
        if not name.isdecimal() and name not in vocabulary:
            raise InputError(f"{flag} {name}", "is neither an id nor a token of the vocabulary", "STOP-03")
    return [int(name) if name.isdecimal() else vocabulary[name] for name in names]


def token(names: list[str], tokenizer: Tokenizer, flag: str) -> int | None:
    """One of those; the last, if the option is repeated."""
    several = tokens(names[-1:], tokenizer, flag)
    return several[0] if several else None


def words(texts: list[str], tokenizer: Tokenizer, flag: str) -> list[list[int]]:  # noqa: ARG001
    """Texts as their ids."""
    return [tokenizer.encode(text) for text in texts]


def biases(texts: list[str], tokenizer: Tokenizer, flag: str) -> list[list[Any]]:
    """TEXT=NUMBER, as ids and number."""
    found = []
    for text in texts:
        word, equals, number = text.rpartition("=")
        try:
            found.append([tokenizer.encode(word), float(number)])
        except ValueError:
            equals = ""
        if not (word and equals):
            raise InputError(f"{flag} {text}", "must be TEXT=NUMBER", "BIAS-01", "For instance ' thou=1.5'.")
    return found


def entries(texts: list[str], tokenizer: Tokenizer, flag: str) -> Any:  # noqa: ARG001
    """A JSON value."""
    try:
        return json.loads(texts[-1])
    except json.JSONDecodeError as error:
        raise InputError(f"{flag} {texts[-1]}", f"is no JSON: {error.msg}", "CFG-10") from None


def texts(values: list[str], tokenizer: Tokenizer, flag: str) -> list[str]:  # noqa: ARG001
    """As they are."""
    return values


def true_false_never(values: list[str], tokenizer: Tokenizer, flag: str) -> bool | str:  # noqa: ARG001
    """true and false as such."""
    return {"true": True, "false": False}.get(values[-1], values[-1])


def start_and_factor(values: list[str], tokenizer: Tokenizer, flag: str) -> list[float]:  # noqa: ARG001
    """START,FACTOR."""
    try:
        start, factor = values[-1].split(",")
        return [int(start), float(factor)]
    except ValueError:
        raise InputError(f"{flag} {values[-1]}", "must be START,FACTOR", "EXPD-01", "For instance 20,1.05.") from None


# --- The options ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """`kind` is int or float, bool for a flag without value, or a reader of the words; `field` the setting it makes."""

    flag: str
    kind: Any
    metavar: str
    help: str
    field: str = ""
    value: Any = True  # of a flag without value

    @property
    def setting(self) -> str:
        """The name of the setting."""
        return self.field or self.flag.removeprefix("--").replace("-", "_")


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "length and end": (
        Option("--max-new-tokens", int, "N", "stop after N new tokens (default: 20)"),
        Option("--max-length", int, "N", "stop at N tokens, prompt included"),
        Option("--min-new-tokens", int, "N", "no end before N new tokens"),
        Option("--min-length", int, "N", "no end before N tokens, prompt included"),
        Option("--eos", tokens, "ID|TOKEN", "end token, repeatable; 'none' for no end (default: the model's)", "eos_token_id"),
        Option("--pad", token, "ID|TOKEN", "what fills finished rows (default: the end token)", "pad_token_id"),
        Option("--bos", token, "ID|TOKEN", "what a text begins with if there is no prompt", "bos_token_id"),
        Option("--stop-string", texts, "TEXT", "stop after TEXT, repeatable", "stop_strings"),
        Option("--max-time", float, "S", "stop after S seconds"),
    ),
    "sampling": (
        Option("--do-sample", bool, "", "draw tokens by chance instead of taking the best"),
        Option("--temperature", float, "T", "divide logits by T; 0 is greedy"),
        Option("--top-k", int, "K", "keep the K best tokens; 0 keeps all (default: 50)"),
        Option("--top-p", float, "P", "keep the best tokens up to probability P"),
        Option("--min-p", float, "P", "drop tokens below P times the best one's probability"),
        Option("--typical-p", float, "P", "keep the least surprising tokens up to probability P"),
        Option("--top-h", float, "H", "keep the best tokens up to a share H of the entropy"),
        Option("--epsilon-cutoff", float, "E", "drop tokens less likely than E"),
        Option("--eta-cutoff", float, "E", "drop tokens less likely than E and the entropy allow"),
        Option("--num-return-sequences", int, "N", "give N continuations"),
    ),
    "penalties, bans and biases": (
        Option("--repetition-penalty", float, "R", "make tokens already there less likely"),
        Option("--no-repeat-ngram-size", int, "N", "never say N tokens in a row twice"),
        Option("--bad-word", words, "TEXT", "never say TEXT, repeatable", "bad_words_ids"),
        Option("--bias", biases, "TEXT=B", "add B to the score of what completes TEXT, repeatable", "sequence_bias"),
        Option("--suppress-token", tokens, "ID|TOKEN", "never say this token, repeatable", "suppress_tokens"),
        Option("--begin-suppress-token", tokens, "ID|TOKEN", "nor this one at first, repeatable", "begin_suppress_tokens"),
        Option("--forced-bos", token, "ID|TOKEN", "say this behind a prompt of one token", "forced_bos_token_id"),
        Option("--forced-eos", tokens, "ID|TOKEN", "say this at the length limit, repeatable", "forced_eos_token_id"),
        Option("--exponential-decay-length-penalty", start_and_factor, "START,FACTOR",
               "make the end ever likelier after START tokens"),
        Option("--guidance-scale", float, "G", "move away from the negative prompt"),
        Option("--remove-invalid-values", bool, "", "make NaN and infinite scores finite"),
        Option("--renormalize-logits", bool, "", "make scores log-probabilities"),
        Option("--watermark", entries, "JSON", "mark the text, such as '{\"bias\": 2.0}'", "watermarking_config"),
    ),
    "beam search": (
        Option("--num-beams", int, "K", "search with K beams"),
        Option("--length-penalty", float, "P", "above 0 prefers long sequences (default: 1)"),
        Option("--early-stopping", true_false_never, "true|false|never", "true ends a search at K finished sequences"),
    ),
    "speed and memory": (
        Option("--prompt-lookup-num-tokens", int, "N", "draft up to N tokens from earlier in the text"),
        Option("--max-matching-ngram-size", int, "N", "by up to N last tokens (default: 2)"),
        Option("--num-assistant-tokens", int, "N", "let the draft model guess N tokens (default: 20)"),
        Option("--num-assistant-tokens-schedule", str, "constant|heuristic", "or as many as turn out right"),
        Option("--assistant-confidence-threshold", float, "C", "or up to one less likely than C (default: 0.4)"),
        Option("--prefill-chunk-size", int, "N", "take the prompt N tokens at a time"),
        Option("--no-cache", bool, "", "compute everything anew for each token", "use_cache", value=False),
    ),
}  # fmt: skip


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "generate",
        help="continue a text",
        usage="%(prog)s [PROMPT] [options]",
        description="Continue PROMPT, or begin a text if there is none. Text appears as it is made.",
        epilog='Example: refgen generate "ROMEO:" --do-sample --temperature 0.8 --top-p 0.9 --seed 1',
    )
    command.set_defaults(run=run)
    prompt = command.add_argument_group("prompt and model")
    prompt.add_argument("prompt", nargs="?", metavar="PROMPT", help="the text to continue")
    prompt.add_argument("--stdin", action="store_true", help="read the prompt from standard input")
    add_model(prompt)
    prompt.add_argument(
        "--assistant-model", metavar="DIR|NAME", help="a smaller model that drafts what this one checks"
    )
    prompt.add_argument("--negative-prompt", metavar="TEXT", help="what --guidance-scale moves away from")
    prompt.add_argument("--dtype", default="float32", choices=("float32", "float64"), help="default: %(default)s")
    add_engine(prompt)
    threads = "how many to use (default: OMP_NUM_THREADS, else one a core)"
    prompt.add_argument("--threads", type=int, metavar="N", help=threads)
    prompt.add_argument("--seed", type=int, metavar="N", help="draw what torch draws with this seed (default: fresh)")
    for title, options in OPTIONS.items():
        group = command.add_argument_group(title)
        for option in options:
            if option.kind is bool:
                group.add_argument(option.flag, action="store_true", help=option.help)
            elif option.kind in (int, float, str):
                group.add_argument(option.flag, type=option.kind, metavar=option.metavar, help=option.help)
            else:
                group.add_argument(option.flag, action="append", metavar=option.metavar, help=option.help)
    output = command.add_argument_group("output")
    output.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a continuation: prompt, text, ids, finish, seed",
    )
    output.add_argument("--logprobs", action="store_true", help="in it, the log-probability of each new id as well")
    output.add_argument("--skip-prompt", action="store_true", help="print only what is new")


def settings_of(options: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings that the options ask for."""
    settings = {}
    for option in (option for group in OPTIONS.values() for option in group):
        given = getattr(options, option.flag.removeprefix("--").replace("-", "_"))
        if given is None or given is False:
            continue
        if option.kind is bool:
            given = option.value
        elif option.kind not in (int, float, str):
            given = option.kind(given, tokenizer, option.flag)
        settings[option.setting] = given
    return settings


# --- The command ------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Prompt in, text out."""
    if options.threads is not None:
        set_num_threads(options.threads)
    prompt = read_prompt(options)
    folder = find_model(options.model)
    tokenizer = Tokenizer.from_pretrained(beside(folder))
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=options.dtype, engine=options.engine)
    if options.logprobs and not options.json:
        raise InputError("--logprobs", "are told in JSON", "OUT-08", "Add --json.")
    settings = settings_of(options, tokenizer)
    ids = None if prompt is None else tokenizer([prompt], return_tensors="np")["input_ids"]
    if options.negative_prompt is not None:
        settings["negative_prompt_ids"] = np.array([tokenizer.encode(options.negative_prompt)])
    if options.assistant_model is not None:
        settings["assistant_model"] = GPT2LMHeadModel.from_pretrained(options.assistant_model, dtype=options.dtype)
    beams = settings.get("num_beams", 1) > 1
    streams = not (options.json or beams or settings.get("num_return_sequences", 1) > 1)
    streamer = TextStreamer(tokenizer, options.skip_prompt, skip_special_tokens=True) if streams else Progress()
    output: GenerateOutput = model.generate(
        ids,
        seed=options.seed,
        return_dict_in_generate=True,
        output_scores=options.logprobs,
        streamer=None if beams else streamer,
        tokenizer=tokenizer,
        **settings,
    )
    if output.seed is not None and options.seed is None and not options.json:
        print(f"\nrefgen: seed={output.seed}", file=sys.stderr)
    width = 0 if ids is None else ids.shape[1]  # a first bos counts as new text
    if streams:
        print()
    elif options.json:
        show_json(output, prompt, width, tokenizer)
    else:
        shown = output.sequences[:, width * options.skip_prompt :].tolist()
        print("\n---\n".join(tokenizer.decode(row, skip_special_tokens=True) for row in shown))


def show_json(output: GenerateOutput, prompt: str | None, width: int, tokenizer: Tokenizer) -> None:
    """One line a continuation, without the filling behind it."""
    start = max(width, 1)  # without a prompt, bos stands first and has no log-probability
    for number, (row, length) in enumerate(zip(output.sequences.tolist(), output.lengths.tolist(), strict=True)):
        told = {
            "prompt": prompt,
            "text": tokenizer.decode(row[width:length], skip_special_tokens=True),
            "ids": row[:length],
            "finish": output.finish[number],
            "seed": output.seed,
        }
        if output.scores is not None:
            told["logprobs"] = [round(float(each), 6) for each in output.logprobs()[number, : length - start]]
        print(json.dumps(told))


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


class Progress:
    """A streamer that counts steps on a terminal's stderr, and says nothing into a pipe."""

    def __init__(self) -> None:
        self._steps = -1

    def put(self, ids: ndarray) -> None:  # noqa: ARG002
        """One more step; the first call is the prompt."""
        self._steps += 1
        tell(f"{self._steps} tokens")

    def end(self) -> None:
        """Wipes the count away."""
        tell("")
