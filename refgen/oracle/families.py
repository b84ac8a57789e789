"""Families of faults. Each is one mistake with a free value, such as attention scores that are multiplied by some number.

If no known fault explains an error, diagnosis fits these. It tries the `values` of each family, and then numbers between them
where any number is possible. The result names the value: "Attention scores are multiplied by 0.5".

Axes    B rows, T queries, S keys, C = n_embd, H heads, D = C / H.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.activations import gelu, quick_gelu, relu, silu
from refgen.model import Affine, Block, gelu_new
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import (
    Change,
    Fault,
    activated,
    attending,
    blocks,
    configured,
    final_norm,
    mean,
    network,
    normed,
    reordered,
    scaled,
    seeing,
    standing,
    stored,
    swapped_heads,
    weights,
)


@dataclass(frozen=True)
class Family:
    """`change` plants the fault with one value. `sentence` describes it, with {} in place of the value."""

    name: str
    sentence: str
    rules: tuple[str, ...]
    change: Callable[[Any], Change]
    values: tuple[Any, ...]
    between: bool = False  # whether any number between two values is one too
    looks_ahead: bool = False  # whether a position depends on later ones, so that it shows in a whole text only

    def member(self, value: Any) -> Fault:
        """The fault with that value."""
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        return Fault(f"{self.name}={shown}", self.sentence.format(shown), self.rules, self.change(value))


FACTORS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)

# --- Ways to change a forward pass by a number --------------------------------------------------------------


def times(*suffixes: str, part: int | None = None) -> Callable[[float], Change]:
    """Multiplies the tensors with these names. `part` limits it to the queries (0), keys (1) or values (2) of `c_attn`."""

    def by(factor: float) -> Change:
        def multiplied(name: str, tensor: ndarray) -> ndarray:
            if not name.endswith(suffixes):
                return tensor
            if part is None:
                return tensor * factor
            thirds = tensor.copy().reshape(*tensor.shape[:-1], 3, -1)
            thirds[..., part, :] *= factor
            return thirds.reshape(tensor.shape)

        return weights(multiplied)

    return by


def towards_one(*suffixes: str) -> Callable[[float], Change]:
    """Multiplies the difference of each of these gains from 1."""
    return lambda factor: weights(lambda name, t: 1 + factor * (t - 1) if name.endswith(suffixes) else t)


def stage(pattern: str, change: Callable[[ndarray], ndarray]) -> Change:
    """Changes a stage."""
    return lambda p: replace(p, stages=(*p.stages, (pattern, change)))


def residual_times(factor: float) -> Change:
    """Multiplies a layer's input by `factor` where attention's output is added to it."""

    def changed(p: Pass) -> Pass:
        answer: list[ndarray] = []

        def kept(array: ndarray) -> ndarray:
            answer[:] = [array]
            return array

        def added(resid_mid: ndarray) -> ndarray:
            return answer[0] + factor * (resid_mid - answer[0])

        return replace(p, stages=(*p.stages, ("h.*.attn.c_proj", kept), ("h.*.resid_mid", added)))

    return changed


def more_keys(count: int) -> Change:
    """Adds keys of zeros to the real ones, so the softmax divides by its sum plus `count`."""

    def changed(p: Pass, q: ndarray, k: ndarray, v: ndarray, visible: ndarray, scale: float) -> tuple[Any, ...]:
        nothing = np.zeros_like(k[:, :, :1]).repeat(count, axis=2)
        always = np.ones_like(visible[..., :1]).repeat(count, axis=3)
        keys, values = (np.concatenate([each, nothing], axis=2) for each in (k, v))
        return q, keys, values, np.concatenate([visible, always], axis=3), scale

    return attending(changed)


def swapped_in(i: int) -> Change:
    """Swaps the outputs of the first two heads before `c_proj` of layer i. A network without that layer stays as it is."""

    def changed(p: Pass) -> Pass:
        L = len(p.gpt2.h)
        return network(
            p, h=tuple(swapped_heads(p, block) if n in (i, L + i) else block for n, block in enumerate(p.gpt2.h))
        )

    return changed


def parted(order: Sequence[int], *, joined: bool = False) -> Change:
    """Reads the columns of `c_attn` as if its axes (three parts, H heads, D numbers) were in another order.

    `joined` also reads the rows of `c_proj` as if the last two were exchanged.
    """

    def columns(p: Pass) -> ndarray:
        H = p.gpt2.config.n_head
        shape = (3, H, p.gpt2.config.n_embd // H)
        there = np.arange(3 * p.gpt2.config.n_embd).reshape([shape[axis] for axis in order])
        return there.transpose(np.argsort(order)).ravel()

    def rows(p: Pass) -> ndarray:
        H = p.gpt2.config.n_head
        return np.arange(p.gpt2.config.n_embd).reshape(-1, H).T.ravel()

    return reordered(columns, rows if joined else None)


def merged(order: Sequence[int]) -> Change:
    """Joins the heads as if their axes `[T H D]` were in another order."""

    def changed(p: Pass) -> Pass:
        def misread(z: ndarray) -> ndarray:
            B, T, C = z.shape
            heads = z.reshape(B, T, p.gpt2.config.n_head, -1)
            return np.ascontiguousarray(heads.transpose(0, *(axis + 1 for axis in order))).reshape(B, T, C)

        return replace(p, stages=(*p.stages, ("*.attn.z", misread)))

    return changed


def in_order(order: Sequence[int]) -> Change:
    """Puts queries, keys and values in another order."""
    return reordered(lambda p: np.arange(3 * p.gpt2.config.n_embd).reshape(3, -1)[list(order)].ravel())


def layered(order: Callable[[list[int]], list[int]]) -> Change:
    """Puts layers in another order, or leaves some out."""
    return lambda p: network(p, h=tuple(p.gpt2.h[i] for i in order(list(range(len(p.gpt2.h))))))


def by_layer(power: float) -> Change:
    """Multiplies the scores of layer i by a power of i + 1."""

    def changed(p: Pass) -> Pass:
        return network(p, h=tuple(louder(block, (i + 1.0) ** power) for i, block in enumerate(p.gpt2.h)))

    return changed


def louder(block: Block, factor: float) -> Block:
    """A layer whose queries are multiplied."""
    c_attn, C = block.attn.c_attn, len(block.attn.c_attn.weight)
    factors = np.repeat([factor, 1.0, 1.0], C)
    wider = Affine(c_attn.weight * factors, c_attn.bias * factors)
    return replace(block, attn=replace(block.attn, c_attn=wider))


def layer_norm_with(freedom: float = 0.0, subtracted: float = 1.0) -> Change:
    """Layer norms that divide squares by C - `freedom`, and subtract `subtracted` of the mean."""

    def other(norm: Any, x: ndarray, f: Affine, epsilon: float) -> ndarray:
        centred = x - subtracted * mean(x)
        C = x.shape[-1]
        variance = (centred * centred).sum(axis=-1, keepdims=True) / max(C - freedom, 1)
        normed: ndarray = centred / np.sqrt(variance + epsilon) * f.weight + f.bias
        return normed

    return normed(other)


def normed_often(times: int) -> Change:
    """Applies `ln_f` several times."""

    def often(norm: Any, x: ndarray, f: Affine, epsilon: float) -> ndarray:
        for _ in range(times):
            x = norm(x, f, epsilon)
        return x

    return lambda p: final_norm(p, often)


def kept_in(pattern: str, dtype: str) -> Change:
    """Rounds a stage to a 16-bit format."""
    return stage(pattern, stored(dtype))


def in_steps(each: str, levels: int) -> Change:
    """Matrices rounded to `levels` steps up and down from 0. Each matrix has one step size, or each of its outputs or inputs."""

    def rounded(name: str, tensor: ndarray) -> ndarray:
        if tensor.ndim == 1:
            return tensor
        is_linear = name.startswith("h.")  # stored [I, O]; embeddings and head are [V, C]
        axis = {"matrix": None, "output": int(not is_linear), "input": int(is_linear)}[each]
        step = np.abs(tensor).max(axis=axis, keepdims=True) / levels
        return np.rint(tensor / np.where(step == 0, 1, step)) * step

    return weights(rounded)


# --- The list ---------------------------------------------------------------------------------------------

BIASES = (".c_attn.bias", ".attn.c_proj.bias", ".c_fc.bias", ".mlp.c_proj.bias")
KERNELS = tuple(name.replace("bias", "weight") for name in BIASES)
NORMS = ("ln_1", "ln_2", "ln_f")
PARTS = ("queries", "keys", "values")
STAGES = {  # that an implementation may keep in fewer digits
    "keys and values": "*.attn.[kv]", "the stream": "h.*.resid_mid", "layer norms": "*ln_?", "queries": "*.q", "keys": "*.k", "values": "*.v", "scores": "*.scores",
    "the pattern": "*.pattern", "attention's answers": "*.z", "c_fc": "*.c_fc", "the activation": "*.act",
    "the last layer norm": "ln_f", "logits": "lm_head",
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[ndarray], ndarray]] = {
    "the exact GELU": gelu, "GELU's tanh form": gelu_new, "ReLU": relu, "SiLU": silu, "tanh": np.tanh, "x itself": lambda x: x,
    "the square of ReLU": lambda x: relu(x) ** 2, "softplus": lambda x: np.logaddexp(0, x), "x sigmoid(1.702 x)": quick_gelu,
    "the logistic function": lambda x: 0.5 + 0.5 * np.tanh(x / 2),
}  # fmt: skip


def by_sigmoid(factor: float) -> Change:
    """x sigmoid(factor x)."""
    return activated(lambda x: x * (0.5 + 0.5 * np.tanh(factor * x / 2)))


def by_tanh(constant: float) -> Change:
    """GELU's tanh form with another constant."""
    return activated(lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + constant * (x * x * x)))))


