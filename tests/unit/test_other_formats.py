"""Weights in other forms than safetensors: every form gives the numbers that it holds, and nothing of a file is ever run."""

import pickle
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import CheckpointError, GPT2LMHeadModel, checkpoints
from refgen.checkpoints import gguf
from tests.model_folders import SEEDS, SMALL, assert_same_bits, load, numbers, with_head, write
from tests.other_formats import (
    LINEAR,
    bytes_of,
    number,
    pickled,
    text,
    value_of,
    whole,
    write_gguf,
    write_llmc,
    write_older,
    write_zip,
)

WIDE = replace(SMALL, n_embd=32, vocab_size=40)  # rows of whole blocks


@pytest.mark.parametrize("write_file", [write_zip, write_older])
@given(seed=SEEDS)
def test_a_torch_file_gives_its_numbers(fresh, write_file, seed):
    """CKPT-16. A zip archive and the older container, written without torch."""
    tensors = numbers(seed=seed)
    folder = write(fresh(), {})
    (folder / "model.safetensors").unlink()
    write_file(folder / "pytorch_model.bin", pickled(tensors), tensors)
    assert_same_bits(load(folder), with_head(tensors))


@given(seed=SEEDS, version=st.sampled_from((1, 3, 5)))
def test_an_llmc_file_gives_its_numbers(fresh, seed, version):
    """CKPT-17. F32 padded or not, and BF16; the rows that pad the vocabulary are left out."""
    tensors = numbers(seed=seed)
    folder = fresh()
    folder.mkdir()
    file = write_llmc(folder / "gpt2_124M.bin", SMALL, tensors, version)
    expected = {name: value_of(tensor, "BF16" if version == 5 else "F32") for name, tensor in tensors.items()}
    assert_same_bits(load(file), with_head(expected))


@given(seed=SEEDS, kind=st.sampled_from(("F32", "F16", "BF16", "Q8_0")), untied=st.booleans(), again=st.booleans())
def test_a_gguf_file_gives_its_numbers(fresh, seed, kind, untied, again):
    """CKPT-13, CKPT-17. Each format of numbers, exactly; a head that is written again is tied, another is not."""
    config = replace(WIDE, tie_word_embeddings=not untied)
    tensors = numbers(config, seed=seed)
    folder = fresh()
    folder.mkdir()
    write_gguf(folder / "model.gguf", config, tensors, kind, again=again and not untied)
    expected = {
        name: value_of(tensor.T, kind).T
        if name.endswith(LINEAR)
        else value_of(tensor, kind if tensor.ndim == 2 else "F32")
        for name, tensor in tensors.items()
    }
    model = GPT2LMHeadModel.from_pretrained(folder)
    assert model.config.tie_word_embeddings is not untied
    assert_same_bits(load(folder), {name: np.ascontiguousarray(each) for name, each in with_head(expected).items()})
    assert (model.config.n_positions, model.config.n_head, model.config.inner) == (5, 2, 128)


def test_every_block_of_eight_bits_is_exact():
    """CKPT-13. Every scale of F16 times every number of 8 bits is a float32."""
    scales = np.arange(2**16, dtype="<u2").view("<f2")
    scales = scales[np.isfinite(scales)]
    values = np.arange(-128, 128, dtype="i1")
    for part in values.reshape(8, 32):
        blocks = np.empty(len(scales), [("scale", "<f2"), ("numbers", "i1", 32)])
        blocks["scale"], blocks["numbers"] = scales, part
        found = checkpoints.stored.dequantized(np.frombuffer(blocks.tobytes(), np.uint8))
        expected = scales.astype("f8")[:, None] * part
        assert np.array_equal(found.reshape(-1, 32).astype("f8"), expected)


def test_the_vocabulary_of_a_gguf_file(tmp_path):
    """CKPT-17. Tokens and merges are passed over by the weights' reader and read when they are asked for."""
    tokens, merges = [f"t{i}" for i in range(40)], ["a b", "ab c"]
    entries = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 3,
    }
    file = write_gguf(tmp_path / "m.gguf", WIDE, numbers(WIDE), entries=entries)
    assert gguf.vocabulary(file) == (tokens, merges)
    assert GPT2LMHeadModel.from_pretrained(file).generation_config.eos_ids == (3,)


