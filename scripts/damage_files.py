"""Damages checkpoints of every form, loads each, and counts: `python scripts/damage_files.py [--files 600] [--seed 0]`.

Each file must load, or be refused with one error of refgen. Anything else is printed, and the exit code is then 1. The peak memory
of each load, as counted by Python, must stay within twice the file's size plus 8 MiB.
"""

import argparse
import json
import re
import struct
import sys
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen import checkpoints  # noqa: E402
from refgen.config import GPT2Config  # noqa: E402
from refgen.errors import RefgenError  # noqa: E402
from tests.model_folders import numbers, write_safetensors  # noqa: E402
from tests.other_formats import pickled, write_gguf, write_llmc, write_older, write_zip  # noqa: E402

CONFIG = GPT2Config(
    vocab_size=500, n_positions=64, n_embd=96, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
)
SLACK = 2**23
RULE = re.compile(r"[A-Z]+-\d\d")
NAMES = {
    "safetensors": "model.safetensors",
    "zip": "pytorch_model.bin",
    "older": "pytorch_model.bin",
    "llm.c": "model.bin",
    "gguf": "model.gguf",
}


def header_of_nothing(size: int) -> bytes:
    """A safetensors file of many empty tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"t{i}": entry for i in range(size // 70)}).encode()
    return len(text).to_bytes(8, "little") + text


def zip_of_objects(size: int) -> bytes:
    """A zip archive whose pickle makes an object at each byte."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"}" * size + b".")
    return buffer.getvalue()


def zip_of_names(size: int) -> bytes:
    """A zip archive of many empty files."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        for i in range(size // 200):
            archive.writestr(f"archive/data/{i}", b"")
    return buffer.getvalue()


def older_of_objects(size: int) -> bytes:
    """The older container, whose first pickle makes an object at each byte."""
    return bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02" + b"]" * size + b"."


def gguf_of_entries(size: int) -> bytes:
    """A GGUF file that promises a million entries."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 10**6) + struct.pack("<QBIB", 1, 65, 0, 0) * (size // 14)


def llmc_of_numbers(size: int) -> bytes:
    """An llm.c file of the largest sizes."""
    return struct.pack("<ii", 20240326, 3) + b"\xff\xff\xff\x7f" * (size // 4)


FLOODS: Mapping[str, Sequence[Callable[[int], bytes]]] = {  # files that are nothing but header
    "safetensors": [header_of_nothing],
    "zip": [zip_of_objects, zip_of_names],
    "older": [older_of_objects],
    "gguf": [gguf_of_entries],
    "llm.c": [llmc_of_numbers],
}


def write_form(form: str, file: Path) -> None:
    """An undamaged file."""
    tensors = numbers(CONFIG)
    writers: dict[str, Callable[[], object]] = {
        "safetensors": lambda: write_safetensors(file, tensors),
        "zip": lambda: write_zip(file, pickled(tensors), tensors),
        "older": lambda: write_older(file, pickled(tensors), tensors),
        "llm.c": lambda: write_llmc(file, CONFIG, tensors),
        "gguf": lambda: write_gguf(file, CONFIG, tensors),
    }
    writers[form]()


def damaged(data: bytes, form: str, rng: np.random.Generator) -> bytes:
    """The file with one kind of damage, most often where its header is."""
    end = len(data)
    head = int(rng.choice([40, 400, 4000, end]))
    at = int(rng.integers(0, min(head, end)))
    if form == "zip" and rng.random() < 0.5:
        at = end - 1 - at  # its list of files is at the end
    length = int(rng.choice([1, 2, 4, 8, 64]))
    noise, flip = rng.bytes(length), bytes([data[at] ^ (1 << int(rng.integers(0, 8)))])
    flood = FLOODS[form][int(rng.integers(0, len(FLOODS[form])))]
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:at],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at] + noise + data[at:],
        lambda: data[:at] + noise + data[at + length :],
        lambda: data[:at] + b"\xff" * length + data[at + length :],
        lambda: data[:at] + b"\0" * length + data[at + length :],
        lambda: data[:at] + flip + data[at + 1 :],
        lambda: data + noise,
        lambda: flood(int(rng.integers(10, 3_000_000))),
    ]
    return kinds[int(rng.integers(0, len(kinds)))]()


def load_one(path: Path) -> tuple[str, int]:
    """What happened, and the most memory that it took."""
    tracemalloc.start()
    try:
        checkpoints.load(path)
        outcome = "loaded"
    except RefgenError as error:
        outcome = error.rule if len(str(error)) < 1500 and "\n" not in str(error) else "a long error"
    except Exception as error:  # noqa: BLE001 - what is counted here
        outcome = f"{type(error).__name__}: {error}"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return outcome, peak


def run(files: int, seed: int) -> tuple[Counter[str], list[str], float]:
    """How often which outcome came, what was wrong, and the largest share of memory to the file."""
    rng, counts, wrong, share = np.random.default_rng(seed), Counter[str](), list[str](), 0.0
    with tempfile.TemporaryDirectory() as name:
        for number in range(files):
            form = list(NAMES)[number % len(NAMES)]
            folder = Path(name) / form
            folder.mkdir(exist_ok=True)
            (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
            file = folder / NAMES[form]
            write_form(form, file)
            file.write_bytes(damaged(file.read_bytes(), form, rng))
            outcome, peak = load_one(file)
            counts[f"{form}: {outcome}"] += 1
            share = max(share, max(0, peak - SLACK) / max(1, file.stat().st_size))
            if not (outcome == "loaded" or RULE.fullmatch(outcome)):
                wrong.append(f"file {number}, {form}: {outcome}")
            if peak > 2 * file.stat().st_size + SLACK:
                wrong.append(f"file {number}, {form}: {peak} bytes for a file of {file.stat().st_size}")
    return counts, wrong, share


def main() -> int:
    """Counts and faults, on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts, wrong, share = run(options.files, options.seed)
    for outcome, count in sorted(counts.items()):
        print(f"{count:5d}  {outcome}")
    print(
        f"{options.files} files, seed {options.seed}: {len(wrong)} wrong, memory beyond 8 MiB at most {share:.2f} of the file"
    )
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
