"""GGUF against the package gguf: what it writes is read here, and its own reading has the same bits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import GPT2LMHeadModel
from refgen.checkpoints import disassemble, gguf
from refgen.cli import main
from tests.model_folders import SEEDS, SMALL, assert_same_bits, numbers
from tests.other_formats import LINEAR, gguf_name, write_gguf
from tests.strategies import gpt2_configs, random_model

package = pytest.importorskip("gguf", reason="the package gguf is not installed")
WIDE = replace(SMALL, n_embd=32, vocab_size=40)  # rows of whole blocks
FEWER = settings(max_examples=max(15, settings().max_examples // 4))


@FEWER
@given(gpt2_configs(), SEEDS)
def test_what_the_package_writes_is_read(tmp_path_factory, config, seed):
    """CKPT-17. A model to GGUF and back: every bit of every tensor."""
    folder = tmp_path_factory.mktemp("gguf")
    model = random_model(config, seed, "float32")
    model.save_pretrained(folder / "from")
    code = main(["convert", str(folder / "from"), str(folder / "m.gguf")])
    can_say = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    assert code == (0 if can_say and config.activation_function == "gelu_new" else 2)
    if code == 2:
        assert not (folder / "m.gguf").exists()
        return
    assert_same_bits(disassemble(GPT2LMHeadModel.from_pretrained(folder / "m.gguf").gpt2), disassemble(model.gpt2))


@FEWER
@given(SEEDS, st.sampled_from(("F32", "F16", "BF16", "Q8_0")))
def test_the_package_reads_the_same_numbers(tmp_path_factory, seed, kind):
    """CKPT-13. `gguf.dequantize` of each tensor has the bits that refgen computes with."""
    file = write_gguf(tmp_path_factory.mktemp("read") / "m.gguf", WIDE, numbers(WIDE, seed=seed), kind)
    ours = disassemble(GPT2LMHeadModel.from_pretrained(file).gpt2)
    theirs = {tensor.name: tensor for tensor in package.GGUFReader(file).tensors}
    for name, array in ours.items():
        tensor = theirs[gguf_name(name)]
        found = package.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        expected = array.T if name.endswith(LINEAR) else array
        assert np.array_equal(found.reshape(expected.shape), expected), name
    assert gguf.header(file).entries["general.architecture"] == "gpt2"
