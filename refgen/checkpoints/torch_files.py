"""What torch.save writes, read without torch: `pytorch_model.bin` whole or in shards, and the `ckpt.pt` of nanoGPT and minGPT.

There are two containers. One is a zip archive of a pickle and uncompressed storages. The older one is a sequence of pickles and
storages. In both, numbers are mapped, not read. Rules CKPT-09 and CKPT-16 of SPEC.md; pickles.py reads the pickles.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
from numpy import ndarray

from refgen.checkpoints.format import CONFIG, begins, config_json
from refgen.checkpoints.minimal import min_gpt, nano_gpt
from refgen.checkpoints.pickles import Tensor, read_pickle
from refgen.checkpoints.shards import INDEX_END, read_shards
from refgen.checkpoints.stored import Stored, mapped
from refgen.errors import CheckpointError
from refgen.json_files import read_object

if TYPE_CHECKING:
    from zipfile import ZipInfo

WEIGHTS = "pytorch_model.bin"
ZIP, OLDER = b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
STORED = 0  # in a zip archive: not compressed
LISTED = 2**16, 10  # bytes that a zip's list of files may have in any archive, and beyond that its share of the archive
Storages = Mapping[str, ndarray]  # by key, the bytes [n] uint8


def read(file: Path) -> list[Stored]:
    """CKPT-09. Every tensor of a file, or of the shards that an index names."""
    return read_shards(file, read_file) if file.name.endswith(INDEX_END) else list(read_file(file))


def read_file(file: Path) -> Iterator[Stored]:
    """CKPT-16. The tensors of a state dict, by themselves or under `model`. Raises `CheckpointError`."""
    found, storages, pages = opened(file)
    state = state_dict(file, found)
    turned = is_turned(state)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            continue
        data, order = placed(file, name, tensor, storages)
        shape = tensor.shape
        if turned and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")) and len(shape) == 2:
            shape, order = shape[::-1], "C" if order == "F" else "F"
        yield Stored(file, name, tensor.storage.dtype, shape, data, order, pages)


def state_dict(file: Path, found: Any) -> dict[str, Any]:
    """The dict of tensors in the saved object. Raises `CheckpointError` if the object holds no such dict."""
    inside = found.get("model", found) if isinstance(found, dict) else found
    if not isinstance(inside, dict) or not any(isinstance(value, Tensor) for value in inside.values()):
        problem = "holds no state dict, by itself or under 'model'"
        raise CheckpointError(str(file), problem, "CKPT-16", "Save model.state_dict() with torch.save.")
    return {str(name): value for name, value in inside.items()}


def is_turned(state: Mapping[str, Any]) -> bool:
    """Whether linear weights are `[out, in]`, as torch's Linear has them. `c_attn` shows it, with three outputs for each input."""
    shapes = [
        value.shape for name, value in state.items() if name.endswith("c_attn.weight") and isinstance(value, Tensor)
    ]
    return bool(shapes) and all(len(shape) == 2 and shape[0] == 3 * shape[1] for shape in shapes)


def configuration(file: Path) -> dict[str, Any]:
    """The settings of a file: nanoGPT's are inside it, minGPT's and Hugging Face's in the `config.json` beside it."""
    if file.name.endswith(INDEX_END) or file.name == WEIGHTS:
        return config_json(file)
    found, _, _ = opened(file)
    if isinstance(found, dict) and isinstance(found.get("model_args"), dict):
        return nano_gpt(file, found["model_args"])
    entries = read_object(file.parent / CONFIG, CheckpointError, "CKPT-09", "It is needed for the number of heads.")
    if isinstance(entries.get("model"), dict):
        shapes = {name: value.shape for name, value in state_dict(file, found).items() if isinstance(value, Tensor)}
        return min_gpt(file.parent / CONFIG, entries["model"], shapes)
    return entries


# --- The two containers -----------------------------------------------------------------------------------


