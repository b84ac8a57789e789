"""Probes asked by teacher forcing: does a network, faulty or rounded, say every token that a probe's case expects?

One pass over prompt and answer, in which the prompt goes first and the others follow through a cache, says at each step
which token comes out; the first wrong one is where a text would part. Only greedy cases without processors can be asked so.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from refgen.checkpoints import assemble
from refgen.conformance.questions.cases import MUST
from refgen.conformance.questions.probes import PROBES
from refgen.oracle.counterfactual import Pass
from refgen.oracle.faults import FAULTS
from refgen.oracle.formats import FORMATS, nearest
from tests.rounded import rounded_network

PLAIN = {"input_ids", "attention_mask", "max_new_tokens", "do_sample", "eos_token_id", "stop_strings"}
# Faults that change digits, not tokens: number formats, a constant cut behind its fourth digit.
PRECISION = (
    "kv-float16",
    "kv-bfloat16",
    "gelu-float16",
    "gelu-0.0447",
    "weights-float16",
    "weights-bfloat16",
    "weights-int8",
)
STRUCTURAL = tuple(fault for fault in FAULTS if not fault.equivalent and fault.name not in PRECISION)


@cache
def probe(name):
    """Each is built once."""
    return PROBES[name]()


@cache
def network(name, dtype):
    """A probe's network."""
    return assemble(probe(name).config, {key: tensor.astype(dtype) for key, tensor in probe(name).tensors.items()})


def forced(name):
    """The cases of a probe that can be asked so."""
    return [case for case in probe(name).cases if case.result == MUST and not case.request.keys() - PLAIN]


@dataclass(frozen=True)
class Run:
    """One case as one pass."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    prefill: int
    wanted: list  # of (row, column, token)


def laid_out(case):
    """Prompt and answer; of a shorter row the rest is text too, which nobody asks about."""
    ids = np.array(case.request["input_ids"])
    mask = np.array(case.request.get("attention_mask", np.ones_like(ids)))
    answers = [row["new_ids"] for row in case.expected["rows"]]
    B, P = ids.shape
    n = max(map(len, answers))
    new = np.zeros((B, n), dtype=ids.dtype)
    for row, answer in zip(new, answers, strict=True):
        row[: len(answer)] = answer
    wanted = [(b, P - 1 + t, token) for b, answer in enumerate(answers) for t, token in enumerate(answer)]
    mask = np.concatenate([mask, np.ones((B, n - 1), dtype=mask.dtype)], axis=1)
    return Run(np.concatenate([ids, new[:, :-1]], axis=1), mask, P, wanted)


def margin(case, gpt2, change=None, finish=lambda p: p):
    """How far the wanted tokens are ahead of all others, at the worst step; -inf where the fault cannot be computed at all."""
    run = laid_out(case)
    p = Pass(gpt2, run.input_ids, run.attention_mask, prefill=run.prefill)
    with np.errstate(all="ignore"):
        z = np.asarray(finish(change(p) if change else p).run()).view(np.ndarray).astype(np.float64)
    return min(ahead(z[b, t], token) for b, t, token in run.wanted)


def ahead(z, token):
    """By how much; a tie that the token wins by its id is 0, one that it loses less."""
    if not np.isfinite(z[token]):
        return -np.inf
    others = np.delete(z, token)
    difference = z[token] - others.max()
    return difference if difference or z.argmax() == token else -1e-9


def rounding(dtype):
    """Makes a pass compute in a 16-bit format, every operation rounded."""
    return lambda p: replace(p, gpt2=rounded_network(p.gpt2, dtype))


STORED = ("drop", "h.*", "ln_f", "lm_head")  # all stages, those inside attention too


def rounding_steps(dtype):
    """The same as libraries do it: functions and sums in float32 inside, and what comes out of each step rounded once."""

    def r(x):
        return nearest(np.asarray(x, dtype=np.float64), FORMATS[dtype])

    def finish(p):
        gpt2 = replace(p.gpt2, wte=r(p.gpt2.wte), wpe=r(p.gpt2.wpe))
        return replace(p, gpt2=gpt2, stages=(*p.stages, *((pattern, r) for pattern in STORED)))

    return finish


MODES = {  # how a probe can be computed: dtype of the network, and what is done to a pass
    "float64": ("float64", lambda p: p),
    "float32": ("float32", lambda p: p),
    "bfloat16": ("float64", rounding_steps("bfloat16")),
    "float16": ("float64", rounding_steps("float16")),
    "bfloat16, each operation": ("float64", rounding("bfloat16")),
    "float16, each operation": ("float64", rounding("float16")),
}


def margins(name, mode):
    """By case, without a fault."""
    dtype, finish = MODES[mode]
    return {case.id: margin(case, network(name, dtype), finish=finish) for case in forced(name)}


def flipped(name, fault, mode, ids=None):
    """The ids of the cases, of these or of all, in which the fault changes a token."""
    dtype, finish = MODES[mode]
    cases = [case for case in forced(name) if ids is None or case.id in ids]
    return [case.id for case in cases if margin(case, network(name, dtype), fault.change, finish) < 0]
