"""Each step's ball holds the step's exact value for points of its ball, chosen where that is hardest; and what is refused."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq

from refgen import AutoModelForCausalLM, GPT2Config
from refgen.checkpoints import assemble
from refgen.errors import InputError, OracleError
from refgen.model import Affine
from refgen.oracle import prove as proving
from refgen.oracle.fixed_point import fixed_point, norm_up
from refgen.oracle.prove import (
    ACTIVATIONS,
    FINER,
    Ball,
    Prover,
    attend,
    attention_scale,
    continuation,
    keys_of,
    layer_norm,
    linear,
    linear_of,
    network_of,
    proof_of,
    prove,
    softmax,
    whole,
)
from tests import ball_twin
from tests.strategies import random_model, random_tensors

UNIT = fixed_point(160)
BITS = UNIT.bits


@pytest.fixture(autouse=True)
def precision():
    """Far more bits than a unit has."""
    old, ctx.prec = ctx.prec, 1200
    yield
    ctx.prec = old


def ball(numbers, radius):
    """One row within `radius`, both in real numbers, the middle rounded to units."""
    return Ball(fixed(numbers)[None], whole([int(Fraction(radius) * UNIT.one)]))


def fixed(numbers):
    """float64 numbers in units, as an array of objects."""
    return whole([int(Fraction(float(number)) * UNIT.one) for number in numbers])


def at_the_edge(x, direction, row=0):
    """The point of a ball furthest from the middle in a direction, as whole units, and as arb's real numbers."""
    towards = fixed(np.asarray(direction, float) / np.linalg.norm(direction))
    points = x.mid[row] + whole([int(step * x.radius[row]) >> BITS for step in towards])
    away = points - x.mid[row]
    assert (away * away).sum() <= x.radius[row] ** 2 * 1.0001
    return reals(points)


def reals(points):
    """Whole units as real numbers."""
    return [arb(int(point)) / arb(2) ** BITS for point in points]


def reach(found, exact, row=0):
    """How far from the middle an exact row lies, as a share of the radius: above 1 the ball is wrong."""
    away = [float(abs(e * arb(2) ** BITS - int(m)).upper()) for e, m in zip(exact, found.mid[row], strict=True)]
    return math.hypot(*away) / float(found.radius[row])


def affine(rng, inner, outer):
    return Affine(rng.normal(size=(inner, outer)).astype(np.float32), rng.normal(size=outer).astype(np.float32))


@pytest.mark.parametrize("radius", [0.0, 2.0**-120, 2.0**-10, 3.0])
def test_linear(radius):
    """FWD-06: the point that the weights stretch most stays inside, and not far."""
    rng = np.random.default_rng(0)
    for inner, outer in ((1, 1), (7, 5), (30, 90)):
        f = affine(rng, inner, outer)
        x = ball(rng.normal(size=inner), radius)
        point = at_the_edge(x, np.linalg.svd(f.weight.astype(float))[0][:, 0])
        found = linear(x, linear_of(f), UNIT)
        exact = ball_twin.linear([point], ball_twin.matrix(f.weight), ball_twin.row(f.bias))[0]
        assert reach(found, exact) <= 1
        assert radius == 0 or reach(found, exact) > 0.75, "a bound this far off would let faults through"
        parts = linear(x, linear_of(f, outer), UNIT)
        for o in range(outer):
            one = Ball(parts.mid[:, o : o + 1], parts.radius.reshape(1, outer)[:, o])
            assert reach(one, exact[o : o + 1]) <= 1


