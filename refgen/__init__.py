"""refgen: the executable specification of GPT-2 text generation, in NumPy.

    from refgen import AutoModelForCausalLM, AutoTokenizer

Read `refgen/model.py` first, then `refgen/generation/loop.py`; SPEC.md has the rules they cite.
"""

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

__version__ = "0.2.0.dev0"

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
    "__version__",
    "get_num_threads",
    "set_num_threads",
]
