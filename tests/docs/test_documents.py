"""The documents are tests: every block of README, SPEC and docs runs and says what it says.

```python    with >>>: an interactive session, one for the whole document, output compared
             without: a script, run in the same session; a ```text block right after it is its output
```console   shell commands after $ and the output that follows, where ... stands for anything; .ci/run installs
"""

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "SPEC.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "weights" / "README.md",
    ]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLS = re.compile(r"pip install|git clone|python -m venv|^pytest|^python -m pytest|train_weights")


def blocks(document):
    """Language, text and line number of every fenced block."""
    text = document.read_text(encoding="utf-8")
    return [(match[1], match[2], text[: match.start()].count("\n") + 2) for match in BLOCK.finditer(text)]


def run_session(text, names, document, line):
    """A doctest session: raises with doctest's own report if an output differs."""
    example = doctest.DocTestParser().get_doctest(text, names, document.name, str(document), line - 1)
    example.globs = names  # the session goes on in the next block
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    runner.run(example, out=report.write, clear_globs=False)
    assert not runner.failures, report.getvalue()


def run_script(text, names):
    """A script's standard output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(text, "<block>", "exec"), names)
    return output.getvalue()


def run_console(text):
    """Every `$ command` with the output that follows it."""
    for chunk in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = chunk.removeprefix("pip install . && ").partition("\n")
        if INSTALLS.search(command):
            continue
        paths = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        environment = os.environ | {"PATH": paths, "PYTHONPATH": str(ROOT)}
        command = re.sub(r"\brefgen (?=[a-z-])", f"{shlex.quote(sys.executable)} -m refgen ", command)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
        told = done.stdout + done.stderr
        assert doctest.OutputChecker().check_output(expected, told, doctest.ELLIPSIS), f"{command}\n{told}"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Where documents leave their files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_runs(document):
    """Sessions, scripts and commands give the output that the document shows."""
    names = {"__name__": "__main__"}
    printed = None
    for language, text, line in blocks(document):
        if language == "python":
            printed = run_session(text, names, document, line) if ">>>" in text else run_script(text, names)
        elif language == "console":
            run_console(text)
        elif language == "text" and printed is not None:
            assert text == printed, f"{document.name}, line {line}"
            printed = None


def test_ci_runs_the_commands_of_the_readme():
    """The README's test command is, letter for letter, what .ci/run runs."""
    (command,) = re.findall(r"^\$ (.*pytest)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_language_is_known():
    """No block escapes because its language has another name."""
    for document in DOCUMENTS:
        assert {language for language, _, _ in blocks(document)} <= {"python", "console", "text", "json"}, document.name
        fences = document.read_text(encoding="utf-8").count("```")
        assert fences == 2 * len(blocks(document)), f"{document.name} has a fence without a language"


def test_this_file_finds_the_documents():
    """An empty list of documents would pass everything."""
    assert len(DOCUMENTS) >= 4
    assert sum(len(blocks(document)) for document in DOCUMENTS) > 100


def test_a_wrong_output_is_caught(tmp_path):
    """The tester tested: a session, a script and a command whose shown output is wrong."""
    wrong = tmp_path / "wrong.md"
    wrong.write_text("```python\n>>> 1 + 1\n3\n\n```\n")
    with pytest.raises(AssertionError, match="Differences"):
        test_every_block_runs(wrong)
    wrong.write_text("```python\nprint(2)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError):
        test_every_block_runs(wrong)
    wrong.write_text("```console\n$ echo 2\n3\n```\n")
    with pytest.raises(AssertionError):
        test_every_block_runs(wrong)