def embeddings() -> Iterator[Family]:
    """Embeddings, positions, and the keys that a query sees."""
    yield Family(
        "wte-times",
        "Token embeddings are multiplied by {}.",
        ("FWD-01",),
        lambda by: lambda p: network(p, wte=p.gpt2.wte * by),
        FACTORS,
        True,
    )
    yield Family(
        "wpe-times",
        "Position embeddings are multiplied by {}.",
        ("FWD-01",),
        lambda by: lambda p: network(p, wpe=p.gpt2.wpe * by),
        FACTORS,
        True,
    )
    yield Family(
        "position-plus",
        "Positions are off by {}.",
        ("FWD-02",),
        lambda by: standing(lambda p: p.positions + by),
        (-2, -1, 1, 2, 3),
    )
    yield Family(
        "cached-position-plus",
        "Positions of cached steps are off by {}.",
        ("FWD-02", "CACHE-02"),
        lambda by: standing(lambda p: p.positions + by * p.steps),
        (-2, -1, 1, 2),
    )
    yield Family(
        "cached-position",
        "All cached steps are at position {}.",
        ("FWD-02", "CACHE-02"),
        lambda at: standing(lambda p: np.where(p.steps, at, p.positions)),
        (0, 1),
    )
    # What a query sees
    yield Family(
        "sees-ahead",
        "A query sees {} future keys.",
        ("FWD-09",),
        lambda by: seeing(
            lambda p, visible, t, s: (
                visible | ((s <= t + by) & (s > t) & p.attention_mask[:, None, None, : s.size].astype(bool))
            )
        ),
        (1, 2, 4, 10**6),
        looks_ahead=True,
    )
    yield Family(
        "window",
        "A query sees only the last {} keys.",
        ("FWD-09",),
        lambda by: seeing(lambda p, visible, t, s: visible & (s > t - by)),
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
    )
    yield Family(
        "window-off",
        "A query sees neither its own key nor the {} before.",
        ("FWD-09",),
        lambda by: seeing(lambda p, visible, t, s: unless_none(visible & (s < t - by), visible)),
        (0, 1),
    )
    yield Family(
        "first-hidden",
        "The first {} keys are hidden.",
        ("FWD-09",),
        lambda by: seeing(lambda p, visible, t, s: unless_none(visible & (visible.cumsum(axis=-1) > by), visible)),
        (1, 2, 4),
    )
    yield Family(
        "cached-window",
        "Cached steps see only the last {} keys.",
        ("CACHE-01", "FWD-09"),
        lambda by: seeing(lambda p, visible, t, s: visible & ((s > t - by) | ~p.steps[t])),
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
    )
    yield Family(
        "cached-first",
        "Cached steps see only the first {} keys.",
        ("FWD-09", "CACHE-02"),
        lambda by: seeing(lambda p, visible, t, s: visible & ((s < by) | ~p.steps[t])),
        (1, 2, 4),
    )
    yield Family(
        "cache-loses",
        "The cache has lost the last {} positions of the prompt.",
        ("CACHE-01",),
        lambda by: seeing(
            lambda p, visible, t, s: visible & ~(p.steps[t] & (s < (p.prefill or 0)) & (s >= (p.prefill or 0) - by))
        ),
        (1, 2, 3),
    )


