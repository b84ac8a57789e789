"""From logits to sequences: settings, processors, pick, stopping, and the one loop that uses them."""

from refgen.generation.call import generate
from refgen.generation.config import GenerationConfig
from refgen.generation.loop import Step, decode
from refgen.generation.output import GenerateOutput
from refgen.generation.streaming import TextDecoder, TextIteratorStreamer, TextStreamer

__all__ = [
    "GenerateOutput",
    "GenerationConfig",
    "Step",
    "TextDecoder",
    "TextIteratorStreamer",
    "TextStreamer",
    "decode",
    "generate",
]
