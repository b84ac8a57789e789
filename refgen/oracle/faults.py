"""Known faults of forward passes: how each real mistake changes a network. Diagnosis and tests share this list.

A fault is a function from the inputs of a pass to its inputs with the fault (counterfactual.py). It changes weights,
the configuration, positions, a layer norm or the inputs of attention. So the forward pass is never copied, and a fault
takes one or two lines. Most were found in real implementations, by the projects that made them.

A fault may change nothing for some network and input, for example without padding or with a switch off. Then it is not
visible there. A fault that can never be seen is called equivalent.

Axes    B rows, T queries, S keys, C = n_embd, H heads, D = C / H.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.activations import gelu, quick_gelu, relu, silu
from refgen.checkpoints import assemble, disassemble
from refgen.model import Affine, Block, gelu_new
from refgen.oracle.counterfactual import Norm, Pass
from refgen.oracle.formats import FORMATS, nearest

Change = Callable[[Pass], Pass]


@dataclass(frozen=True)
class Fault:
    """`change` plants it; `rules` are those of SPEC.md that it breaks."""

    name: str
    sentence: str
    rules: tuple[str, ...]
    change: Change
    equivalent: bool = False  # no input can show it


# --- Ways to change a forward pass ------------------------------------------------------------------------


def network(p: Pass, **changed: Any) -> Pass:
    """Other fields of the network."""
    return replace(p, gpt2=replace(p.gpt2, **changed))


def configured(p: Pass, **changed: Any) -> Pass:
    """Other fields of its configuration."""
    return network(p, config=replace(p.gpt2.config, **changed))


def blocks(change: Callable[[Block], Block]) -> Change:
    """Every layer changed."""
    return lambda p: network(p, h=tuple(change(block) for block in p.gpt2.h))


def weights(change: Callable[[str, ndarray], ndarray]) -> Change:
    """Every tensor changed, given its name in the checkpoint."""

    def changed(p: Pass) -> Pass:
        tensors = {name: change(name, tensor) for name, tensor in disassemble(p.gpt2).items()}
        return replace(p, gpt2=assemble(p.gpt2.config, tensors))

    return changed


def without(suffix: str, part: int | None = None) -> Change:
    """The tensors of that name are zero; of `c_attn.bias` the part of the queries (0), keys (1) or values (2)."""

    def zeroed(name: str, tensor: ndarray) -> ndarray:
        if not name.endswith(suffix):
            return tensor
        if part is None:
            return np.zeros_like(tensor)
        thirds = tensor.copy().reshape(3, -1)
        thirds[part] = 0
        return thirds.ravel()

    return weights(zeroed)


def activated(act: Callable[[ndarray], ndarray]) -> Change:
    """Another activation function."""
    return blocks(lambda block: replace(block, mlp=replace(block.mlp, act=act)))


def normed(change: Callable[..., ndarray]) -> Change:
    """Another layer norm: (layer_norm, x `[… C]`, its Affine, epsilon) -> `[… C]`."""
    return lambda p: replace(p, norm=lambda x, f, epsilon: change(p.norm, x, f, epsilon))


def attending(change: Callable[..., tuple[Any, ...]]) -> Change:
    """Attention given something else: (pass, q, k, v, visible, scale) -> the last five changed."""
    return lambda p: replace(p, attending=(*p.attending, lambda *given: change(p, *given)))


def scaled(factor: Callable[[Pass], float]) -> Change:
    """Another attention scale."""
    return attending(lambda p, q, k, v, visible, scale: (q, k, v, visible, scale * factor(p)))


def seeing(change: Callable[[Pass, ndarray, ndarray, ndarray], ndarray]) -> Change:
    """Another visibility: (pass, visible `[B 1 T S]`, queries' places `[T 1]`, keys' places `[1 S]`) -> `[B 1 T S]`."""

    def changed(p: Pass, q: ndarray, k: ndarray, v: ndarray, visible: ndarray, scale: float) -> tuple[Any, ...]:
        T, S = visible.shape[-2:]
        t, s = np.ogrid[S - T : S, :S]
        return q, k, v, change(p, visible, t, s), scale

    return attending(changed)


def standing(change: Callable[[Pass], ndarray]) -> Change:
    """Other positions; those past the last one start again."""
    return lambda p: replace(p, position_ids=change(p) % p.gpt2.config.n_positions)


def reordered(attn: Callable[[Pass], ndarray], proj: Callable[[Pass], ndarray] | None = None) -> Change:
    """Columns of every `c_attn`, and rows of every attention's `c_proj`, in another order."""

    def changed(p: Pass) -> Pass:
        columns, rows = attn(p), slice(None) if proj is None else proj(p)

        def moved(name: str, tensor: ndarray) -> ndarray:
            if ".attn.c_attn." in name:
                return tensor[..., columns]
            return tensor[rows] if name.endswith(".attn.c_proj.weight") else tensor

        return weights(moved)(p)

    return changed