def attention() -> Iterator[Family]:
    """Attention scores and heads."""
    yield Family(
        "softmax-base",
        "The softmax takes powers of {} instead of e.",
        ("FWD-13",),
        lambda base: scaled(lambda p: math.log(base)),
        (2, 10),
    )
    yield Family(
        "score-times",
        "Attention scores are multiplied by {}.",
        ("FWD-08", "FWD-13"),
        lambda by: scaled(lambda p: by),
        (0.0, 0.125, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0, 8.0),
        True,
    )
    yield Family(
        "score-by-width",
        "Attention scores are divided by a head's width to the power of {}.",
        ("FWD-08",),
        lambda power: scaled(lambda p: (p.gpt2.config.n_embd / p.gpt2.config.n_head) ** (0.5 - power)),
        (0.0, 0.25, 1.0, 1.5),
    )
    yield Family(
        "score-by-layer",
        "Attention scores of layer i are multiplied by (i + 1) to the power of {}.",
        ("FWD-08",),
        by_layer,
        (-1.0, -0.5, 0.5, 1.0),
    )
    yield Family("softmax-plus", "The softmax divides by its sum plus {}.", ("FWD-13",), more_keys, (1, 2, 4))
    yield Family(
        "pattern-times",
        "Attention weights are multiplied by {} after the softmax.",
        ("FWD-13",),
        lambda by: stage("*.pattern", lambda x: x * by),
        (0.5, 0.9, 1.1, 2.0),
        True,
    )
    # Heads
    yield Family(
        "c_attn-axes",
        "c_attn is read with its axes in the order {} (0 the three parts, 1 heads, 2 a head's numbers).",
        ("FWD-07",),
        parted,
        tuple(permutations(range(3)))[1:],
    )
    yield Family(
        "head-axes",
        "Heads are split and joined with axes in the order {} (0 the three parts, 1 heads, 2 a head's numbers).",
        ("FWD-07",),
        lambda order: parted(order, joined=True),
        ((0, 2, 1),),
    )
    yield Family(
        "heads-swapped",
        "The first two heads of layer {} are swapped (counted from the last if negative).",
        ("FWD-07",),
        swapped_in,
        (0, 1, -1, -2),
    )
    yield Family(
        "heads-merged",
        "Heads are joined with axes in the order {} (0 positions, 1 heads, 2 a head's numbers).",
        ("FWD-07",),
        merged,
        tuple(permutations(range(3)))[1:],
        looks_ahead=True,
    )
    yield Family(
        "c_attn-parts",
        "Queries, keys and values are in the order {}.",
        ("FWD-07",),
        in_order,
        tuple(permutations(range(3)))[1:],
    )


