"""`refgen generate PROMPT`: its options are settings of `generate()`, by the same names."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refgen.cli.options import add_engine, add_json, add_model, read_text
from refgen.cli.parser import OneOf, add_choice, number, whole
from refgen.errors import InputError
from refgen.names import beside, find_model
from refgen.progress import tell

if TYPE_CHECKING:
    from numpy import ndarray

    from refgen.auto import GPT2LMHeadModel
    from refgen.generation import GenerateOutput
    from refgen.tokenizer import Tokenizer

# --- What an option's words mean --------------------------------------------------------------------------

Reader = Callable[[list[str], Any, str], Any]  # (the words, the tokenizer, the flag) -> the setting


def tokens(names: list[str], tokenizer: "Tokenizer", flag: str) -> list[int] | None:
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


def token(names: list[str], tokenizer: "Tokenizer", flag: str) -> int | None:
    """One of those; the last, if the option is repeated."""
    several = tokens(names[-1:], tokenizer, flag)
    return several[0] if several else None


def words(texts: list[str], tokenizer: "Tokenizer", flag: str) -> list[list[int]]:  # noqa: ARG001
    """Texts as their ids."""
    return [tokenizer.encode(text) for text in texts]


def biases(texts: list[str], tokenizer: "Tokenizer", flag: str) -> list[list[Any]]:
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


def entries(texts: list[str], tokenizer: "Tokenizer", flag: str) -> Any:  # noqa: ARG001
    """A JSON value."""
    try:
        return json.loads(texts[-1])
    except json.JSONDecodeError as error:
        raise InputError(f"{flag} {texts[-1]}", f"is no JSON: {error.msg}", "CFG-10") from None


def texts(values: list[str], tokenizer: "Tokenizer", flag: str) -> list[str]:  # noqa: ARG001
    """As they are."""
    return values


def start_and_factor(values: list[str], tokenizer: "Tokenizer", flag: str) -> list[float]:  # noqa: ARG001
    """START,FACTOR."""
    try:
        start, factor = values[-1].split(",")
        return [int(start), float(factor)]
    except ValueError:
        raise InputError(f"{flag} {values[-1]}", "must be START,FACTOR", "EXPD-01", "For instance 20,1.05.") from None


READERS = (tokens, token, words, biases, entries, texts, start_and_factor)


def true_false_never(text: str) -> bool | str:
    """Reads true, false or never."""
    values: Mapping[str, bool | str] = {"true": True, "false": False, "never": "never"}
    return values[OneOf(tuple(values))(text)]


schedule = OneOf(("constant", "heuristic", "heuristic_transient"))


# --- The options ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """`kind` is bool for a flag without value, one of READERS, or a type of argparse; `field` the setting it makes."""

    flag: str
    kind: Any
    metavar: str
    help: str
    field: str = ""
    value: Any = True  # of a flag without value
    short: str = ""

    @property
    def setting(self) -> str:
        """The name of the setting."""
        return self.field or self.flag.removeprefix("--").replace("-", "_")

    def add(self, group: Any) -> None:
        """Declares it; its value goes by the name of the setting."""
        flags = [self.short, self.flag] if self.short else [self.flag]
        if self.kind is bool:
            group.add_argument(*flags, dest=self.setting, action="store_true", help=self.help)
        elif self.kind in READERS:
            group.add_argument(*flags, dest=self.setting, action="append", metavar=self.metavar, help=self.help)
        else:
            group.add_argument(*flags, dest=self.setting, type=self.kind, metavar=self.metavar, help=self.help)


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "length and end": (
        Option("--max-new-tokens", whole, "N", "stop after N new tokens (default: 20)", short="-n"),
        Option("--max-length", whole, "N", "stop at N tokens, prompt included"),
        Option("--min-new-tokens", whole, "N", "no end before N new tokens"),
        Option("--min-length", whole, "N", "no end before N tokens, prompt included"),
        Option("--eos", tokens, "ID|TOKEN", "end token, repeatable; 'none' for no end (default: the model's)", "eos_token_id"),
        Option("--pad", token, "ID|TOKEN", "the token that fills finished rows (default: the end token)", "pad_token_id"),
        Option("--bos", token, "ID|TOKEN", "the first token of a text without a prompt", "bos_token_id"),
        Option("--stop-string", texts, "TEXT", "stop after TEXT, repeatable", "stop_strings"),
        Option("--max-time", number, "S", "stop after S seconds"),
    ),
    "sampling": (
        Option("--do-sample", bool, "", "draw tokens at random instead of taking the best"),
        Option("--temperature", number, "T", "divide logits by T; 0 is greedy", short="-t"),
        Option("--top-k", whole, "K", "keep the K best tokens; 0 keeps all (default: 50)", short="-k"),
        Option("--top-p", number, "P", "keep the best tokens up to probability P", short="-p"),
        Option("--min-p", number, "P", "drop tokens below P times the best one's probability"),
        Option("--typical-p", number, "P", "keep the least surprising tokens up to probability P"),
        Option("--top-h", number, "H", "keep the best tokens up to a share H of the entropy"),
        Option("--epsilon-cutoff", number, "E", "drop tokens less likely than E"),
        Option("--eta-cutoff", number, "E", "drop tokens less likely than a limit from E and the entropy"),
        Option("--num-return-sequences", whole, "N", "give N continuations"),
    ),
    "penalties, bans and biases": (
        Option("--repetition-penalty", number, "R", "make tokens that already occurred less likely"),
        Option("--no-repeat-ngram-size", whole, "N", "never repeat a sequence of N tokens"),
        Option("--bad-word", words, "TEXT", "never generate TEXT, repeatable", "bad_words_ids"),
        Option("--bias", biases, "TEXT=B", "add B to the score of the token that completes TEXT, repeatable", "sequence_bias"),
        Option("--suppress-token", tokens, "ID|TOKEN", "never generate this token, repeatable", "suppress_tokens"),
        Option("--begin-suppress-token", tokens, "ID|TOKEN", "never begin the new text with this token, repeatable", "begin_suppress_tokens"),
        Option("--forced-bos", token, "ID|TOKEN", "force this token after a prompt of one token", "forced_bos_token_id"),
        Option("--forced-eos", tokens, "ID|TOKEN", "force this token at the length limit, repeatable", "forced_eos_token_id"),
        Option("--exponential-decay-length-penalty", start_and_factor, "START,FACTOR",
               "make the end more and more likely after START tokens"),
        Option("--guidance-scale", number, "G", "move away from the negative prompt"),
        Option("--remove-invalid-values", bool, "", "make NaN and infinite scores finite"),
        Option("--renormalize-logits", bool, "", "make scores log-probabilities"),
        Option("--watermark", entries, "JSON", "mark the text, such as '{\"bias\": 2.0}'", "watermarking_config"),
    ),
    "beam search": (
        Option("--num-beams", whole, "K", "search with K beams"),
        Option("--length-penalty", number, "P", "above 0 prefers long sequences (default: 1)"),
        Option("--early-stopping", true_false_never, "true|false|never", "true ends the search at K finished sequences"),
    ),
    "speed and memory": (
        Option("--prompt-lookup-num-tokens", whole, "N", "draft up to N tokens from earlier in the text"),
        Option("--max-matching-ngram-size", whole, "N", "look up at most the last N tokens (default: 2)"),
        Option("--num-assistant-tokens", whole, "N", "let the draft model guess N tokens (default: 20)"),
        Option("--num-assistant-tokens-schedule", schedule, "constant|heuristic", "heuristic adapts the number of guesses to the last draft"),
        Option("--assistant-confidence-threshold", number, "C", "end a draft at a token less likely than C (default: 0.4)"),
        Option("--prefill-chunk-size", whole, "N", "take the prompt N tokens at a time"),
        Option("--no-cache", bool, "", "recompute everything for each token", "use_cache", value=False),
    ),
}  # fmt: skip


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "generate",
        help="continue a text",
        usage="%(prog)s [PROMPT] [options]",
        description="Continue PROMPT, or begin a new text without one. The text appears while it is generated.",
        epilog='Example: refgen generate "ROMEO:" --do-sample --temperature 0.8 --top-p 0.9 --seed 1',
    )
    command.set_defaults(run=run)
    prompt = command.add_argument_group("prompt and model")
    prompt.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="the text to continue (- reads standard input, and so does a pipe)"
    )
    add_model(prompt)
    prompt.add_argument(
        "--assistant-model", metavar="DIR|NAME", help="a smaller model that drafts tokens for this one to check"
    )
    prompt.add_argument(
        "--negative-prompt",
        dest="negative_prompt_ids",
        metavar="TEXT",
        help="the text that --guidance-scale moves away from",
    )
    add_choice(
        prompt, "--dtype", names=("float32", "float64"), default="float32", help="%(choices)s (default: %(default)s)"
    )
    add_engine(prompt)
    threads = "how many to use (default: OMP_NUM_THREADS, else one a core)"
    prompt.add_argument("--threads", type=whole, metavar="N", help=threads)
    prompt.add_argument(
        "-s", "--seed", type=whole, metavar="N", help="draw what torch draws with this seed (default: fresh)"
    )
    for title, options in OPTIONS.items():
        group = command.add_argument_group(title)
        for option in options:
            option.add(group)
    output = command.add_argument_group("output")
    add_json(output, "one JSON object a continuation: prompt, text, ids, finish, seed")
    output.add_argument(
        "--proof",
        action="store_true",
        help="prove that each token has the highest logit, and print the proof; see docs/proofs.md",
    )
    output.add_argument(
        "--bits", type=whole, metavar="F", help="of --proof: bits after the binary point (default: as many as it takes)"
    )
    output.add_argument("--logprobs", action="store_true", help="in it, the log-probability of each new id as well")
    output.add_argument("--skip-prompt", action="store_true", help="print only what is new")


def settings_of(options: argparse.Namespace, tokenizer: "Tokenizer") -> dict[str, Any]:
    """The settings that the options ask for."""
    settings = {}
    for option in (option for group in OPTIONS.values() for option in group):
        given = getattr(options, option.setting)
        if given is None or given is False:
            continue
        if option.kind is bool:
            given = option.value
        elif option.kind in READERS:
            given = option.kind(given, tokenizer, option.flag)
        settings[option.setting] = given
    return settings


# --- The command ------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Prompt in, text out."""
    import numpy as np

    from refgen.auto import GPT2LMHeadModel
    from refgen.engines.numpy.threads import set_num_threads
    from refgen.generation import TextStreamer
    from refgen.tokenizer import Tokenizer

    if options.threads is not None:
        set_num_threads(options.threads)
    prompt = read_prompt(options)
    folder = find_model(options.model)
    tokenizer = Tokenizer.from_pretrained(beside(folder))
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=options.dtype, engine=options.engine)
    if options.logprobs and not options.json:
        raise InputError("--logprobs", "are printed in JSON only", "OUT-08", "Add --json.")
    settings = settings_of(options, tokenizer)
    if options.proof:
        prove(options, settings, model, tokenizer, prompt)
        return
    if options.bits is not None:
        raise InputError("--bits", "goes with --proof", "FWD-30", "Add --proof.")
    ids = None if prompt is None else tokenizer([prompt], return_tensors="np")["input_ids"]
    if options.negative_prompt_ids is not None:
        settings["negative_prompt_ids"] = np.array([tokenizer.encode(options.negative_prompt_ids)])
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


