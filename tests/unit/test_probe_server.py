"""A probe behind a server: the verdict from text alone."""

import pytest

from refgen.conformance.questions.probes import PROBES, write
from refgen.conformance.runner import check
from refgen.conformance.subjects.http import connect
from tests.openai_server import Server


def verdict(folder, **kind):
    """Of a server that has loaded the probe in `folder`, asked as `refgen check URL --model folder --probe NAME` asks."""
    with Server(folder, **kind) as url:
        return check(connect(url, folder), {folder.name: folder}, only=[f"probe.{folder.name}.*"])


@pytest.mark.parametrize("name", ["copy-3", "clock", "leak"])
@pytest.mark.parametrize("texts_only", [False, True])
def test_a_probe_behind_a_server(tmp_path, name, texts_only):
    """Right, whether it takes ids or text; what a server has no field for is skipped."""
    write(PROBES[name](), tmp_path / name)
    run = verdict(tmp_path / name, texts_only=texts_only)
    assert run.overall.verdict == "right", run.overall.sentence
    assert sum(each.id.startswith("probe.") and each.verdict == "PASS" for each in run.results) >= 4


def test_a_wrong_network_behind_a_server(tmp_path):
    """A network that copies from five back where three were asked for says so in its text."""
    write(PROBES["copy-5"](), tmp_path / "copy-3")
    run = verdict(tmp_path / "copy-3", texts_only=True)
    assert run.overall.code == 1
    assert {each.verdict for each in run.results if each.id.startswith("probe.")} == {"FAIL"}
