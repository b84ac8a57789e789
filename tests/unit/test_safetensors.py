"""safetensors: one file or shards with an index; whatever is damaged is refused by name."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from refgen import CheckpointError, RefgenError
from refgen.checkpoints import tensor_shapes
from tests.model_folders import (
    SEEDS,
    SMALL,
    assert_same_bits,
    load,
    numbers,
    with_head,
    write,
    write_shards,
)

# --- Files that are broken --------------------------------------------------------------------------------


@given(data=st.data())
def test_a_truncated_file_is_refused(fresh, data):
    """CKPT-09. A file cut off anywhere, in the header or in the numbers, is not whole; nor is one with more behind."""
    folder = write(fresh(), numbers())
    whole = (folder / "model.safetensors").read_bytes()
    end = data.draw(st.integers(0, len(whole) - 1))
    (folder / "model.safetensors").write_bytes(data.draw(st.sampled_from((whole[:end], whole + b"\0"))))
    path = re.escape(str(folder / "model.safetensors"))
    with pytest.raises(CheckpointError, match=rf"^{path}: is not a whole safetensors file \(.*\) \[CKPT-09\]\. Fetch"):
        load(folder)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_refused(fresh, garbage):
    """CKPT-09. Whatever bytes stand in the weights file, the answer is a `CheckpointError`."""
    folder = write(fresh(), {})
    (folder / "model.safetensors").write_bytes(garbage)
    with pytest.raises(CheckpointError, match=r"is not a whole safetensors file"):
        load(folder)


@given(data=st.data(), byte=st.sampled_from(b'0129 "[]{}:,FhtT\0\xff'))
def test_a_damaged_header_never_changes_the_model(fresh, data, byte):
    """One wrong byte in a header is refused, or it stands where it means nothing."""
    tensors = numbers()
    folder = write(fresh(), tensors)
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[data.draw(st.integers(0, 7 + int.from_bytes(whole[:8], "little")))] = byte
    (folder / "model.safetensors").write_bytes(whole)
    try:
        loaded = load(folder)
    except RefgenError:
        return
    assert_same_bits(loaded, with_head(tensors))


# --- Shards and their index -------------------------------------------------------------------------------

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@given(data=st.data(), seed=SEEDS)
def test_shards_load_like_one_file(fresh, data, seed):
    """Tensors spread over files in any way load as if they lay in one."""
    tensors = numbers(seed=seed)
    names = st.sampled_from(
        ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "rest.safetensors")
    )
    shards: dict[str, dict[str, ndarray]] = {}
    for name, array in tensors.items():
        shards.setdefault(data.draw(names), {})[f"transformer.{name}"] = array
    assert_same_bits(load(write_shards(fresh(), shards)), with_head(tensors))


def test_one_file_goes_before_shards(tmp_path):
    """Where `model.safetensors` stands beside an index, it is the model."""
    old, new = numbers(seed=1), numbers(seed=2)
    write_shards(tmp_path, {"a.safetensors": old})
    assert_same_bits(load(write(tmp_path, new)), with_head(new))


def halves() -> dict[str, dict[str, ndarray]]:
    """The small model in two files."""
    tensors = list(numbers().items())
    return {FIRST: dict(tensors[:10]), SECOND: dict(tensors[10:])}


def test_a_missing_shard_is_refused(tmp_path):
    """CKPT-09. The file that the index names and the folder lacks is in the error."""
    write_shards(tmp_path, halves())
    (tmp_path / SECOND).unlink()
    path = re.escape(str(tmp_path / SECOND))
    with pytest.raises(
        CheckpointError, match=rf"^{path}: is not a whole safetensors file \(.*No such file.*\) \[CKPT-09\]"
    ):
        load(tmp_path)


@given(name=st.sampled_from(sorted(tensor_shapes(SMALL))))
def test_a_tensor_that_only_the_index_has_is_refused(fresh, name):
    """CKPT-09. The index promises a tensor that its file does not hold."""
    shards = halves()
    listed = {name: shard for shard, tensors in shards.items() for name in tensors}
    del shards[listed[name]][name]
    expected = f"{listed[name]}: tensor {name}: is missing although model.safetensors.index.json lists it [CKPT-09]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write_shards(fresh(), shards, listed))


@given(name=st.sampled_from(sorted(tensor_shapes(SMALL))), elsewhere=st.booleans())
def test_a_tensor_that_the_index_lacks_is_refused(fresh, name, elsewhere):
    """CKPT-09. A tensor in a file where the index does not put it is an error, in the wrong file too."""
    shards = halves()
    listed = {name: shard for shard, tensors in shards.items() for name in tensors}
    holder = listed.pop(name)
    if elsewhere:
        listed[name] = SECOND if holder == FIRST else FIRST
    expected = f"{holder}: tensor {name}: is not listed there, or twice, in model.safetensors.index.json [CKPT-09]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write_shards(fresh(), shards, listed))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    """CKPT-09. Neither copy is taken for the right one."""
    shards = halves()
    shards[SECOND]["wte.weight"] = shards[FIRST]["wte.weight"]
    with pytest.raises(CheckpointError, match=r"tensor wte\.weight: is not listed there, or twice, in"):
        load(write_shards(tmp_path, shards))


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"wte.weight": 1}}])
def test_an_index_without_a_weight_map_is_refused(tmp_path, index):
    """CKPT-09. The index must say where each tensor lies."""
    write_shards(tmp_path, halves())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json: has no weight_map from tensor names to files \[CKPT-09\]"):
        load(tmp_path)
