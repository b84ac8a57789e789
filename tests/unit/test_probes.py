"""Probe checkpoints: right in refgen in every format, flipped by every structural fault, the same bits everywhere."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from refgen import AutoModelForCausalLM, AutoTokenizer
from refgen.cache import Cache
from refgen.cli import main
from refgen.conformance.questions.cases import CHOICE
from refgen.conformance.questions.probes import PROBES, cases_of, find, write
from refgen.conformance.questions.probes.show import spelled
from refgen.conformance.subjects.protocol import DTYPES
from refgen.model import forward
from refgen.oracle.faults import FAULTS
from refgen.spec import find as find_rules
from tests.teacher import MODES, PRECISION, STRUCTURAL, flipped, forced, margins, network, probe

LONG = settings().max_examples > 1000
PAGE = Path(__file__).parents[2] / "docs" / "probes.md"
RULES = {rule.id for rule in find_rules(None)}
FAULT = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every probe, written."""
    root = tmp_path_factory.mktemp("probes")
    for name in PROBES:
        write(probe(name), root / name)
    return root


def answer(model, tokenizer, case):
    """What refgen answers, as rows; text only if it is expected."""
    request = dict(case.request)
    ids, mask = request.pop("input_ids"), request.pop("attention_mask", None)
    reader = {"tokenizer": tokenizer} if "stop_strings" in request else {}
    out = model.generate(ids, mask, return_dict_in_generate=True, **request, **reader)
    rows = []
    for row, length, finish in zip(out.sequences, out.lengths, out.finish, strict=True):
        rows.append({"new_ids": row[np.shape(ids)[1] : length].tolist(), "finish": finish})
    return rows


def expected(case):
    """The rows, of a choice the ones that refgen takes."""
    options = {"context_end": "n_plus_1", "top_k_ties": "all_stay"}
    chosen = case.expected[options[case.choice]] if case.result == CHOICE else case.expected
    return chosen["rows"]


# --- Right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBES)
def test_refgen_says_what_is_expected(name, folders):
    """Every case of every probe, in float32 and float64, from its folder, without a warning."""
    tokenizer = AutoTokenizer.from_pretrained(folders / name)
    for dtype in ("float32", "float64"):
        model = AutoModelForCausalLM.from_pretrained(folders / name, dtype=dtype)
        for case in probe(name).cases:
            wanted = expected(case)
            for row, want in zip(answer(model, tokenizer, case), wanted, strict=True):
                text = {"text": tokenizer.decode(row["new_ids"])} if "text" in want else {}
                assert row | text == want, (case.id, dtype)


def test_in_every_format(figures):
    """Right with every operation rounded to 16 bits, and as libraries round; the smallest margins are far from 0."""
    for mode in MODES:
        dtype = mode.split(",")[0]
        rounds_inside = "each" in mode and dtype in ("bfloat16", "float16")
        worst = {}
        for name in PROBES:
            if rounds_inside and dtype not in probe(name).dtypes:
                continue
            worst |= margins(name, mode)
        worst = {case: margin for case, margin in worst.items() if not case.startswith("probe.dice-ties")}
        case = min(worst, key=worst.get)
        figures.append(
            f"probes in {mode}: smallest margin {worst[case]:.3f} logits, {case}; median {np.median([*worst.values()]):.1f}"
        )
        assert worst[case] > 0.3, (mode, case)


def test_dice_are_exact():
    """FWD-04. The logits of dice are what the builder was given, to the last bit, in any format they fit."""
    for name in PROBES:
        if name.startswith("dice"):
            z = np.array(probe(name).facts["logits"])
            ids = np.arange(len(z))[None]
            for dtype in ("float32", "float64"):
                assert (forward(network(name, dtype), ids) == z.astype(dtype)).all(), name


def test_the_table_is_exact():
    """FWD-14. The logits of the table are its rows, up to epsilon's share of the variance."""
    rows = np.array(probe("table").facts["logits_after"])
    logits = forward(network("table", "float64"), np.arange(len(rows))[None])[0]
    assert np.abs(logits - rows).max() < 2e-3


def test_the_best_path_is_the_best():
    """BEAM-02. Of all texts up to five tokens, SBDb is the likeliest; a cache that does not follow its beam loses it."""
    gpt2 = network("beam", "float64")

    def texts(ids, total):
        """Every text that goes on from here with its log-probability."""
        if len(ids) == 5 or (len(ids) > 1 and ids[-1] == 11):
            yield total, ids[1:]
            return
        z = forward(gpt2, np.array([ids]))[0, -1]
        z = z - np.log(np.exp(z).sum())
        for token in np.flatnonzero(z > -5):
            yield from texts([*ids, int(token)], total + z[token])

    (best, ids), (second, _) = sorted(texts([0], 0.0), reverse=True)[:2]
    assert ids == cases_of("beam")[1].expected["rows"][0]["new_ids"]
    assert best - second > 0.5