PROVED = {"max_new_tokens", "eos_token_id"}  # what settings a proof takes


def prove(
    options: argparse.Namespace,
    settings: Mapping[str, Any],
    model: "GPT2LMHeadModel",
    tokenizer: "Tokenizer",
    prompt: str | None,
) -> None:
    """The greedy continuation with its proof; raises `InputError` for an option that a proof does not take."""
    import numpy as np

    from refgen.cli import proof

    flags = {option.setting: option.flag for group in OPTIONS.values() for option in group}
    refused = [flags[name] for name in settings if name not in PROVED]
    others = {"--seed": "seed", "--assistant-model": "assistant_model", "--negative-prompt": "negative_prompt_ids",
              "--logprobs": "logprobs", "--skip-prompt": "skip_prompt"}  # fmt: skip
    refused += [
        flag
        for flag, name in others.items()
        if getattr(options, name) is not None and getattr(options, name) is not False
    ]
    if refused:
        raise InputError(
            refused[0], "does not go with --proof", "FWD-30", "A proof is of greedy tokens of the exact network."
        )
    if prompt is None:
        raise InputError("PROMPT", "is missing", "FWD-30", "A proof begins with a prompt.")
    count = settings.get("max_new_tokens", model.generation_config.max_new_tokens or 20)
    if count < 1:
        raise InputError(f"--max-new-tokens {count}", "must be at least 1", "FWD-30")
    ends = settings.get("eos_token_id", model.generation_config.eos_token_id)
    proof.show(
        model,
        tokenizer,
        np.array(tokenizer.encode(prompt)),
        count,
        [] if ends is None else np.reshape(ends, -1).tolist(),
        options.bits,
        options.json,
    )


