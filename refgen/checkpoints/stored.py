"""One tensor as it lies in a file, and its numbers: rules CKPT-08, CKPT-12, CKPT-13 and CKPT-14 of SPEC.md, for every format.

Number formats have the names that safetensors and GGUF give them. F16 and BF16 are widened, which is exact; so are the blocks of
Q8_0, a scale in F16 and 32 whole numbers of 8 bits (CKPT-13). Nothing is rounded.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from refgen.errors import CheckpointError

STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
BLOCKS = {"Q8_0": (32, 34)}  # numbers, and the bytes they take
INTEGERS: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4")}  # no weights: ids in a trace


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in a file."""

    file: Path
    name: str
    dtype: str  # a key of STORED or BLOCKS, or any other name, which is refused if the numbers are needed
    shape: tuple[int, ...]  # as the network has it: a linear weight is [in, out]
    data: ndarray  # its bytes, [n] uint8
    order: Literal["C", "F"] = "C"  # of the numbers in `data`; "F" is a weight that the file holds as [out, in]
    pages: mmap.mmap | None = None  # the mapped file that `data` is a part of; None if it is in memory

    @property
    def where(self) -> str:
        """The tensor, for the beginning of an error."""
        return f"{self.file.name}: tensor {self.name}"

    def let_go(self) -> None:
        """CKPT-14. Takes the bytes out of this process's memory; the file, and the system's copy of it, stay."""
        if self.pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = self.data.ctypes.data - np.frombuffer(self.pages, np.uint8).ctypes.data
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (start + len(self.data)) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if whole > 0:  # pages at the edges belong to neighbours too
            self.pages.madvise(mmap.MADV_DONTNEED, first, whole)


def mapped(path: Path) -> mmap.mmap:
    """The bytes of a file that is not empty; each part is read when it is first looked at."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def computing_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """CKPT-08. The NumPy dtype for `dtype`. Raises `CheckpointError` unless it is float32 or float64."""
    try:
        wanted = np.dtype(object if dtype is None else dtype)  # to NumPy, None means float64
    except TypeError:
        wanted = np.dtype(object)
    if wanted not in (np.float32, np.float64):
        raise CheckpointError(
            f"dtype={dtype!r}", "must be 'float32' or 'float64'", "CKPT-08", "16-bit files load exactly into float32."
        )
    return wanted


def numbers(tensor: Stored) -> ndarray:
    """CKPT-08. The numbers in the shape of the tensor, not copied; BF16, the upper half of a float32, is widened to it."""
    if tensor.dtype in BLOCKS:
        return dequantized(tensor.data).reshape(tensor.shape, order=tensor.order)
    known = STORED | INTEGERS
    if tensor.dtype not in known:
        raise CheckpointError(tensor.where, f"is {tensor.dtype}, must be one of {', '.join(known)}", "CKPT-08")
    array = tensor.data.view(known[tensor.dtype])
    if tensor.dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(tensor.shape, order=tensor.order)


def dequantized(data: ndarray) -> ndarray:
    """CKPT-13. The float32 numbers of Q8_0 blocks: 11 bits of a scale times 8 of a number fit in 24."""
    blocks = data.view(np.dtype([("scale", "<f2"), ("numbers", "i1", 32)]))
    return (blocks["numbers"] * blocks["scale"].astype(np.float32)[:, None]).ravel()


def widened(tensor: Stored, wanted: np.dtype[Any]) -> ndarray:
    """CKPT-08, CKPT-12. The numbers in the computing dtype; a view of the file where that is possible.

    Raises `CheckpointError` for a number format that would be rounded, for NaN and infinity.
    """
    if tensor.dtype not in STORED | BLOCKS:
        problem = f"is {tensor.dtype}, must be one of {', '.join([*STORED, *BLOCKS])}"
        raise CheckpointError(tensor.where, problem, "CKPT-08")
    if tensor.dtype == "F64" and wanted == np.float32:
        problem = "is F64, which float32 would round"
        raise CheckpointError(tensor.where, problem, "CKPT-08", "Load with dtype='float64'.")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.require(numbers(tensor).astype(wanted, copy=False), requirements="A")
        suspicious = not np.isfinite(array.sum())  # one fast pass; a finite sum has only finite terms
    if suspicious and not np.isfinite(array).all():
        remedy = "The file is damaged or was saved after diverging."
        raise CheckpointError(tensor.where, "holds NaN or infinity", "CKPT-12", remedy)
    return array
