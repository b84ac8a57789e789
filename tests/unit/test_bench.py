"""The benchmark: its turns, its arithmetic, its processes. No test here asserts on a time."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refgen import AutoModelForCausalLM, BenchError
from refgen.bench import machine, plot, report
from refgen.bench.process import THREADS, Worker
from refgen.bench.rounds import Taken, agreement, order, ratios, spread, take_turns
from refgen.bench.run import MODELS, Options, run
from refgen.bench.sections import SECTIONS, Sizes, Table
from refgen.bench.subjects import PEERS, Subject, chosen
from refgen.bench.weights import (
    SHAPES,
    bytes_per_token,
    cache_bytes_per_position,
    copying_folder,
    endless_folder,
    random_folder,
    shape_config,
)
from refgen.cli import main, parser

ROOT = Path(__file__).parents[2]
TINY = shape_config("tiny")
PRELUDE = """
import os, sys, time
def prepare(folder): return folder
def version(): return "7"
"""
ADAPTERS = {
    "wrong": """
class Model:
    def __init__(self, path, threads): print("noise on stdout")
    def generate(self, ids, count, tick=None):
        for _ in range(count):
            if tick: tick()
        return [[0] * count for _ in ids]
    def read(self): return [os.environ["OMP_NUM_THREADS"], "numpy" in sys.modules, "refgen" in sys.modules]
""",
    "crash": """
class Model:
    def __init__(self, path, threads): pass
    def generate(self, ids, count, tick=None):
        print("first line", file=sys.stderr)
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)
""",
    "fails": """
class Model:
    def __init__(self, path, threads): pass
    def generate(self, ids, count, tick=None): raise KeyError("what")
    def read(self): return 1
""",
    "hangs": """
class Model:
    def __init__(self, path, threads): time.sleep(60)
""",
}


@pytest.fixture
def fake(tmp_path):
    """A subject with an adapter of a few lines."""

    def make(name, packages=()):
        path = tmp_path / f"{name}.py"
        path.write_text(PRELUDE + ADAPTERS[name])
        return Subject(name, path, packages=packages)

    return make


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """Random weights of the smallest shape."""
    return random_folder(TINY, tmp_path_factory.mktemp("weights"))


# --- Turns and arithmetic ---------------------------------------------------------------------------------


def test_each_subject_begins_in_turn_and_every_other_round_runs_backwards():
    """Nobody always follows the same neighbour or always goes first."""
    assert order("abc", 0) == ["a", "b", "c"]
    assert order("abc", 1) == ["a", "c", "b"]
    assert order("abc", 2) == ["c", "a", "b"]
    assert order("abc", 3) == ["c", "b", "a"]
    assert order("", 5) == []
    for number in range(6):
        assert sorted(order("abcd", number)) == list("abcd")


def test_turns_are_interleaved_and_the_first_round_does_not_count():
    """One turn each a round, in the order of `order`; round 0 warms up; progress is told."""
    log, told = [], []

    def turn(name):
        return lambda number: log.append((number, name)) or Taken(float(number), [[number]])

    series = take_turns({name: turn(name) for name in "abc"}, 2, progress=told.append)
    assert log == [(number, name) for number in range(3) for name in order("abc", number)]
    assert series.values == {"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0]}
    assert series.tokens["a"] == series.tokens["c"] == [[[1]], [[2]]]
    assert told[0] == "warm-up, a"
    assert told[-1] == "round 2 of 2, b"


def test_a_subject_that_fails_is_out_and_the_others_go_on():
    """Its reason is kept, its values are not: ratios within rounds need all rounds."""

    def failing(number):
        if number == 2:
            raise BenchError("b", "broke")
        return Taken(1.0)

    series = take_turns({"a": lambda _: Taken(2.0), "b": failing}, 3)
    assert series.values == {"a": [2.0, 2.0, 2.0]}
    assert series.failed == {"b": "b: broke."}


def test_spread_and_ratios_by_hand():
    """Median and quartiles; ratios are taken within rounds, so a machine that slows down for all changes none."""
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert spread([7.0]) == (7.0, 7.0, 7.0)
    assert ratios([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == [2.0, 2.0, 3.0]
    assert spread(ratios([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])).median == 2.0
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_agreement_counts_rows_of_all_rounds():
    """Rows of every round are compared with the base's; one that made no tokens is not spoken of."""
    tokens = {"a": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]], "b": [[[1, 2], [3, 5]], [[1, 2], [3, 4]]], "c": [[], []]}
    assert agreement(tokens, "a") == {"b": "3/4"}
    assert agreement(tokens, "c") == {}
    assert agreement({"b": [[[1]]]}, "a") == {}


