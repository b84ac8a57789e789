"""Files of weights in other forms than safetensors, written without refgen from the definitions of the forms."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen import GPT2Config

LINEAR = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")

# --- torch.save, without torch ----------------------------------------------------------------------------


def pickled(tensors: Mapping[str, ndarray]) -> bytes:
    """A state dict of float32 tensors as torch pickles it, opcode by opcode."""
    out = io.BytesIO()
    out.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
    for i, (name, tensor) in enumerate(tensors.items()):
        strides = [step // tensor.itemsize for step in np.ascontiguousarray(tensor).strides]
        out.write(
            text(name)
            + b"ctorch._utils\n_rebuild_tensor_v2\n(("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text(str(i))
        )
        out.write(text("cpu") + number(tensor.size) + b"tQK\x00" + whole(tensor.shape) + whole(strides))
        out.write(b"\x89ccollections\nOrderedDict\n)RtR")
    out.write(b"u.")
    return out.getvalue()


def text(value: str) -> bytes:
    """A text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """A number."""
    return b"J" + struct.pack("<i", value)


def whole(values: Any) -> bytes:
    """A tuple of numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def write_zip(
    file: Path, pickle_bytes: bytes, tensors: Mapping[str, ndarray], compression: int = zipfile.ZIP_STORED
) -> Path:
    """The archive: that pickle and the tensors' numbers."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        archive.writestr("archive/byteorder", "little")
        for i, tensor in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{i}", tensor.tobytes())
    return file


def write_older(file: Path, pickle_bytes: bytes, tensors: Mapping[str, ndarray]) -> Path:
    """The container before torch 1.6, of such a pickle with None at the end of each persistent id."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, machine)]
    parts += [pickle_bytes.replace(b"tQ", b"NtQ"), pickle.dumps([str(i) for i in range(len(tensors))], 2)]
    parts += [struct.pack("<q", tensor.size) + tensor.tobytes() for tensor in tensors.values()]
    file.write_bytes(b"".join(parts))
    return file


# --- llm.c ------------------------------------------------------------------------------------------------


def write_llmc(file: Path, config: GPT2Config, tensors: Mapping[str, ndarray], version: int = 3) -> Path:
    """llm.c's file; version 1 is not padded, 5 is in BF16."""
    rows = config.vocab_size if version == 1 else -(-config.vocab_size // 128) * 128
    header = [20240326, version, config.n_positions, config.vocab_size, config.n_layer, config.n_head, config.n_embd]
    header += [] if version == 1 else [rows]
    padded = np.full((rows, config.n_embd), 7, "f4")
    padded[: config.vocab_size] = tensors["wte.weight"]
    parts = [padded, tensors["wpe.weight"]]
    for kind in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
        for end in ("weight", "bias"):
            parts += [tensors[f"h.{i}.{kind}.{end}"].T for i in range(config.n_layer)]
    parts += [tensors["ln_f.weight"], tensors["ln_f.bias"]]
    data = b"".join(bytes_of(part, "BF16" if version == 5 else "F32") for part in parts)
    file.write_bytes(np.array(header + [0] * (256 - len(header)), "<i4").tobytes() + data)
    return file


def bytes_of(tensor: ndarray, kind: str) -> bytes:
    """Float32 numbers in another format, cut off and not rounded; Q8_0 with scales that are powers of two."""
    tensor = np.ascontiguousarray(tensor, "f4")
    if kind == "F32":
        return tensor.tobytes()
    if kind == "F16":
        return tensor.astype("<f2").tobytes()
    if kind == "BF16":
        return (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
    blocks = tensor.reshape(-1, 32)
    scale = np.exp2(np.ceil(np.log2(np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-4) / 127))).astype("<f2")
    numbers = np.round(blocks / scale.astype("f4")).astype("i1")
    return np.concatenate([scale.view("u1"), numbers.view("u1")], axis=1).tobytes()


def value_of(tensor: ndarray, kind: str) -> ndarray:
    """The float32 numbers that such bytes stand for, in the shape of `tensor`."""
    data = bytes_of(tensor, kind)
    if kind == "F32":
        found = np.frombuffer(data, "<f4")
    elif kind == "F16":
        found = np.frombuffer(data, "<f2").astype("f4")
    elif kind == "BF16":
        found = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view("f4")
    else:
        blocks = np.frombuffer(data, "u1").reshape(-1, 34)
        scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype("f8")
        found = (np.ascontiguousarray(blocks[:, 2:]).view("i1") * scale).astype("f4").ravel()
    return found.reshape(tensor.shape)


# --- GGUF -------------------------------------------------------------------------------------------------

GGUF_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
GGUF_KINDS = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}


def gguf_name(name: str) -> str:
    """`h.3.mlp.c_fc.weight` as `blk.3.ffn_up.weight`."""
    stem, _, end = name.rpartition(".")
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{end}"
    _, layer, kind = stem.split(".", 2)
    return f"blk.{layer}.{GGUF_NAMES[kind]}.{end}"


def gguf_text(value: str) -> bytes:
    """A text."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_entry(name: str, value: Any) -> bytes:
    """An entry of the header."""
    if isinstance(value, str):
        return gguf_text(name) + struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, list):
        return gguf_text(name) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    kind, code = (6, "f") if isinstance(value, float) else (4, "I")
    return gguf_text(name) + struct.pack(f"<I{code}", kind, value)


def write_gguf(
    file: Path,
    config: GPT2Config,
    tensors: Mapping[str, ndarray],
    kind: str = "F32",
    entries: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Path:
    """A GGUF file of architecture gpt2: matrices in that format, all else in F32; `again` writes a tied head too."""
    sizes = {
        "general.architecture": "gpt2", "gpt2.context_length": config.n_positions, "gpt2.embedding_length": config.n_embd,
        "gpt2.feed_forward_length": config.inner, "gpt2.block_count": config.n_layer, "gpt2.attention.head_count": config.n_head,
        "gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon, **(entries or {}),
    }  # fmt: skip
    named = OrderedDict(tensors)
    if again:
        named["lm_head.weight"] = named["wte.weight"]
    described, data = b"", b""
    for name, tensor in named.items():
        as_stored = tensor.T if name.endswith(LINEAR) else tensor
        own = kind if tensor.ndim == 2 else "F32"
        data += b"\0" * (-len(data) % 32)
        described += (
            gguf_text(gguf_name(name))
            + struct.pack("<I", tensor.ndim)
            + struct.pack(f"<{tensor.ndim}Q", *as_stored.shape[::-1])
        )
        described += struct.pack("<IQ", GGUF_KINDS[own], len(data))
        data += bytes_of(as_stored, own)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(named), len(sizes))
    head += b"".join(gguf_entry(name, value) for name, value in sizes.items() if value is not None) + described
    file.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return file
