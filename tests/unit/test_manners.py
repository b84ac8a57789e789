"""The manners of the command line, as laws over all its commands, flags, values and files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import refgen
from refgen.cli import color, command_names, commands, exit_codes, main, parser
from refgen.cli.commands import compare
from refgen.cli.commands.generate import OPTIONS
from refgen.cli.flags import flags_of, in_flags
from refgen.cli.options import DTYPES
from refgen.cli.parser import NEGATIVE, OneOf
from refgen.cli.subject import as_factory, factories
from refgen.cli.width import fitted
from refgen.conformance.subjects import protocol
from refgen.engines import DEFAULT, ENGINES
from refgen.errors import GenerationError, UsageError
from refgen.generation import GenerationConfig
from refgen.generation.config import SETTINGS
from refgen.oracle.formats import FORMATS
from tests.unit.test_cli import ENVIRONMENT

# --- All there is ----------------------------------------------------------------------------------------------


def leaves(top, words=()):
    """Every command that does something: its words and its parser."""
    below = [each for each in top._actions if isinstance(each.choices, dict)]
    if not below:
        return [(words, top)]
    return [leaf for name, each in below[0].choices.items() for leaf in leaves(each, (*words, name))]


COMMANDS = command_names()
LEAVES = leaves(parser())
FLAGS = [(words, flag) for words, leaf in LEAVES for flag in leaf.flags if flag.startswith("--")]
CHOICES = [(words, each) for words, leaf in LEAVES for each in leaf._actions if isinstance(each.type, OneOf)]
WRITERS = [(words, flag) for words, leaf in LEAVES for flag in leaf.outputs.values()]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def needed(words):
    """A command with a word for each argument that it must have."""
    leaf = dict(LEAVES)[words]
    return [*words, *("x" for each in leaf._actions if not each.option_strings and each.nargs in (None, "+"))]


def edited(draw, name, start=0):
    """The name with one letter more, less, or another one."""
    place = draw(st.integers(start, len(name) - 1))
    letter = draw(st.sampled_from(LETTERS))
    return draw(
        st.sampled_from(
            [name[:place] + letter + name[place + more :] for more in (0, 1)] + [name[:place] + name[place + 1 :]]
        )
    )


def complaint(capsys, *words):
    """The one line on stderr of a command line that is wrong."""
    code = main(words)
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), words
    assert err.startswith("refgen: error: ")
    assert err.count("\n") == 1
    return err


def refusal(*words):
    """What is said of a command line that is wrong, without ever running one that is not."""
    with pytest.raises(UsageError) as caught:
        parser(words).parse_args(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_there_is():
    """Laws over nothing would hold."""
    assert (
        {words[0] for words, _ in LEAVES}
        == set(COMMANDS)
        == {path.stem for path in Path(commands.__path__[0]).glob("[a-z]*.py")}
    )
    assert len(FLAGS) > 100
    assert len(CHOICES) > 6
    assert len(WRITERS) >= 11


MISTAKES = [
    ("", "COMMAND: missing. See refgen --help."),
    ("generat ROMEO:", "generat: unknown command. Did you mean generate?"),
    ("generate ROMEO: --topk 5", "--topk: unknown flag of refgen generate. Did you mean --top-k?"),
    ("generate ROMEO: -top-k 5", "-top-k: unknown flag of refgen generate. Did you mean --top-k?"),
    ("generate ROMEO: --top-k five", "--top-k five: must be a whole number."),
    ("generate ROMEO: --do-sample --top-k -1", "--top-k -1: must be a whole number of at least 0 [TOPK-02]. 0 keeps every token."),
    ("generate ROMEO: --engine numpi", "--engine numpi: unknown. Did you mean numpy?"),
    ("generate O Romeo", "Romeo: one argument too many. Put a text with spaces in quotes."),
    ("generate ROMEO: --temperature", "--temperature: needs a value. See refgen generate --help."),
    ("generate ROMEO: --stop-string -zz", "-zz: unknown flag of refgen generate. If it is the value of --stop-string, write --stop-string=-zz"),
    ("generate ROMEO: --proof --do-sample", "--do-sample: does not go with --proof [FWD-30]. A proof is of greedy tokens of the exact network."),
    ("explain ROMEO: --stages lm_haed", "stage 'lm_haed': matches no stage of this model, which has 4 layers. Did you mean lm_head?"),
    ("explain ROMEO: -o mine.py", "--output mine.py: exists already. Add --force to replace it."),
    ("explain ROMEO: -o out/stages.safetensors", "--output out/stages.safetensors: folder out does not exist."),
    ("check mine.py", "mine.py: is a Python file. Write mine:Mine (Helper too)"),
    ("check localhost:8000/v1", "localhost:8000/v1: is not a URL. Write http://localhost:8000/v1"),
    ("check mine:Mine --claim tokeniser", "--claim tokeniser: unknown. Did you mean tokenizer?"),
    ("check mine:Mine --choice contxt_end=slide", "--choice contxt_end=slide: unknown name. Did you mean context_end?"),
    ("report gone.jsonl", "gone.jsonl: no such file or directory."),
    ("compare gone.json", "gone.json: does not exist. It names prompt_ids and new_ids; see refgen compare --help."),
    ("spec TOPP-9", "TOPP-9: is neither a rule nor a family of rules. Did you mean TOPP or TOPP-05 or TOPP-04?"),
    ("export prob here", "prob: unknown command of refgen export. Did you mean probes?"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "said"), MISTAKES)
def test_typical_mistakes(tmp_path, monkeypatch, capsys, typed, said):
    """One line that says what is wrong and what to write instead, and exit code 2."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    assert complaint(capsys, *typed.split()) == f"refgen: error: {said}\n"