# --- Weights ----------------------------------------------------------------------------------------------


def test_weights_are_the_same_every_time_and_sane(tmp_path, tiny_folder):
    """One shape, one file; the network says finite things, different ones, and never ends by itself."""
    again = random_folder(TINY, tmp_path)
    assert (again / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    made = model.generate(np.zeros((1, 1), dtype=int), max_new_tokens=63)
    assert made.shape == (1, 64)
    assert len(set(made[0].tolist())) > 5
    assert model.config.eos_token_id is None


def test_weights_are_made_once(tiny_folder):
    """What lies there is taken."""
    before = (tiny_folder / "model.safetensors").stat().st_mtime_ns
    assert random_folder(TINY, tiny_folder.parent) == tiny_folder
    assert (tiny_folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_built_in_model_forgets_its_end(tmp_path):
    """A copy without end token makes every token it is asked for; the original stays as it is."""
    model = AutoModelForCausalLM.from_pretrained(endless_folder("shakespeare", tmp_path))
    assert model.config.eos_token_id is None
    assert model.generation_config.eos_ids == ()
    assert AutoModelForCausalLM.from_pretrained("shakespeare").config.eos_token_id == 1023


@pytest.mark.parametrize(("shape", "back"), [("tiny", 3), ("tiny", 5), ("small", 12)])
def test_copying_weights_go_on_as_the_text_began(tmp_path, shape, back):
    """What stood `back` places before is said again, up to the last position; so a draft from there is always right."""
    config = shape_config(shape)
    model = AutoModelForCausalLM.from_pretrained(copying_folder(config, back, tmp_path))
    patterns = np.random.default_rng(0).integers(0, config.vocab_size, (3, back))
    sequences = model.generate(patterns, np.ones_like(patterns), max_length=config.n_positions, pad_token_id=0)
    np.testing.assert_array_equal(sequences[:, back:], sequences[:, :-back])


def test_bytes_by_hand():
    """A token reads all weights but the table of positions; the cache grows by a key and a value a layer."""
    C, V, L = 32, 128, 2
    layer = 2 * C + C * 3 * C + 3 * C + C * C + C + 2 * C + C * 4 * C + 4 * C + 4 * C * C + C
    assert bytes_per_token(TINY) == 4 * (V * C + L * layer + 2 * C)
    assert bytes_per_token(shape_config("124M")) == 4 * (124_439_808 - 1024 * 768)
    assert cache_bytes_per_position(shape_config("124M")) == 73_728


@pytest.mark.parametrize("name", SHAPES)
def test_work_fits_every_shape(name):
    """Prompts and new tokens stay within the context."""
    N = shape_config(name).n_positions
    for quick in (True, False):
        sizes = Sizes.of(shape_config(name), 200, quick=quick)
        assert sizes.prompt + sizes.new <= N
        assert sizes.prefill + 1 <= N
        assert 0 < sizes.prompt < sizes.memory <= N
        assert 4 * sizes.lookup_pattern + sizes.lookup_new <= N
        assert max(sizes.contexts) + 1 <= N
        assert sizes.lookup_new > 0


def test_a_shape_in_numbers():
    """layers,heads,width,vocabulary,positions."""
    config = shape_config("3,2,8,11,20")
    assert (config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.n_positions) == (3, 2, 8, 11, 20)


# --- Processes --------------------------------------------------------------------------------------------


def test_a_worker_answers_and_ends(fake, tiny_folder):
    """Time, tokens, ticks and memory come back whatever the library prints; the process ends with its input."""
    worker = Worker("wrong", fake("wrong").adapter, threads=1)
    assert worker.ask("prepare", folder=str(tiny_folder))["answer"] == str(tiny_folder)
    assert worker.ask("load", path=str(tiny_folder), threads=1, arguments={})["answer"] == "7"
    answer = worker.ask("generate", ids=[[1], [2]], count=3, settings={}, ticks=True)
    assert answer["answer"] == [[0, 0, 0], [0, 0, 0]]
    assert len(answer["ticks"]) == 3
    assert answer["ticks"] == sorted(answer["ticks"])
    assert answer["seconds"] > 0
    assert answer["peak"] > 2**20
    worker.close()
    assert worker._process.returncode == 0


def test_a_worker_has_its_threads_pinned_and_holds_nothing_of_ours(fake, tiny_folder):
    """The environment says how many threads; neither NumPy nor refgen is imported unless the adapter does it."""
    with Worker("wrong", fake("wrong").adapter, threads=3) as worker:
        worker.ask("load", path=str(tiny_folder), threads=3, arguments={})
        assert worker.ask("read")["answer"] == ["3", False, False]
    assert "OPENBLAS_NUM_THREADS" in THREADS


def test_a_crash_is_an_error_with_the_last_words(fake, tiny_folder):
    """Exit code and the last line of stderr; and asking again does not hang."""
    with Worker("crash", fake("crash").adapter, threads=1) as worker:
        worker.ask("load", path=str(tiny_folder), threads=1, arguments={})
        with pytest.raises(BenchError, match=r"crash: generate: ended with exit code 3: out of luck\."):
            worker.ask("generate", ids=[[1]], count=1, settings={}, ticks=False)


def test_a_worker_that_cannot_even_start_is_an_error(tmp_path):
    """An adapter that is no Python."""
    (tmp_path / "broken.py").write_text("import no_such_library")
    with (
        Worker("broken", tmp_path / "broken.py", threads=1) as worker,
        pytest.raises(BenchError, match="ModuleNotFoundError: No module named 'no_such_library'"),
    ):
        worker.ask("prepare", folder=".")


def test_an_exception_is_an_error_and_the_worker_goes_on(fake, tiny_folder):
    """What the library raises is told in one line."""
    with Worker("fails", fake("fails").adapter, threads=1) as worker:
        worker.ask("load", path=str(tiny_folder), threads=1, arguments={})
        with pytest.raises(BenchError, match="fails: generate: KeyError: 'what'"):
            worker.ask("generate", ids=[[1]], count=1, settings={}, ticks=False)
        assert worker.ask("read")["answer"] == 1


def test_patience_ends(fake, tiny_folder):
    """Who does not answer is killed."""
    with Worker("hangs", fake("hangs").adapter, threads=1, patience=0.2) as worker:
        with pytest.raises(BenchError, match=r"hangs: load: gave no answer within 0\.2 seconds"):
            worker.ask("load", path=str(tiny_folder), threads=1, arguments={})
        assert worker._process.returncode not in (None, 0)


# --- The whole --------------------------------------------------------------------------------------------


def quick(folder, **options):
    """Options for a benchmark of a second."""
    told = {"models": "random", "shape": "tiny", "rounds": 2, "threads": 1, "prompts": 2, "pause": 0.0}
    return Options(**told | {"weights": folder} | options)


def test_a_whole_benchmark(fake, tiny_folder, capsys):
    """Disagreement, failure and absence are all in the report; nothing is on stderr; JSON brings back the same."""
    peers = [fake("wrong"), fake("crash"), Subject("absent", packages=("no_such_library",))]
    found = run(quick(tiny_folder.parent, only="decode,batch"), peers)
    decode, *batches = report.tables_of(found)
    assert decode.same == {"wrong": "0/2"}
    assert decode.failed == {"crash": "crash: generate: ended with exit code 3: out of luck."}
    assert list(decode.values) == ["refgen", "wrong"]
    assert all(len(values) == 2 for values in decode.values.values())
    assert len(decode.reads) == 2
    assert [table.same for table in batches] == [{"wrong": "0/16"}, {"wrong": "0/64"}]
    assert found["skipped"] == {"absent": "no_such_library not installed: pip install no_such_library"}
    assert found["machine"]["versions"]["wrong"] == "7"
    text = report.render(found)
    assert "skipped: absent: no_such_library not installed: pip install no_such_library" in text
    assert "failed: crash: generate: ended with exit code 3: out of luck." in text
    back = json.loads(json.dumps(found))
    assert report.tables_of(back) == report.tables_of(found)
    assert report.render(back) == text
    assert capsys.readouterr() == ("", "")


def test_every_section_runs_with_refgen_alone(tiny_folder):
    """Without any peer; refgen's own variants give refgen's tokens."""
    found = run(
        quick(tiny_folder.parent, peers="none", rounds=1, only="prefill,start,memory,context,lookup,cache,price")
    )
    tables = report.tables_of(found)
    assert [table.section for table in tables] == [
        "prefill", "start", "memory", "context", "lookup", "cache", "price",
    ]  # fmt: skip
    by_section = {table.section: table for table in tables}
    assert by_section["lookup"].same == {"refgen, prompt lookup": "2/2"}
    assert by_section["cache"].same == {"refgen, no cache": "1/1"}
    assert by_section["price"].same == {"refgen, float64": "1/1", "refgen, canonical": "1/1"}
    assert not any(table.failed for table in tables)
    size = (tiny_folder / "model.safetensors").stat().st_size
    assert by_section["memory"].values["the weights' file"] == [size]
    assert "512 bytes for each further position" in by_section["memory"].notes[0]


def test_the_built_in_model_is_measured_as_a_command(tmp_path):
    """`refgen generate` beside `import numpy`."""
    found = run(quick(tmp_path, models="shakespeare", peers="none", rounds=1, only="start"))
    (table,) = report.tables_of(found)
    assert table.base == "python -c 'import numpy'"
    assert list(table.values) == ["python -c 'import numpy'", "refgen generate"]
    assert not table.failed


TABLE = Table(
    section="decode",
    model="random tiny",
    title="Decoding",
    unit="tokens/s",
    work=10,
    base="refgen",
    values={"refgen": [1.0, 2.0, 1.0], "peer": [2.0, 4.0, 3.0]},
    same={"peer": "3/3"},
    failed={"other": "other: load: broke."},
    reads=[1e9, 5e8, 2e9],
    bytes_read=50_000_000,
    notes=["A note."],
)


def test_a_table_by_hand():
    """Medians of rates, ratios of times within rounds, the share of the bandwidth of the same round."""
    own = report.figures(TABLE)
    assert own["refgen"]["value"].median == 10.0
    assert own["peer"]["value"].median == pytest.approx(10 / 3)
    assert own["peer"]["ratio"] == (2.0, 2.0, 2.5)
    assert own["refgen"]["share"].median == 0.5  # 0.5, 0.5 and 0.25 of what could be read
    assert report.render_table(TABLE) == (
        "random tiny: Decoding\n"
        "ratio: its time over that of refgen, so above 1 it is slower\n"
        "bandwidth: 1.00 GB/s read; a token reads 50 MB of weights\n"
        "        tokens/s    quartiles  ratio    quartiles  of bandwidth  same tokens\n"
        "refgen      10.0  7.50 … 10.0                               50%\n"
        "peer        3.33  2.92 … 4.17   2.00  2.00 … 2.50           25%          3/3\n"
        "failed: other: load: broke.\n"
        "A note."
    )


def test_a_table_whose_base_failed_has_no_ratios():
    """What there is is shown."""
    table = Table("decode", "m", "t", "s", 1, "refgen", {"peer": [1.0]}, failed={"refgen": "refgen: broke."})
    assert "ratio" not in report.figures(table)["peer"]
    assert "peer  1.00  1.00 … 1.00\nfailed: refgen: broke." in report.render_table(table)
    assert "failed: x." in report.render_table(Table("decode", "m", "t", "s", 1, "r", {}, failed={"r": "x."}))


def test_machine_facts():
    """What it ran on, in words."""
    facts = machine.facts(2)
    assert facts["threads"] == 2
    assert facts["numpy"].startswith(np.__version__)
    assert facts["cores"] >= 1
    json.dumps(facts)


# --- The command ------------------------------------------------------------------------------------------


def test_the_command_prints_a_report_and_shows_it_again(capsys, tmp_path, tiny_folder):
    """stdout has the report, stderr nothing; --show reads what --json wrote."""
    arguments = ["bench", "--shape", "tiny", "--peers", "none", "--models", "random", "--only", "cache"]
    more = ["--rounds", "1", "--weights", str(tiny_folder.parent), "--json", str(tmp_path / "all.json")]
    assert main([*arguments, *more]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "random tiny: No cache: 1 row, prompt of 16, 48 new tokens" in printed.out
    assert main(["bench", "--show", str(tmp_path / "all.json")]) == 0
    assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "--only speed: is not known. Known are decode, prefill, batch, start, memory, context,"),
        (["--models", "gpt3"], "--models gpt3: is not known. Known are random, shakespeare."),
        (["--peers", "torch"], "--peers torch: is not a known peer. Known are transformers, ctranslate2, onnxruntime,"),
        (["--shape", "7B"], "--shape 7B: is neither a known shape nor five positive numbers. Known are 124M, 355M,"),
        (["--shape", "1,1,4,9,0"], "--shape 1,1,4,9,0: is neither a known shape nor five positive numbers."),
        (["--shape", "1,1,4,9,8"], "--shape 1,1,4,9,8: must have at least 16 positions."),
        (["--rounds", "0"], "--rounds 0: must be at least 1."),
        (["--threads", "0"], "--threads 0: must be at least 1."),
        (["--prompts", "-2"], "--prompts -2: must be at least 1."),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: folder no/such does not exist."),
        (["--show", "no-such.json"], "no-such.json: does not exist"),
    ],
)
def test_wrong_options(capsys, arguments, message):
    """Each is an error in one line, before anything is measured."""
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"refgen: error: {message}")
    assert printed.err.count("\n") == 1