def test_beams_need_their_caches(folders, monkeypatch):
    """CACHE-01. A cache that keeps its rows when beams change places says something else."""
    model, tokenizer = (kind.from_pretrained(folders / "beam") for kind in (AutoModelForCausalLM, AutoTokenizer))
    monkeypatch.setattr(Cache, "select", lambda self, rows: None)
    wrong = [case.id for case in cases_of("beam") if answer(model, tokenizer, case) != expected(case)]
    assert {"probe.beam.two", "probe.beam.three", "probe.beam.batch"} <= set(wrong)


# --- Wrong ------------------------------------------------------------------------------------------------


def test_every_structural_fault_flips_a_token():
    """Each case flips with the faults that it says it kills, in float32 and in bfloat16; together they are all there are."""
    killed = set()
    for name in PROBES:
        for case in probe(name).cases:
            assert set(case.kills) <= {fault.name for fault in STRUCTURAL}, case.id
            killed.update(case.kills)
        faults = {fault for case in probe(name).cases for fault in case.kills}
        for fault, mode in itertools.product(sorted(faults), ("float32", "bfloat16")):
            ids = [case.id for case in probe(name).cases if fault in case.kills]
            assert set(ids) <= set(flipped(name, FAULT[fault], mode, ids)), (fault, mode)
    assert killed == {fault.name for fault in STRUCTURAL}


def test_precision_is_no_fault():
    """Keys in 16 bits, weights in 16 or 8 bits and the like flip no token of any probe."""
    for name, fault in itertools.product(PROBES, PRECISION):
        if (
            fault != "gelu-0.0447" or probe(name).config.activation_function == "gelu_new"
        ):  # else it is another function
            assert not flipped(name, FAULT[fault], "float32"), (name, fault)


@pytest.mark.parametrize(
    ("name", "fault", "letter"),
    [
        ("scale", "scale-twice", "t"), ("scale", "scale-by-layer", "l"), ("scale", "scale-by-width", "w"),
        ("scale", "softmax-base-2", "w"), ("scale", "scale-missing", "m"), ("scale-off", "scale-missing", "t"),
        ("scale-by-layer", "scale-by-layer", "m"), ("attention-biases", "no-query-bias", "q"),
        ("attention-biases", "no-value-bias", "v"), ("attention-biases", "no-attention-proj-bias", "p"),
        ("attention-biases", "no-attention-biases", "a"), ("mlp-biases", "no-fc-bias", "f"),
        ("mlp-biases", "ln-1-twice", "n"), ("mlp-biases", "no-mlp-proj-bias", "p"), ("gelu", "gelu-sigmoid", "q"),
        ("gelu", "relu", "r"), ("gelu", "silu", "s"), ("gelu-tanh", "gelu-erf", "e"), ("gelu-exact", "gelu-tanh", "t"),
        ("relu", "gelu-tanh", "g"), ("variance", "unbiased-variance", "u"), ("variance", "no-mean", "r"),
        ("epsilon", "epsilon-1e-6", "s"), ("epsilon", "epsilon-1e-12", "z"), ("epsilon", "epsilon-outside", "z"),
        ("epsilon-large", "epsilon-1e-5", "x"), ("epsilon-large", "epsilon-outside", "h"),
    ],
)  # fmt: skip
def test_a_ruler_names_the_fault(name, fault, letter):
    """The letter that comes instead is the one that the probe's sentence gives for that fault."""
    from refgen.oracle.counterfactual import Pass

    case = forced(name)[0]
    ids = np.array(case.request["input_ids"])[:1]
    z = FAULT[fault].change(Pass(network(name, "float32"), ids, np.ones_like(ids))).run()[0, -1]
    assert spelled(probe(name), [int(z.argmax())]) == letter
    assert re.search(rf"\b{letter}\b", probe(name).sentence)


def flips():
    """The whole matrix: by fault and mode, the probes it flips."""
    return {
        (fault.name, mode): [name for name in PROBES if flipped(name, fault, mode)]
        for fault in STRUCTURAL
        for mode in ("float32", "bfloat16")
    }


@pytest.mark.skipif(not LONG, reason="the whole matrix takes a minute; the default run takes what cases say they kill")
def test_the_matrix_in_the_docs():
    """docs/probes.md has every fault with the probes that it flips, and says which it does not flip in bfloat16."""
    lines = []
    found = flips()
    for fault in STRUCTURAL:
        exact, rounded = found[fault.name, "float32"], found[fault.name, "bfloat16"]
        assert exact, fault.name
        assert rounded, fault.name
        lines.append(f"| {fault.name} | {' '.join(name if name in rounded else f'*{name}*' for name in exact)} |")
    assert "\n".join(lines) in PAGE.read_text(encoding="utf-8"), "\n".join(lines)