def opened(file: Path) -> tuple[Any, Storages, mmap.mmap]:
    """The saved object, the storages it refers to, and the mapped file. Raises `CheckpointError`."""
    try:
        if begins(file, ZIP):
            return open_zip(file)
        if begins(file, OLDER):
            return open_older(file)
    except (
        OSError,
        ValueError,
        KeyError,
        struct.error,
        NotImplementedError,
        OverflowError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise damaged(file, str(error) or type(error).__name__) from None
    raise damaged(file, "it begins in another way")


def damaged(file: Path, why: str) -> CheckpointError:
    """CKPT-16. The error for a file that torch did not write like this."""
    return CheckpointError(str(file), f"is not a whole file of torch.save ({why[:100]})", "CKPT-16", "Fetch it again.")


def open_zip(file: Path) -> tuple[Any, Storages, mmap.mmap]:
    """The container of torch since 1.6: `NAME/data.pkl`, `NAME/data/KEY`, all stored as they are."""
    import zipfile  # noqa: PLC0415 - only for these files, and not with refgen itself

    pages = mapped(file)
    if len(directory(pages)) > max(LISTED[0], len(pages) // LISTED[1]):
        raise CheckpointError(str(file), "lists too many files for a checkpoint", "CKPT-16")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise damaged(file, str(error)) from None
    pickled = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise damaged(file, "it holds no data.pkl")
    root = pickled[0].removesuffix("data.pkl")
    contents = {name: content(pages, entry) for name, entry in entries.items() if name.startswith(root)}
    if (order := contents.get(f"{root}byteorder")) is not None and order.tobytes() != b"little":
        raise CheckpointError(str(file), "holds numbers in big-endian order", "CKPT-16")
    found = read_pickle(BytesIO(contents[pickled[0]].tobytes()), str(file), len(pages))
    start = f"{root}data/"
    return found, {name.removeprefix(start): data for name, data in contents.items() if name.startswith(start)}, pages


def directory(pages: mmap.mmap) -> range:
    """The place of a zip's list of files, from the record at its end; the list itself is not read."""
    end = pages.rfind(b"PK\x05\x06", max(0, len(pages) - 2**16 - 22))
    if end < 0 or end + 22 > len(pages):
        raise ValueError("it has no end")
    size, start = struct.unpack_from("<II", pages, end + 12)
    if start == 2**32 - 1 or size == 2**32 - 1:  # of more than 4 GiB: in a longer record before
        size, start = struct.unpack_from("<QQ", pages, pages.rfind(b"PK\x06\x06", 0, end) + 40)
    return range(start, start + size)


def content(pages: mmap.mmap, entry: "ZipInfo") -> ndarray:
    """The bytes of one file in the archive, `[n]` uint8, where they lie."""
    if entry.compress_type != STORED or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename[:50]} is compressed")
    if pages[entry.header_offset : entry.header_offset + 4] != ZIP:
        raise ValueError(f"{entry.filename[:50]} is not where it should be")
    names = struct.unpack_from("<HH", pages, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(names)
    if start + entry.file_size > len(pages):
        raise ValueError(f"{entry.filename[:50]} is cut off")
    return np.frombuffer(pages, np.uint8, entry.file_size, start)


def open_older(file: Path) -> tuple[Any, Storages, mmap.mmap]:
    """The container before torch 1.6: a marker, the version, the machine, the saved object, keys, storages."""
    pages = mapped(file)
    reader, where = cast("BinaryIO", pages), str(file)
    _, version, machine, found, keys = (read_pickle(reader, where, len(pages)) for _ in range(5))
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise damaged(file, "of another version, or big-endian")
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise damaged(file, "without keys")
    counts = widths(found)
    storages, place = {}, pages.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", pages, place)
        size = count * counts.get(key, (0, 1))[1]
        if not 0 <= size <= len(pages) - place - 8:
            raise damaged(file, "cut off")
        storages[key] = np.frombuffer(pages, np.uint8, size, place + 8)
        place += 8 + size
    return found, storages, pages


def widths(found: Any) -> dict[str, tuple[int, int]]:
    """For each storage that the saved object refers to: how many numbers, and the bytes of one."""
    known, waiting, seen = {}, [found], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Tensor):
            known[each.storage.key] = (each.storage.count, each.storage.width)
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return known


def placed(file: Path, name: str, tensor: Tensor, storages: Storages) -> tuple[ndarray, Literal["C", "F"]]:
    """The bytes of one tensor, and the order of its numbers; copied only if they are not contiguous."""
    storage, shape = tensor.storage, tensor.shape
    whole = storages.get(storage.key)
    if whole is None or len(whole) != storage.count * storage.width:
        raise CheckpointError(
            f"{file.name}: tensor {name[:100]}", "is cut off or missing", "CKPT-16", "Fetch it again."
        )
    count = math.prod(shape)
    begin, end = tensor.offset * storage.width, (tensor.offset + count) * storage.width
    for order, strides in (("C", neighbours(shape)), ("F", neighbours(shape[::-1])[::-1])):
        if (
            all(n == 1 or step == wanted for n, step, wanted in zip(shape, tensor.strides, strides, strict=True))
            or not count
        ):
            return whole[begin:end], cast('Literal["C", "F"]', order)
    if count > storage.count:
        raise CheckpointError(f"{file.name}: tensor {name[:100]}", "repeats its numbers", "CKPT-16")
    numbers = whole.view(np.dtype(f"V{storage.width}"))[tensor.offset :]
    steps = [step * storage.width for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)
    return np.frombuffer(view.tobytes(), np.uint8), "C"


def neighbours(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array whose last axis runs fastest, in numbers."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