def stored(dtype: str) -> Callable[[ndarray], ndarray]:
    """Numbers as `dtype` holds them."""
    return lambda x: nearest(x.astype(np.float64), FORMATS[dtype]).astype(x.dtype)


# --- The longer ones --------------------------------------------------------------------------------------


def mean(x: ndarray) -> ndarray:
    """Of each row."""
    result: ndarray = x.mean(axis=-1, keepdims=True)
    return result


def epsilon_outside(layer_norm: Norm, x: ndarray, f: Affine, epsilon: float) -> ndarray:
    """(x - mean) / (deviation + epsilon)."""
    centred = x - mean(x)
    return centred / (np.sqrt(mean(centred * centred)) + epsilon) * f.weight + f.bias


def unbiased(layer_norm: Norm, x: ndarray, f: Affine, epsilon: float) -> ndarray:
    """With r = C / (C - 1), sqrt(r v + epsilon) is sqrt(r) sqrt(v + epsilon / r)."""
    r = x.shape[-1] / max(x.shape[-1] - 1, 1)
    return layer_norm(x, Affine(f.weight * (1 / math.sqrt(r)), f.bias), epsilon / r)


def root_mean_square(layer_norm: Norm, x: ndarray, f: Affine, epsilon: float) -> ndarray:
    """Nothing subtracted."""
    return x / np.sqrt(mean(x * x) + epsilon) * f.weight + f.bias


def softmax_plus_one(p: Pass, q: ndarray, k: ndarray, v: ndarray, visible: ndarray, scale: float) -> tuple[Any, ...]:
    """One more key of zeros has the score 0, and exp(0) = 1; its value is 0."""
    nothing, always = np.zeros_like(k[:, :, :1]), np.ones_like(visible[..., :1])
    return (
        q,
        np.concatenate([k, nothing], axis=2),
        np.concatenate([v, nothing], axis=2),
        np.concatenate([visible, always], axis=3),
        scale,
    )


def unmerged(p: Pass) -> Pass:
    """Heads `[B H T D]` read as `[B T C]` as they lie in memory."""

    def misread(z: ndarray) -> ndarray:
        B, T, C = z.shape
        heads = z.reshape(B, T, p.gpt2.config.n_head, -1).swapaxes(1, 2)
        return np.ascontiguousarray(heads).reshape(B, T, C)

    return replace(p, stages=(*p.stages, ("*.attn.z", misread)))


def int8(name: str, tensor: ndarray) -> ndarray:
    """Each output channel of a matrix in 255 steps."""
    if tensor.ndim == 1:
        return tensor
    step = np.abs(tensor).max(axis=0 if name.startswith("h.") else 1, keepdims=True) / 127
    return np.rint(tensor / np.where(step == 0, 1, step)) * step


def last_block(change: Callable[[Pass, Block], Block]) -> Change:
    """The last layer changed."""
    return lambda p: network(p, h=(*p.gpt2.h[:-1], change(p, p.gpt2.h[-1])))


def swapped_heads(p: Pass, block: Block) -> Block:
    """`c_proj` reads the second head's answers where the first's are, and the other way round."""
    D = p.gpt2.config.n_embd // p.gpt2.config.n_head
    rows = np.arange(p.gpt2.config.n_embd)
    rows[: 2 * D] = np.roll(rows[: 2 * D], D)
    c_proj = block.attn.c_proj
    return replace(block, attn=replace(block.attn, c_proj=replace(c_proj, weight=c_proj.weight[rows])))


