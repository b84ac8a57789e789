"""A Hugging Face folder ↔ `GPT2`: `config.json` and safetensors. Rules CKPT-01 to CKPT-13 of SPEC.md.

Strict: every tensor the configuration calls for is there once, in its shape, finite; nothing else is there;
nothing is filled in, cut off or rounded. F32 embeddings and wide weights are used where they lie in the file (memory-mapped),
other weights are laid out for fast products, so loading costs one look at every number and no number is in memory
twice; F16 and BF16 are widened, which is exact.
"""

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from refgen.activations import activation
from refgen.config import GPT2Config
from refgen.engines.numpy.layout import laid_out
from refgen.errors import CheckpointError
from refgen.json_files import read_object
from refgen.model import GPT2, MLP, Affine, Attention, Block

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
INTEGERS: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4")}  # no weights: ids in a trace


def tensor_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """CKPT-01. Every tensor of the network by its name in the file, without the `transformer.` prefix."""
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
    """The network made of tensors named and shaped as in `tensor_shapes(config)`, all of one dtype."""

    def affine(name: str) -> Affine:
        weight = tensors[f"{name}.weight"]
        return Affine(weight if weight.ndim == 1 else laid_out(weight), tensors[f"{name}.bias"])

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
    """The inverse of `assemble`: the network's tensors by name."""
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


# --- Loading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in a file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: ndarray  # bytes
    pages: mmap.mmap  # of the whole file
    start: int  # of these bytes in it

    def let_go(self) -> None:
        """Takes the bytes out of this process's memory; the file, and the system's copy of it, stay."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = -(-self.start // mmap.PAGESIZE) * mmap.PAGESIZE
            whole = (self.start + len(self.data)) // mmap.PAGESIZE * mmap.PAGESIZE - first
            if whole > 0:
                self.pages.madvise(mmap.MADV_DONTNEED, first, whole)


def load(folder: Path, dtype: DTypeLike = "float32") -> GPT2:
    """The network in `folder`, computing in `dtype` (float32 or float64). Raises `CheckpointError`, `ConfigError`."""
    wanted = computing_dtype(dtype)
    config = GPT2Config.from_dict(read_object(folder / "config.json", CheckpointError, "CKPT-09"))
    activation(config.activation_function)
    stored = without_prefix_and_buffers(stored_tensors(folder), config)
    shapes = tensor_shapes(config)
    head = stored.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    check_names(stored, shapes, folder)
    tensors = {name: in_place(stored[name], shape, wanted) for name, shape in shapes.items()}
    if head is not None and not np.array_equal(widened(head, shapes["wte.weight"], wanted), tensors["wte.weight"]):
        raise CheckpointError(
            f"{head.file.name}: tensor {head.name}",
            "differs from wte.weight although the configuration ties them",
            "CKPT-04",
            "If the head is its own, set tie_word_embeddings to false in config.json.",
        )
    return assemble(config, tensors)


def in_place(tensor: Stored, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ndarray:
    """CKPT-14. The tensor as the network wants it in memory; where that is another order than the file's, the file is let go."""
    array = widened(tensor, shape, dtype)
    if len(shape) == 1 or not tensor.name.removeprefix("transformer.").startswith("h."):
        return array
    weight = laid_out(array)
    if not np.shares_memory(weight, tensor.data):
        tensor.let_go()
    return weight