@pytest.mark.parametrize("epsilon", ["0", "1e-5", "1"])
@pytest.mark.parametrize("share", [0.0, 2.0**-120, 2.0**-10, 0.9])
def test_layer_norm(share, epsilon):
    """FWD-05: points across the row, towards its mean, and where the row's direction changes most, stay inside.

    Across, a small radius is used up. At distance |c| sin(a) the direction changes most at the tangent, by a, and the
    result by 2 sin(a / 2) sqrt(C), which is more than sin(a) sqrt(C): a bound that took s from the middle would fail.
    """
    rng = np.random.default_rng(1)
    for C, size in ((2, 1.0), (16, 1.0), (40, 30.0)):
        f = Affine(np.full(C, -1.5, np.float32), rng.normal(size=C).astype(np.float32))
        numbers = rng.normal(size=C) * size
        c = numbers - numbers.mean()
        x = ball(numbers, share * np.linalg.norm(c))
        across = rng.normal(size=C)
        across -= across.mean()
        across -= c * (across @ c) / (c @ c)
        across *= np.linalg.norm(c) / np.linalg.norm(across)
        tangent = -c * share + across * math.sqrt(1 - share**2) if C > 2 else -c  # two columns have nothing across
        found = layer_norm(x, f, Fraction(epsilon), UNIT)
        for direction in (tangent, c, -c, np.ones(C)):
            exact = ball_twin.layer_norm(
                at_the_edge(x, direction),
                ball_twin.row(f.weight),
                ball_twin.row(f.bias),
                ball_twin.real(Fraction(epsilon)),
            )
            assert reach(found, exact) <= 1
            if share == 2.0**-120 and direction is tangent and C > 2:
                assert reach(found, exact) > 0.99, "a bound this far off would let faults through"


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations(name):
    """FWD-15: numbers from far left to far right, and steps where the slope is steepest, stay inside."""
    act, exact_act = ACTIVATIONS[name], ball_twin.ACTIVATIONS[name]
    places = np.concatenate([np.linspace(-14, 14, 57), [1.4, 1e-9, -1e-30, 300.0, -300.0, 1e6]])
    reached = []
    for place in places.tolist():
        for radius in (0.0, 2.0**-120, 2.0**-8, 1.0):
            x = ball([place], radius)
            for side in (-1, 1):
                found = act(x, UNIT)
                exact = [exact_act(a) for a in at_the_edge(x, [side])]
                if found.radius[0] == 0:  # a straight line and no rounding
                    assert exact[0] * arb(2) ** BITS == int(found.mid[0, 0])
                else:
                    reached.append(reach(found, exact))
    assert max(reached) <= 1
    assert max(reached) > 0.96, "a bound this far off would let faults through"


def test_no_activation_is_steeper_than_said():
    """FWD-16: with a ball for every stretch of the line, |f'| <= 1.13 from -16 to 16, and beyond f' is within 1e-9 of 0 or 1."""
    ctx.prec = 100
    for square, d in ((8 / arb.pi(), fmpq(44715, 10**6)), (arb(1), fmpq(0))):
        c = square.sqrt()
        for n in range(-16 * 1000, 16 * 1000):
            v = arb(n + 0.5, 0.5) / 1000
            s = ball_twin.sigmoid(c * (v + arb(d) * v**3))
            slope = s + v * s * (1 - s) * c * (1 + 3 * arb(d) * v**2)
            assert abs(slope).upper() < 1.13, n
    # Beyond, |v sigmoid'| c (1 + 3 d v²) falls, and the sigmoid is near 0 or 1; d = 0 is the slower case.
    assert 16 * (-arb(16)).exp() < 1e-5


def test_softmax():
    """FWD-13: in sum, 3 units a score; equal scores and far ones too."""
    rng = np.random.default_rng(2)
    for scores in ([0.0], [0.0] * 7, rng.normal(size=20), rng.normal(size=50) * 40, [0.0, -1e6]):
        found = softmax(fixed(scores), UNIT)
        exact = ball_twin.softmax(reals(fixed(scores)))
        away = sum(abs(e * arb(2) ** BITS - int(p)) for e, p in zip(exact, found, strict=True))
        assert away.upper() <= 3 * len(found)