def final_norm(p: Pass, change: Callable[[Norm, ndarray, Affine, float], ndarray]) -> Pass:
    """`ln_f` done another way."""

    def norm(x: ndarray, f: Affine, epsilon: float) -> ndarray:
        return change(p.norm, x, f, epsilon) if f is p.gpt2.ln_f else p.norm(x, f, epsilon)

    return replace(p, norm=norm)


def misses_itself(p: Pass, visible: ndarray, t: ndarray, s: ndarray) -> ndarray:
    """A query that would see nothing sees itself."""
    others = visible & (s != t)
    return np.where(others.any(axis=-1, keepdims=True), others, visible)


def first_dropped(p: Pass, visible: ndarray, t: ndarray, s: ndarray) -> ndarray:
    """A query that would see nothing sees that one."""
    others = visible & (visible.cumsum(axis=-1) != 1)
    return np.where(others.any(axis=-1, keepdims=True), others, visible)


def parts(p: Pass) -> ndarray:
    """`[3 H D]`, the places of `c_attn`'s columns."""
    return np.arange(3 * p.gpt2.config.n_embd).reshape(3, p.gpt2.config.n_head, -1)


# --- The list ---------------------------------------------------------------------------------------------

FAULTS: tuple[Fault, ...] = (
    # Embeddings and positions
    Fault("no-positions", "Position embeddings are not added.", ("FWD-01",),
          lambda p: network(p, wpe=np.zeros_like(p.gpt2.wpe))),
    Fault("embedding-scaled", "Token embeddings are multiplied by the root of n_embd, as in the first Transformer.",
          ("FWD-01",), lambda p: network(p, wte=p.gpt2.wte * math.sqrt(p.gpt2.config.n_embd))),
    Fault("position-plus-one", "Positions are one too large: they count from 1.", ("FWD-02",),
          standing(lambda p: p.positions + 1)),
    Fault("position-plus-two", "Positions are two too large, an offset that other models have.", ("FWD-02",),
          standing(lambda p: p.positions + 2)),
    Fault("position-counts-padding", "Padding takes positions: a padded row stands elsewhere.", ("PAD-04",),
          standing(lambda p: np.zeros_like(p.positions) + np.arange(p.positions.shape[1]))),
    Fault("cached-position-plus-one", "Positions of cached steps are one too large.", ("FWD-02", "CACHE-02"),
          standing(lambda p: p.positions + p.steps)),
    Fault("cached-position-zero", "Cached steps stand at position 0.", ("FWD-02", "CACHE-02"),
          standing(lambda p: p.positions * ~p.steps)),
    # What a query sees
    Fault("sees-next", "A query sees one future key.", ("FWD-09",),
          seeing(lambda p, visible, t, s: visible | (s == t + 1))),
    Fault("not-causal", "A query sees all keys.", ("FWD-09",),
          seeing(lambda p, visible, t, s: p.attention_mask[:, None, None, : s.size].astype(bool) | visible)),
    Fault("misses-itself", "A query does not see its own key.", ("FWD-09",), seeing(misses_itself)),
    Fault("misses-first", "The first key is out of sight: a window one too short.", ("FWD-09",), seeing(first_dropped)),
    Fault("padding-visible", "Padding can be seen.", ("FWD-09", "PAD-05"),
          seeing(lambda p, visible, t, s: np.broadcast_to(s <= t, visible.shape))),
    Fault("cached-padding-visible", "Cached steps have lost the mask and see padding.", ("FWD-09", "CACHE-02"),
          seeing(lambda p, visible, t, s: visible | ((s <= t) & p.steps[t]))),
    Fault("cached-mask-top-left", "Cached steps see the first key only: the mask's triangle starts in the wrong corner.",
          ("FWD-09", "CACHE-02"), seeing(lambda p, visible, t, s: visible & (~p.steps[t] | (s == 0)))),
    Fault("cache-loses-last", "The cache has lost the last position of the prompt.", ("CACHE-01",),
          seeing(lambda p, visible, t, s: visible & ~(p.steps[t] & (s + 1 == (p.prefill or 0))))),
    # How it looks
    Fault("scale-missing", "Attention scores are not scaled, or are although the configuration says not to.",
          ("FWD-08",), lambda p: configured(p, scale_attn_weights=not p.gpt2.config.scale_attn_weights)),
    Fault("scale-by-layer", "Scores are divided by the layer's number though the configuration does not say so, or not "
          "though it does.", ("FWD-08",), lambda p: configured(
              p, scale_attn_by_inverse_layer_idx=not p.gpt2.config.scale_attn_by_inverse_layer_idx)),
    Fault("scale-by-width", "Scores are divided by the root of n_embd, not of a head's width.", ("FWD-08",),
          scaled(lambda p: 1 / math.sqrt(p.gpt2.config.n_head))),
    Fault("scale-twice", "Scores are divided twice by the root of a head's width.", ("FWD-08",),
          scaled(lambda p: math.sqrt(p.gpt2.config.n_head / p.gpt2.config.n_embd))),
    Fault("softmax-base-2", "The softmax takes powers of 2 instead of e.", ("FWD-13",), scaled(lambda p: math.log(2))),
    Fault("softmax-plus-one", "The softmax divides by its sum plus one.", ("FWD-13",), attending(softmax_plus_one)),
    Fault("kv-float16", "Keys and values are kept in float16.", ("FWD-21", "CACHE-01"), attending(
        lambda p, q, k, v, visible, scale: (q, stored("float16")(k), stored("float16")(v), visible, scale))),
    Fault("kv-bfloat16", "Keys and values are kept in bfloat16.", ("FWD-21", "CACHE-01"), attending(
        lambda p, q, k, v, visible, scale: (q, stored("bfloat16")(k), stored("bfloat16")(v), visible, scale))),
    # Heads
    Fault("heads-interleaved", "Heads take every H-th column instead of D neighbours.", ("FWD-07",), reordered(
        lambda p: np.arange(3 * p.gpt2.config.n_embd).reshape(3, -1, p.gpt2.config.n_head).swapaxes(1, 2).ravel(),
        lambda p: np.arange(p.gpt2.config.n_embd).reshape(-1, p.gpt2.config.n_head).T.ravel())),
    Fault("heads-unmerged", "Heads are put side by side without swapping axes back.", ("FWD-07",), unmerged),
    Fault("heads-swapped", "The first two heads of the last layer are swapped.", ("FWD-07",), last_block(swapped_heads)),
    Fault("qkv-by-head", "Queries, keys and values are read head by head instead of one after the other.", ("FWD-07",),
          reordered(lambda p: parts(p).reshape(p.gpt2.config.n_head, 3, -1).swapaxes(0, 1).ravel())),
    Fault("query-key-swapped", "Queries and keys are swapped.", ("FWD-07",), reordered(lambda p: parts(p)[[1, 0, 2]].ravel())),
    Fault("key-value-swapped", "Keys and values are swapped.", ("FWD-07",), reordered(lambda p: parts(p)[[0, 2, 1]].ravel())),
    # Linear maps
    Fault("proj-transposed", "The square weight of attention's c_proj is transposed.", ("FWD-06",), weights(
        lambda name, tensor: tensor.T if name.endswith(".attn.c_proj.weight") else tensor)),
    Fault("no-attention-biases", "The biases of c_attn are missing.", ("FWD-06", "CKPT-03"), without(".c_attn.bias")),
    Fault("no-query-bias", "The queries' bias is missing.", ("FWD-06",), without(".c_attn.bias", 0)),
    Fault("no-key-bias", "The keys' bias is missing: it adds the same to all scores of a query, which softmax ignores.",
          ("FWD-06",), without(".c_attn.bias", 1), equivalent=True),
    Fault("no-value-bias", "The values' bias is missing.", ("FWD-06",), without(".c_attn.bias", 2)),
    Fault("no-attention-proj-bias", "The bias of attention's c_proj is missing.", ("FWD-06",), without(".attn.c_proj.bias")),
    Fault("no-fc-bias", "The bias of c_fc is missing.", ("FWD-06",), without(".c_fc.bias")),
    Fault("no-mlp-proj-bias", "The bias of the MLP's c_proj is missing.", ("FWD-06",), without(".mlp.c_proj.bias")),
    # MLP
    Fault("gelu-erf", "The activation is the exact GELU, by the error function.", ("FWD-15", "FWD-16"), activated(gelu)),
    Fault("gelu-tanh", "The activation is GELU's tanh form.", ("FWD-15",), activated(gelu_new)),
    Fault("gelu-sigmoid", "The activation is x sigmoid(1.702 x).", ("FWD-15", "FWD-16"), activated(quick_gelu)),
    Fault("gelu-0.0447", "GELU's constant 0.044715 is cut to 0.0447.", ("FWD-16",), activated(
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.0447 * (x * x * x)))))),
    Fault("gelu-float16", "The activation is read from a float16 table.", ("FWD-21",), blocks(lambda block: replace(
        block, mlp=replace(block.mlp, act=lambda x: stored("float16")(block.mlp.act(stored("float16")(x))))))),
    Fault("relu", "The activation is ReLU.", ("FWD-15",), activated(relu)),
    Fault("silu", "The activation is SiLU.", ("FWD-15",), activated(silu)),
    # Layer norms
    Fault("epsilon-1e-5", "The layer norms' epsilon is 1e-5, whatever the configuration says.", ("FWD-05",),
          lambda p: configured(p, layer_norm_epsilon=1e-5)),
    Fault("epsilon-1e-6", "The layer norms' epsilon is 1e-6.", ("FWD-05",),
          lambda p: configured(p, layer_norm_epsilon=1e-6)),
    Fault("epsilon-1e-12", "The layer norms' epsilon is 1e-12.", ("FWD-05",),
          lambda p: configured(p, layer_norm_epsilon=1e-12)),
    Fault("epsilon-outside", "Epsilon is added to the deviation, not under its root.", ("FWD-05",), normed(epsilon_outside)),
    Fault("unbiased-variance", "The variance is divided by C - 1.", ("FWD-05",), normed(unbiased)),
    Fault("no-mean", "The mean is not subtracted: RMS norm.", ("FWD-05",), normed(root_mean_square)),
    Fault("no-norm-gain", "The layer norms' gains are missing.", ("FWD-05",), normed(
        lambda norm, x, f, epsilon: norm(x, Affine(np.ones_like(f.weight), f.bias), epsilon))),
    Fault("no-norm-bias", "The layer norms' biases are missing.", ("FWD-05",), normed(
        lambda norm, x, f, epsilon: norm(x, Affine(f.weight, np.zeros_like(f.bias)), epsilon))),
    Fault("ln-1-twice", "The MLP is given ln_1 instead of ln_2.", ("FWD-03",),
          blocks(lambda block: replace(block, ln_2=block.ln_1))),
    Fault("no-final-norm", "ln_f is missing.", ("FWD-04",), lambda p: final_norm(p, lambda norm, x, f, epsilon: x)),
    Fault("final-norm-twice", "ln_f is applied twice.", ("FWD-04",),
          lambda p: final_norm(p, lambda norm, x, f, epsilon: norm(norm(x, f, epsilon), f, epsilon))),
    Fault("no-final-norm-bias", "ln_f has no bias.", ("FWD-05",), lambda p: final_norm(
        p, lambda norm, x, f, epsilon: norm(x, Affine(f.weight, np.zeros_like(f.bias)), epsilon))),
    # Layers and head
    Fault("last-layer-missing", "The last layer is left out.", ("FWD-03",), lambda p: network(p, h=p.gpt2.h[:-1])),
    Fault("layers-sorted-as-text", "Layers are sorted as text: h.10 comes before h.2.", ("FWD-03", "CKPT-01"),
          lambda p: network(p, h=tuple(p.gpt2.h[i] for i in sorted(range(len(p.gpt2.h)), key=str)))),
    Fault("head-tied", "The head is the embedding although the configuration says it is its own.", ("FWD-17",),
          lambda p: network(p, lm_head=p.gpt2.wte)),
    # Weights
    Fault("weights-float16", "Weights were rounded to float16.", ("CKPT-08",),
          weights(lambda _, tensor: stored("float16")(tensor))),
    Fault("weights-bfloat16", "Weights were rounded to bfloat16.", ("CKPT-08",),
          weights(lambda _, tensor: stored("bfloat16")(tensor))),
    Fault("weights-int8", "Weights were rounded to int8, a scale each output channel.", ("CKPT-08",), weights(int8)),
)  # fmt: skip
