"""The kit tested: every planted fault is caught, and the rule it breaks is the first suspect."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import settings

from refgen import GPT2LMHeadModel
from refgen.conformance.judging.lab import Lab
from refgen.conformance.planted.subject_faults import FAULTS, FaultyNetwork, in_network
from refgen.conformance.questions.cases import CaseCheck, config_of, read, suites
from refgen.conformance.questions.models import Models
from refgen.conformance.runner import check
from refgen.conformance.subjects.python import PythonSubject, describe
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.model import gelu_new
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import activated, normed
from refgen.oracle.formats import cast
from tests.docs.test_spec import RULES
from tests.rounded import run_in
from tests.stepping import stepping

NAMES = [fault.name for fault in FAULTS]
CASES = {case.id: case for path in suites() for case in read(path)}
KILLS = sorted((case.id, name) for case in CASES.values() for name in case.kills)
ONLY = {  # the checks in which faults of a family show
    "tokenizer": ["tokenizer"],
    "forward": ["forward.*"],
    "process": ["process.*", "probe.*"],
    "loop": ["process.*", "loop.*", "relations.*", "probe.*"],
    "sampling": ["process.*", "sampling.*"],
}
STRIDE = {"tokenizer": 8, "forward": 30, "process": 9, "loop": 16, "sampling": 41}  # in the quick profile


@cache
def models():
    """Folders, written once."""
    return Models()


def subject(fault):
    """Of a planted fault."""
    return PythonSubject(fault.plant, describe(fault.plant, models()["shakespeare"]))


def test_the_list():
    """At least sixty, each with its own name, a sentence, rules of SPEC.md, of all families."""
    assert len(set(NAMES)) == len(NAMES) >= 60
    assert {fault.family for fault in FAULTS} == ONLY.keys()
    for fault in FAULTS:
        assert fault.sentence.endswith("."), fault.name
        assert set(fault.rules) <= RULES.keys(), fault.name


@pytest.mark.parametrize(("case", "name"), KILLS)
def test_a_case_kills_what_it_says(case, name):
    """With the fault planted, the case fails."""
    fault = FAULTS[NAMES.index(name)]
    finding = CaseCheck(CASES[case], config_of(models()[CASES[case].model])).run(Lab(subject(fault), models()))
    assert finding.verdict.bad, finding


def sampled():
    """All faults in the long profile, else some of each family."""
    if settings.get_current_profile_name() == "long":
        return FAULTS
    families = Counter()
    chosen = []
    for fault in FAULTS:
        chosen += [fault] if families[fault.family] % STRIDE[fault.family] == 0 else []
        families[fault.family] += 1
    return chosen


def test_faults_are_caught_and_named(figures):
    """Every fault makes a claim wrong, and in nine of ten one of its rules is the first suspect."""
    caught, named, missed = 0, 0, []
    for fault in sampled():
        run = check(subject(fault), models(), only=ONLY[fault.family])
        bad = [result for result in run.results if result.verdict.bad]
        caught += run.overall.verdict == "wrong" and bool(bad)
        right = bool(run.suspects) and run.suspects[0].rule in fault.rules
        named += right
        if not bad or not right:
            missed.append((fault.name, run.suspects[0].rule if run.suspects else "nothing"))
    total = len(sampled())
    figures.append(f"faults planted in subjects: {caught} of {total} caught, {named} named first; others: {missed}")
    assert caught == total, missed
    assert named >= 0.9 * total, missed


# --- Correct variants: other ways to compute the same -------------------------------------------------------


def sigmoid_gelu(x):
    """GELU's tanh form as x sigmoid(2 u)."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + np.exp(-2 * u))


def mean(x):
    """Of each row."""
    return x.mean(axis=-1, keepdims=True)


def one_pass_norm(layer_norm, x, f, epsilon):
    """The variance as E[x²] - E[x]², about a shift so that little cancels."""
    x = x - x[..., :1]
    m = mean(x)
    return (x - m) / np.sqrt(np.maximum(mean(x * x) - m * m, 0) + epsilon) * f.weight + f.bias


def lowest_mask(p):
    """Hidden scores are the lowest number, not -inf."""

    def attend(q, k, v, visible, scale, note=None):
        scores = np.where(visible, np.einsum("bhtd,bhsd->bhts", q, k) * scale, np.finfo(q.dtype).min)
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.einsum("bhts,bhsd->bhtd", e / e.sum(axis=-1, keepdims=True), v)

    return stepping(p, attend=attend)


