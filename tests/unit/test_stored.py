"""Tensors as they lie in files: every number is widened exactly, and what is no finite weight in its shape is refused."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from refgen import CheckpointError
from refgen.checkpoints import tensor_shapes
from tests.model_folders import SEEDS, SMALL, Raw, assert_same_bits, load, numbers, with_head, write

# --- Sixteen-bit files ------------------------------------------------------------------------------------

PATTERNS = np.arange(2**16, dtype="<u2")


def value_of(patterns: ndarray, exponent_bits: int) -> ndarray:
    """The float64 values of 16-bit patterns, from the definition: sign, exponent, fraction."""
    fraction_bits = 15 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    bits = patterns.astype(np.int64)
    exponent, fraction = bits >> fraction_bits & (2**exponent_bits - 1), bits & (2**fraction_bits - 1)
    normal = np.ldexp(1 + fraction / 2**fraction_bits, exponent - bias)
    subnormal = np.ldexp(fraction / 2**fraction_bits, 1 - bias)
    return np.where(bits >> 15 == 1, -1.0, 1.0) * np.where(exponent > 0, normal, subnormal)


def is_finite(patterns: ndarray, exponent_bits: int) -> ndarray:
    """Whether the exponent is not all ones."""
    return (patterns >> (15 - exponent_bits) & (2**exponent_bits - 1)) != 2**exponent_bits - 1


@pytest.mark.parametrize(("code", "exponent_bits", "count"), [("F16", 5, 63488), ("BF16", 8, 65280)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_sixteen_bit_number_is_widened_exactly(tmp_path, code, exponent_bits, count, dtype):
    """CKPT-08. All finite patterns, subnormals and both zeros among them, become the very value they stand for."""
    patterns = PATTERNS[is_finite(PATTERNS, exponent_bits)]
    assert len(patterns) == count
    config = replace(SMALL, vocab_size=count // 4)
    tensors: dict[str, Any] = dict(numbers(config))
    tensors["wte.weight"] = Raw(code, (count // 4, 4), patterns.tobytes())
    loaded = load(write(tmp_path, tensors, config), dtype)["wte.weight"]
    assert loaded.dtype == dtype
    assert loaded.astype("float64").tobytes() == value_of(patterns, exponent_bits).tobytes()


# --- Numbers that are no weights --------------------------------------------------------------------------


@given(
    kind=st.sampled_from((("F16", "<u2", 5, 10), ("BF16", "<u2", 8, 7), ("F32", "<u4", 8, 23), ("F64", "<u8", 11, 52))),
    negative=st.booleans(),
    data=st.data(),
)
def test_nan_and_infinity_are_refused(fresh, kind, negative, data):
    """CKPT-12. A number whose exponent is all ones, in any place of any tensor, is an error that names the tensor."""
    code, dtype, exponent_bits, fraction_bits = kind
    pattern = (int(negative) << exponent_bits | (2**exponent_bits - 1)) << fraction_bits
    pattern |= data.draw(st.integers(0, 2**fraction_bits - 1))  # infinity, signalling NaN, quiet NaN
    tensors: dict[str, Any] = dict(numbers())
    name = data.draw(st.sampled_from(sorted(tensors)))
    bits = np.zeros(tensors[name].shape, dtype)
    bits.flat[data.draw(st.integers(0, bits.size - 1))] = pattern
    tensors[name] = Raw(code, bits.shape, bits.tobytes())
    with pytest.raises(
        CheckpointError, match=rf"tensor {re.escape(name)}: holds NaN or infinity \[CKPT-12\]\. The file is damaged"
    ):
        load(write(fresh(), tensors), "float64")


@pytest.mark.parametrize("values", [(np.inf, -np.inf), (3e38, 3e38), (1e38, -3e38)])
def test_large_numbers_are_not_taken_for_infinite_ones(tmp_path, values):
    """Numbers whose sum overflows load; infinities whose sum is NaN do not."""
    tensors = numbers()
    tensors["wte.weight"][3] = [*values, *values]
    write(tmp_path, tensors)
    if np.isinf(values[0]):
        with pytest.raises(CheckpointError, match=r"wte\.weight: holds NaN or infinity"):
            load(tmp_path)
    else:
        assert_same_bits(load(tmp_path), with_head(tensors))


@given(data=st.data(), code=st.sampled_from((("I64", 8), ("U8", 1), ("F8_E4M3", 1), ("BOOL", 1))))
def test_a_dtype_that_is_no_float_is_refused(fresh, data, code):
    """CKPT-08. Integers and 8-bit floats are not weights that refgen reads."""
    tensors: dict[str, Any] = dict(numbers())
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensors[name] = Raw(code[0], tensors[name].shape, bytes(tensors[name].size * code[1]))
    expected = f"model.safetensors: tensor {name}: is {code[0]}, must be one of F32, F16, BF16, F64, Q8_0 [CKPT-08]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load(write(fresh(), tensors))


# --- What is computed in ----------------------------------------------------------------------------------


def test_float64_files_are_not_rounded(tmp_path):
    """CKPT-08. An F64 tensor loads for float64 and is refused for float32."""
    tensors = numbers(dtype="float64")
    write(tmp_path, tensors)
    assert_same_bits(load(tmp_path, "float64"), with_head(tensors))
    expected = r"is F64, which float32 would round \[CKPT-08\]\. Load with dtype='float64'\.$"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor wte\.weight: {expected}"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "auto", ">f4", "", "f4,f4", None, object(), 3])
def test_other_computing_dtypes_are_refused(tmp_path, dtype):
    """CKPT-08. refgen computes in float32 and float64 only, and guesses neither."""
    write(tmp_path, numbers())
    expected = r": must be 'float32' or 'float64' \[CKPT-08\]\. 16-bit files load exactly into float32\.$"
    with pytest.raises(CheckpointError, match=f"^dtype={re.escape(repr(dtype))}{expected}"):
        load(tmp_path, dtype)


# --- Places and shapes ------------------------------------------------------------------------------------


@given(seed=SEEDS, shift=st.integers(0, 8), stored=st.sampled_from(("f2", "f4", "f8")))
def test_numbers_load_from_any_place_in_the_file(fresh, seed, shift, stored):
    """A header of any length, so that no number lies at a multiple of its size, changes nothing."""
    tensors = numbers(SMALL, stored, seed)
    loaded = load(write(fresh(), tensors, shift=shift), "float64")
    assert_same_bits(loaded, {name: array.astype("float64") for name, array in with_head(tensors).items()})
    assert all(array.flags.aligned for array in loaded.values())


@given(data=st.data())
def test_a_wrong_shape_is_refused(fresh, data):
    """CKPT-06. A tensor with a transposed, longer or flattened shape is named with both shapes."""
    tensors: dict[str, ndarray] = numbers()
    name = data.draw(st.sampled_from([name for name, shape in tensor_shapes(SMALL).items() if shape != shape[::-1]]))
    shape = tensors[name].shape
    tensors[name] = data.draw(st.sampled_from((tensors[name].T, tensors[name].ravel(), tensors[name][None])))
    folder = write(fresh(), tensors)
    expected = f"has shape {list(tensors[name].shape)}, must have {list(shape)} [CKPT-06]. Linear weights are stored [in, out]."
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'model.safetensors: tensor {name}: {expected}')}$"):
        load(folder)