def test_a_model_that_is_not_there(tmp_path, monkeypatch, capsys):
    """It says where it looked, which depends on the machine, and names the nearest built-in model."""
    monkeypatch.chdir(tmp_path)
    said = complaint(capsys, "generate", "ROMEO:", "--model", "shakespear")
    assert said.startswith("refgen: error: shakespear: was not found [CKPT-15]. Looked in the folder shakespear, ")
    assert said.endswith(" Did you mean shakespeare?\n")


# --- Misspelt ----------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_a_misspelt_command(data, capsys):
    """It is exit code 2 and names a command that is as near."""
    word = edited(data.draw, data.draw(st.sampled_from(COMMANDS)))
    assume(word not in COMMANDS)
    said = complaint(capsys, word)
    assert said.startswith(f"refgen: error: {word}: unknown command. Did you mean ")
    assert said.removesuffix("?\n").split()[-1] in COMMANDS


@given(data=st.data())
def test_a_misspelt_flag(data):
    """It is exit code 2 and names a flag of that command that is as near, whatever else is there or missing."""
    words, flag = data.draw(st.sampled_from(FLAGS))
    word = edited(data.draw, flag, 3)
    flags = dict(LEAVES)[words].flags
    assume(word not in flags and word.replace("_", "-") not in flags)
    before = data.draw(st.sampled_from([needed(words), list(words)]))
    said = refusal(*before, data.draw(st.sampled_from([word, f"{word}=x"])))
    assert said.startswith(f"{word}: unknown flag of refgen {' '.join(words)}. Did you mean --")
    assert said.rstrip("?.").split()[-1] in flags


@given(data=st.data())
def test_a_misspelt_value(data):
    """It is exit code 2 and names one of the values that there are."""
    words, action = data.draw(st.sampled_from(CHOICES))
    word = edited(data.draw, data.draw(st.sampled_from(list(action.type.names))))
    assume(word not in action.type.names)
    flag = action.option_strings[-1]
    said = refusal(*needed(words), f"{flag}={word}")
    assert said.startswith(f"{flag} {word}: ".replace(" :", ":"))
    assert any(name in said for name in action.type.names)


@given(data=st.data())
def test_either_spelling_of_a_flag(data):
    """`_` in a flag is `-`, wherever and however its value is given."""
    words, flag = data.draw(
        st.sampled_from([each for each in FLAGS if "-" in each[1].strip("-") and each[1] != "--print-completion"])
    )
    spelled = "--" + "".join(data.draw(st.sampled_from("-_")) if each == "-" else each for each in flag[2:])
    action = dict(LEAVES)[words]._option_string_actions[flag]
    value = action.type.names[0] if isinstance(action.type, OneOf) else "true" if flag == "--early-stopping" else "1"
    found = []
    for each in (flag, spelled):
        given_ = [each] if action.nargs == 0 else data.draw(st.sampled_from([[each, value], [f"{each}={value}"]]))
        line = [*needed(words), *given_]
        found.append(vars(parser(line).parse_args(line)) | {"parser": None})
    assert found[0] == found[1]


WORDS = st.sampled_from(
    [
        *COMMANDS,
        *sorted({flag for _, flag in FLAGS}),
        "-",
        "--",
        "-n",
        "-n5",
        "-qf",
        "-x",
        "-1",
        "-1e5",
        "=",
        "--=",
        "a b",
        "-a b",
        "",
        "é",
        "\0",
    ]
)


