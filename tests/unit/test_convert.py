"""`refgen convert`: any form becomes a folder with the same logits, or nothing is written that has not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from refgen import AutoModelForCausalLM, AutoTokenizer
from refgen.cli import main
from refgen.cli.commands.convert import some_ids
from tests.model_folders import SMALL, UNTIED, numbers, write
from tests.other_formats import pickled, write_gguf, write_llmc, write_zip

WIDE = replace(SMALL, n_embd=32, vocab_size=40)


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    code = main(["convert", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("form", ["folder", "untied", "prefix", "pytorch_model.bin", "gguf", "q8", "llm.c"])
def test_every_form_becomes_a_folder(capsys, tmp_path, form):
    """CKPT-09. The logits are those of what was read, bit for bit, and the line says how many were compared."""
    source, config = tmp_path / "from", UNTIED if form == "untied" else WIDE
    tensors = numbers(config)
    source.mkdir()
    if form in ("folder", "untied", "prefix"):
        write(source, tensors, config, "_orig_mod." if form == "prefix" else "")
    elif form == "pytorch_model.bin":
        (source / "config.json").write_text(json.dumps(config.to_dict()))
        write_zip(source / form, pickled(tensors), tensors)
    elif form == "llm.c":
        source = write_llmc(source / "model.bin", config, tensors)
    else:
        source = write_gguf(source / "model.gguf", config, tensors, "Q8_0" if form == "q8" else "F32")
    code, out, err = run(capsys, source, tmp_path / "to")
    assert (code, err) == (0, "")
    assert re.search(
        r"to: \d+ tensors, float32, gelu_new, (tied|own) head; logits of 5 tokens unchanged, bit for bit\n", out
    )
    before, after = AutoModelForCausalLM.from_pretrained(source), AutoModelForCausalLM.from_pretrained(tmp_path / "to")
    assert np.array_equal(before(some_ids(before)).logits, after(some_ids(before)).logits)
    assert before.generation_config == after.generation_config


def test_the_tokenizer_comes_along(capsys, tmp_path):
    """The tokenizer's files beside the weights are copied; GGUF's vocabulary becomes such files."""
    folder = write(tmp_path / "from", numbers())
    (folder / "vocab.bpe").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    assert run(capsys, folder, tmp_path / "to")[0] == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "to").encode("the") == [257]
    entries = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["t", "h", "e", "th"],
        "tokenizer.ggml.merges": ["t h"],
    }
    file = write_gguf(tmp_path / "m.gguf", WIDE, numbers(WIDE), entries=entries)
    assert run(capsys, file, tmp_path / "other")[0] == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "other").encode("the") == [3, 2]


def test_another_head_is_left_out_on_request(capsys, tmp_path):
    """CKPT-05, CKPT-07. The ways out that errors name: --leave-out and --prefix."""
    head = {"score.weight": np.zeros((2, 4), "f4")}
    tensors = numbers()
    folder = write(tmp_path / "head", tensors | head)
    code, _, err = run(capsys, folder, tmp_path / "to")
    assert code == 2
    assert err.endswith("refgen convert FROM TO --leave-out 'score.*' writes the model without.\n")
    assert run(capsys, folder, tmp_path / "to", "--leave-out", "score.*")[0] == 0
    assert run(capsys, write(tmp_path / "gpt", tensors, prefix="gpt."), tmp_path / "third", "--prefix", "gpt.")[0] == 0
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "to")([[1, 2]]).logits
    assert np.array_equal(AutoModelForCausalLM.from_pretrained(tmp_path / "third")([[1, 2]]).logits, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FOLDER", "FOLDER"], r"refgen: error: .*from: exists already\. Give a new name\."),
        (["FOLDER", "TO", "--leave-out", "x.*"], r"refgen: error: --leave-out x\.\*: fits no tensor of the file\."),
        (["no/where", "TO"], r"refgen: error: no/where: was not found \[CKPT-15\]\. Looked in"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(capsys, tmp_path, arguments, message):
    """One line on stderr, exit code 2, and nothing is written."""
    folder = write(tmp_path / "from", numbers())
    names = {"FOLDER": str(folder), "TO": str(tmp_path / "to")}
    code, out, err = run(capsys, *(names.get(each, each) for each in arguments))
    assert (code, out) == (2, "")
    assert re.match(message, err)
    assert not (tmp_path / "to").exists()