def by_columns(p):
    """Linear maps as one long sum of outer products, in blocks of three inputs."""

    def linear(x, f):
        parts = range(0, len(f.weight), 3)
        return sum(x[..., i : i + 3] @ f.weight[i : i + 3] for i in parts) + f.bias

    return stepping(p, linear=linear)


class Gumbel(ReferenceSubject):
    """Draws by the largest score plus noise, without batches and without a cache."""

    def generate(self, input_ids, attention_mask=None, **arguments):
        """Row by row, but for beams."""
        if {"num_beams", "uniforms"} & arguments.keys():
            return super().generate(input_ids, attention_mask, **arguments)
        n = arguments.pop("num_return_sequences", 1)
        if arguments.get("do_sample"):
            self.logits_processor = ()
            base = arguments.pop("seed", 0) or 0
            rows = []
            for row, ids in enumerate(input_ids):
                mask = None if attention_mask is None else [attention_mask[row]]
                rows += [
                    super(Gumbel, self).generate([ids], mask, seed=1000 * base + 17 * row + i, **arguments)[0]
                    for i in range(n)
                ]
            return rows
        masks = [None] * len(input_ids) if attention_mask is None else [[mask] for mask in attention_mask]
        alone = [
            super(Gumbel, self).generate([ids], mask, use_cache=False, **arguments)
            for ids, mask in zip(input_ids, masks, strict=True)
        ]
        return [row for rows in alone for row in rows]


class Padded(ReferenceSubject):
    """Pads every batch by three more columns."""

    def generate(self, input_ids, attention_mask=None, **arguments):
        """The mask says so; settings that count columns are moved along."""
        if {"max_length", "min_length", "past_key_values"} & arguments.keys() or not input_ids[0]:
            return super().generate(input_ids, attention_mask, **arguments)
        masks = np.ones_like(input_ids) if attention_mask is None else np.asarray(attention_mask)
        ids = np.pad(np.asarray(input_ids), [(0, 0), (3, 0)])
        return super().generate(ids.tolist(), np.pad(masks, [(0, 0), (3, 0)]).tolist(), **arguments)


class Float64(ReferenceSubject):
    """Computes in float64."""

    dtype = "float64"


class Canonical(ReferenceSubject):
    """Every operation rounded once."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model = GPT2LMHeadModel.from_pretrained(folder, engine="canonical")


def emulated(dtype):
    """In a format of 16 bits, each operation rounded."""

    class Emulated(FaultyNetwork):
        """Its forward pass."""

        def __init__(self, folder):
            self.folder, self.model = folder, GPT2LMHeadModel.from_pretrained(folder)

        def forward(self, input_ids, attention_mask=None, prefill=None):
            """Logits."""
            ids = np.asarray(input_ids)
            mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
            return run_in(dtype, Pass(cast(self.model.gpt2, dtype), ids, mask))

        def next_logits(self, P):
            """The same for the loop."""
            network = cast(self.model.gpt2, dtype)
            return lambda ids, mask: run_in(dtype, Pass(network, ids, mask))[:, -1]

    Emulated.dtype = dtype
    return Emulated


VARIANTS = {
    "x sigmoid(2u)": in_network(lambda p: activated(sigmoid_gelu)(p) if p.gpt2.h[0].mlp.act is gelu_new else p),
    "one-pass variance": in_network(normed(one_pass_norm)),
    "lowest number for a mask, einsum": in_network(lowest_mask),
    "sums in blocks of three": in_network(by_columns),
    "no cache": in_network(lambda p: p),
    "row by row": Gumbel,
    "more padding": Padded,
    "float64": Float64,
    "canonical": Canonical,
    "bfloat16, each operation rounded": emulated("bfloat16"),
    "float16, each operation rounded": emulated("float16"),
}
QUICK = ["forward.net-*.padded", "forward.net-deep.*", "forward.fresh.0*", "loop.greedy.*", "loop.fresh.*", "probe.*"]


@pytest.mark.parametrize("name", VARIANTS)
def test_correct_variants_are_not_accused(name, figures):
    """Whoever computes the same in another way fails nothing."""
    subject_ = PythonSubject(VARIANTS[name], describe(VARIANTS[name], models()["shakespeare"]))
    only = QUICK if settings.get_current_profile_name() != "long" else ()
    run = check(subject_, models(), only=only)
    bad = [(result.id, result.finding.message) for result in run.results if result.verdict.bad]
    assert not bad
    figures.append(f"correct variant, {name}: {run.overall.sentence}")