@given(words=st.lists(WORDS | st.text(max_size=4), max_size=6))
def test_any_command_line_is_read_or_refused(words, capsys):
    """Never anything but options, a `UsageError`, or the end that --help and --version are."""
    try:
        found = parser(words).parse_args(words)
    except UsageError:
        found = None
    except SystemExit as stop:
        found = None if stop.code == 0 else stop
    assert found is None or callable(found.run)
    capsys.readouterr()


def test_a_value_that_looks_like_a_flag(capsys):
    """It says how to write it; negative numbers are no flags; one dash too few is noticed."""
    assert "unknown flag of refgen generate. If it is the value of --stop-string, write --stop-string=-zz" in complaint(
        capsys, "generate", "a", "--stop-string", "-zz"
    )
    assert "--temperature -1.0: must be" in complaint(capsys, "generate", "a", "--do-sample", "-t", "-1")
    assert "-top-k: unknown flag of refgen generate. Did you mean --top-k?" in complaint(
        capsys, "generate", "a", "-top-k", "5"
    )
    assert NEGATIVE.fullmatch("-1")


# --- Files -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(WRITERS), st.binary(max_size=20))
def test_no_file_is_overwritten(folder, writer, content):
    """Every flag that writes a file refuses one that exists, and leaves it as it was."""
    words, flag = writer
    file = folder / "there"
    file.write_bytes(content)
    said = refusal(*needed(words), flag, str(file))
    assert said == f"{flag} {file}: exists already. Add --force to replace it."
    assert file.read_bytes() == content
    assert flag in refusal(*needed(words), flag, str(folder))
    assert "does not exist" in refusal(*needed(words), flag, str(folder / "no" / "where"), "--force")
    line = [*needed(words), flag, str(file), "-f"]
    assert parser(line).parse_args(line).force
    line = [*needed(words), flag, os.devnull]
    parser(line).parse_args(line)


def test_force_replaces(tmp_path, capsys):
    """With --force the file is written anew."""
    file = tmp_path / "t.safetensors"
    file.write_text("mine")
    assert main(["explain", "A", "--stages", "drop", "-fo", str(file)]) == 0
    assert file.stat().st_size > 100
    assert main(["export", "probes", str(tmp_path), "clock"]) == 0
    capsys.readouterr()
    (tmp_path / "clock" / "mine").touch()
    (tmp_path / "clock" / "config.json").write_text("{}")
    assert f"{tmp_path / 'clock'}: exists already. Add --force to replace its files." in complaint(
        capsys, "export", "probes", str(tmp_path), "copy-3", "clock"
    )
    assert not (tmp_path / "copy-3").exists()
    assert f"{tmp_path}: exists already" in complaint(capsys, "export", "vectors", str(tmp_path))
    assert f"{file}: is a file, must be a folder" in complaint(capsys, "export", "vectors", str(file))
    assert main(["export", "probes", str(tmp_path), "clock", "--force"]) == 0
    assert json.loads((tmp_path / "clock" / "config.json").read_text())
    assert (tmp_path / "clock" / "mine").exists()


def test_two_flags_of_one_file(tmp_path, capsys):
    """The second would overwrite the first."""
    file = tmp_path / "x"
    said = complaint(capsys, "report", "r.jsonl", "--html", str(file), "--junit", str(tmp_path / "." / "x"))
    assert said == f"refgen: error: --html and --junit: both write {tmp_path / 'x'}.\n"


# --- Words -------------------------------------------------------------------------------------------------------

GENERATE = flags_of(dict(LEAVES)[("generate",)])
BAD = st.sampled_from([-1, -1.5, 2.5, float("nan"), float("inf"), "x", [], {}, (1,), True])


@given(st.sampled_from([option for group in OPTIONS.values() for option in group]), BAD)
def test_errors_speak_of_flags(option, value):
    """What generate() says of a setting is said of its flag, without Python's values."""
    try:
        GenerationConfig(**{option.setting: value})
    except GenerationError as error:
        said = in_flags(str(error), GENERATE)
        assert said.startswith(option.flag if value is not True else option.flag.removeprefix("--no-"))
        names = "|".join(name for name in SETTINGS if "_" in name)
        assert not re.search(rf"\b({names}|None)\b", said), said


