"""The engine "canonical": the same float32 bits on every machine. Rules CANON-01 to CANON-09 of SPEC.md.

It is model.py on other numbers: numbers.py rounds every operation once, to the nearest float32, and rounding.py finds that
number quickly. Then no order of additions, no BLAS, no thread, no batch and no cache is left for the result to depend on.
"""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from refgen.engines.canonical.numbers import canonical, kept
from refgen.engines.engine import Engine, Work
from refgen.errors import ConfigError
from refgen.model import GPT2, MLP, Affine, Attention, Block, forward


class CanonicalEngine(Engine):
    """CANON-01. Float32 numbers rounded once. Raises `ConfigError` unless the weights are float32."""

    name = "canonical"

    def __init__(self, gpt2: GPT2) -> None:
        if gpt2.wte.dtype != np.float32:
            raise ConfigError(
                "engine='canonical'",
                f"computes in float32, and the weights are {gpt2.wte.dtype}",
                "CANON-01",
                "Load with dtype='float32'.",
            )

        def made(layer: Affine) -> Affine:
            return replace(layer, weight=kept(layer.weight))

        def ready(block: Block) -> Block:
            attn = Attention(made(block.attn.c_attn), made(block.attn.c_proj))
            return replace(block, attn=attn, mlp=MLP(made(block.mlp.c_fc), block.mlp.act, made(block.mlp.c_proj)))

        super().__init__(gpt2)
        head = kept(gpt2.lm_head, is_head=True)
        self._canonical = replace(gpt2, wte=canonical(gpt2.wte), h=tuple(map(ready, gpt2.h)), lm_head=head)

    def run(self, work: Work) -> ndarray:
        """The last of all logits, as plain numbers."""
        ids, places = work.input_ids, work.position_ids
        logits = forward(self._canonical, ids, work.attention_mask, places, work.cache, work.note)
        return logits.view(ndarray)[:, -work.keep :]
