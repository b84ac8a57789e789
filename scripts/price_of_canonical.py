"""What canonical arithmetic costs: `python scripts/price_of_canonical.py [--large]`.

Native and canonical runs take turns, so that both see the same machine; the ratio is the median over the turns.
`--large` adds a network of random weights in the shape of GPT-2's smallest, 124 million parameters.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen import AutoModelForCausalLM, Cache, GPT2Config, GPT2LMHeadModel, rounding  # noqa: E402
from refgen.canonical import canonical  # noqa: E402
from refgen.checkpoint import assemble, tensor_shapes  # noqa: E402

TURNS = 5


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def large() -> GPT2LMHeadModel:
    """Random weights of the size that GPT-2's have."""
    rng = np.random.default_rng(0)
    tensors = {
        name: np.ones(shape, np.float32)
        if ".ln_" in f".{name}" and name.endswith("weight")
        else rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        for name, shape in tensor_shapes(GPT2Config()).items()
    }
    return GPT2LMHeadModel(assemble(GPT2Config(), tensors))


def redone(run: Callable[[], object]) -> tuple[int, int, int]:
    """How many float32 a run rounds, how many of them in doubt, and how many of these not settled by pieces."""
    counts = [0, 0, 0]
    sizes = {"settle": lambda value: value.size, "exact_sums": len, "exact_sum": lambda _: 1}
    own = {name: vars(rounding)[name] for name in sizes}

    def counting(place: int, name: str, size: Callable[[object], int]) -> Callable[..., object]:
        def count(*arguments: object) -> object:
            counts[place] += size(arguments[0])
            return own[name](*arguments)

        return count

    try:
        vars(rounding).update({name: counting(place, name, size) for place, (name, size) in enumerate(sizes.items())})
        run()
    finally:
        vars(rounding).update(own)
    return counts[0] - counts[1], counts[1], counts[2]


def report(name: str, native: GPT2LMHeadModel, prefills: tuple[int, ...], tokens: int) -> None:
    """One line a kind of work."""
    own = GPT2LMHeadModel(canonical(native.gpt2))
    ids = np.random.default_rng(1).integers(0, native.config.vocab_size, (1, max(prefills)))

    def decode(model: GPT2LMHeadModel) -> None:
        cache = Cache()
        for start in range(tokens):
            model(ids[:, start : start + 1], past_key_values=cache)

    def prefill(T: int, model: GPT2LMHeadModel) -> None:
        model(ids[:, :T])

    works: dict[str, Callable[[GPT2LMHeadModel], None]] = {
        f"{T} positions at once": partial(prefill, T) for T in prefills
    }
    works[f"{tokens} positions one by one"] = decode
    for work, run in works.items():
        run(own)
        turns = [(seconds(lambda: run(native)), seconds(lambda: run(own))) for _ in range(TURNS)]  # noqa: B023
        ratio = statistics.median(slow / fast for fast, slow in turns)
        fast, slow = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{name}, {work}: {fast:.3f} s native, {slow:.3f} s canonical, ratio {ratio:.1f}", flush=True)
    rounded, doubtful, last = redone(lambda: own(ids[:, : prefills[0]]))
    print(f"{name}: {rounded:,} rounded, {doubtful / rounded:.1e} of them sums in doubt, {last / rounded:.1e} by fsum")


if __name__ == "__main__":
    report("shakespeare", AutoModelForCausalLM.from_pretrained("shakespeare"), (32, 128), 32)
    if "--large" in sys.argv[1:]:
        report("124M", large(), (64, 256), 16)