def parameters() -> Iterator[Family]:
    """Linear maps and layer norms."""
    for name in BIASES:
        yield Family(f"{name[1:]}-times", f"{name[1:]} is multiplied by {{}}.", ("FWD-06",), times(name), FACTORS, True)
    for part, name in enumerate(PARTS):
        yield Family(
            f"{name}-bias-times",
            f"The {name}' bias is multiplied by {{}}.",
            ("FWD-06",),
            times(".c_attn.bias", part=part),
            FACTORS,
            True,
        )
    yield Family(
        "biases-times", "All biases of linear maps are multiplied by {}.", ("FWD-06",), times(*BIASES), FACTORS, True
    )
    for name in KERNELS:
        yield Family(f"{name[1:]}-times", f"{name[1:]} is multiplied by {{}}.", ("FWD-06",), times(name), FACTORS, True)
    for name in (*NORMS, ""):
        said = name or "every layer norm"
        shift, gain = (tuple(f"{each}.{kind}" for each in ([name] if name else NORMS)) for kind in ("bias", "weight"))
        yield Family(
            f"{name or 'norm'}-bias-times",
            f"The bias of {said} is multiplied by {{}}.",
            ("FWD-05",),
            times(*shift),
            FACTORS,
            True,
        )
        yield Family(
            f"{name or 'norm'}-gain-off",
            f"The gain of {said} is 1 plus {{}} times its difference from 1.",
            ("FWD-05",),
            towards_one(*gain),
            FACTORS,
            True,
        )
        yield Family(
            f"{name or 'norm'}-gain-times",
            f"The gain of {said} is multiplied by {{}}.",
            ("FWD-05",),
            times(*gain),
            FACTORS,
            True,
        )
    yield Family(
        "epsilon",
        "The layer norms' epsilon is {}.",
        ("FWD-05",),
        lambda value: lambda p: configured(p, layer_norm_epsilon=value),
        (1e-12, *(10.0 ** (-n / 2) for n in range(16, 3, -1))),
        True,
    )
    yield Family(
        "freedom",
        "The variance is divided by C minus {}.",
        ("FWD-05",),
        lambda by: layer_norm_with(freedom=by),
        (-1.0, 1.0, 2.0),
    )
    yield Family(
        "mean-times",
        "Layer norms subtract {} times the mean.",
        ("FWD-05",),
        lambda by: layer_norm_with(subtracted=by),
        (0.0, 0.5),
        True,
    )
    yield Family("ln_f-times", "ln_f is applied {} times.", ("FWD-04",), normed_often, (0, 2, 3))


