"""GPT-2's forward pass with proof: every logit as an interval that holds its exact value. Rules FWD-01 to FWD-17 and FWD-30.

The network is model.py's, over the real numbers. The weights are the numbers in the checkpoint, 0.044715 and epsilon
are the decimals as written, and sqrt(2/π) and 1/sqrt(D) are exact. The steps here have the same names. Each takes a
`Ball`, the set of points where the exact value may be. It returns a ball that contains the step's result for every such
point. Two things widen a ball:

    what the step does to two points   |f(x) - f(y)| <= L |x - y|, so the radius grows by a factor L
    that the middle is rounded         the middle of the result is f(mid) to within a few units, which are added

Both are derived at each step. Everything is a whole number of units of 2**-bits, bounds are rounded up, and middles are
multiplied exactly. So nothing depends on an order of additions. The ball of a position is the same bit for bit, with
and without a cache and beside any other rows. Balls lose about eight bits a layer, and bits cost little.

A ball is a row's: its radius bounds the Euclidean norm of a whole row, or of a head's part of it.

Axes    T new positions, S cached and new ones, I in, O out, C = n_embd, H heads, D = C / H, V tokens.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.config import GPT2Config
from refgen.errors import OracleError
from refgen.inputs import check_ids, check_positions
from refgen.model import GPT2, Affine
from refgen.oracle.exact_products import Slices, cut, product
from refgen.oracle.fixed_point import (
    LEAST_BITS,
    SCALE,
    FixedPoint,
    fixed_point,
    norm_up,
    operator_norm,
    pi,
    root,
    root_up,
    row_norms,
    up,
)
from refgen.shapes import Float, Int, Whole

AT_ONCE = 16  # positions that go through the network together; no result depends on it
FINER = 32  # bits by which 1 / s and the attention scale are finer than a unit
MOST_BITS = 4096
LOST = 8  # bits a layer, usually: what to begin with
WANTED, LEAST = 53 + 20, 24  # bits of the largest logit that a proof wants, and without which it is none


# --- The network, made ready ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """A linear map: its weights cut into slices, and a bound of the norm for each of some equal groups of outputs."""

    weight: Slices
    norms: Whole[ndarray, "G"]  # in units of 2**-64
    bias: Float[ndarray, "O"]


@dataclass(frozen=True)
class Block:
    """One layer; what is missing here is taken from model.py's."""

    c_attn: Linear  # groups: query, key and value of each head
    attn_c_proj: Linear
    c_fc: Linear
    mlp_c_proj: Linear


@dataclass(frozen=True)
class Network:
    """A GPT-2 ready to be proved with. Takes twice the memory of its weights; does not depend on the bits."""

    gpt2: GPT2
    h: tuple[Block, ...]
    head: Slices
    head_norms: Whole[ndarray, "V"]


def linear_of(f: Affine, groups: int = 1) -> Linear:
    """A linear map made ready."""
    weight = float32(f.weight)
    norms = np.array([operator_norm(part) for part in np.split(weight, groups, axis=1)], object)
    return Linear(cut(weight), norms, float32(f.bias))


def float32(array: ndarray) -> ndarray:
    """The same numbers as float32. Raises `OracleError` for a float64 that is not finite."""
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32, copy=False)
    if not np.array_equal(narrow, array):
        raise OracleError(
            "float64 weights", "can be proved only if float32 holds them", remedy="Save the model in float32."
        )
    return narrow


def network_of(gpt2: GPT2) -> Network:
    """The network made ready, once for all prompts. Raises `OracleError` for what proofs do not cover."""
    name = gpt2.config.activation_function
    if name not in ACTIVATIONS:
        raise OracleError(
            f"activation_function={name!r}", "has no proved bounds", "FWD-15", f"Proved are {', '.join(ACTIVATIONS)}."
        )
    blocks = tuple(
        Block(
            linear_of(block.attn.c_attn, 3 * gpt2.config.n_head),
            linear_of(block.attn.c_proj),
            linear_of(block.mlp.c_fc),
            linear_of(block.mlp.c_proj),
        )
        for block in gpt2.h
    )
    head = float32(gpt2.lm_head)
    return Network(gpt2, blocks, cut(head.T), row_norms(head))


# --- Balls ------------------------------------------------------------------------------------------------