def computing_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The NumPy dtype for `dtype`, if it is one that refgen computes in."""
    try:
        wanted = np.dtype(object if dtype is None else dtype)  # to NumPy, None means float64
    except TypeError:
        wanted = np.dtype(object)
    if wanted not in (np.float32, np.float64):
        raise CheckpointError(
            f"dtype={dtype!r}", "must be 'float32' or 'float64'", "CKPT-08", "16-bit files load exactly into float32."
        )
    return wanted


def stored_tensors(folder: Path) -> list[Stored]:
    """CKPT-09. Every tensor of `model.safetensors`, or of the shards that its index names."""
    if (folder / WEIGHTS).exists():
        return list(read_safetensors(folder / WEIGHTS))
    if not (folder / INDEX).exists():
        pickles = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        remedy = f"Convert {pickles} to safetensors with save_pretrained of transformers." if pickles else ""
        raise CheckpointError(str(folder), f"holds neither {WEIGHTS} nor {INDEX}", "CKPT-09", remedy)
    shard_of = read_object(folder / INDEX, CheckpointError, "CKPT-09").get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(str(folder / INDEX), "has no weight_map from tensor names to files", "CKPT-09")
    tensors = [tensor for shard in sorted(set(shard_of.values())) for tensor in read_safetensors(folder / shard)]
    for tensor in tensors:
        if shard_of.pop(tensor.name, None) != tensor.file.name:
            raise CheckpointError(
                f"{tensor.file.name}: tensor {tensor.name}", f"is not listed there, or twice, in {INDEX}", "CKPT-09"
            )
    for name, shard in shard_of.items():
        raise CheckpointError(f"{shard}: tensor {name}", f"is missing although {INDEX} lists it", "CKPT-09")
    return tensors


def read_safetensors(path: Path) -> Iterator[Stored]:
    """The tensors of one file, memory-mapped. safetensors itself first checks the file's header and length."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            str(path), f"is not a whole safetensors file ({error})", "CKPT-09", "Fetch it again."
        ) from None
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(pages, np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield Stored(
                path,
                name,
                entry["dtype"],
                tuple(entry["shape"]),
                data[start + begin : start + end],
                pages,
                start + begin,
            )


def without_prefix_and_buffers(tensors: list[Stored], config: GPT2Config) -> dict[str, Stored]:
    """CKPT-02, CKPT-03. By name, `transformer.` taken off, the mask buffers of this model's layers left out."""
    named: dict[str, Stored] = {}
    buffers = {f"h.{i}.attn.{name}" for i in range(config.n_layer) for name in ("bias", "masked_bias")}
    for tensor in tensors:
        name = tensor.name.removeprefix("transformer.")
        if name in named:
            raise CheckpointError(
                f"{tensor.file.name}: tensor {tensor.name}", f"stands beside {named[name].name}", "CKPT-02"
            )
        if name not in buffers:
            named[name] = tensor
    return named


def check_names(stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """CKPT-05, CKPT-07. The names are exactly those the configuration calls for."""
    missing, extra = sorted(shapes.keys() - stored.keys()), sorted(stored.keys() - shapes.keys())
    if missing:
        raise CheckpointError(
            str(folder),
            f"{counted(missing, 'tensor')} missing: {listed(missing)}",
            "CKPT-05",
            "refgen never fills weights in; compare n_layer and tie_word_embeddings in config.json with the file.",
        )
    if extra:
        raise CheckpointError(
            str(folder),
            f"{counted(extra, 'tensor')} that a GPT-2 of this config.json does not have: {listed(extra)}",
            "CKPT-07",
            "refgen leaves no weight unused; compare n_layer and tie_word_embeddings with the file.",
        )


def counted(names: list[str], noun: str) -> str:
    """How many, such as "1 tensor" or "2 tensors"."""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}"


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def widened(tensor: Stored, shape: tuple[int, ...], wanted: np.dtype[Any]) -> ndarray:
    """CKPT-06, CKPT-08, CKPT-12. The stored numbers in the computing dtype: in shape, finite, not one rounded."""
    where = f"{tensor.file.name}: tensor {tensor.name}"
    if tensor.shape != shape:
        raise CheckpointError(
            where,
            f"has shape {list(tensor.shape)}, must have {list(shape)}",
            "CKPT-06",
            "Linear weights are stored [in, out].",
        )
    if tensor.dtype not in STORED:
        raise CheckpointError(where, f"is {tensor.dtype}, must be one of {', '.join(STORED)}", "CKPT-08")
    if tensor.dtype == "F64" and wanted == np.float32:
        raise CheckpointError(where, "is F64, which float32 would round", "CKPT-08", "Load with dtype='float64'.")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.require(numbers(tensor).astype(wanted, copy=False), requirements="A")
        suspicious = not np.isfinite(array.sum())  # one fast pass; a finite sum has only finite terms
    if suspicious and not np.isfinite(array).all():
        raise CheckpointError(
            where, "holds NaN or infinity", "CKPT-12", "The file is damaged or was saved after diverging."
        )
    return array


def numbers(tensor: Stored) -> ndarray:
    """A stored tensor as it lies in the file; BF16, the upper half of a float32, widened to it."""
    if tensor.dtype not in STORED | INTEGERS:
        problem = f"is {tensor.dtype}, must be one of {', '.join(STORED | INTEGERS)}"
        raise CheckpointError(f"{tensor.file.name}: tensor {tensor.name}", problem, "CKPT-08")
    array = tensor.data.view((STORED | INTEGERS)[tensor.dtype])
    if tensor.dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(tensor.shape)


# --- Saving -----------------------------------------------------------------------------------------------


def save(gpt2: GPT2, folder: Path) -> None:
    """CKPT-01. Writes `config.json` and `model.safetensors` as transformers does, bit for bit what is computed with."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = gpt2.config.to_dict() | {"dtype": gpt2.wte.dtype.name}
    entries.pop("torch_dtype", None)  # the older name of dtype
    with replacing(folder / "config.json") as path:
        path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name if name == "lm_head.weight" else f"transformer.{name}": np.ascontiguousarray(tensor)
        for name, tensor in disassemble(gpt2).items()
    }
    with replacing(folder / WEIGHTS) as path:
        save_file(tensors, path, metadata={"format": "pt"})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed at the end: the file being replaced may be mapped by its own model."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
