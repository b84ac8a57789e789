"""A Hugging Face folder → GGUF in float32, for llama.cpp.

llama.cpp asks for a tokenizer; this one has the ids as words, so that the text it gives can be read as ids.
"""

from pathlib import Path

import gguf
import numpy as np

from refgen.bench.weights import read_folder

NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def renamed(name: str) -> str:
    """`h.3.attn.c_attn.weight` as `blk.3.attn_qkv.weight`."""
    stem, _, end = name.rpartition(".")
    fixed = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
    if stem in fixed:
        return f"{fixed[stem]}.{end}"
    _, layer, rest = stem.split(".", 2)
    return f"blk.{layer}.{NAMES[rest]}.{end}"


def convert(folder: Path) -> Path:
    """Writes `model.gguf` beside the weights, unless it is there."""
    path = folder / "model.gguf"
    if path.exists():
        return path
    config, tensors = read_folder(folder)
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(temporary, "gpt2")
    writer.add_name("benchmark")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"Ġ{token}" for token in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["0 1"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, tensor in tensors.items():
        linear = name.startswith("h.") and tensor.ndim == 2
        writer.add_tensor(renamed(name), np.ascontiguousarray(tensor.T) if linear else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)
    return path