class TooWideError(Exception):
    """A ball so wide that it says nothing: more bits are needed."""


@dataclass(frozen=True)
class Ball:
    """Rows within `radius` of `mid`, in units of 2**-bits; `[T H D]` and `[T H]` if each head has its own."""

    mid: Whole[ndarray, "T C"]
    radius: Whole[ndarray, "T"]

    def __add__(self, other: "Ball") -> "Ball":
        """|(x + y) - (x' + y')| <= |x - x'| + |y - y'|; sums of whole numbers are exact."""
        return Ball(self.mid + other.mid, self.radius + other.radius)


def whole(numbers: list[int]) -> Whole[ndarray, "T"]:
    """Python integers as an array of objects."""
    out = np.empty(len(numbers), object)
    out[:] = numbers
    return out


# --- The mathematics, from the bottom up ------------------------------------------------------------------


def linear(x: Ball, f: Linear, unit: FixedPoint) -> Ball:
    """FWD-06. x W + b. The radius of a group of outputs is `[T G]`, that of a single one `[T]`.

    Points:   |x W - x' W| <= |x - x'| ||W||, for each group of columns with its own norm.
    Rounding: the product is exact and then a floor, which takes less than 1 from each of n outputs: sqrt(n).
    """
    exact = product(x.mid, f.weight)
    mid = (exact >> -f.weight.unit if f.weight.unit < 0 else exact << f.weight.unit) + unit.of(f.bias)
    floors = root_up(mid.shape[1] // len(f.norms))
    radius = -(-(x.radius[:, None] * f.norms) >> SCALE) + floors
    return Ball(mid, radius[:, 0] if len(f.norms) == 1 else radius)


def layer_norm(x: Ball, f: Affine, epsilon: Fraction, unit: FixedPoint) -> Ball:
    """FWD-05. c / s * weight + bias, with c = x - mean(x) and s = sqrt(|c|² / C + epsilon).

    Points:   the derivative of c / s by c is (I - c cᵀ / (C s²)) / s. Along c it is epsilon / s³, across it 1 / s, so its
              norm is at most 1 / s. |c| is at least |c(mid)| - radius everywhere in the ball, since subtracting the
              mean is a projection; that bounds s from below. The gain multiplies by at most its largest.
    Rounding: C c is whole, 1 / s a floor to F + 32 bits, a unit of which is multiplied by c and the gain, hence by
              |c| max|weight|; and the quotient at the end is a floor, sqrt(C).
    """
    F, C = unit.bits, x.mid.shape[1]
    weight, bias = unit.of(float32(f.weight)), unit.of(float32(f.bias))
    largest = int(abs(weight).max())
    e, d = epsilon.numerator, epsilon.denominator
    mid, radius = np.empty_like(x.mid), []
    for t, (row, wide) in enumerate(zip(x.mid, x.radius, strict=True)):
        c = row * C - int(row.sum())  # C times c
        square = int((c * c).sum())  # C² |c|², in units of 2**-2F
        least = max(math.isqrt(square) // C - wide, 0)
        s = math.isqrt(least * least // C + (e << 2 * F) // d)
        if s == 0:
            raise TooWideError
        # s² = square / (C³ 2**2F) + e / d
        inverse = root(Fraction(C**3 * d << 2 * F, square * d + (C**3 * e << 2 * F)), F + FINER)
        mid[t] = c * inverse * weight // (C << (F + F + FINER)) + bias
        length = root_up(square) // C + 1
        radius.append(-(-wide * largest // s) + up(length * largest, 2 * F + FINER) + root_up(C))
    return Ball(mid, whole(radius))


@dataclass(frozen=True)
class Gated:
    """v times the logistic sigmoid of c (v + d v³): the family that GELU's tanh form belongs to, 0.5 (1 + tanh(y)) being sigmoid(2 y).

    `square` is c², from 1 to 4, or None for GELU's 8 / π.
    """

    square: Fraction | None
    d: Fraction

    def __call__(self, x: Ball, unit: FixedPoint) -> Ball:
        """FWD-15, FWD-16.

        Points:   the derivative is at most 1.13: 1.129 for GELU's, near v = 1.4, 1.0999 for d = 0, whatever c.
        Rounding: the argument a = c v m, with m = 1 + d v² >= 1. Floors take less than 2 units from m (d < 1), 1 from v m,
                  which c < 2 makes 2, and 1 from a; c lacks 1 (c >= 1). So a errs by shares of 3 * 2**-F and by 3 units.
                  |a sigmoid'(a)| <= 0.224 and sigmoid' <= 1/4, so the sigmoid errs by 3/4 for each; the exponential errs by
                  1, and so, the derivatives of 1 / (1 + e) and e / (1 + e) being at most 1, does the sigmoid. That makes
                  2.5 |v| 2**-F, and the floor at the end sqrt(n).
        """
        F, one = unit.bits, unit.one
        square = Fraction(8 << unit.fine, pi(unit.fine)) if self.square is None else self.square
        c, num, den = root(square, F), self.d.numerator, self.d.denominator
        mid = []
        for v in x.mid.ravel().tolist():
            m = one + (v * v >> F) * num // den
            a = (v * m >> F) * c >> F
            e = unit.exp(-abs(a))
            mid.append(v * (one if a >= 0 else e) // (one + e))
        rounded = [up(5 * norm_up(row), F + 1) + root_up(len(row)) for row in x.mid]
        radius = -(-x.radius * 113 // 100) + whole(rounded)
        return Ball(whole(mid).reshape(x.mid.shape), radius)


def relu(x: Ball, unit: FixedPoint) -> Ball:  # noqa: ARG001
    """FWD-15. The positive part brings no two points apart, and nothing is rounded."""
    return Ball(np.maximum(x.mid, 0), x.radius)


def identity(x: Ball, unit: FixedPoint) -> Ball:  # noqa: ARG001
    """FWD-15. The activation called linear."""
    return x


GELU = Gated(None, Fraction("0.044715"))
SILU = Gated(Fraction(1), Fraction(0))
ACTIVATIONS: Mapping[str, Any] = {
    "gelu_new": GELU,
    "gelu_accurate": GELU,
    "gelu_python_tanh": GELU,
    "gelu_pytorch_tanh": GELU,
    "gelu_fast": Gated(Fraction("1.5957691216") ** 2, Fraction("0.044715")),
    "quick_gelu": Gated(Fraction("1.702") ** 2, Fraction(0)),
    "silu": SILU,
    "swish": SILU,
    "relu": relu,
    "linear": identity,
}


def softmax(scores: Whole[ndarray, "S"], unit: FixedPoint) -> Whole[ndarray, "S"]:
    """FWD-13. The weights of exact scores, off by at most 3 S units in sum.

    Let e be the exact exponentials and z their sum, and e + η and Z the computed ones, with |η| <= 1 each. Then

        (e + η) / Z - e / z = η / Z - (e / z) (Z - z) / Z

    The sum of these over all keys is at most 2 S / Z, and Z is at least 1, because the largest score gives exactly 1. The
    floors take less than 1 from each.
    """
    largest = max(scores)
    e = whole([unit.exp(score - largest) for score in scores])
    return (e << unit.bits) // e.sum()


@dataclass(frozen=True)
class Keys:
    """Keys or values of one layer: the middles `[S H D]`, their norms and the radii `[S H]`, rounded up."""

    mid: Whole[ndarray, "S H D"]
    norm: Whole[ndarray, "S H"]
    radius: Whole[ndarray, "S H"]

    def __add__(self, other: "Keys") -> "Keys":
        """These and then those."""
        pairs = ((self.mid, other.mid), (self.norm, other.norm), (self.radius, other.radius))
        return Keys(*(np.concatenate(pair) for pair in pairs))


def keys_of(x: Ball) -> Keys:
    """The norms of `[T H D]` taken once."""
    flat = x.mid.reshape(-1, x.mid.shape[-1])
    return Keys(x.mid, whole([norm_up(row) for row in flat]).reshape(x.radius.shape), x.radius)


def attend(
    q: Whole[ndarray, "D"], wide: int, k: Keys, v: Keys, head: int, scale: int, unit: FixedPoint
) -> tuple[Whole[ndarray, "D"], int]:
    """FWD-08, FWD-10. One head of one query with all the keys it sees; `wide` is the query's radius.

    Points:   |q·k - q'·k'| <= |q'| |k - k'| + |k'| |q - q'| + |q - q'| |k - k'|, times the scale. A softmax whose scores
              move by d moves by J d integrated, and (J d)_j = p_j (d_j - p·d): the sum of |p_j (d_j - p·d)| is at most the
              standard deviation of d under p, and so at most max|d|. With p the exact weights, which sum to 1,
              p·v - p'·v' = (p - p')·v' + p·(v - v'), at most |p - p'|_1 max|v'| + max|v - v'|.
    Rounding: the scale is a floor to F + 32 bits, a unit of which is multiplied by |q·k|. The scores are floors, 1. The
    softmax errs by 3 S. The sum at the end is exact and then a floor, sqrt(D).
    """
    F = unit.bits
    length, longest, widest = norm_up(q), max(k.norm[:, head]), max(k.radius[:, head])
    scores = k.mid[:, head] @ q * scale >> 2 * F + FINER
    apart = up((length * widest + longest * wide + wide * widest) * (scale + 1) + length * longest, 2 * F + FINER) + 1
    pattern = softmax(scores, unit)
    apart += 3 * len(scores)
    z = pattern @ v.mid[:, head] >> F
    return z, up(apart * max(v.norm[:, head]), F) + max(v.radius[:, head]) + root_up(len(q))


class ProofCache:
    """Keys and values of the positions so far, for one row and one number of bits."""

    def __init__(self) -> None:
        self._layers: list[tuple[Keys, Keys]] = []
        self.length = 0

    def append(self, layer: int, k: Keys, v: Keys) -> tuple[Keys, Keys]:
        """Adds keys and values after those that this layer holds, and returns all of them."""
        if self.length:
            old = self._layers[layer]
            k, v = old[0] + k, old[1] + v
        self._layers[layer:] = [(k, v), *self._layers[layer + 1 :]]
        return k, v


def attention_scale(config: GPT2Config, layer: int, bits: int) -> int:
    """FWD-08. The exact scale's floor in units of 2**-bits."""
    square = Fraction(config.n_head, config.n_embd) if config.scale_attn_weights else Fraction(1)
    return root(square / (layer + 1) ** 2 if config.scale_attn_by_inverse_layer_idx else square, bits)


def attention(x: Ball, f: Block, config: GPT2Config, layer: int, cache: ProofCache, unit: FixedPoint) -> Ball:
    """FWD-07, FWD-09. Projects and splits; each query sees the keys up to its own place. Then merges and projects.

    The squares of the heads' radii add up to that of the row's.
    """
    T, H = len(x.mid), config.n_head
    qkv = linear(x, f.c_attn, unit)
    mid, radius = qkv.mid.reshape(T, 3, H, -1), qkv.radius.reshape(T, 3, H)
    q, k, v = (Ball(mid[:, i], radius[:, i]) for i in range(3))
    all_k, all_v = cache.append(layer, keys_of(k), keys_of(v))
    scale = attention_scale(config, layer, unit.bits + FINER)
    z, wide = np.empty_like(q.mid), np.empty((T, H), object)
    for t in range(T):
        seen = slice(0, cache.length + t + 1)
        k_seen, v_seen = (Keys(each.mid[seen], each.norm[seen], each.radius[seen]) for each in (all_k, all_v))
        for head in range(H):
            z[t, head], wide[t, head] = attend(q.mid[t, head], q.radius[t, head], k_seen, v_seen, head, scale, unit)
    merged = Ball(z.reshape(T, -1), whole([norm_up(row) for row in wide]))
    return linear(merged, f.attn_c_proj, unit)


def mlp(x: Ball, f: Block, config: GPT2Config, unit: FixedPoint) -> Ball:
    """FWD-14. Up, bend, down."""
    bent = ACTIVATIONS[config.activation_function](linear(x, f.c_fc, unit), unit)
    return linear(bent, f.mlp_c_proj, unit)


def forward(
    network: Network, ids: Int[ndarray, "T"], cache: ProofCache, unit: FixedPoint, logits_to_keep: int = 0
) -> tuple[Whole[ndarray, "T V"], Whole[ndarray, "T V"]]:
    """FWD-01 to FWD-04, FWD-30. Middles and radii of the logits after each of `ids`, or the last `logits_to_keep` of them.

    Raises `TooWideError` if a ball in the stream is wider than 1.
    """
    gpt2, config = network.gpt2, network.gpt2.config
    epsilon = Fraction(repr(config.layer_norm_epsilon))  # the decimal that config.json writes
    positions = slice(cache.length, cache.length + len(ids))
    # float32 numbers are whole numbers of units, so what the stream begins with is exact.
    mid = unit.of(float32(gpt2.wte[ids])) + unit.of(float32(gpt2.wpe[positions]))
    x = Ball(mid, whole([0] * len(ids)))
    for i, (f, block) in enumerate(zip(network.h, gpt2.h, strict=True)):
        x = x + attention(layer_norm(x, block.ln_1, epsilon, unit), f, config, i, cache, unit)
        x = x + mlp(layer_norm(x, block.ln_2, epsilon, unit), f, config, unit)
        if max(x.radius) > unit.one:
            raise TooWideError
    cache.length += len(ids)
    return head(
        layer_norm(Ball(x.mid[-logits_to_keep:], x.radius[-logits_to_keep:]), gpt2.ln_f, epsilon, unit), network
    )


def head(x: Ball, network: Network) -> tuple[Whole[ndarray, "T V"], Whole[ndarray, "T V"]]:
    """FWD-04. x times each token's row.

    Points:   |x·w - x'·w| <= |x - x'| |w|.
    Rounding: a floor, 1 unit, unless the row is all zeros.
    """
    exact = product(x.mid, network.head)
    mid = exact >> -network.head.unit if network.head.unit < 0 else exact << network.head.unit
    radius = -(-(x.radius[:, None] * network.head_norms) >> SCALE) + (network.head_norms > 0).astype(object)
    return mid, radius


# --- What is proved ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proof:
    """The logits after each of some positions: the exact value of `[t, v]` lies within `radius` of `mid`, units of 2**-bits.

    `tokens` are the ids of the highest logits, -1 where that is not proved; of equal ones, which identical rows of the head
    have, the lowest id.
    """

    mid: Whole[ndarray, "T V"]
    radius: Whole[ndarray, "T V"]
    bits: int
    tokens: Int[ndarray, "T"]

    def interval(self, t: int, v: int) -> tuple[Fraction, Fraction]:
        """The numbers between which one logit lies."""
        mid, radius = self.mid[t, v], self.radius[t, v]
        return Fraction(mid - radius, 1 << self.bits), Fraction(mid + radius, 1 << self.bits)

    @cached_property
    def float64(self) -> Float[ndarray, "T V"]:
        """The float64 nearest to each logit, NaN where the interval does not decide it.

        Python divides whole numbers with one rounding, and rounding keeps order: if both ends round to one number, so
        does all between.
        """
        one = 1 << self.bits
        pairs = zip(self.mid.ravel().tolist(), self.radius.ravel().tolist(), strict=True)
        ends = (((mid - radius) / one, (mid + radius) / one) for mid, radius in pairs)
        found = [low + 0.0 if low == high else math.nan for low, high in ends]  # + 0.0: never -0
        return np.array(found).reshape(self.mid.shape)

    @cached_property
    def margins(self) -> Float[ndarray, "T"]:
        """How far the best logit is above all others at least, to within a float64; 0 where none is proved to be best."""
        gaps = []
        for row, wide in zip(self.mid, self.radius, strict=True):
            best = int(np.argmax(row))
            high = np.delete(row + wide, best)
            gaps.append(max(0, row[best] - wide[best] - max(high, default=0)) / (1 << self.bits))
        return np.array(gaps)

    @cached_property
    def spare(self) -> Int[ndarray, "T"]:
        """How many bits of a position's largest logit are proved for every logit there."""
        found = []
        for row, wide in zip(self.mid, self.radius, strict=True):
            largest = int(abs(row).max()) or 1 << self.bits
            found.append(largest.bit_length() - int(max(wide)).bit_length() - 1)
        return np.array(found)


def proof_of(mid: Whole[ndarray, "T V"], radius: Whole[ndarray, "T V"], bits: int, head: ndarray) -> Proof:
    """The intervals and the tokens they prove."""
    tokens = []
    for row, wide in zip(mid, radius, strict=True):
        best = int(np.argmax(row))
        rivals = np.flatnonzero(row + wide >= row[best] - wide[best])
        tied = all(np.array_equal(head[rival], head[best]) for rival in rivals)
        tokens.append(int(rivals[0]) if tied else -1)
    return Proof(mid, radius, bits, np.array(tokens))


class Prover:
    """Proves the logits of one sequence, some positions at a time.

    Starts with the usual number of bits, and takes more while a logit's rounding to float64, or the best token, is
    undecided. An exact zero that does not come from a row of zeros stays undecided. With `bits` it takes those, and
    raises `OracleError`, saying how many to ask for, if they prove less than 24 bits of the largest logit.
    """

    def __init__(self, network: Network, bits: int | None = None) -> None:
        if bits is not None and not (isinstance(bits, int) and LEAST_BITS <= bits <= MOST_BITS):
            raise OracleError(f"bits={bits!r}", f"must be a whole number from {LEAST_BITS} to {MOST_BITS}")
        self._network, self._fixed = network, bits is not None
        usual = WANTED + LOST * network.gpt2.config.n_layer
        self._bits = min(max(LEAST_BITS, usual + -usual % 16), MOST_BITS) if bits is None else bits
        self._ids, self._cache, self._extra = np.zeros(0, np.int64), ProofCache(), 2

    def append(self, ids: Int[ndarray, "T"], logits_to_keep: int = 0) -> Proof:
        """The logits after each of `ids`, which follow those before; or after the last `logits_to_keep` of them.

        Raises `InputError` for ids, positions or sizes that cannot be, `OracleError` if no proof is found.
        """
        config = self._network.gpt2.config
        check_ids(np.asarray(ids)[None], config, "ids")
        whole_row = np.concatenate([self._ids, ids])
        check_positions(np.arange(len(whole_row))[None], 1, len(whole_row), config)
        keep = min(logits_to_keep or len(ids), len(ids))
        while True:
            new = whole_row[self._cache.length :]
            try:
                proof = self._prove(new, keep)
            except TooWideError:
                self._raise(2 * self._bits)
                continue
            except BaseException:  # half a pass is in the cache: let the next call begin anew
                self._cache = ProofCache()
                raise
            lacking = (LEAST if self._fixed else WANTED) - int(proof.spare.min())
            if lacking > 0:
                self._raise(self._bits + lacking + 8)
            elif self._fixed or not self._extra or not (np.isnan(proof.float64).any() or (proof.tokens < 0).any()):
                self._ids = whole_row
                return proof
            else:
                self._extra -= 1
                self._raise(self._bits + 64)

    def _prove(self, ids: ndarray, keep: int) -> Proof:
        """One attempt, `AT_ONCE` positions at a time."""
        kept = []
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            wanted = max(0, keep - (len(ids) - start - len(some)))
            found = forward(self._network, some, self._cache, fixed_point(self._bits), min(wanted, len(some)))
            kept.append([each[len(each) - min(wanted, len(each)) :] for each in found])
        mid, radius = (np.concatenate(each) for each in zip(*kept, strict=True))
        return proof_of(mid, radius, self._bits, self._network.gpt2.lm_head)

    def _raise(self, bits: int) -> None:
        """Starts again with more bits."""
        self._cache = ProofCache()
        if self._fixed or bits > MOST_BITS:
            advice = f"Ask for {bits}, or leave the choice to refgen." if bits <= MOST_BITS else ""
            raise OracleError(f"bits={self._bits}", "are too few to prove anything about these logits", remedy=advice)
        self._bits = bits + -bits % 16


def prove(gpt2: GPT2, ids: Int[ndarray, "T"], bits: int | None = None, logits_to_keep: int = 0) -> Proof:
    """The logits after each of `ids` of one sequence, proved. For several, make a `network_of(gpt2)` and `Prover`s.

    Raises `OracleError` for a network that proofs do not cover, `InputError` for wrong ids.
    """
    return Prover(network_of(gpt2), bits).append(ids, logits_to_keep)


def continuation(
    prover: Prover, ids: Int[ndarray, "T"], max_new_tokens: int, end: Int[ndarray, "E"]
) -> Iterator[Proof]:
    """The proof of one greedy token after the other, up to `max_new_tokens` or one of the tokens in `end`.

    Raises `OracleError` where two logits are too close to say which token is best.
    """
    for n in range(max_new_tokens):
        proof = prover.append(ids, logits_to_keep=1)
        ids = proof.tokens
        if ids[0] < 0:
            raise OracleError(
                f"new token {n + 1}", f"is not decided by {proof.bits} bits: two logits are closer than that"
            )
        yield proof
        if ids[0] in end:
            return