@pytest.mark.parametrize("radius", [0.0, 2.0**-120, 2.0**-12, 0.25])
@pytest.mark.parametrize("moved", ["q", "k", "v", "all"])
def test_attend(moved, radius):
    """FWD-08, FWD-10: a query, its keys or the values moved to where the answer moves most."""
    rng = np.random.default_rng(3)
    wide_q, wide_k, wide_v = (radius if moved in (name, "all") else 0.0 for name in "qkv")
    size_q, size_k = {"q": (0.0, 2.0), "k": (1.0, 0.0), "v": (1.0, 2.0), "all": (1.0, 1.0)}[moved]
    for D, S in ((3, 2), (8, 5), (1, 1)):
        config = GPT2Config(n_embd=D, n_head=1)
        axis = rng.normal(size=D)
        axis /= np.linalg.norm(axis)
        across = np.roll(axis, 1)
        # Two camps of keys along an axis with opposite values: if they weigh the same, the softmax is at its most nervous.
        camps = np.where(np.arange(S) % 2 == 0, 1.0, -1.0)
        q = ball(size_q * axis, wide_q)
        keys = [ball(size_k * camp * axis, wide_k) for camp in camps]
        values = [ball(3 * camp * across, wide_v) for camp in camps]
        k, v = (
            keys_of(Ball(np.stack([row.mid for row in rows]), np.stack([row.radius for row in rows])))
            for rows in (keys, values)
        )
        z, wide = attend(q.mid[0], q.radius[0], k, v, 0, attention_scale(config, 0, BITS + FINER), UNIT)
        exact_q = at_the_edge(q, axis)
        exact_k = [at_the_edge(row, camp * axis) for row, camp in zip(keys, camps, strict=True)]
        exact_v = [at_the_edge(row, across) for row in values]
        scores = [sum(a * b for a, b in zip(exact_q, key, strict=True)) / arb(D).sqrt() for key in exact_k]
        exact = (arb_mat([ball_twin.softmax(scores)]) * arb_mat(exact_v)).entries()
        found = Ball(z[None], whole([wide]))
        assert reach(found, exact) <= 1
        if radius == 2.0**-120 and S == 2 and moved != "all":
            assert reach(found, exact) > 0.9, "a bound this far off would let faults through"


@pytest.mark.parametrize(("weigh", "by_layer"), [(True, False), (True, True), (False, True), (False, False)])
def test_attention_scale(weigh, by_layer):
    """FWD-08: the exact scale's floor."""
    config = GPT2Config(n_embd=6, n_head=2, scale_attn_weights=weigh, scale_attn_by_inverse_layer_idx=by_layer)
    exact = (1 / arb(3).sqrt() if weigh else arb(1)) / (3 if by_layer else 1)
    assert 0 <= float((exact * arb(2) ** 192 - attention_scale(config, 2, 192)).mid()) < 1


