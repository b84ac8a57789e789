"""The engine "plain": model.py itself."""

from numpy import ndarray

from refgen.engines.engine import Engine, Work
from refgen.model import forward


class PlainEngine(Engine):
    """The definition, run as it is written."""

    name = "plain"

    def run(self, work: Work) -> ndarray:
        """The last of all logits."""
        logits = forward(self.gpt2, work.input_ids, work.attention_mask, work.position_ids, work.cache, work.note)
        return logits[:, -work.keep :]
