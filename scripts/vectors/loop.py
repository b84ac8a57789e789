"""Cases of loop: greedy text of the designed networks, each token proved to be the best, and what must be refused.

What ends a text, stops it or keeps tokens out of it is in the probes, whose tokens no rounding can change.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refgen.conformance.questions.cases import MUST_REJECT, Case
from refgen.conformance.questions.designed import DESIGNED, designed
from refgen.oracle.prove import Prover, continuation, network_of

PROMPT = [3, 14, 15, 9, 26]
TOKENS = 12

# id, rule, why, request
REJECTED: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("empty-prompt", "IN-03", "a prompt without a token has nothing to go on from", {"input_ids": [[]]}),
    ("long-prompt", "FWD-23", "a prompt longer than the context is silently cut", {"input_ids": [[1] * 30]}),
    ("foreign-token", "FWD-23", "an id outside the vocabulary reads foreign memory", {"input_ids": [[1, 2, 40]]}),
    ("negative-temperature", "TEMP-02", "a negative temperature turns the law upside down", {"do_sample": True, "temperature": -1.0}),
    ("zero-penalty", "REP-03", "a penalty of 0 divides by it", {"repetition_penalty": 0.0}),
    ("negative-penalty", "REP-03", "a negative penalty turns scores upside down", {"repetition_penalty": -1.0}),
    ("no-tokens", "LEN-01", "no new tokens were requested, and one still comes", {"max_new_tokens": 0}),
)  # fmt: skip


def cases(names: tuple[str, ...] = tuple(DESIGNED)) -> Iterator[Case]:
    """One text a network; refusals."""
    for name in names:
        proofs = list(continuation(Prover(network_of(designed(name))), np.array(PROMPT), TOKENS, np.array([])))
        row = {"new_ids": [int(proof.tokens[0]) for proof in proofs], "finish": "length"}
        row["margins"] = [float(f"{float(proof.margins[0]):.3g}") for proof in proofs]
        request = {"input_ids": [PROMPT], "max_new_tokens": TOKENS, "do_sample": False}
        yield Case(
            f"loop.greedy.{name}",
            ("GREEDY-01",),
            "the likeliest token, each time",
            name,
            "generate",
            request,
            {"rows": [row]},
        )
    for name, rule, why, change in REJECTED:
        request = {"input_ids": [PROMPT], "max_new_tokens": 4, "do_sample": False} | change
        yield Case(
            f"loop.rejects.{name}",
            (rule,),
            why,
            "net-plain",
            "generate",
            request,
            bug="EDGE_CASE",
            result=MUST_REJECT,
        )