@pytest.mark.parametrize(("said", "typed"), [
    ("top_k=-1: must be", "--top-k -1: must be"),
    ("use temperature=0 or do_sample=False.", "use --temperature 0 or no --do-sample."),
    ("num_assistant_tokens_schedule='x': is", "--num-assistant-tokens-schedule x: is"),
    ("no effect without do_sample=True [CFG-09]", "no effect without --do-sample [CFG-09]"),
    ("use_cache=False and num_beams above 1", "--no-cache and --num-beams above 1"),
    ("the seed of the model", "the seed of the model"),
    ("Pass None to leave it out.", "Leave it out."),
])  # fmt: skip
def test_words_of_the_command_line(said, typed):
    """Settings become flags, with values as one types them; other words stay."""
    assert in_flags(said, GENERATE) == typed


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_the_width_of_the_terminal(monkeypatch, width, capsys):
    """Help, exit codes and sentences fit in; rows of tables stay whole."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert all(len(line) <= width for line in exit_codes.table(width).splitlines())
    if width >= 50:
        with pytest.raises(SystemExit):
            main(["--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= width
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    words = " ".join(["word"] * 60)
    assert max(map(len, fitted(words).splitlines())) <= width
    assert fitted(words.replace(" ", "  ")) == words.replace(" ", "  ")


def test_color(monkeypatch):
    """On a terminal only; NO_COLOR turns it off and FORCE_COLOR on."""

    class Terminal:
        def isatty(self):
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    red = "\033[1;31mFAIL\033[0m forward.a"
    assert color.verdicts("FAIL forward.a", Terminal()) == red
    assert (
        color.verdicts("The network is right (3 of 3).", Terminal()) == "The network is \033[32mright\033[0m (3 of 3)."
    )
    assert color.verdicts("all right", Terminal()) == "all right"
    assert color.verdicts("FAIL forward.a", sys.stdout) == "FAIL forward.a"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert color.verdicts("FAIL forward.a", sys.stdout) == red
    monkeypatch.setenv("NO_COLOR", "1")
    assert color.verdicts("FAIL forward.a", Terminal()) == "FAIL forward.a"


# --- SUBJECT -----------------------------------------------------------------------------------------------------

MINE = """
raise SystemExit("this file is not run")

class Helper: ...
class _Hidden:
    def encode(self, text): ...
class Mine:
    def generate(self, input_ids, max_new_tokens): ...
"""


@pytest.mark.parametrize(("subject", "message"), [
    ("mine.py", "mine.py: is a Python file. Write mine:Mine (Helper too)"),
    ("mine", "mine: is a Python file. Write mine:Mine"),
    ("mine.py:Mine", "mine.py:Mine: is a Python file. Write mine:Mine"),
    ("sub/none.py", "sub/none.py: is a Python file. Write sub.none:CLASS"),
    ("sub", "sub: is a folder. Write module:Class"),
    ("localhost:8000/v1", "localhost:8000/v1: is not a URL. Write http://localhost:8000/v1"),
    ("./nothing", "./nothing: there is no program ./nothing. Write module:Class"),
    ("trafic.json", "trafic.json: there is no program trafic.json. Did you mean traffic.jsonl?"),
    ("a 'b", "a 'b: is not a command: no closing quotation."),
    ("", "SUBJECT: is empty."),
    ("gone.jsonl", "gone.jsonl: no such file or directory."),
    ("here:Mien", "here:Mien: cannot be found: module 'here' has no attribute 'Mien'. Did you mean Mine?"),
    ("heer:Mine", "heer:Mine: cannot be found: No module named 'heer'. Did you mean here?"),
])  # fmt: skip
def test_what_is_no_subject(tmp_path, monkeypatch, capsys, subject, message):
    """Each says what to write instead; the classes of a Python file are found without running it."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "here.py").write_text("class Mine: ...")
    (tmp_path / "traffic.jsonl").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "none.py").write_text("(")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    assert message in complaint(capsys, "check", subject)


