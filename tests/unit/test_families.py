"""Families of faults: a mistake with any number in it is named, with its rule and its number, though nobody has listed it."""

import numpy as np
import pytest

from refgen import GPT2Config
from refgen.bench.weights import random_tensors
from refgen.checkpoints import assemble
from refgen.oracle.counterfactual import Pass
from refgen.oracle.diagnose import BY_NUMBER, EXPLAINED, View, diagnose, fits
from refgen.oracle.families import FAMILIES
from refgen.oracle.faults import FAULTS
from refgen.oracle.formats import cast
from tests.unit.test_diagnose import a_case


def drawn(family, rng):
    """One of its values, or a number between two of them."""
    if not family.between:
        return family.values[rng.integers(len(family.values))]
    low, high = sorted(rng.choice(len(family.values) - 1, 1).item() + np.array([0, 1]))
    return float(rng.uniform(family.values[low], family.values[high]))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_member_is_named(family):
    """With no list of known faults, what an error comes from is named with the family's first rule, and its number is found."""
    for seed in range(100, 106):
        rng = np.random.default_rng([seed, len(family.name)])
        value = drawn(family, rng)
        exact, own, noise = a_case(seed, "float32")
        wrong = family.change(value)(own).run()
        found = diagnose(exact, [View(wrong, noise)], faults=())
        if fits(found.error) or not np.isfinite(wrong).all():
            continue
        best = found.matches[0]
        same = [each for each in found.matches if each.explained > best.explained - 1e-6]
        assert found.named is not None
        assert any(each.fault.rules[0] == family.rules[0] for each in same)
        if family.between and best.fault.name.startswith(f"{family.name}="):
            assert float(best.fault.name.partition("=")[2]) == pytest.approx(value, rel=0.02)
        return
    pytest.skip("it changes nothing in six networks")


def test_a_number_that_only_comes_near_names_nothing():
    """With a number to choose, much looks alike: the exact GELU is nine tenths of the tanh form with another constant."""
    constant = [family for family in FAMILIES if family.name == "gelu-constant"]
    erf = next(fault for fault in FAULTS if fault.name == "gelu-erf")
    for seed in (7, 9, 10):
        exact, own, noise = a_case(seed, "float32")
        found = diagnose(exact, [View(erf.change(own).run(), noise)], faults=(), families=constant)
        assert EXPLAINED < found.matches[0].explained < BY_NUMBER
        assert found.named is None


@pytest.mark.parametrize(("H", "D", "L", "V", "N", "T"), [(1, 1, 1, 2, 1, 1), (1, 3, 1, 5, 4, 4), (3, 5, 4, 7, 16, 9)])
@pytest.mark.parametrize("tied", [True, False])
def test_every_member_is_a_pass_of_any_network(H, D, L, V, N, T, tied):
    """However small a network is, every fault gives finite logits: diagnosis must not fail on somebody's network."""
    config = GPT2Config(
        vocab_size=V, n_positions=N, n_embd=H * D, n_layer=L, n_head=H, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    gpt2 = cast(assemble(config, random_tensors(config, 1)), "float32")
    ids = np.random.default_rng(0).integers(0, V, (2, T))
    p = Pass(gpt2, ids, np.ones_like(ids), prefill=max(1, T // 2))
    for family in FAMILIES:
        for value in family.values:
            assert np.isfinite(family.member(value).change(p).run()).all(), (family.name, value)
