"""The engine "numpy": as fast as NumPy goes.

network.py   the steps of model.py in fewer passes over memory
parts.py     a long prompt in parts, a thread each
threads.py   how many threads, and work shared among them
products.py  products of a few rows without copying the weights, where the BLAS can
layout.py    weights in the memory order that one row's product wants
"""

from dataclasses import replace

from numpy import ndarray

from refgen.cache import Cache
from refgen.engines.engine import Engine, Work
from refgen.engines.numpy.layout import laid_out
from refgen.engines.numpy.network import forward
from refgen.engines.numpy.parts import Span, in_parts
from refgen.model import GPT2, MLP, Affine, Attention, Block, silent


class NumpyEngine(Engine):
    """Long prompts in parts, weights laid out for products."""

    name = "numpy"

    def __init__(self, gpt2: GPT2) -> None:
        def turned(layer: Affine) -> Affine:
            return replace(layer, weight=laid_out(layer.weight))

        def laid(block: Block) -> Block:
            attn = Attention(turned(block.attn.c_attn), turned(block.attn.c_proj))
            return replace(block, attn=attn, mlp=MLP(turned(block.mlp.c_fc), block.mlp.act, turned(block.mlp.c_proj)))

        super().__init__(replace(gpt2, h=tuple(map(laid, gpt2.h))))

    @staticmethod
    def lay_out(name: str, weight: ndarray) -> ndarray:
        """The weights of linear maps as `laid_out` has them; embeddings and head as they are."""
        return laid_out(weight) if name.startswith("h.") and weight.ndim > 1 else weight

    def run(self, work: Work) -> ndarray:
        """The logits of the last K positions. A pass that somebody watches takes all positions at once."""
        (B, T), config = work.input_ids.shape, self.config
        past = len(work.cache)

        def run_part(start: int, end: int, span: Cache | Span) -> ndarray:
            asked = min(max(0, work.keep - (T - end)), end - start)
            ids, places = work.input_ids[:, start:end], work.position_ids[:, start:end]
            return forward(self.gpt2, ids, work.attention_mask[:, : past + end], places, span, work.note, asked)

        if work.note is silent:
            heads = (B, config.n_head, T, config.n_embd // config.n_head)
            logits = in_parts(run_part, work.cache, len(self.gpt2.h), heads, self.gpt2.wte.dtype, work.keep)
        else:
            logits = run_part(0, T, work.cache)
        work.cache.advance(T)
        return logits
