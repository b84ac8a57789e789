"""Names of models: a folder first, then what comes with refgen, then the Hub's cache and the Hub, served on this machine."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

import refgen
from refgen import AutoModelForCausalLM, AutoTokenizer, CheckpointError, GPT2Config
from refgen.checkpoints import FORMATS
from refgen.hub import WEIGHTS
from refgen.names import find_model, short_name
from tests.hub_server import TOKEN, Hub, commit_of, write_cache
from tests.model_folders import SMALL, numbers, write, write_shards
from tests.other_formats import pickled, write_zip

ROOT = Path(refgen.__file__).parents[1]
SHAKESPEARE = ROOT / "weights" / "shakespeare"


@pytest.fixture
def small(tmp_path):
    """A model folder with a tokenizer, and files that nobody needs."""
    folder = write(tmp_path / "small", numbers())
    (folder / "vocab.bpe").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    (folder / "tf_model.h5").write_bytes(b"not for us")
    return folder


def ask(name: str, needs: str = "all", **environment: str) -> subprocess.CompletedProcess:
    """`find_model` in a process of its own, where huggingface_hub reads `environment`: the folder, or the error."""
    code = (
        "import sys; from refgen.names import find_model; from refgen.errors import RefgenError\n"
        "name, needs, revision = sys.argv[1:4]\n"
        "try: print(find_model(name, needs, revision=revision or None))\n"
        "except RefgenError as error: sys.exit(str(error))"
    )
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    revision = environment.pop("revision", "")
    return subprocess.run(
        [sys.executable, "-c", code, name, needs, revision],
        cwd=ROOT,
        env=clean | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def folder_of(done: subprocess.CompletedProcess) -> Path:
    """The folder that was found."""
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


# --- On this machine --------------------------------------------------------------------------------------


def test_a_folder_comes_first(tmp_path, monkeypatch, small):
    """CKPT-15. A folder called like the built-in model, or like one of the cache, is the one that is taken."""
    monkeypatch.chdir(tmp_path)
    for name in ("shakespeare", "gpt2", "user/gpt2"):
        write_cache(tmp_path / "hub", name, {"main": small})
        shutil.copytree(small, tmp_path / name)
        assert find_model(name, cache_dir=tmp_path / "hub").resolve() == tmp_path / name


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2-medium", "user/model.v1_x-y"])
def test_a_name_is_found_in_the_cache(tmp_path, small, name, links):
    """CKPT-15. Model, tokenizer and configuration come from the cached revision, whether links or files."""
    cache = tmp_path / "hub"
    write_cache(cache, name, {"main": small}, links)
    where = {"cache_dir": cache, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(name, **where)
    expected = AutoModelForCausalLM.from_pretrained(small)
    assert model([[1, 2]]).logits.tobytes() == expected([[1, 2]]).logits.tobytes()
    assert AutoTokenizer.from_pretrained(name, **where).encode("the") == [257]
    assert GPT2Config.from_pretrained(name, **where) == expected.config
    assert short_name(find_model(name, **where)) == name.rpartition("/")[2]


def test_revisions_are_kept_apart(tmp_path, small):
    """CKPT-15. A branch and a commit name their own files; `models--…` given directly takes its main, or the only one."""
    other = write(tmp_path / "other", numbers(seed=5))
    home = write_cache(tmp_path / "hub", "user/m", {"main": small, "try": other})
    for revision, folder in ((None, small), ("main", small), ("try", other), (commit_of(other), other)):
        for name in ("user/m", home):
            found = find_model(name, "model", revision=revision, cache_dir=tmp_path / "hub", local_files_only=True)
            assert found == home / "snapshots" / commit_of(folder)
    (home / "refs" / "main").unlink()
    with pytest.raises(
        CheckpointError, match=r"models--user--m: holds no revision main, only .*, .* \[CKPT-15\]\. Pass revision"
    ):
        find_model(home)
    shutil.rmtree(home / "snapshots" / commit_of(other))
    assert find_model(home) == home / "snapshots" / commit_of(small)


def test_a_revision_of_a_folder_is_refused(small):
    """CKPT-15. What has no revisions is not asked for one, unless it is the default."""
    assert find_model(small, revision="main") == small
    for name in (small, "shakespeare"):
        with pytest.raises(
            CheckpointError, match=r"^revision='v2': has no revisions: .* \[CKPT-15\]\. Leave revision out\.$"
        ):
            find_model(name, revision="v2")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "vocab.bpe"])
def test_half_a_cache_is_an_error_offline(tmp_path, small, missing):
    """CKPT-15. What is needed and not there is refused; what is not needed may be missing."""
    (small / missing).unlink()
    write_cache(tmp_path / "hub", "gpt2", {"main": small})
    where = {"cache_dir": tmp_path / "hub", "local_files_only": True}
    for needs, wanted in (
        ("config", "config.json"),
        ("model", "config.json model.safetensors"),
        ("tokenizer", "vocab.bpe"),
    ):
        if missing in wanted:
            with pytest.raises(
                CheckpointError, match=rf"^gpt2: .* \[CKPT-15\]\. Looked in .*{re.escape(str(tmp_path / 'hub'))}"
            ):
                find_model("gpt2", needs, **where)
        else:
            assert find_model("gpt2", needs, **where).parent.name == "snapshots"


def test_a_dangling_link_is_a_missing_file(tmp_path, small):
    """CKPT-15. A snapshot whose blob is gone does not count as the file."""
    home = write_cache(tmp_path / "hub", "gpt2", {"main": small})
    link = home / "snapshots" / commit_of(small) / "model.safetensors"
    link.resolve().unlink()
    with pytest.raises(CheckpointError, match=r"^gpt2: has no weights there that refgen reads \[CKPT-15\]\."):
        find_model("gpt2", "model", cache_dir=tmp_path / "hub", local_files_only=True)


@given(
    st.text()
    | st.sampled_from(("a/b/c", "../x", "a--b", "a..b", "/nowhere", "", ".", "a b", "\ud800", "x\0y", "a" * 5000))
)
def test_any_text_is_a_model_or_one_error(name):
    """CKPT-15. Whatever the name, the answer is a folder or a `CheckpointError`; nothing is asked of the network."""
    if name == "shakespeare" or outcome(name, Path.exists):
        assert find_model(name).exists()
        return
    with pytest.raises(CheckpointError, match=r"\[CKPT-15\]") as raised:
        find_model(name, cache_dir="/nowhere", local_files_only=True)
    assert len(str(raised.value)) < 1000


def outcome(name, question):
    """What the system says of that path; a name that it cannot take is none."""
    try:
        return question(Path(name))
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize("name", [None, 5, b"gpt2", ["gpt2"]])
def test_a_name_is_a_text_or_a_path(name):
    """CKPT-15. Other types are refused by name."""
    with pytest.raises(CheckpointError, match=r"must be a folder or a name \[CKPT-15\]"):
        find_model(name)


def test_the_hub_is_asked_for_the_weights_that_formats_read():
    """CKPT-15. The names that are fetched are those that the formats look for, in their order."""
    assert list(WEIGHTS) == [file for each in FORMATS for file in each.files if "*" not in file]


# --- The Hub, on this machine -----------------------------------------------------------------------------


def test_only_what_is_needed_is_fetched_and_only_once(tmp_path, small):
    """CKPT-15. The configuration alone, then the weights, then the tokenizer; what is there is asked for no more."""
    with Hub({"user/m": {"main": small}}) as hub:
        there = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        for needs, files in (
            ("config", {"config.json"}),
            ("model", {"model.safetensors"}),
            ("tokenizer", {"vocab.bpe"}),
            ("all", set()),
        ):
            hub.asked.clear()
            folder = folder_of(ask("user/m", needs, **there))
            assert {line.split()[2] for line in hub.asked if line.startswith("GET")} == files
            assert folder == tmp_path / "home" / "hub" / "models--user--m" / "snapshots" / commit_of(small)
        assert not hub.asked  # the last call asked nothing at all
        expected = {"config.json", "model.safetensors", "vocab.bpe"}
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            n: (small / n).read_bytes() for n in expected
        }
        assert folder_of(ask("user/m", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "home" / "hub"))) == folder


def test_a_download_that_breaks_off_goes_on(tmp_path):
    """CKPT-15. Cut off on its way, the file arrives whole: the rest is asked for, not everything again."""
    config = replace(SMALL, vocab_size=900_000)
    large = write(tmp_path / "large", numbers(config), config)  # larger than the parts in which the library writes
    with Hub({"gpt2": {"main": large}}) as hub:
        hub.break_off = [12 * 2**20]
        folder = folder_of(ask("gpt2", "model", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path)))
        assert (folder / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()
        assert [line.split("=")[0] for line in hub.ranges] == ["model.safetensors bytes"]
        assert int(hub.ranges[0].split("=")[1].rstrip("-")) > 0


def test_a_download_that_fails_is_an_error_and_can_be_repeated(tmp_path, small):
    """CKPT-15. Broken off for good, it is one error and no half a file; the next call fetches it."""
    with Hub({"gpt2": {"main": small}}) as hub:
        there = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
        hub.break_off = [0] * 20
        done = ask("gpt2", "model", **there)
        assert done.returncode == 1
        error = done.stderr.strip().splitlines()[-1]
        assert re.match(
            r"gpt2: model\.safetensors could not be downloaded: .* \[CKPT-15\]\. Looked in .* Try again\.$", error
        )
        hub.break_off = []
        folder = folder_of(ask("gpt2", "model", **there))
        assert (folder / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


def test_shards_and_revisions_are_fetched(tmp_path):
    """CKPT-09, CKPT-15. All files that the index names, of the revision that was asked for."""
    tensors = numbers()
    half = {name: tensors[name] for name in list(tensors)[::2]}
    rest = {name: tensors[name] for name in list(tensors)[1::2]}
    shards = write_shards(tmp_path / "shards", {"model-1-of-2.safetensors": half, "model-2-of-2.safetensors": rest})
    other = write(tmp_path / "other", numbers(seed=3))
    with Hub({"gpt2": {"main": other, "shards": shards}}) as hub:
        there = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        folder = folder_of(ask("gpt2", "model", revision="shards", **there))
        assert folder.name == commit_of(shards)
        assert AutoModelForCausalLM.from_pretrained(folder).gpt2.wte.tobytes() == tensors["wte.weight"].tobytes()
        assert folder_of(ask("gpt2", "model", revision=commit_of(other), **there)).name == commit_of(other)


def test_all_files_are_asked_for_by_one_commit(tmp_path, monkeypatch, small):
    """CKPT-15. `main` says which commit; every file after the first is asked for by that commit."""
    asked = []

    def download(name, file, revision, cache_dir):
        asked.append(revision)
        if not (small / file).exists():
            raise EntryNotFoundError(file)
        place = cache_dir / "models--gpt2" / "snapshots" / ("c" * 40)
        place.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(small / file, place / file))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("refgen.hub.silent", lambda url: "")
    monkeypatch.setattr("refgen.hub.hf_hub_download", download)
    assert find_model("gpt2", "model", cache_dir=tmp_path / "hub").name == "c" * 40
    assert asked == ["main"] + ["c" * 40] * 2


def test_a_push_in_between_mixes_nothing(tmp_path, small):
    """CKPT-15. When `main` moves on while files are fetched, all are of the commit of the first."""
    other = write(tmp_path / "other", numbers(seed=3))
    with Hub({"gpt2": {"main": small, "old": small}}) as hub:
        hub.push_after = ("gpt2", "main", other)
        folder = folder_of(ask("gpt2", "model", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path)))
    assert folder.name == commit_of(small)
    assert (folder / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("private/m", {}, r"private/m: was not found \[CKPT-15\]\. Looked in the folder private/m, the models of refgen \(shakespeare\), the cache \S+/hub \(revision main\), and http\S+ For a private model set HF_TOKEN\."),
        ("user/none", {}, r"user/none: was not found \[CKPT-15\]\. .*set HF_TOKEN\."),
        ("private/m", {"HF_TOKEN": TOKEN, "revision": "v9"}, r"private/m: has no revision v9 \[CKPT-15\]\. .* \(revision v9\), and http"),
        ("private/m", {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}, r"private/m: .* \[CKPT-15\]\. .*, and http\S+ \(HF_HUB_OFFLINE is set\)\.$"),
        ("private/m", {"HF_ENDPOINT": "http://127.0.0.1:9"}, r"private/m: .* \[CKPT-15\]\. .*, and http://127\.0\.0\.1:9 \(cannot be reached: .*\)\.$"),
        ("private/empty", {"HF_TOKEN": TOKEN}, r"private/empty: has no weights there that refgen reads \[CKPT-15\]"),
    ],
)  # fmt: skip
def test_an_error_says_where_was_looked(tmp_path, small, name, environment, message):
    """CKPT-15. Names that are not there, wrong revisions, private models, no network: one line, with every place."""
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(small / "config.json", empty)
    with Hub({"private/m": {"main": small}, "private/empty": {"main": empty}}) as hub:
        done = ask(name, "model", **{"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)} | environment)
        assert done.returncode == 1
        assert re.match(message, done.stderr.strip().splitlines()[-1]), done.stderr


def test_weights_that_are_cached_in_another_form_are_used(tmp_path, small):
    """CKPT-15. A cache with `pytorch_model.bin` fetches no safetensors, which hold the same."""
    tensors = numbers()
    write_zip(small / "pytorch_model.bin", pickled(tensors), tensors)
    snapshot = write_cache(tmp_path / "hub", "gpt2", {"main": small}) / "snapshots" / commit_of(small)
    (snapshot / "model.safetensors").unlink()
    with Hub({"gpt2": {"main": small}}) as hub:
        assert folder_of(ask("gpt2", "model", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path))) == snapshot
        assert not [line for line in hub.asked if "model.safetensors" in line]
    assert AutoModelForCausalLM.from_pretrained(snapshot).gpt2.wte.tobytes() == tensors["wte.weight"].tobytes()


def test_a_token_opens_a_private_model(tmp_path, small):
    """CKPT-15. HF_TOKEN is sent."""
    with Hub({"private/m": {"main": small}}) as hub:
        folder = folder_of(ask("private/m", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path), HF_TOKEN=TOKEN))
    assert GPT2Config.from_pretrained(folder).n_embd == SMALL.n_embd


def test_a_cache_serves_what_the_hub_shows_no_more(tmp_path, small):
    """CKPT-15. A model that was fetched with a token is used without it; what is missing is refused with the reason."""
    write_cache(tmp_path / "hub", "private/m", {"main": small})
    with Hub({"private/m": {"main": small}}) as hub:
        there = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url}
        assert folder_of(ask("private/m", **there)).name == commit_of(small)
        (tmp_path / "hub" / "models--private--m" / "snapshots" / commit_of(small) / "model.safetensors").unlink()
        done = ask("private/m", "model", **there)
    assert re.search(r"private/m: has no weights there .*, and http\S+ \(it was not found\)\.$", done.stderr.strip())


def test_a_cache_serves_where_the_hub_cannot_be_reached(tmp_path, small):
    """CKPT-15. Files that the cache cannot know to be absent do not stop a model whose needed files are there."""
    write_cache(tmp_path / "hub", "gpt2", {"main": small})
    done = ask("gpt2", HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert folder_of(done).name == commit_of(small)


def test_only_names_of_the_hub_import_its_library():
    """CKPT-15. Neither `import refgen` nor the built-in model brings huggingface_hub along."""
    code = (
        "import refgen, sys; refgen.AutoModelForCausalLM.from_pretrained('shakespeare');"
        "refgen.AutoTokenizer.from_pretrained('shakespeare'); print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
