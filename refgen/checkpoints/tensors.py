"""The tensors that a configuration calls for, by name and shape, and the `GPT2` made of them. Rules CKPT-01 to CKPT-07.

Names are those of transformers without `transformer.`: `h.3.attn.c_attn.weight`.

Axes    V tokens, N positions, C = n_embd, inner = the width of the MLP.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.activations import activation
from refgen.checkpoints.stored import Stored, widened
from refgen.config import GPT2Config
from refgen.errors import CheckpointError, counted, listed
from refgen.model import GPT2, MLP, Affine, Attention, Block

PREFIX = "transformer."
MOST_LAYERS = 1000  # for which names are made although the file has fewer tensors
PREFIXES = (PREFIX, "_orig_mod.", "module.", "_module.")
BUFFER = re.compile(r"h\.(\d{1,9})\.attn\.(?:masked_)?bias")
LAYER = re.compile(r"h\.(\d{1,9})\.")


def tensor_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """CKPT-01. The shape of every tensor of the network, by name. A tied head is not among them."""
    V, N, C, inner = config.vocab_size, config.n_positions, config.n_embd, config.inner
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (V, C), "wpe.weight": (N, C)}
    for i in range(config.n_layer):
        for name, weight in (
            ("ln_1", (C,)), ("attn.c_attn", (C, 3 * C)), ("attn.c_proj", (C, C)),
            ("ln_2", (C,)), ("mlp.c_fc", (C, inner)), ("mlp.c_proj", (inner, C)),
        ):  # fmt: skip
            shapes[f"h.{i}.{name}.weight"] = weight
            shapes[f"h.{i}.{name}.bias"] = weight[-1:]
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    return shapes if config.tie_word_embeddings else shapes | {"lm_head.weight": (V, C)}


def assemble(config: GPT2Config, tensors: Mapping[str, ndarray]) -> GPT2:
    """The network made of these very arrays, named and shaped as in `tensor_shapes(config)`, all of one dtype."""

    def affine(name: str) -> Affine:
        return Affine(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    act = activation(config.activation_function)
    blocks = tuple(
        Block(
            ln_1=affine(f"h.{i}.ln_1"),
            attn=Attention(c_attn=affine(f"h.{i}.attn.c_attn"), c_proj=affine(f"h.{i}.attn.c_proj")),
            ln_2=affine(f"h.{i}.ln_2"),
            mlp=MLP(c_fc=affine(f"h.{i}.mlp.c_fc"), act=act, c_proj=affine(f"h.{i}.mlp.c_proj")),
        )
        for i in range(config.n_layer)
    )
    wte = tensors["wte.weight"]
    head = wte if config.tie_word_embeddings else tensors["lm_head.weight"]
    return GPT2(config, wte, tensors["wpe.weight"], blocks, affine("ln_f"), head)


def disassemble(gpt2: GPT2) -> dict[str, ndarray]:
    """The inverse of `assemble`: the network's own arrays by name."""
    tensors: dict[str, ndarray] = {"wte.weight": gpt2.wte, "wpe.weight": gpt2.wpe}
    affines = {"ln_f": gpt2.ln_f}
    for i, block in enumerate(gpt2.h):
        affines |= {
            f"h.{i}.ln_1": block.ln_1, f"h.{i}.attn.c_attn": block.attn.c_attn, f"h.{i}.attn.c_proj": block.attn.c_proj,
            f"h.{i}.ln_2": block.ln_2, f"h.{i}.mlp.c_fc": block.mlp.c_fc, f"h.{i}.mlp.c_proj": block.mlp.c_proj,
        }  # fmt: skip
    for name, f in affines.items():
        tensors |= {f"{name}.weight": f.weight, f"{name}.bias": f.bias}
    return tensors if gpt2.config.tie_word_embeddings else tensors | {"lm_head.weight": gpt2.lm_head}


# --- What a folder holds, against what is called for ------------------------------------------------------


