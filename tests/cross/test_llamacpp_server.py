"""The claim "serving" on a released server, llama.cpp's. What it does otherwise than SPEC.md is listed here, each with its reason."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Verdict
from refgen.conformance.questions.serving import checks
from refgen.conformance.subjects.http import connect
from refgen.conformance.subjects.protocol import CrashedError
from refgen.names import find_model

pytest.importorskip("xllamacpp", reason="the server comes with xllamacpp: pip install '.[bench]'")
pytest.importorskip("gguf", reason="its files are written by gguf: pip install '.[bench]'")

ROOT = Path(__file__).parents[2]
FOLDER = find_model("shakespeare")
# Seen in xllamacpp 2026.10.11549, each with the request that shows it in docs/check-a-server.md.
KNOWN = {
    "serving.usage.n": "usage counts the tokens of the first choice only",
    "serving.stream.tail": "a character cut at the end of a stream never comes, though the text not streamed has U+FFFD",
    "serving.stream.held": "what was held back for a stop string is lost when the stream ends by length",
    "serving.logprobs.stop": "a stop string takes as many logprobs away as it has tokens by itself, not as it had in the text",
    "serving.echo.text": "echo is accepted and ignored",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llamacpp")
    script, gguf = ROOT / "tests" / "llamacpp_server.py", log / "model.gguf"
    with (log / "log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, script, str(port), FOLDER, gguf],
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    address = process.stdout.readline().strip()
    assert address, (log / "log").read_text()[-2000:]
    yield f"{address}/v1"
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def subject(server):
    """float16 is what its table of GELU is in (FWD-16), whatever the weights are."""
    for patience in reversed(range(50)):
        try:
            connected = connect(server, FOLDER, dtype="float16", choices={"logprobs": "raw", "context_end": "n"})
            break
        except CrashedError:
            if not patience:
                raise
            time.sleep(0.1)
    yield connected
    connected.close()


def test_greedy_rows_are_the_models_own(subject, shakespeare):
    """GREEDY-01, STOP-02, LEN-04. Tokens and ends, through ids that come with the logprobs."""
    model, tokenizer = shakespeare
    for text in ("ROMEO:", "The king", "To be, or not to be", "What is the"):
        prompt = tokenizer.encode(text)
        (row,) = subject.ask("generate", FOLDER, {"input_ids": [prompt], "max_new_tokens": 30})["rows"]
        result = model.generate([prompt], max_new_tokens=30, return_dict_in_generate=True)
        assert row["new_ids"] == result.sequences[0, len(prompt) :].tolist()
        assert row["finish"] == result.finish[0]


def test_its_own_fields_have_their_effect(subject):
    """TOPK-01, MINP-01, REP-01. Those beyond OpenAI's are found to work."""
    assert subject.profile.dialect.name == "llama.cpp"
    assert not subject.profile.refused | subject.profile.idle
    assert subject.profile.logprobs == 1024


def test_every_question_is_answered_as_known(subject, figures):
    """SERVE-01 to SERVE-10. Everything else passes; what is known fails, until a version does it right."""
    lab = Lab(subject, {"shakespeare": FOLDER})
    findings = {check.id: check.run(lab) for check in checks(lab) if check.needs <= subject.about.can}
    failed = {name: finding.message for name, finding in findings.items() if finding.verdict is Verdict.FAIL}
    assert failed.keys() == KNOWN.keys(), failed
    skipped = [name for name, finding in findings.items() if finding.verdict is Verdict.SKIP]
    assert skipped == ["serving.echo.logprobs"]  # nothing to check without echo
    assert not [name for name, finding in findings.items() if finding.verdict is Verdict.INCONCLUSIVE]
    figures.append(f"llama.cpp's server: {len(findings)} questions, {len(failed)} known failures")


def test_the_page_names_what_is_known():
    """docs/check-a-server.md has each of them, and no other."""
    page = (ROOT / "docs" / "check-a-server.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(serving\.[a-z._]+)`", page, re.MULTILINE)) == KNOWN.keys()


def test_float32_is_not_what_it_computes_in(server):
    """OUT-08, FWD-16. Declared as float32, its logprobs are found out: the table of GELU has 16 bits."""
    subject = connect(server, FOLDER)
    lab = Lab(subject, {"shakespeare": FOLDER})
    (check,) = (each for each in checks(lab) if each.id == "serving.logprobs.values")
    finding = check.run(lab)
    subject.close()
    assert finding.verdict is Verdict.FAIL
    assert "expected errors off" in finding.message
