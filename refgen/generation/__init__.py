"""From logits to sequences: settings, processors, pick, stopping, and the one loop that uses them.

The way of one call, file by file:

    call.py       what is passed
    settle.py     the settings it means; config.py has a line for each setting
    prompt.py     the rows before the first step
    prepare.py    the parts made ready: cache, processors, stopping conditions, pick, logits
    loop.py       logits, scores, pick, append, stop
    generate.py   the steps collected
    output.py     the result

To learn how text is sampled, read loop.py, next_logits.py, pick.py and processors/sampling.py.
"""

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
]
