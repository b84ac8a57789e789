"""Processors: logits in, scores out, one function a rule. Begin with `sampling.py`; `order.py` says which come when.

Every function takes and returns float32 `[B V]` and changes nothing in place. A removed token scores -inf and
stays removed (WARP-02). A processor at its neutral value is left out (PROC-05).

Axes    B rows, V tokens, S columns so far.
"""

from collections.abc import Callable, Sequence

from numpy import ndarray

Processor = Callable[[ndarray, ndarray], ndarray]  # (ids [B S], scores [B V]) -> scores [B V]
AllowedTokens = Callable[[int, ndarray], Sequence[int]]  # (row, its ids [S]) -> the ids that may come next