def layers() -> Iterator[Family]:
    """Activations, layers, the head, and number formats."""
    yield Family(
        "activation", "The activation is {}.", ("FWD-15",), lambda name: activated(FUNCTIONS[name]), tuple(FUNCTIONS)
    )
    yield Family("sigmoid", "The activation is x sigmoid({} x).", ("FWD-15",), by_sigmoid, (0.5, 1.0, 1.5, 2.0), True)
    yield Family(
        "leak",
        "The activation is ReLU with the slope {} below 0.",
        ("FWD-15",),
        lambda slope: activated(lambda x: np.where(x > 0, x, slope * x)),
        (0.0, 0.01, 0.1, 0.25),
        True,
    )
    yield Family(
        "gelu-constant", "GELU's constant 0.044715 is {}.", ("FWD-16",), by_tanh, (0.0, 0.03, 0.044, 0.0455, 0.06), True
    )
    # Layers and head
    yield Family(
        "layer-missing",
        "Layer {} is left out (counted from the last if negative).",
        ("FWD-03",),
        lambda i: layered(lambda layers: [n for n in layers if n != i % len(layers)]),
        (0, 1, 2, -1, -2, -3),
    )
    yield Family(
        "layer-again",
        "Layer {} runs twice (counted from the last if negative).",
        ("FWD-03",),
        lambda i: layered(lambda layers: sorted([*layers, i % len(layers)])),
        (0, -1),
    )
    yield Family(
        "layers-rolled",
        "The order of the layers is rotated by {}.",
        ("FWD-03",),
        lambda by: layered(lambda layers: layers[by:] + layers[:by]),
        (1, -1),
    )
    yield Family(
        "layers-sorted",
        "Layers run in the order {}.",
        ("FWD-03",),
        lambda how: layered(lambda layers: sorted(layers, key=str) if how == "of text" else layers[::-1]),
        ("of text", "backwards"),
    )
    yield Family(
        "residual-times",
        "A layer's input is multiplied by {} where attention's output is added to it.",
        ("FWD-03",),
        residual_times,
        (0.0, 0.5, 2.0),
        True,
    )
    yield Family(
        "one-norm",
        "The second layer norm is {} the first.",
        ("FWD-03",),
        lambda how: blocks(
            lambda block: (
                replace(block, ln_2=block.ln_1) if how == "also" else replace(block, ln_1=block.ln_2, ln_2=block.ln_1)
            )
        ),
        ("also", "where it should be"),
    )
    yield Family(
        "logits-times",
        "Logits are multiplied by {}.",
        ("FWD-04",),
        lambda by: lambda p: network(p, lm_head=p.gpt2.lm_head * by),
        FACTORS,
        True,
    )
    yield Family(
        "head",
        "The head is {}, although the configuration unties it.",
        ("FWD-17",),
        lambda _: lambda p: network(p, lm_head=p.gpt2.wte),
        ("the embedding",),
    )
    # Digits
    for said, pattern in STAGES.items():
        yield Family(
            f"{pattern.rpartition('.')[2].strip('*?_[]')}-kept-in",
            f"Kept in {{}}: {said}.",
            ("CACHE-01", "FWD-21") if pattern in ("*.k", "*.v", "*.attn.[kv]") else ("FWD-21",),
            partial(kept_in, pattern),
            ("float16", "bfloat16"),
        )
    yield Family(
        "weights-in",
        "Weights were rounded to {}.",
        ("CKPT-08",),
        lambda dtype: weights(lambda _, tensor: stored(dtype)(tensor)),
        ("float16", "bfloat16"),
    )
    for each in ("matrix", "output", "input"):
        yield Family(
            f"weights-steps-by-{each}",
            f"Weights were rounded to {{}} steps up and down, with a step size for each {each}.",
            ("CKPT-08",),
            partial(in_steps, each),
            (7, 127),
        )


def unless_none(wanted: ndarray, visible: ndarray) -> ndarray:
    """The keys in `wanted`. A query that would see nothing keeps the keys it should see."""
    return np.where(wanted.any(axis=-1, keepdims=True), wanted, visible)


FAMILIES = (*embeddings(), *attention(), *parameters(), *layers())  # a value at which nothing changes is passed over
