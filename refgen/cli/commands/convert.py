"""`refgen convert FROM TO`: a model in any form that refgen reads, written as a Hugging Face folder or as GGUF."""

import argparse
import json
import shutil
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen.cli.parser import add_choice
from refgen.errors import CheckpointError
from refgen.names import beside, find_model

if TYPE_CHECKING:
    from numpy import ndarray

    from refgen.auto import GPT2LMHeadModel

TOKENS = 16  # whose logits are compared
SWITCHES = ("activation_function", "scale_attn_weights", "scale_attn_by_inverse_layer_idx")  # which GGUF does not hold


def add(commands: Any) -> None:
    """Declares the command."""
    command = commands.add_parser(
        "convert",
        help="write a model of another form as a Hugging Face folder or GGUF",
        description="Read the model FROM: a folder, a file of safetensors, torch.save, GGUF or llm.c, or a name of the Hugging Face "
        "Hub. Write it to the new folder TO, or to a file TO that ends in .gguf (needs gguf). Check that the logits are unchanged.",
        epilog="Example: refgen convert out/ckpt.pt mine",
    )
    command.set_defaults(run=run)
    command.add_argument("source", metavar="FROM", help="a folder, a file or a name such as gpt2")
    command.add_argument("target", metavar="TO", type=Path, help="a new folder, or a file that ends in .gguf")
    add_choice(
        command, "--dtype", names=("float32", "float64"), default="float32", help="%(choices)s (default: %(default)s)"
    )
    command.add_argument(
        "--prefix", default="", metavar="TEXT", help="remove TEXT from the beginning of every tensor's name"
    )
    command.add_argument(
        "--leave-out", action="append", default=[], metavar="PATTERN", help="leave these tensors out, such as 'score.*'"
    )


def run(options: argparse.Namespace) -> None:
    """Converts the model and prints one line about the check."""
    from refgen import checkpoints

    target: Path = options.target
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(str(target), "exists already", remedy="Give a new name.")
    source = find_model(options.source)
    model = load(source, options)
    if target.suffix == ".gguf":
        write_gguf(model, source, target)
    else:
        write_folder(model, source, target)
    count = check(model, target)
    tensors = len(checkpoints.disassemble(model.gpt2))
    print(
        f"{target}: {tensors} tensors, {model.dtype.name}, {about(model)}; logits of {count} tokens unchanged, bit for bit"
    )
    if not any((target / name).exists() for name in ("tokenizer.json", "vocab.json", "vocab.bpe")) and target.is_dir():
        print(f"{target}: {source} has no tokenizer; put one there to use texts")


def load(source: Path, options: argparse.Namespace) -> "GPT2LMHeadModel":
    """The model, after `--prefix` and `--leave-out`."""
    from refgen import checkpoints
    from refgen.auto import GPT2LMHeadModel
    from refgen.checkpoints.stored import Stored
    from refgen.checkpoints.tensors import bare_name
    from refgen.generation import GenerationConfig

    def edit(tensors: list[Stored]) -> list[Stored]:
        named = [(tensor.name.removeprefix(options.prefix), tensor) for tensor in tensors]
        for pattern in options.leave_out:
            left = [(name, tensor) for name, tensor in named if not fnmatchcase(bare_name(name), pattern)]
            if len(left) == len(named):
                raise CheckpointError(f"--leave-out {pattern}", "fits no tensor of the file")
            named = left
        return [Stored(**vars(tensor) | {"name": name}) for name, tensor in named]

    gpt2 = checkpoints.load(source, options.dtype, edit=edit)
    return GPT2LMHeadModel(gpt2, GenerationConfig.of_model(beside(source)))


def write_folder(model: "GPT2LMHeadModel", source: Path, target: Path) -> None:
    """Weights, settings, and the tokenizer if there is one."""
    from refgen import checkpoints
    from refgen.checkpoints.format import begins
    from refgen.hub import TOKENIZER

    model.save_pretrained(target)
    found = [path for name in TOKENIZER if (path := beside(source) / name).is_file()]
    for path in found:
        shutil.copy(path, target / path.name)
    _, file = checkpoints.find_format(source)
    if found or not begins(file, b"GGUF"):
        return
    from refgen.checkpoints import gguf

    if (vocabulary := gguf.vocabulary(file)) is not None:
        ids = {token: i for i, token in enumerate(vocabulary[0])}
        (target / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
        (target / "merges.txt").write_text("\n".join(["#version: 0.2", *vocabulary[1], ""]), encoding="utf-8")


def write_gguf(model: "GPT2LMHeadModel", source: Path, target: Path) -> None:
    """One file in F32, with the vocabulary if there is one. Raises `CheckpointError` for settings that GGUF cannot hold."""
    import numpy as np

    from refgen.config import GPT2Config

    try:
        from refgen.bench import to_gguf
    except ImportError:
        raise CheckpointError(str(target), "needs the package gguf", remedy="pip install gguf") from None
    plain = GPT2Config()
    said = {name: getattr(model.config, name) for name in SWITCHES}
    if model.dtype != np.float32 or said != {name: getattr(plain, name) for name in SWITCHES}:
        problem = f"GGUF of gpt2 cannot hold {', '.join(f'{name}={value}' for name, value in said.items())}, {model.dtype.name}"
        raise CheckpointError(str(target), problem, remedy="Convert it to a folder.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        write_folder(model, source, folder)
        words = to_gguf.words_of(folder) if (folder / "tokenizer.json").exists() else None
        to_gguf.write(folder, target, words)


def check(model: "GPT2LMHeadModel", target: Path) -> int:
    """The number of tokens whose logits were compared. Raises `CheckpointError` if the written model's differ in any bit."""
    import numpy as np

    from refgen.auto import GPT2LMHeadModel

    ids = some_ids(model)
    written = GPT2LMHeadModel.from_pretrained(target, dtype=model.dtype)
    if not np.array_equal(written(ids).logits, model(ids).logits):
        raise CheckpointError(str(target), "gives other logits than what it was made of: a bug of refgen")
    return ids.shape[1]


def some_ids(model: "GPT2LMHeadModel") -> "ndarray":
    """A row of ids, the same each time."""
    import numpy as np

    length = min(TOKENS, model.config.n_positions)
    return np.random.default_rng(0).integers(0, model.config.vocab_size, (1, length))


def about(model: "GPT2LMHeadModel") -> str:
    """The activation and the head, which files of other programs do not always name."""
    return f"{model.config.activation_function}, {'tied' if model.config.tie_word_embeddings else 'own'} head"