def test_show_needs_a_report(capsys, tmp_path):
    """Another JSON file is none."""
    (tmp_path / "other.json").write_text("{}")
    assert main(["bench", "--show", str(tmp_path / "other.json")]) == 2
    assert "is not a report of refgen bench" in capsys.readouterr().err


def test_help_names_all_there_is():
    """Sections, models, peers and shapes are written out in the help, which imports none of them."""
    text = next(iter(parser()._subparsers._group_actions)).choices["bench"].format_help()
    for name in (*SECTIONS, *MODELS, *SHAPES, *(peer.name for peer in PEERS)):
        assert name in text


def test_peers_are_chosen_by_name():
    """All, some or none."""
    peers = [Subject("one"), Subject("two", packages=("json", "no_such_library"))]
    assert chosen(None, peers) == ([peers[0]], {"two": "no_such_library not installed: pip install no_such_library"})
    assert chosen("one", peers) == ([peers[0]], {})
    assert chosen("none", peers) == ([], {})


def test_a_plot_needs_matplotlib(monkeypatch, capsys, tmp_path):
    """Said before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--plot", str(tmp_path / "a.png")]) == 2
    assert "--plot: needs matplotlib. pip install matplotlib" in capsys.readouterr().err


def test_a_plot_is_drawn(tmp_path):
    """One panel a table."""
    pytest.importorskip("matplotlib", reason="pip install 'refgen[plot]'")
    for count in (1, 3):
        plot.save([TABLE] * count, tmp_path / f"{count}.svg")
        assert (tmp_path / f"{count}.svg").read_text(encoding="utf-8").count("Decoding") == count


def test_the_benchmark_is_not_imported_with_refgen():
    """Neither by `import refgen` nor by the command line's other commands."""
    script = "import sys, refgen.cli; assert not [name for name in sys.modules if name.startswith('refgen.bench')]"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shares_are_finite():
    """A figure of the report is a number."""
    assert all(math.isfinite(each) for own in report.figures(TABLE).values() for one in own.values() for each in one)
