"""The script that everybody starts from, with `model_name = "gpt2"`: refgen's tokens are transformers', from cache and Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import refgen
from tests.hub_server import Hub, write_cache

ROOT = Path(refgen.__file__).parents[1]
SHAKESPEARE = ROOT / "weights" / "shakespeare"

SCRIPT = """
import json

import torch
import refgen
import transformers

torch.use_deterministic_algorithms(True)
model_name = "gpt2"
answers = {}
for library, tensors in ((refgen, "np"), (transformers, "pt")):
    tokenizer = library.AutoTokenizer.from_pretrained(model_name)
    model = library.AutoModelForCausalLM.from_pretrained(model_name)
    inputs = tokenizer("ROMEO:\\nBut soft", return_tensors=tensors)
    found = []
    for seed in range(5):
        settings = {"do_sample": True, "top_p": 0.9, "temperature": 0.8} if seed else {}
        torch.manual_seed(seed)
        more = {"seed": seed} if library is refgen else {}
        ids = model.generate(**inputs, max_new_tokens=30, **settings, **more)
        found.append([ids[0].tolist(), tokenizer.decode(ids[0], skip_special_tokens=True)])
    answers[library.__name__] = found
print(json.dumps(answers))
"""


@pytest.fixture
def gpt2(tmp_path):
    """A folder that plays gpt2: the built-in model, and what else the real one's page holds."""
    folder = shutil.copytree(SHAKESPEARE, tmp_path / "original")
    for name in ("tf_model.h5", "pytorch_model.bin", "README.md", "rust_model.ot"):
        (folder / name).write_bytes(b"not needed")
    return folder


def answers(**environment: str) -> dict:
    """What both libraries say, in a process whose environment is that."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    always = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=clean | always | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_equal(found: dict) -> None:
    """The same tokens and texts, greedy and with four seeds, which are not all the same."""
    assert found["refgen"] == found["transformers"]
    assert len({tuple(ids) for ids, _ in found["refgen"]}) == 5


def test_the_standard_script_from_a_cache(tmp_path, gpt2):
    """CKPT-15, SAMP-02. From a cache folder, without network."""
    write_cache(tmp_path / "hub", "gpt2", {"main": gpt2})
    assert_equal(answers(HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1"))


def test_the_standard_script_from_a_hub(tmp_path, gpt2):
    """CKPT-15, SAMP-02. From a Hub on this machine: refgen fetches first, transformers finds all that it needs in the cache."""
    with Hub({"gpt2": {"main": gpt2}}) as hub:
        assert_equal(answers(HF_HOME=str(tmp_path / "home"), HF_ENDPOINT=hub.url))
    fetched = {line.split()[2] for line in hub.asked if line.startswith("GET")}
    assert not fetched & {"tf_model.h5", "pytorch_model.bin", "README.md", "rust_model.ot"}
    snapshot = next((tmp_path / "home" / "hub" / "models--gpt2" / "snapshots").iterdir())
    for name in fetched - {"api"}:
        assert (snapshot / name).read_bytes() == (gpt2 / name).read_bytes()