# --- Files ------------------------------------------------------------------------------------------------


def test_the_same_bits_everywhere():
    """All weights of all probes, as their builders write them."""
    digest = hashlib.sha256()
    for name in PROBES:
        for key, tensor in sorted(probe(name).tensors.items()):
            digest.update(f"{name} {key} {tensor.shape}".encode() + tensor.astype("<f4").tobytes())
    assert digest.hexdigest() == "2f65fabc86f37f3f72bea9518a24bfe68dc2f1eac698b3cbd53d2094fde78c57"


def test_sizes_and_words(folders):
    """Small folders, rules that exist, ids of cases that are unique, formats that are known."""
    ids = [case.id for name in PROBES for case in probe(name).cases]
    assert len(ids) == len(set(ids))
    for name in PROBES:
        size = sum(path.stat().st_size for path in (folders / name).iterdir())
        assert size < 500_000, name
        assert probe(name).name == name
        assert probe(name).sentence.endswith("."), name
        assert set(probe(name).dtypes) <= set(DTYPES), name
        assert set(probe(name).rules) <= RULES, name
        for case in probe(name).cases:
            assert set(case.rules) <= RULES, case.id
            assert not case.ties, case.id
            assert case.model == name, case.id


def test_numbers_fit_sixteen_bits():
    """Every weight is a bfloat16 and a float16, so a converted file holds the same network."""
    for name, fault in itertools.product(PROBES, ("weights-bfloat16", "weights-float16")):
        from refgen.checkpoints import disassemble
        from refgen.oracle.counterfactual import Pass

        rounded = FAULT[fault].change(Pass(network(name, "float32"), np.zeros((1, 1), int), np.ones((1, 1), int)))
        for key, tensor in disassemble(rounded.gpt2).items():
            assert np.array_equal(tensor, probe(name).tensors[key]), (name, key, fault)


def test_by_text_alone(folders):
    """Every prompt is the encoding of its text, so a server that takes only text can be asked."""
    for name in PROBES:
        tokenizer = AutoTokenizer.from_pretrained(folders / name)
        for case in probe(name).cases:
            rows = case.request["input_ids"]
            masks = case.request.get("attention_mask", np.ones_like(rows))
            for row, mask in zip(rows, masks, strict=True):
                ids = [each for each, real in zip(row, mask, strict=True) if real]
                assert tokenizer.encode(tokenizer.decode(ids)) == ids, case.id


def test_expectations_are_json(folders):
    """expectations.json holds the cases, as data."""
    for name in PROBES:
        said = json.loads((folders / name / "expectations.json").read_text(encoding="utf-8"))
        assert said["probe"] == name
        assert [case["id"] for case in said["cases"]] == [case.id for case in probe(name).cases]
        assert all(case["why"] for case in said["cases"])


# --- The command ------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = main(["export", "probes", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_list(capsys):
    """A line a probe, or JSON."""
    code, out, err = run(capsys, "--list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(PROBES)
    assert [each["name"] for each in json.loads(run(capsys, "--list", "--json")[1])] == list(PROBES)


def test_build(capsys, tmp_path):
    """Named ones, or all; a folder each."""
    code, out, err = run(capsys, str(tmp_path), "clock", "copy-3")
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(tmp_path / name) for name in ("clock", "copy-3")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clock", "copy-3"]
    assert main(["generate", "BJC", "--model", str(tmp_path / "copy-3"), "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out == "BJCBJCBJ\n"


def test_show(capsys, tmp_path):
    """Questions and answers, JSON, a weight, a picture."""
    assert "'BJC' -> 'BJCBJCBJCBJ', length" in run(capsys, "--show", "copy-3")[1]
    assert json.loads(run(capsys, "--show", "clock", "--json")[1])["probe"] == "clock"
    assert run(capsys, "--show", "clock", "--tensor", "h.0.attn.c_proj.weight")[1] == "32 x 32, all 0\n"
    lines = run(capsys, "--show", "mlp-biases", "--tensor", "h.0.mlp.c_fc.bias")[1]
    assert lines == "128; columns 0 to 0:\n8\n"
    pytest.importorskip("matplotlib")
    assert run(capsys, "--show", "copy-3", "--plot", str(tmp_path / "copy.png"))[0] == 0
    assert (tmp_path / "copy.png").stat().st_size > 1000


def test_errors(capsys):
    """A name that is not there is said, with the nearest."""
    assert run(capsys, "--show", "copy3")[2] == "refgen: error: probe 'copy3': does not exist. Did you mean copy-3?\n"
    assert "is not in clock. It has wte.weight" in run(capsys, "--show", "clock", "--tensor", "h.9")[2]
    with pytest.raises(ValueError, match="See refgen export probes --list"):
        find("zzzz")
