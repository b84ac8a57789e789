"""The names that `from refgen import …` offers. `refgen/__init__.py` imports this file with the first of them."""

from refgen.auto import AutoModelForCausalLM, AutoTokenizer, CausalLMOutput, GPT2LMHeadModel
from refgen.cache import Cache
from refgen.config import GPT2Config
from refgen.engines.numpy.threads import get_num_threads, set_num_threads
from refgen.errors import (
    BenchError,
    CheckpointError,
    ConfigError,
    GenerationError,
    IgnoredSettingWarning,
    InputError,
    OracleError,
    RefgenError,
    SpecError,
    TokenizerError,
)
from refgen.generation import GenerateOutput, GenerationConfig, Step, TextIteratorStreamer, TextStreamer
from refgen.tokenizer import Encoding, Tokenizer

__all__ = [
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BenchError",
    "Cache",
    "CausalLMOutput",
    "CheckpointError",
    "ConfigError",
    "Encoding",
    "GPT2Config",
    "GPT2LMHeadModel",
    "GenerateOutput",
    "GenerationConfig",
    "GenerationError",
    "IgnoredSettingWarning",
    "InputError",
    "OracleError",
    "RefgenError",
    "SpecError",
    "Step",
    "TextIteratorStreamer",
    "TextStreamer",
    "Tokenizer",
    "TokenizerError",
    "get_num_threads",
    "set_num_threads",
]
