"""Cases of forward: logits of the designed networks, proved and correctly rounded, with their expected rounding errors.

A padded row is what it is alone, so it is proved alone; what stands at its padding means nothing, and is 0 here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.questions.cases import MUST_REJECT, Case
from refgen.conformance.questions.designed import DESIGNED, designed
from refgen.oracle.formats import FORMATS
from refgen.oracle.noise import expected_error
from refgen.oracle.prove import Prover, network_of

N = 24
CONFIG_RULES = {
    "net-plain": "FWD-03", "net-deep": "FWD-03", "net-own-head": "FWD-17", "net-by-layer": "FWD-08", "net-no-scale": "FWD-08", "net-epsilon": "FWD-05",
    "net-quick-gelu": "FWD-15", "net-relu": "FWD-15", "net-silu": "FWD-15",
}  # fmt: skip
WHY = {
    "full": "every logit up to the last position",
    "padded": "a padded row has the logits that it has alone",
    "cached": "positions that come one by one through a cache have the logits of all at once",
    "short": "one position alone, in eight rows",
}


def prompt(name: str, B: int, T: int) -> ndarray:
    """Ids that look random and follow from their places."""
    i = np.arange(B * T) + 31 * sorted(DESIGNED).index(name)
    return ((i * i * 7 + i * 13 + 5) % 1009 % 40).reshape(B, T)


def requests(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The requests to each network."""
    ids = prompt(name, 2, N)
    yield "full", {"input_ids": ids.tolist()}
    mask = (np.arange(16) >= np.array([[0], [5]])).astype(int)
    yield "padded", {"input_ids": prompt(name, 2, 16).tolist(), "attention_mask": mask.tolist()}
    yield "cached", {"input_ids": ids.tolist(), "prefill": 14}
    yield "short", {"input_ids": prompt(name, 8, 1).tolist()}


def cases(tensors: dict[str, ndarray], names: tuple[str, ...] = tuple(DESIGNED)) -> Iterator[Case]:
    """Four for each network; fills `tensors` with what they expect."""
    for name in names:
        for kind, request in requests(name):
            key = f"{name}.{kind}"
            tensors |= expected(name, request, key)
            rules = {"padded": ("PAD-05", "PAD-04"), "cached": ("CACHE-02", "FWD-02")}.get(kind, (CONFIG_RULES[name],))
            bug = {"net-plain": "BASIC"}.get(name, "MODIFIED_PARAMETER") if kind == "full" else "EDGE_CASE"
            yield Case(f"forward.{key}", rules, WHY[kind], name, "forward", request, {"logits": key}, bug=bug)
    yield from rejected()


def rejected() -> Iterator[Case]:
    """Requests that a network must refuse."""
    table: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("token", "FWD-23", "an id outside the vocabulary reads foreign memory or another token's row", {"input_ids": [[1, 40, 2]]}),
        ("context", "FWD-23", "a position outside the context is clamped or wraps, and text degrades without an error",
         {"input_ids": prompt("net-plain", 1, N + 1).tolist()}),
    )  # fmt: skip
    for name, rule, why, request in table:
        yield Case(
            f"forward.rejects.{name}",
            (rule,),
            why,
            "net-plain",
            "forward",
            request,
            bug="EDGE_CASE",
            result=MUST_REJECT,
        )


def expected(name: str, request: dict[str, Any], key: str) -> dict[str, ndarray]:
    """Proved logits, and the expected error of each position in every format, two digits of it."""
    ids = np.array(request["input_ids"])
    mask = np.array(request.get("attention_mask", np.ones_like(ids)))
    network = network_of(designed(name))
    exact = np.zeros((*ids.shape, 40))
    for row, real in enumerate(mask.astype(bool)):
        exact[row, real] = Prover(network).append(ids[row, real]).float64
    found = {key: exact}
    for dtype in FORMATS:
        scale = expected_error(designed(name), ids, mask, dtype).scale["lm_head"]
        found[f"{key}.scale.{dtype}"] = np.vectorize(lambda x: float(f"{x:.1e}"))(np.where(mask, scale, 0.0))
    return found
