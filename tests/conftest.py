"""What all tests share: Hypothesis profiles, the folder of real files, quiet third parties."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

COMMON = {
    "deadline": None,  # a busy machine is no failure
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
}
# `quick` is the default and what .ci/run uses: the same examples on every run. `long` searches anew, and longer.
settings.register_profile("quick", derandomize=True, max_examples=60, database=None, print_blob=True, **COMMON)
settings.register_profile("long", max_examples=2000, print_blob=True, **COMMON)
# `faults` is for planted faults: it is enough to see a test fail, no need to find the smallest case.
settings.register_profile(
    "faults", settings.get_profile("quick"), phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def shared_folder() -> Path | None:
    """The folder of real files that are not part of the project, if this machine has it."""
    named = os.environ.get("REFGEN_SHARED")
    return Path(named) if named and Path(named).is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, texts and trained checkpoints made by others; see tests/README.md."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("REFGEN_SHARED does not name the folder of real files")
    return folder / "data"


@pytest.fixture(scope="session")
def shakespeare() -> tuple:
    """The built-in model and its tokenizer."""
    import refgen

    return (
        refgen.AutoModelForCausalLM.from_pretrained("shakespeare"),
        refgen.AutoTokenizer.from_pretrained("shakespeare"),
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes a new folder at every call, for every example of a property has its own."""
    count: Iterator[int] = iter(range(10**9))
    return lambda: tmp_path / str(next(count))


FIGURES: list[str] = []


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """Lines to show at the end of the run: counts and largest errors that a test measured."""
    return FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures."""
    if FIGURES:
        terminalreporter.section("figures", sep="-")
        for line in FIGURES:
            terminalreporter.write_line(line)
