"""Compares all greedy texts of a subject at once, to find the fault of a forward pass that produces exactly their tokens.

A subject may return right logits, or none, and still compute something else while it generates. Its cache may lose a position,
or it may forget the mask at the second token. One text does not show which fault it is, but several do. It is the fault whose
network produces all their tokens, the right ones and the wrong ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.lab import Lab, Text
from refgen.conformance.judging.verdicts import Result
from refgen.conformance.planted.options import forward_change
from refgen.errors import RefgenError
from refgen.oracle.counterfactual import Pass
from refgen.oracle.families import FAMILIES, stage
from refgen.oracle.faults import FAULTS, Fault

LEAST = 3  # wrong texts that a fault must explain
MOST = 0.75  # of all wrong ones, at least
RIGHT = 16  # right texts that it must explain too
DOUBT = 0.1  # of these, at most, may contradict it


def explained(lab: Lab, results: Sequence[Result], faults: Sequence[Fault] = FAULTS) -> list[Result]:
    """The same results. If a fault explains the wrong texts, their results name it."""
    if (found := common_fault(lab, (*lab.named.values(), *faults))) is None:
        return list(results)
    own = {text.check for text in lab.texts if not text.is_right and says(lab, found, text)}
    sentence = f"The wrong greedy texts together look like {found.name}: {found.sentence}"
    return [
        naming(each, found, sentence) if each.id in own and each.verdict.bad and not each.finding.fault else each
        for each in results
    ]


def naming(result: Result, fault: Fault, sentence: str) -> Result:
    """The result with the fault that causes it."""
    message = f"{result.finding.message}. {sentence}"
    finding = replace(result.finding, message=message, rules=fault.rules, fault=fault.name)
    return replace(result, finding=finding, rules=tuple(dict.fromkeys((*fault.rules, *result.rules))))


def common_fault(lab: Lab, faults: Sequence[Fault]) -> Fault | None:
    """The fault that explains most of the wrong texts and contradicts few right ones, or None."""
    wrong = [text for text in lab.texts if not text.is_right]
    right = [text for text in lab.texts if text.is_right][:: max(1, sum(text.is_right for text in lab.texts) // RIGHT)]
    best, most = None, max(LEAST, MOST * len(wrong)) - 1
    for fault in (*faults, *members()):
        if (count := agreeing(lab, fault, wrong, most)) > most:
            against = len(right) - agreeing(lab, fault, right, (1 - DOUBT) * len(right) - 1)
            if against <= DOUBT * len(right):
                best, most = fault, count
    return best


def members() -> Iterator[Fault]:
    """More faults to try: those that pick another token than the best, and the members of every family."""
    yield from PICKS
    yield from (family.member(value) for family in FAMILIES for value in family.values)


def second_best(logits: ndarray) -> ndarray:
    """Logits with the best token of each position moved to the last place."""
    return np.where(logits == logits.max(axis=-1, keepdims=True), -np.inf, logits)


def last_of_ties(logits: ndarray) -> ndarray:
    """Logits where the last of several best tokens wins."""
    return np.where(logits == logits.max(axis=-1, keepdims=True), np.arange(logits.shape[-1]), -1.0)


PICKS = tuple(
    Fault(name, sentence, ("GREEDY-01",), stage("lm_head", change))
    for name, sentence, change in (
        ("second-best", "The second best token is picked.", second_best),
        ("last-of-ties", "Of equal tokens the last is picked.", last_of_ties),
        ("worst", "The token with the smallest logit is picked.", np.negative),
    )
)


def agreeing(lab: Lab, fault: Fault, texts: Sequence[Text], needed: float) -> int:
    """The number of texts that the network with a fault would produce. Counting stops once it cannot exceed `needed`."""
    count = 0
    for number, text in enumerate(texts):
        if count + len(texts) - number <= needed:
            break
        count += says(lab, fault, text)
    return count


def says(lab: Lab, fault: Fault, text: Text) -> bool:
    """Whether the network with the fault would pick every token of a text."""
    reference, P = lab.reference(text.model), len(text.ids)
    ids = np.array([[*text.ids, *text.new_ids[:-1]]])
    mask = np.array([[*text.mask, *[1] * (len(text.new_ids) - 1)]])
    own = Pass(reference.exact, ids, mask, prefill=P)
    if (change := forward_change(reference.options)) is not None:
        own = change(own)
    try:
        with np.errstate(all="ignore"):
            logits = fault.change(own).run()
    except (RefgenError, ValueError, IndexError):  # a fault that this network cannot have
        return False
    return bool((logits[0, P - 1 :].argmax(axis=-1) == text.new_ids).all())
