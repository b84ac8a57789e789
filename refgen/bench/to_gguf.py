"""A Hugging Face folder → GGUF in float32, for llama.cpp.

llama.cpp asks for a tokenizer. The benchmark's has the ids as words, so that the text it gives can be read as ids; a server
under test has the folder's own.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from refgen.bench.weights import read_folder
from refgen.tokenizer import Tokenizer

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


@dataclass(frozen=True)
class Words:
    """What llama.cpp needs to know of a byte-level BPE, in the stand-in characters of TOK-04."""

    tokens: list[str]  # by id
    special: frozenset[int]
    merges: list[str]  # "a b", most urgent first
    end: int


def ids_as_words(vocab_size: int) -> Words:
    """A vocabulary in which each token is its own number with a space before."""
    return Words([f"Ġ{token}" for token in range(vocab_size)], frozenset(), ["0 1"], 0)


def words_of(folder: Path) -> Words:
    """The folder's own, from its `tokenizer.json`; without an end token the last one is that."""
    tokenizer = Tokenizer.from_pretrained(folder)
    entries = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [each if isinstance(each, str) else " ".join(each) for each in entries["model"]["merges"]]
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    end = len(tokens) - 1 if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    return Words(tokens, frozenset(tokenizer.skipped_ids), merges, end)


def convert(folder: Path) -> Path:
    """Writes `model.gguf` for the benchmark beside the weights, unless it is there."""
    path = folder / "model.gguf"
    if not path.exists():
        write(folder, path)
    return path


def write(folder: Path, path: Path, words: Words | None = None) -> None:
    """The model of `folder` as GGUF at `path`, with that vocabulary or ids as words."""
    config, tensors = read_folder(folder)
    words = ids_as_words(config.vocab_size) if words is None else words
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(temporary, "gpt2")
    writer.add_name(folder.name)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens)
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[token in words.special] for token in range(config.vocab_size)])
    writer.add_token_merges(words.merges or ["0 1"])  # llama.cpp asks for one
    writer.add_eos_token_id(words.end)
    writer.add_bos_token_id(words.end)
    writer.add_add_bos_token(False)
    for name, tensor in tensors.items():
        linear = name.startswith("h.") and tensor.ndim == 2
        writer.add_tensor(renamed(name), np.ascontiguousarray(tensor.T) if linear else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)