def show_json(output: "GenerateOutput", prompt: str | None, width: int, tokenizer: "Tokenizer") -> None:
    """One line for each continuation, without the filling after it."""
    start = max(width, 1)  # without a prompt, bos stands first and has no log-probability
    for place, (row, length) in enumerate(zip(output.sequences.tolist(), output.lengths.tolist(), strict=True)):
        told = {
            "prompt": prompt,
            "text": tokenizer.decode(row[width:length], skip_special_tokens=True),
            "ids": row[:length],
            "finish": output.finish[place],
            "seed": output.seed,
        }
        if output.scores is not None:
            told["logprobs"] = [round(float(each), 6) for each in output.logprobs()[place, : length - start]]
        print(json.dumps(told))


def read_prompt(options: argparse.Namespace) -> str | None:
    """From the command line or standard input; None to begin a text. Raises `InputError` for an empty one."""
    prompt = read_text(options.prompt)
    if prompt == "":
        raise InputError("PROMPT", "is empty", "IN-03", "Leave it out to begin a new text.")
    return prompt


class Progress:
    """A streamer that counts steps on a terminal's stderr, and says nothing into a pipe."""

    def __init__(self) -> None:
        self._steps = -1

    def put(self, ids: "ndarray") -> None:  # noqa: ARG002
        """One more step; the first call is the prompt."""
        self._steps += 1
        tell(f"{self._steps} tokens")

    def end(self) -> None:
        """Wipes the count away."""
        tell("")