def bare_name(name: str) -> str:
    """CKPT-02, CKPT-07. The name without the prefixes of wrappers, such as `_orig_mod.` of torch.compile and `module.` of DataParallel."""
    while prefix := next((each for each in PREFIXES if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return name


def without_prefix_and_buffers(tensors: Iterable[Stored]) -> dict[str, Stored]:
    """CKPT-02, CKPT-03. The tensors by bare name, without mask buffers. Raises `CheckpointError` for a weight that is stored twice."""
    named: dict[str, Stored] = {}
    for tensor in tensors:
        name = bare_name(tensor.name)
        if name in named:
            raise CheckpointError(tensor.where, f"stands beside {named[name].name}", "CKPT-02")
        named[name] = tensor
    return named


def check_layers(stored: dict[str, Stored], config: GPT2Config, folder: Path) -> None:
    """CKPT-03, CKPT-05. Takes the mask buffers of this model's layers out of `stored`.

    Raises `CheckpointError` for more layers than there are tensors, before a name is made for each.
    """
    for name in [name for name in stored if (found := BUFFER.fullmatch(name)) and int(found[1]) < config.n_layer]:
        del stored[name]
    if config.n_layer > max(len(stored), MOST_LAYERS):
        problem = f"has {layers_in(stored)} layers, n_layer={config.n_layer} in its configuration"
        raise CheckpointError(str(folder), problem, "CKPT-05", "Correct n_layer.")


def layers_in(names: Iterable[str]) -> int:
    """How many layers have a tensor among these."""
    return len({found[1] for name in names if (found := LAYER.match(name))})


def with_shared(stored: dict[str, Stored], config: GPT2Config) -> Stored | None:
    """CKPT-04. Takes a tied head out of `stored` and returns it; the embedding, if the file has the head alone, is that head."""
    head = stored.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    if head is None or "wte.weight" in stored:
        return head
    stored["wte.weight"] = head
    return None


def with_zero_biases(
    stored: dict[str, Stored], shapes: Mapping[str, tuple[int, ...]], config: GPT2Config, folder: Path
) -> None:
    """CKPT-05. A configuration that says `"bias": false` has no biases in its file, and each is 0. Raises `CheckpointError`."""
    if config.other.get("bias", True) is not False:
        return
    biases = [name for name in shapes if name.endswith(".bias")]
    if there := [name for name in biases if name in stored]:
        problem = f"has {len(there)} biases although its configuration says bias=false: {listed(there)}"
        raise CheckpointError(str(folder), problem, "CKPT-05", "Correct the configuration.")
    for name in biases:
        zeros = np.zeros(4 * shapes[name][0], np.uint8)
        stored[name] = Stored(folder, name, "F32", shapes[name], zeros)


def check_names(
    stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], config: GPT2Config, folder: Path
) -> None:
    """CKPT-05, CKPT-07. Raises `CheckpointError` unless the names are exactly those that are called for.

    The remedy names what is known to cause it: a prefix, an entry of the configuration, biases left out, another head.
    """
    missing, extra = sorted(shapes.keys() - stored.keys()), sorted(stored.keys() - shapes.keys())
    if missing:
        problem = f"{counted(missing, 'tensor')} missing: {listed(missing)}"
        raise CheckpointError(str(folder), problem, "CKPT-05", why_missing(missing, extra, stored, config))
    if extra:
        problem = f"{counted(extra, 'tensor')} that a GPT-2 of this config.json does not have: {listed(extra)}"
        raise CheckpointError(str(folder), problem, "CKPT-07", why_extra(extra, stored, config))


def why_missing(missing: list[str], extra: list[str], stored: Iterable[str], config: GPT2Config) -> str:
    """The remedy for names that are missing."""
    prefixes = {name.removesuffix(missing[0]) for name in extra if name.endswith(missing[0])}
    prefix = next((each for each in sorted(prefixes) if all(each + name in extra for name in missing)), "")
    layers = layers_in(stored)
    if prefix:
        return f"The names begin with {prefix!r}: refgen convert FROM TO --prefix {prefix} takes it off."
    if missing == ["lm_head.weight"]:
        return "If the head is the embedding, set tie_word_embeddings to true in config.json."
    if layers < config.n_layer and all(LAYER.match(name) for name in missing):
        return f"The file has {layers} layers and config.json n_layer={config.n_layer}: correct n_layer."
    if all(name.endswith(".bias") for name in missing) and not any(name.endswith(".bias") for name in stored):
        return 'The file has no biases. If it comes from nanoGPT with bias=False, set "bias": false in config.json.'
    return "refgen never fills weights in; compare n_layer and tie_word_embeddings in config.json with the file."


def why_extra(extra: list[str], stored: Iterable[str], config: GPT2Config) -> str:
    """The remedy for names that are left over."""
    layers = layers_in(stored)
    if extra == ["lm_head.bias"]:
        return "GPT-2's head has no bias."
    if layers > config.n_layer and all(
        (found := LAYER.match(name)) and int(found[1]) >= config.n_layer for name in extra
    ):
        return f"The file has {layers} layers and config.json n_layer={config.n_layer}: correct n_layer."
    heads = sorted({name.partition(".")[0] for name in extra})
    if not any(name in ("h", "wte", "wpe", "ln_f", "lm_head") for name in heads):
        advice = " ".join(f"--leave-out '{name}.*'" for name in heads[:4])
        return (
            f"{listed(heads)}: of another head than GPT-2's. refgen convert FROM TO {advice} writes the model without."
        )
    return "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file."


def why_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...], config: GPT2Config) -> str:
    """The remedy for a wrong shape: the entry of the configuration that it contradicts, or how weights are stored."""
    entries = {"wte.weight": "vocab_size", "wpe.weight": "n_positions", "lm_head.weight": "vocab_size"}
    if len(shape) == len(wanted) == 2 and shape[1] == wanted[1] and name in entries:
        entry, number = entries[name], shape[0]
    elif len(shape) == len(wanted) == 2 and shape[0] == wanted[0] and name in ("wte.weight", "wpe.weight"):
        entry, number = "n_embd", shape[1]
    elif name.endswith("mlp.c_fc.weight") and len(shape) == 2 and shape[0] == wanted[0]:
        entry, number = "n_inner", shape[1]
    else:
        return "Linear weights are stored [in, out]."
    return f"The configuration says {entry}={getattr(config, entry)}, the file {number}."


def check_shapes(stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], config: GPT2Config) -> None:
    """CKPT-06. Raises `CheckpointError` for the first tensor of another shape than is called for."""
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            problem = f"has shape {list(stored[name].shape)}, must have {list(shape)}"
            raise CheckpointError(
                stored[name].where, problem, "CKPT-06", why_shape(name, stored[name].shape, shape, config)
            )


def check_tied_head(head: Stored, wte: ndarray) -> None:
    """CKPT-04. Raises `CheckpointError` unless a head that is stored although it is tied equals `wte` `[V C]`."""
    dtype: np.dtype[Any] = wte.dtype
    if head.shape != wte.shape:
        problem = f"has shape {list(head.shape)}, must have {list(wte.shape)}"
        raise CheckpointError(head.where, problem, "CKPT-06", "A tied head is the embedding.")
    if not np.array_equal(widened(head, dtype), wte):
        raise CheckpointError(
            head.where,
            "differs from wte.weight although the configuration ties them",
            "CKPT-04",
            "If the head is its own, set tie_word_embeddings to false in config.json.",
        )
    head.let_go()