def test_sums_of_balls():
    """FWD-03: radii add up."""
    x = ball([1.0], 0.5) + ball([2.0], 0.25)
    assert (x.mid[0, 0], x.radius[0]) == (3 * UNIT.one, 3 * UNIT.one // 4)


# --- What is proved ---------------------------------------------------------------------------------------

SMALL = GPT2Config(vocab_size=20, n_positions=12, n_embd=8, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None)


def proof(mids, radii, bits=160, head=None):
    """A proof of one position, written by hand."""
    head = np.arange(len(mids))[:, None] if head is None else np.array(head)
    return proof_of(whole(mids)[None], whole(radii)[None], bits, head)


def test_rounding_where_the_interval_decides():
    """An interval that lies between two midpoints of float64s is rounded; one that holds a midpoint is not."""
    one = 1 << 160
    midpoint = one + (one >> 53)  # between 1 and the float64 after it
    found = proof([one, midpoint - 5, midpoint + 5, midpoint - 5, 0, 0, 3], [2, 4, 4, 6, 0, 1, 0]).float64[0]
    assert found[:3].tolist() == [1.0, 1.0, np.nextafter(1.0, 2)]
    assert np.isnan(found[[3, 5]]).all()
    assert (found[4], found[6]) == (0.0, 3 / one)


def test_tokens_are_proved_or_not():
    """The best lower end must be above every other upper end; identical rows of the head tie, and the lowest id wins."""
    assert proof([5, 30, 10], [1, 10, 9]).tokens.tolist() == [1]
    assert proof([5, 30, 10], [1, 10, 10]).tokens.tolist() == [-1]
    assert proof([5, 30, 30], [1, 1, 1], head=[[0], [7], [7]]).tokens.tolist() == [1]
    assert proof([5, 30, 29], [1, 1, 1], head=[[0], [7], [8]]).tokens.tolist() == [-1]
    assert proof([5, 30, 10], [1, 10, 9]).margins.tolist() == [2.0**-160]
    assert proof([5, 30, 10], [1, 10, 12]).margins.tolist() == [0.0]
    assert proof([5, 30], [1, 3]).interval(0, 1) == (Fraction(27, 1 << 160), Fraction(33, 1 << 160))


def test_a_row_of_zeros_is_an_exact_zero():
    """FWD-04: the logit of a token whose row is all zeros is 0, and rounds to 0."""
    tensors = random_tensors(replace(SMALL, tie_word_embeddings=False), 0, "float32")
    tensors["lm_head.weight"][3] = 0
    found = prove(assemble(replace(SMALL, tie_word_embeddings=False), tensors), np.array([1, 2])).float64
    assert (found[:, 3] == 0).all()
    assert not np.isnan(found).any()


def test_more_bits_lie_inside_fewer():
    """The ball of few bits holds the middle of many."""
    gpt2 = random_model(SMALL, 5, "float32").gpt2
    ids = np.array([3, 1, 4, 1, 5])
    rough, fine = prove(gpt2, ids, bits=160), prove(gpt2, ids, bits=400)
    away = abs((rough.mid << 240) - fine.mid)
    assert (away <= (rough.radius << 240) + fine.radius).all()
    assert (fine.radius < rough.radius << 238).all()


def test_bits_are_raised_until_all_is_decided(monkeypatch):
    """Starting with too few, refgen takes more by itself; asked for too few, it says how many are needed, and they do."""
    deep = replace(SMALL, n_layer=24)
    gpt2, ids = random_model(deep, 0, "float32").gpt2, np.array([1, 2, 3])
    found, asked, steps = None, 160, []
    while found is None:
        try:
            found = prove(gpt2, ids, bits=asked)
        except OracleError as refused:
            steps.append((asked, str(refused)))
            asked = int(str(refused).split("Ask for ")[1].split(",")[0])
    assert steps[0][0] == 160
    for (few, said), more in zip(steps, [*(bits for bits, _ in steps[1:]), asked], strict=True):
        assert (
            said
            == f"bits={few}: are too few to prove anything about these logits. Ask for {more}, or leave the choice to refgen."
        )
        assert few < more
    assert found.spare.min() >= 24
    monkeypatch.setattr(proving, "LOST", 0)
    by_itself = prove(gpt2, ids)
    assert by_itself.bits > 160
    assert not np.isnan(by_itself.float64).any()
    assert by_itself.tokens.tolist() == found.tokens.tolist()


def test_the_bits_asked_for_are_enough(monkeypatch):
    """A ball that is not too wide to go on, but says too little in the end, asks for exactly as much as helps."""
    gpt2, ids = random_model(SMALL, 0, "float32").gpt2, np.array([1, 2, 3])
    monkeypatch.setattr(proving, "LEAST", 200)
    with pytest.raises(OracleError, match="bits=160: are too few") as refused:
        prove(gpt2, ids, bits=160)
    asked = int(str(refused.value).split("Ask for ")[1].split(",")[0])
    assert 200 <= prove(gpt2, ids, bits=asked).spare.min() < 220


def test_nothing_vacuous_is_proved():
    """A network whose logits hang on nothing, equal numbers without epsilon, is refused at every number of bits."""
    tensors = random_tensors(SMALL, 0, "float32")
    tensors["wte.weight"][:] = 1
    tensors["wpe.weight"][:] = 0
    gpt2 = assemble(replace(SMALL, layer_norm_epsilon=0.0), tensors)
    with pytest.raises(OracleError, match="are too few to prove anything"):
        prove(gpt2, np.array([1]))


@pytest.mark.parametrize(("change", "message"), [
    ({"activation_function": "gelu"}, "activation_function='gelu': has no proved bounds [FWD-15]. Proved are gelu_new,"),
    ({"n_inner": 8200}, "a linear map of 8200 inputs: is exact up to 8192 only."),
])  # fmt: skip
def test_networks_that_are_refused(change, message):
    """What proofs do not cover is an error that says so."""
    with pytest.raises(OracleError) as error:
        network_of(random_model(replace(SMALL, n_layer=1, **change), 0, "float32").gpt2)
    assert str(error.value).startswith(message)


def test_float64_weights():
    """Those that float32 holds are proved with; others are refused."""
    model = random_model(SMALL, 0, "float32")
    wide = assemble(SMALL, {n: t.astype(np.float64) for n, t in random_tensors(SMALL, 0, "float32").items()})
    ids = np.array([1, 2, 3])
    assert (prove(wide, ids).mid == prove(model.gpt2, ids).mid).all()
    with pytest.raises(OracleError, match="float64 weights: can be proved only if float32 holds them"):
        prove(random_model(SMALL, 0).gpt2, ids)


@pytest.mark.parametrize("bits", [159, 10**6, 200.0, True])
def test_bits_that_are_refused(bits):
    """bits is a whole number from 160, with which every float32 is one, to 4096."""
    with pytest.raises(OracleError, match="must be a whole number from 160 to 4096"):
        prove(random_model(SMALL, 0, "float32").gpt2, np.array([1]), bits=bits)


@pytest.mark.parametrize(
    ("ids", "message"), [([99], "ids contain 99"), ([], "ids of shape"), ([0] * 13, "position 12: this model")]
)
def test_ids_that_are_refused(ids, message):
    """FWD-23, FWD-24: as in the forward pass; and the sequence can go on afterwards."""
    prover = Prover(network_of(random_model(SMALL, 0, "float32").gpt2))
    with pytest.raises(InputError, match=message):
        prover.append(np.array(ids, int))
    assert prover.append(np.array([1])).tokens.shape == (1,)


def test_a_pass_that_fails_leaves_no_trace(monkeypatch):
    """After an error in the middle, the sequence goes on as if it had not been tried."""
    network = network_of(random_model(SMALL, 0, "float32").gpt2)
    prover, ids = Prover(network), np.array([3, 1, 4, 1, 5])
    prover.append(ids[:2])
    honest = proving.head

    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(proving, "head", broken)
    with pytest.raises(KeyboardInterrupt):
        prover.append(ids[2:])
    monkeypatch.setattr(proving, "head", honest)
    found, whole_row = prover.append(ids[2:]), Prover(network).append(ids)
    assert (found.mid == whole_row.mid[2:]).all()
    assert (found.radius == whole_row.radius[2:]).all()


def test_greedy_text_is_proved(shakespeare):
    """The proved continuation is what float64 arithmetic says, step by step, and ends with the end token."""
    _, tokenizer = shakespeare
    wide = AutoModelForCausalLM.from_pretrained("shakespeare", dtype="float64")
    ids = np.array(tokenizer.encode("ROMEO:\nI"))
    network = network_of(wide.gpt2)
    found = [int(each.tokens[0]) for each in continuation(Prover(network), ids, 8, np.array([]))]
    assert found == wide.generate(ids[None], max_new_tokens=8)[0, len(ids) :].tolist()
    ended = [int(each.tokens[0]) for each in continuation(Prover(network), ids, 8, np.array(found[3:4]))]
    assert ended == found[: found.index(found[3]) + 1]


def test_a_tie_ends_a_continuation():
    """Where the best two logits are the same number from different rows, no bits decide, and that is an error."""
    config = replace(SMALL, tie_word_embeddings=False)
    tensors = random_tensors(config, 0, "float32")
    tensors["ln_f.weight"][:] = 0
    tensors["ln_f.bias"][:] = 1
    tensors["lm_head.weight"][:] = 0
    tensors["lm_head.weight"][4, 0] = tensors["lm_head.weight"][7, 1] = 1
    with pytest.raises(OracleError, match="new token 1: is not decided by"):
        list(continuation(Prover(network_of(assemble(config, tensors))), np.array([1]), 3, np.array([])))
    assert norm_up(whole([3, 4])) == 5
