"""Writes the stored numbers for tests of any implementation: `python scripts/make_vectors.py`, the same on every machine.

tests/golden/proved_logits.json has the ids, the proved greedy tokens and the least margin among them, for the shipped model and
the designed networks. It also has the float64 logits after the last id, proved and correctly rounded, as hexadecimal text.

refgen/conformance/questions/vectors/ has the cases of the conformance kit, one file for each kind, and the tensors of the forward
cases. The makers are in scripts/vectors/.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from refgen import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from refgen.conformance.questions.cases import VECTORS, write  # noqa: E402
from refgen.conformance.questions.designed import DESIGNED, designed  # noqa: E402
from refgen.errors import IgnoredSettingWarning  # noqa: E402
from refgen.oracle.prove import Prover, continuation, network_of  # noqa: E402
from scripts.vectors import choices, forward, loop, process, tokenizer  # noqa: E402
from scripts.vectors.seen_in import with_reports  # noqa: E402

FILE = ROOT / "tests" / "golden" / "proved_logits.json"
TOKENS = 12
PROMPTS = ("ROMEO:", "JULIET:\nO Romeo,", "KING RICHARD III:\nNow is the")


def write_cases(folder: Path) -> None:
    """All files of cases."""
    tensors: dict[str, ndarray] = {}
    write(folder / "forward.json", list(with_reports(forward.cases(tensors))), tensors)
    for kind in (tokenizer, process, loop, choices):
        write(folder / f"{kind.__name__.rpartition('.')[2]}.json", list(with_reports(kind.cases())))


def cases(names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Proved logits of all models, or of those that are named."""
    if names is None or "shakespeare" in names:
        gpt2 = AutoModelForCausalLM.from_pretrained("shakespeare").gpt2
        text_of, network = AutoTokenizer.from_pretrained("shakespeare"), network_of(gpt2)
        for prompt in PROMPTS:
            yield {"model": "shakespeare"} | proved(Prover(network), text_of.encode(prompt))
    for name in DESIGNED:
        if names is None or name in names:
            yield {"model": name} | proved(Prover(network_of(designed(name))), loop.PROMPT)


def proved(prover: Prover, ids: list[int]) -> dict[str, Any]:
    """What one case says of its ids."""
    proofs = list(continuation(prover, np.array(ids), TOKENS, np.array([])))
    return {
        "ids": ids,
        "tokens": [int(proof.tokens[0]) for proof in proofs],
        "least_margin": min(float(proof.margins[0]) for proof in proofs),
        "logits": [float(logit).hex() for logit in proofs[0].float64[0]],
    }


def text(found: list[dict[str, Any]]) -> str:
    """One case per line."""
    return "[\n" + ",\n".join(json.dumps(case) for case in found) + "\n]\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore", IgnoredSettingWarning)
    FILE.write_text(text(list(cases())), encoding="utf-8")
    write_cases(VECTORS)
