"""The command line, as a shell sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refgen import GPT2Config
from refgen.cli import main
from refgen.cli.commands.generate import OPTIONS
from refgen.generation.config import SETTINGS
from tests.strategies import random_model

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
REFGEN = [sys.executable, "-m", "refgen"]


def refgen(*arguments, stdin=None):
    """One command, finished."""
    command = [*REFGEN, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, encoding="utf-8", env=ENVIRONMENT, check=False
    )


def run(capsys, *arguments):
    """The same inside this process: exit code, stdout, stderr."""
    code = main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_text_streams_to_stdout(capsys, shakespeare):
    """Prompt and continuation go to stdout, nothing else; the text is what the model generates."""
    model, tokenizer = shakespeare
    code, out, err = run(capsys, "generate", "ROMEO:", "--max-new-tokens", "12")
    ids = model.generate(tokenizer(["ROMEO:"], return_tensors="np")["input_ids"], max_new_tokens=12)
    assert (code, err) == (0, "")
    assert out == tokenizer.decode(ids[0], skip_special_tokens=True) + "\n"
    assert run(capsys, "generate", "ROMEO:", "--max-new-tokens", "12", "--skip-prompt")[1] == out.removeprefix("ROMEO:")


def test_a_model_with_more_rows_than_tokens(capsys, tmp_path, shakespeare):
    """TOK-14: a padded vocabulary runs, streamed, in JSON and with stop strings; ids without a token are no text."""
    tokenizer = shakespeare[1]
    sizes = {"vocab_size": 1088, "n_positions": 64, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = random_model(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None), 1, "float32")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    arguments = [
        "generate",
        "Hi",
        "--model",
        str(tmp_path),
        "--max-new-tokens",
        "60",
        "--do-sample",
        "--seed",
        "3",
        "--top-k",
        "0",
    ]
    code, out, err = run(capsys, *arguments, "--json", "--stop-string", "no such text")
    assert (code, err) == (0, "")
    ids = json.loads(out)["ids"]
    assert max(ids) >= len(tokenizer)
    known = [token for token in ids if token < len(tokenizer)]
    text = tokenizer.decode(known, skip_special_tokens=True)
    assert json.loads(out)["text"] == text.removeprefix("Hi")
    assert run(capsys, *arguments) == (0, text + "\n", "")


def test_json_tells_everything(capsys, shakespeare):
    """--json prints one object a continuation: prompt, text, ids, finish, seed."""
    _, tokenizer = shakespeare
    arguments = ["generate", "ROMEO:", "--json", "--do-sample", "--seed", "5", "--num-return-sequences", "3"]
    code, out, err = run(capsys, *arguments, "--max-new-tokens", "9")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(rows)) == (0, "", 3)
    width = len(tokenizer.encode("ROMEO:"))
    for row in rows:
        assert row["prompt"] == "ROMEO:"
        assert row["seed"] == 5
        assert row["finish"] in ("eos", "length")
        assert row["text"] == tokenizer.decode(row["ids"][width:], skip_special_tokens=True)


def test_beams(capsys, shakespeare):
    """--num-beams prints the best of a search."""
    model, tokenizer = shakespeare
    _, out, _ = run(
        capsys, "generate", "ROMEO:", "--num-beams", "3", "--max-new-tokens", "8", "--early-stopping", "true"
    )
    ids = tokenizer(["ROMEO:"], return_tensors="np")["input_ids"]
    expected = model.generate(ids, num_beams=3, max_new_tokens=8, early_stopping=True)
    assert out == tokenizer.decode(expected[0], skip_special_tokens=True) + "\n"


def test_every_setting_has_an_option():
    """CFG-10: each field of GenerationConfig that changes text can be set, and no option sets anything else."""
    options = {option.setting for group in OPTIONS.values() for option in group}
    about_the_result = {name for name in SETTINGS if name.startswith(("output_", "return_dict"))}
    assert options == SETTINGS.keys() - about_the_result


@pytest.mark.parametrize(("arguments", "settings"), [
    (["--suppress-token", "11", "--suppress-token", "25"], {"suppress_tokens": [11, 25]}),
    (["--begin-suppress-token", "198"], {"begin_suppress_tokens": [198]}),
    (["--forced-eos", "11"], {"forced_eos_token_id": [11]}),
    (["--exponential-decay-length-penalty", "2,1.5"], {"exponential_decay_length_penalty": (2, 1.5)}),
    (["--bias", ",=-4", "--bias", " th=2.5"], {"sequence_bias": "biases"}),
    (["--bad-word", "I", "--bad-word", " the"], {"bad_words_ids": "words"}),
    (["--guidance-scale", "2", "--negative-prompt", "JULIET:"], {"guidance_scale": 2.0, "negative_prompt_ids": "negative"}),
    (["--watermark", '{"bias": 4}'], {"watermarking_config": {"bias": 4}}),
    (["--prompt-lookup-num-tokens", "3"], {"prompt_lookup_num_tokens": 3}),
    (["--assistant-model", "shakespeare", "--num-assistant-tokens", "4"], {}),
    (["--no-cache"], {"use_cache": False}),
    (["--prefill-chunk-size", "2"], {}),
    (["--do-sample", "--seed", "3", "--renormalize-logits"], {"do_sample": True, "seed": 3}),
    (["--eos", "none", "--stop-string", "I"], {"eos_token_id": None, "stop_strings": ["I"]}),
])  # fmt: skip
def test_options_are_settings(capsys, shakespeare, arguments, settings):
    """CFG-10: what an option does is what its setting does."""
    model, tokenizer = shakespeare
    texts = {
        "biases": [[tokenizer.encode(","), -4], [tokenizer.encode(" th"), 2.5]],
        "words": [tokenizer.encode("I"), tokenizer.encode(" the")],
        "negative": [tokenizer.encode("JULIET:")],
    }
    settings = {name: texts[value] if isinstance(value, str) else value for name, value in settings.items()}
    code, out, err = run(capsys, "generate", "ROMEO:", "--max-new-tokens", "9", *arguments)
    expected = model.generate([tokenizer.encode("ROMEO:")], max_new_tokens=9, tokenizer=tokenizer, **settings)
    assert (code, err) == (0, "")
    assert out == tokenizer.decode(expected[0], skip_special_tokens=True) + "\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--bias", "x"], "--bias x: must be TEXT=NUMBER [BIAS-01]"),
    (["--bias", "x=y"], "--bias x=y: must be TEXT=NUMBER"),
    (["--watermark", "{"], "--watermark {: is no JSON"),
    (["--exponential-decay-length-penalty", "3"], "must be START,FACTOR [EXPD-01]"),
    (["--suppress-token", "nonsense"], "--suppress-token nonsense: is neither an id nor a token"),
    (["--logprobs"], "--logprobs: are printed in JSON only [OUT-08]. Add --json."),
    (["--early-stopping", "perhaps"], "--early-stopping perhaps: must be one of true, false, never."),
])  # fmt: skip
def test_options_that_are_refused(capsys, arguments, message):
    """CFG-10: a value that cannot be read is one line with the option, the value and what it must be."""
    code, out, err = run(capsys, "generate", "A", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("refgen: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_logprobs_of_the_new_ids(capsys, shakespeare):
    """OUT-08: --json --logprobs tells one number for each new id, the end included, the filling not."""
    _, tokenizer = shakespeare
    arguments = ["--json", "--logprobs", "--do-sample", "--seed", "1", "--num-return-sequences", "3", "--eos", "."]
    _, out, _ = run(capsys, "generate", "ROMEO:", "--max-new-tokens", "20", *arguments)
    width = len(tokenizer.encode("ROMEO:"))
    lengths = set()
    for row in map(json.loads, out.splitlines()):
        assert len(row["logprobs"]) == len(row["ids"]) - width
        assert (row["finish"] == "eos") == (row["ids"][-1] == tokenizer.get_vocab()["."])
        lengths.add(len(row["ids"]))
    assert len(lengths) > 1


def test_several_continuations_are_separated(capsys):
    """Without --json several continuations are printed whole, with a line between them."""
    _, out, _ = run(
        capsys, "generate", "A", "--do-sample", "--seed", "1", "--num-return-sequences", "2", "--max-new-tokens", "3"
    )
    assert len(out.split("\n---\n")) == 2


def test_a_fresh_seed_is_said(capsys):
    """Sampling without --seed says on stderr which seed it drew, and that seed repeats the text."""
    _, out, err = run(capsys, "generate", "ROMEO:", "--do-sample", "--max-new-tokens", "8")
    seed = err.strip().removeprefix("refgen: seed=")
    again = run(capsys, "generate", "ROMEO:", "--do-sample", "--max-new-tokens", "8", "--seed", seed)
    assert again == (0, out, "")


def test_settings_are_passed_on(capsys, shakespeare):
    """Every option reaches generate() under its own name."""
    model, tokenizer = shakespeare
    settings = {"temperature": 0.5, "top_k": 9, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.3,
                "max_new_tokens": 15, "min_new_tokens": 14}  # fmt: skip
    options = [text for name, value in settings.items() for text in ("--" + name.replace("_", "-"), str(value))]
    _, out, _ = run(capsys, "generate", "KING:", "--json", "--do-sample", "--seed", "3", *options)
    ids = tokenizer(["KING:"], return_tensors="np")["input_ids"]
    expected = model.generate(ids, do_sample=True, seed=3, **settings)
    assert json.loads(out)["ids"] == expected[0].tolist()


@pytest.mark.parametrize(("eos", "finish"), [(["none"], "length"), (["13", ","], "eos"), (["<|endoftext|>"], "length")])
def test_eos_by_id_by_token_or_none(capsys, eos, finish):
    """--eos takes ids, tokens of the vocabulary, or 'none'."""
    options = [text for name in eos for text in ("--eos", name)]
    _, out, _ = run(capsys, "generate", "ROMEO:", "--json", "--max-new-tokens", "8", *options)
    assert json.loads(out)["finish"] == finish


def test_stop_strings_and_bad_words(capsys):
    """--stop-string ends after a text, --bad-word never says one."""
    _, out, _ = run(capsys, "generate", "ROMEO:", "--json", "--stop-string", "tell", "--max-new-tokens", "20")
    assert json.loads(out)["finish"] == "stop_string"
    assert json.loads(out)["text"].endswith("tell")
    _, out, _ = run(capsys, "generate", "ROMEO:", "--json", "--bad-word", " tell", "--max-new-tokens", "20")
    assert " tell" not in json.loads(out)["text"]


def test_prompts_from_stdin_and_from_nothing(capsys, shakespeare):
    """A pipe is the prompt, and so is `-`; an empty pipe and a prompt that is typed leave it alone; without any a text begins."""
    typed = run(capsys, "generate", "ROMEO:", "-n", "4")[1]
    assert refgen("generate", "-n", "4", stdin="ROMEO:\n").stdout == typed
    assert refgen("generate", "-", "-n", "4", stdin="ROMEO:\r\n").stdout == typed
    assert refgen("generate", "ROMEO:", "-n", "4", stdin="KING:").stdout == typed
    assert refgen("generate", "-n", "4", stdin="").stdout == run(capsys, "generate", "-n", "4")[1]
    assert (
        refgen("generate", "-", stdin="").stderr
        == "refgen: error: PROMPT: is empty [IN-03]. Leave it out to begin a new text.\n"
    )
    _, out, _ = run(capsys, "generate", "--json", "--max-new-tokens", "4")
    assert json.loads(out)["ids"][0] == shakespeare[1].bos_token_id
    assert json.loads(out)["prompt"] is None


@pytest.mark.parametrize(("arguments", "message"), [
    (["ROMEO:", "--temperature", "-1"], "refgen: error: --temperature -1.0: must be a finite number of at least 0 [TEMP-02]."),
    (["ROMEO:", "--model", "nowhere"], "refgen: error: nowhere: was not found [CKPT-15]. Looked in the folder nowhere,"),
    (["", "--max-new-tokens", "1"], "refgen: error: PROMPT: is empty [IN-03]. Leave it out"),
    (["a", "--eos", "nope"], "refgen: error: --eos nope: is neither an id nor a token of the vocabulary [STOP-03]."),
    (["a", "--eos", "none", "--eos", "5"], "refgen: error: --eos none: stands alone [STOP-03]."),
    (["a", "--model", "x" * 5000], "refgen: error: 'xxx"),
    (["a " * 400, "--max-new-tokens", "1"], "refgen: error: position 400: this model has n_positions=256"),
    (["a" + " a" * 255], "refgen: error: the default length: ends at 256 columns, and the prompt already has 256 [LEN-02]."),
])  # fmt: skip
def test_errors_are_one_line(capsys, arguments, message):
    """What is wrong goes to stderr in one line with exit code 2, and nothing to stdout."""
    code, out, err = run(capsys, "generate", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_proofs_of_a_continuation(capsys, shakespeare):
    """FWD-30: `refgen generate --proof` prints the greedy tokens, one a line with its margin and digits; --json says the same."""
    model, tokenizer = shakespeare
    code, out, err = run(capsys, "generate", "ROMEO:", "--proof", "-n", "3")
    rows = [
        json.loads(line) for line in run(capsys, "generate", "ROMEO:", "--proof", "-n", "3", "--json")[1].splitlines()
    ]
    assert (code, err) == (0, "")
    ids = tokenizer(["ROMEO:"], return_tensors="np")["input_ids"]
    assert [row["token"] for row in rows] == model.generate(ids, max_new_tokens=3)[0, ids.shape[1] :].tolist()
    assert [line.split()[0] for line in out.splitlines()] == ["token", *(str(row["token"]) for row in rows)]
    assert all(row["rounded"] == row["logits"] == 1024 and row["digits"] > 20 and row["margin"] > 0.01 for row in rows)


@pytest.mark.parametrize(("arguments", "message"), [
    ([""], "refgen: error: PROMPT: is empty"),
    (["a", "--max-new-tokens", "0"], "refgen: error: --max-new-tokens 0: must be at least 1"),
    (["a", "--top-k", "5", "--do-sample"], "refgen: error: --do-sample: does not go with --proof"),
    (["a", "--seed", "0"], "refgen: error: --seed: does not go with --proof"),
    (["--bos", "1"], "refgen: error: --bos: does not go with --proof"),
    (["a", "--bits", "53"], "refgen: error: --bits 53: must be a whole number from 160 to 4096."),
    (["a", "--model", "nowhere"], "refgen: error: nowhere: was not found [CKPT-15]. Looked in"),
])  # fmt: skip
def test_proofs_that_are_refused(capsys, arguments, message):
    """One line on stderr, exit code 2."""
    code, out, err = run(capsys, "generate", "--proof", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["generat"], ["generate", "a", "--top-k", "x"], ["generate", "a", "--nope"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    """One line, exit code 2."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("refgen: error: ")
    assert err.count("\n") == 1


