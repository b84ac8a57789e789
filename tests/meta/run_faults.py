"""Runs tests against refgen with one line changed: `python run_faults.py` reads faults as JSON, answers exit codes.

Heavy modules are imported once; then each fault gets a forked process in which refgen is imported with the change
and its test is run by pytest. Exit code 1 means the test went red, which is what a planted fault is for.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARALLEL = 2


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of refgen from changed source."""

    def __init__(self, file, find, replace):
        self.path = ROOT / "refgen" / file
        self.name = "refgen." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        source = self.path.read_text(encoding="utf-8")
        assert source.count(find) == 1, f"{file} holds {source.count(find)} times: {find}"
        self.source = source.replace(find, replace)

    def find_spec(self, fullname, path=None, target=None):
        """For the changed module, this loader; for any other, none."""
        if fullname == self.name:
            inside = [str(self.path.parent)] if self.path.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(
                fullname, self.path, loader=self, submodule_search_locations=inside
            )
        return None

    def exec_module(self, module):
        """Runs the changed source."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run_one(fault):
    """In this process: the test's exit code with the fault planted."""
    import pytest

    sys.meta_path.insert(0, Changed(fault["file"], fault["find"], fault["replace"]))
    import refgen

    assert Path(refgen.__file__).parent == ROOT / "refgen"
    return int(
        pytest.main(
            [
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "--no-header",
                "--assert=plain",
                "--no-summary",
                fault["test"],
            ]
        )
    )


def run_forked(fault):
    """A child that runs one fault; returns its process id and the pipe its answer comes through."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            answer = {"code": run_one(fault)}
    except BaseException as error:  # noqa: BLE001 - a forked process must answer
        answer = {"code": -1, "error": f"{type(error).__name__}: {error}"}
    os.write(writer, json.dumps(answer | {"output": output.getvalue()[-1500:]}).encode())
    os._exit(0)


def main():
    faults = json.load(sys.stdin)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others' plugins take longer to load than most tests to run
    import hypothesis.strategies  # noqa: F401
    import numpy.testing  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import tokenizers  # noqa: F401

    answers, running = {}, []
    for number, fault in enumerate(faults):
        running.append((number, *run_forked(fault)))
        if len(running) == PARALLEL:
            collect(answers, *running.pop(0))
    for entry in running:
        collect(answers, *entry)
    print(json.dumps([answers[number] for number in range(len(faults))]))


def collect(answers, number, child, reader):
    """Waits for one child's answer."""
    with os.fdopen(reader, "rb") as pipe:
        answers[number] = json.loads(pipe.read() or b'{"code": -1, "error": "no answer", "output": ""}')
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