# --- Hostile pickles --------------------------------------------------------------------------------------

RAN = []


class Runs:
    """An object whose pickle calls a function."""

    def __reduce__(self):
        return RAN.append, (1,)


TENSORS = numbers()
GOOD = pickled(TENSORS)
SYSTEM = b"cos\nsystem\n(" + text("true") + b"tR"
HOSTILE = {
    "a function": pickle.dumps(Runs(), 2),
    "os.system": b"\x80\x02" + SYSTEM + b".",
    "os.system inside": GOOD[:-2] + text("x") + SYSTEM + b"u.",
    "eval": b"\x80\x02cbuiltins\neval\n" + text("1") + b"\x85R.",
    "getattr": b"\x80\x02cbuiltins\ngetattr\nctorch._utils\n_rebuild_tensor_v2\n" + text("__globals__") + b"\x86R.",
    "a name with dots": b"\x80\x04" + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
    "stack global": b"\x80\x04" + text("os") + text("system") + b"\x93.",
    "an instance": b"(ios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\no.",
    "newobj": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "newobj with keywords": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "an extension": b"\x80\x02\x82\x01.",
    "a state on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__defaults__") + b")sb.",
    "a state on a list": b"\x80\x02]}b.",
    "a name that is called": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "a call without a tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "a persistent id of text": b"\x80\x02P1\n.",
    "a buffer of elsewhere": b"\x80\x05\x97.",
    "a set": b"\x80\x04\x8f.",
    "deep tuples as a key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a memo far away": b"\x80\x02]r\xff\xff\xff\xffh\x01.",
    "a long frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a text of a terabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "bytes of a terabyte": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a number of many digits": b"\x80\x02L" + b"9" * 50_000 + b"L\n.",
    "too many objects": b"\x80\x02" + b"}" * 500_000 + b".",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "no end": GOOD[:-1],
    "nothing": b"",
    "an empty stack": b"\x80\x02.",
    "a mark that is not there": b"\x80\x02t.",
    "an odd number of items": b"\x80\x02}(Nu.",
    "a tensor of no storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00"
    + whole([1])
    + whole([1])
    + b"\x89NtR.",
}


def hostile(change):
    """The pickle with the first tensor changed."""
    tensor = next(iter(TENSORS.values()))
    plain = text("cpu") + number(tensor.size) + b"tQK\x00" + whole(tensor.shape) + whole((4, 1))
    assert GOOD.count(plain) == 1
    return GOOD.replace(plain, text("cpu") + change)


HOSTILE |= {
    "longer than its storage": hostile(number(28) + b"tQK\x00" + whole((7, 5)) + whole((5, 1))),
    "one number behind its storage": hostile(number(28) + b"tQK\x01" + whole((7, 4)) + whole((4, 1))),
    "before its storage": hostile(number(28) + b"tQJ\xff\xff\xff\xff" + whole((7, 4)) + whole((4, 1))),
    "a negative stride": hostile(number(28) + b"tQK\x00" + whole((7, 4)) + whole((-4, 1))),
    "a storage too short": hostile(number(2**30) + b"tQK\x00" + whole((7, 4)) + whole((4, 1))),
    "one number again and again": hostile(number(28) + b"tQK\x00" + whole((2**30, 4)) + whole((0, 1))),
    "a huge empty shape": hostile(number(28) + b"tQK\x00" + whole((0, 2**30)) + whole((1, 1))),
}


@pytest.mark.parametrize("write_file", [write_zip, write_older])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_error(tmp_path, write_file, name):
    """CKPT-16. Whatever a pickle asks for, nothing of it runs, nothing of refgen changes, and the answer is one `CheckpointError`."""
    folder = write(tmp_path, {})
    (folder / "model.safetensors").unlink()
    write_file(folder / "pytorch_model.bin", HOSTILE[name], TENSORS)
    with pytest.raises(CheckpointError, match=r"\[CKPT-(16|06)\]"):
        load(folder)
    assert not RAN
    write_file(folder / "pytorch_model.bin", GOOD, TENSORS)
    assert_same_bits(load(folder), with_head(TENSORS))


