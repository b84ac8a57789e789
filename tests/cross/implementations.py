"""Correct implementations of GPT-2 in float32, float16 and bfloat16, to be judged: torch in many ways, and NumPy in other orders.

Each takes a refgen model (float32), ids `[T]` and a dtype's name, and gives logits `[T V]` in float64.
"""

import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from refgen import Cache
from refgen.engines import find_engine
from refgen.model import forward
from refgen.oracle.formats import FORMATS, cast, nearest
from tests.cross.torch_twin import torch_twin
from tests.stepping import Sequential


@contextmanager
def torch_model(model, dtype, attention):
    """The twin, with its weights in `dtype`."""
    twin = torch_twin(model).to(getattr(torch, dtype))
    twin.set_attn_implementation(attention)
    with torch.no_grad():
        yield twin


def whole(attention):
    """All positions at once, one row."""

    def run(model, ids, dtype):
        with torch_model(model, dtype, attention) as twin:
            return twin(torch.tensor(ids[None])).logits[0].double().numpy()

    return run


def without_onednn(model, ids, dtype):
    """torch's own loops instead of the processor maker's library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of graphics cards
        with torch.backends.mkldnn.flags(enabled=False):
            return whole("sdpa")(model, ids, dtype)


def in_a_batch(attention):
    """As row 3 of 8."""

    def run(model, ids, dtype):
        batch = np.random.default_rng(0).integers(0, model.config.vocab_size, (8, len(ids)))
        batch[3] = ids
        with torch_model(model, dtype, attention) as twin:
            return twin(torch.tensor(batch)).logits[3].double().numpy()

    return run


def left_padded(attention):
    """Behind as many pads as there is room for, at most 5."""

    def run(model, ids, dtype):
        pads = min(5, model.config.n_positions - len(ids))
        padded = torch.tensor(np.pad(ids, (pads, 0))[None])
        mask = torch.tensor(np.pad(np.ones_like(ids), (pads, 0))[None])
        places = torch.tensor(np.pad(np.arange(len(ids)), (pads, 0))[None])
        with torch_model(model, dtype, attention) as twin:
            return twin(padded, attention_mask=mask, position_ids=places).logits[0, pads:].double().numpy()

    return run


def cached(attention, first=1):
    """`first` positions at once and then one by one, with a cache."""

    def run(model, ids, dtype):
        with torch_model(model, dtype, attention) as twin:
            out = twin(torch.tensor(ids[None, :first]), use_cache=True)
            logits, cache = [out.logits[0]], out.past_key_values
            steps = (torch.tensor([[each]]) for each in ids[first:])
            logits += [twin(step, past_key_values=cache, use_cache=True).logits[0] for step in steps]
            return torch.cat(logits).double().numpy()

    return run


def refgen_itself(model, ids, dtype):
    """refgen, all at once."""
    return model(ids[None]).logits[0].astype(np.float64)


def refgen_cached(model, ids, dtype):
    """refgen, one by one."""
    cache = Cache()
    return np.concatenate([model([[each]], past_key_values=cache).logits[0] for each in ids]).astype(np.float64)


def refgen_canonical(model, ids, dtype):
    """refgen, every operation rounded once."""
    return find_engine("canonical")(model.gpt2).forward(ids[None])[0].astype(np.float64)


def sequential(model, ids, dtype):
    """NumPy, sums one term after the other."""
    wte = model.gpt2.wte.view(Sequential)
    return np.asarray(forward(replace(model.gpt2, wte=wte), ids[None])[0]).astype(np.float64)


class Stored(np.ndarray):
    """Float64 numbers, every operation on which is rounded to `form`: an implementation that stores all it computes."""

    form = None

    def __array_finalize__(self, origin):
        self.form = getattr(origin, "form", None)

    def __array_ufunc__(self, ufunc, method, *operands, out=None, **options):
        plain = [each.view(np.ndarray) if isinstance(each, Stored) else each for each in operands]
        y = nearest(getattr(ufunc, method)(*plain, **options).astype(np.float64), self.form)
        if out is not None:
            out[0].view(np.ndarray)[...] = y
            return out[0]
        y = y.view(Stored)
        y.form = self.form
        return y

    def __array_function__(self, function, types, arguments, options):
        result = super().__array_function__(function, types, arguments, options)
        if type(result) is np.ndarray:
            result = result.view(Stored)
            result.form = self.form
        return result


def operation_by_operation(model, ids, dtype):
    """NumPy, every single operation rounded to the format, sums too but not what they add up."""
    network = cast(model.gpt2, dtype)
    wte = network.wte.view(Stored)
    wte.form = FORMATS[dtype]
    return np.asarray(forward(replace(network, wte=wte), ids[None])[0])


ANY_DTYPE = {
    "torch eager": whole("eager"),
    "torch sdpa": whole("sdpa"),
    "torch without oneDNN": without_onednn,
    "torch eager, batch of 8": in_a_batch("eager"),
    "torch sdpa, batch of 8": in_a_batch("sdpa"),
    "torch eager, left-padded": left_padded("eager"),
    "torch sdpa, left-padded": left_padded("sdpa"),
    "torch eager, cached": cached("eager"),
    "torch sdpa, cached": cached("sdpa"),
    "torch sdpa, cached after 4": cached("sdpa", 4),
    "NumPy, operation by operation": operation_by_operation,
}
FLOAT32_ONLY = {
    "refgen": refgen_itself,
    "refgen, cached": refgen_cached,
    "refgen, canonical": refgen_canonical,
    "NumPy, sequential sums": sequential,
}


def implementations(dtype):
    """Those that there are in a dtype, by name."""
    return ANY_DTYPE | FLOAT32_ONLY if dtype == "float32" else ANY_DTYPE