def test_settings_without_effect_are_noted():
    """A temperature without --do-sample is said on stderr, and the text comes all the same."""
    done = refgen("generate", "ROMEO:", "--temperature", "0.5", "--max-new-tokens", "2")
    assert done.returncode == 0
    assert done.stderr == "refgen: note: --temperature 0.5 has no effect without --do-sample [CFG-09]\n"


def test_threads_are_set(capsys, monkeypatch):
    """--threads says how many; the text is the same."""
    told = []
    monkeypatch.setattr("refgen.engines.numpy.threads.set_num_threads", told.append)
    plain = run(capsys, "generate", "A", "--max-new-tokens", "3")
    assert run(capsys, "generate", "A", "--max-new-tokens", "3", "--threads", "1") == plain
    assert told == [1]


def test_help_explains(capsys):
    """--help of the program and of the command name what they take; --version says it."""
    for arguments, word in ((["--help"], "generate"), (["generate", "--help"], "--top-p"), (["--version"], "refgen 0")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert word in capsys.readouterr().out


def test_a_closed_pipe_ends_quietly():
    """When nobody reads on, refgen stops without a traceback."""
    command = f"{' '.join(REFGEN)} generate A --eos none --max-new-tokens 250 | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "A"
    assert done.returncode in (0, 141)  # 0 if it had written everything before the reader left


def test_ctrl_c_ends_quietly(capsys, monkeypatch):
    """An interrupt in the middle leaves what was printed, no traceback, and exit code 130."""

    def interrupted(self, *arguments, streamer, **settings):
        streamer.put(np.array([[5]]))
        raise KeyboardInterrupt

    monkeypatch.setattr("refgen.auto.GPT2LMHeadModel.generate", interrupted)
    code, out, err = run(capsys, "generate", "A")
    assert (code, err) == (130, "\n")
    assert out


def test_nothing_heavy_is_imported():
    """Neither `import refgen` nor generating imports torch, transformers or scipy."""
    script = (
        "import sys; from refgen.cli import main; code = main(['generate', 'A', '--max-new-tokens', '2']);"
        "heavy = {'torch', 'transformers', 'scipy', 'huggingface_hub'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