def test_a_python_file_elsewhere(tmp_path, monkeypatch):
    """Its module cannot be imported from here, so the folder is named too."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    assert as_factory(file) == f"mine:Mine in the folder {tmp_path} (Helper too)"
    assert factories(tmp_path / "gone.py") == []


@pytest.mark.parametrize(("flags", "message"), [
    (["--choice", "contxt_end=slide"], "--choice contxt_end=slide: unknown name. Did you mean context_end?"),
    (["--choice", "context_end=slid"], "--choice context_end=slid: unknown option of context_end. Did you mean context_end=slide?"),
    (["--choice", "slide"], "--choice slide: must be NAME=OPTION. Such as top_k_ties=exactly_k."),
    (["--claim", "network", "--claim", "tokeniser"], "--claim tokeniser: unknown. Did you mean tokenizer?"),
])  # fmt: skip
def test_check_looks_at_its_flags_first(capsys, monkeypatch, flags, message):
    """Before the subject is started."""
    monkeypatch.setattr("refgen.cli.commands.check.connected", lambda *_: pytest.fail("started"))
    assert message in complaint(capsys, "check", "mine:Mine", *flags)


def test_what_goes_with_a_recording(tmp_path, capsys):
    """A recording takes no time and is not recorded again."""
    from refgen.conformance.subjects.protocol import About
    from refgen.conformance.subjects.recorded import Recorded
    from tests.unit.test_recorded import Scripted

    Recorded(Scripted(About("mine"), ()), tmp_path / "traffic").close()  # known by how it begins
    for flag in (["--timeout", "3"], ["--traffic", str(tmp_path / "again")]):
        said = complaint(capsys, "check", str(tmp_path / "traffic"), *flag)
        assert said == f"refgen: error: {flag[0]}: does not go with a recording. Leave it out.\n"
    assert not (tmp_path / "again").exists()


# --- Beginning and end -------------------------------------------------------------------------------------------


def test_a_bug_has_a_code_of_its_own(monkeypatch, capsys):
    """What no command expects is exit code 4, never 1, which is a verdict."""
    monkeypatch.setattr("refgen.spec.find", lambda name: 1 / 0)
    assert main(["spec"]) == exit_codes.FAILED == 4
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.endswith("refgen: bug: refgen 0.2.0.dev0 failed. Please report the lines above.\n")


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([*each, "--help"] for each, _ in LEAVES)])
def test_help_imports_little(words):
    """--version, --help and the help of every command need no tokenizer, no tensors and not even NumPy."""
    heavy = ["numpy", "tokenizers", "safetensors", "torch", "transformers"]
    script = (
        "import sys, atexit; from refgen.cli import main\n"
        f"atexit.register(lambda: print({{*{heavy}}} & {{*sys.modules}}, file=sys.stderr)); main({words})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stderr == "set()\n"
    assert done.stdout


def test_names_are_imported_when_needed():
    """`import refgen` alone imports nothing; all its names and modules are there all the same."""
    script = (
        "import sys, refgen; assert 'numpy' not in sys.modules; from refgen import *; assert AutoTokenizer and 'numpy' in sys.modules;"
        "assert set(dir(refgen)) >= {'AutoTokenizer', '__version__'}; refgen.generation.config; refgen.model.forward"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert all(getattr(refgen, name) is not None for name in refgen.__all__)
    for name in ("nothing", "_nothing"):
        with pytest.raises(AttributeError, match=f"module 'refgen' has no attribute '{name}'"):
            getattr(refgen, name)


def test_names_that_are_written_out():
    """So that --help is fast, and the same as where they belong."""
    assert set(FORMATS) == {*DTYPES} - {"float64"} == {*compare.FORMATS}
    assert {*protocol.DTYPES} == {*DTYPES}
    engines = dict(LEAVES)[("generate",)]._option_string_actions["--engine"]
    assert (list(engines.type.names), engines.default) == (list(ENGINES), DEFAULT)


def test_completion(capsys):
    """The script of a shell holds commands, flags and values."""
    pytest.importorskip("shtab", reason="pip install 'refgen[completion]'")
    for shell in ("bash", "zsh", "tcsh"):
        with pytest.raises(SystemExit) as stop:
            main(["--print-completion", shell])
        assert stop.value.code == 0
        script = capsys.readouterr().out
        assert all(word in script for word in (*COMMANDS, "top-p", "canonical", "bfloat16", "induction"))


def test_completion_without_shtab(capsys, monkeypatch):
    """What to install is said; so is a shell that is misspelt."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert complaint(capsys, "--print-completion", "zsh").endswith(
        "--print-completion: needs shtab. pip install 'refgen[completion]'\n"
    )
    assert "--print-completion bahs: unknown. Did you mean bash?" in complaint(capsys, "--print-completion", "bahs")


def test_a_new_command_is_one_file(tmp_path):
    """A file in cli/commands is a command, with help and nearest names."""
    script = "import sys; from refgen.cli import commands; commands.__path__.append(sys.argv[1]); from refgen.cli import main; sys.exit(main(sys.argv[2:]))"
    (tmp_path / "score.py").write_text(
        "def add(commands):\n    commands.add_parser('score', help='how likely is a text').set_defaults(run=lambda options: print('scored'))\n"
    )

    def run(*words):
        command = [sys.executable, "-c", script, str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)

    assert run("score").stdout == "scored\n"
    assert "how likely is a text" in run("--help").stdout
    assert "Did you mean score?" in run("scor").stderr


# --- What laws need ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that every example uses again."""
    return tmp_path_factory.mktemp("files")