@pytest.mark.parametrize("name", ["os.system", "os.system inside", "stack global"])
def test_the_error_names_what_a_pickle_asks_for(tmp_path, name):
    """CKPT-16. A name is refused before anybody calls it, and the error says which."""
    file = write_zip(tmp_path / "pytorch_model.bin", HOSTILE[name], TENSORS)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"holds os\.system, which is neither a tensor nor a container of tensors \[CKPT-16\]"
    ):
        load(file)


def test_a_compressed_archive_is_refused(tmp_path):
    """CKPT-16. torch does not compress, and what unpacks to more than the file is not unpacked."""
    folder = write(tmp_path, {})
    (folder / "model.safetensors").unlink()
    write_zip(folder / "pytorch_model.bin", GOOD, TENSORS, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"is not a whole file of torch\.save \(.* is compressed\) \[CKPT-16\]"):
        load(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"general.architecture": "llama"}, r"general\.architecture='llama': must be 'gpt2' \[CKPT-13\]"),
        ({"gpt2.attention.head_count": None}, r"is not a whole GGUF file|lacks gpt2\.attention\.head_count \[CKPT-17\]"),
        ({"gpt2.block_count": 3}, r"12 tensors missing: .* \[CKPT-05\]\. The file has 2 layers"),
        ({"gpt2.context_length": 6}, r"has shape \[5, 32\], must have \[6, 32\] \[CKPT-06\]\. The configuration says n_positions=6"),
        ({"general.alignment": 0}, r"is not a whole GGUF file \(an alignment"),
    ],
)  # fmt: skip
def test_a_gguf_file_that_is_none_is_refused(tmp_path, entries, message):
    """CKPT-13, CKPT-17. Another architecture, sizes that are missing or at odds."""
    with pytest.raises(CheckpointError, match=message):
        load(write_gguf(tmp_path / "m.gguf", WIDE, numbers(WIDE), entries=entries))


def test_another_format_of_numbers_is_refused(tmp_path):
    """CKPT-08, CKPT-13. Numbers of 4 bits stay unread; the error names the format."""
    file = write_gguf(tmp_path / "m.gguf", WIDE, numbers(WIDE), "Q8_0")
    data = file.read_bytes()
    place = data.index(b"token_embd.weight") + 17 + 4 + 16
    file.write_bytes(data[:place] + struct.pack("<I", 2) + data[place + 4 :])
    with pytest.raises(
        CheckpointError, match=r"token_embd|tensor wte\.weight: is GGUF's format 2, must be one of .* \[CKPT-08\]"
    ):
        load(file)


@pytest.mark.parametrize(("place", "value", "message"), [
    (4, 2, r"is version 2 of llm\.c's files, must be one of 1, 3, 5 \[CKPT-17\]"),
    (12, 9, r"has \d+ bytes, must have \d+ for its sizes|CKPT-17"),
    (16, 3, r"has \d+ bytes, must have \d+ for its sizes \[CKPT-17\]"),
    (24, -4, r"has impossible sizes: .* \[CKPT-17\]"),
])  # fmt: skip
def test_an_llmc_file_that_is_none_is_refused(tmp_path, place, value, message):
    """CKPT-17. Sizes that the length of the file contradicts."""
    file = write_llmc(tmp_path / "m.bin", SMALL, numbers())
    data = bytearray(file.read_bytes())
    data[place : place + 4] = struct.pack("<i", value)
    if place == 12:
        data[28:32] = struct.pack("<i", 8)  # fewer rows than tokens
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load(file)


def test_two_files_of_weights_are_refused(tmp_path):
    """CKPT-09. Which of them is meant is for the caller to say."""
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, WIDE, numbers(WIDE))
    with pytest.raises(
        CheckpointError,
        match=r"holds 2 files of weights: a\.gguf, b\.gguf \[CKPT-09\]\. Give one of them, such as .*a\.gguf\.",
    ):
        load(tmp_path)


def test_the_writers_of_these_tests_cut_and_do_not_round():
    """The formats of the test's files stand for what they should."""
    numbers_ = np.linspace(-3, 3, 64, dtype="f4").reshape(2, 32)
    for kind, error in (("F32", 0), ("F16", 2e-3), ("BF16", 2e-2), ("Q8_0", 4e-2)):
        assert np.abs(value_of(numbers_, kind) - numbers_).max() <= error
        assert len(bytes_of(numbers_, kind)) == {"F32": 256, "F16": 128, "BF16": 128, "Q8_0": 68}[kind]
