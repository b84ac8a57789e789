"""Claims: the abilities that a subject claims. Each check belongs to one claim, and each claim has its own verdict.

Nothing has to be declared. A subject that answers the questions of a claim makes it; one that refuses them does not. A
claim is

    right          nothing that was answered is wrong, and at least half of what was asked was shown to be right
    wrong          something that was answered is wrong
    waiting        something is wrong, but a claim that it rests on is wrong too: mend that first
    inconclusive   nothing is wrong, but too little was answered or shown
    not claimed    every question was refused
    not asked      the run left it out

A claim that the subject declares (`claims` of protocol.About, or --claim) and does not answer is wrong, that claim only.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from refgen.conformance.judging.verdicts import Result, Verdict

RIGHT, WRONG, WAITING, INCONCLUSIVE = "right", "wrong", "waiting", "inconclusive"
NOT_CLAIMED, NOT_ASKED = "not claimed", "not asked"
ENOUGH = 0.5  # of the questions of a claim that must go well


@dataclass(frozen=True)
class Claim:
    """What a subject may say it can do. `subject` begins a sentence: "The network is right"."""

    name: str
    subject: str
    what: str
    rests_on: tuple[str, ...] = ()  # claims without which its failures say nothing
    is_plural: bool = False
    only_declared: bool = False  # judged only where the subject declares it

    def says(self, adjective: str) -> str:
        """Such as "Batches are right"."""
        return f"{self.subject} {'are' if self.is_plural else 'is'} {adjective}"


SMOKE = "smoke"
CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {
        each.name: each
        for each in (
            Claim(SMOKE, "The adapter", "the adapter gives sane answers; a failure here is the adapter's, not the model's"),
            Claim("tokenizer", "The tokenizer", "text to ids and back"),
            Claim("network", "The network", "the GPT-2 that OpenAI released, of any size: logits, and text that shows them"),
            Claim("greedy", "Greedy text", "the best token at every step", ("network",)),
            Claim("cache", "The cache", "text and logits do not depend on earlier computations", ("network",)),
            Claim("batch", "Batches", "a row does not depend on its neighbours", ("network",), is_plural=True),
            Claim("padding", "Padding", "a prompt padded on the left has the same answer as alone", ("network", "batch")),
            Claim("ending", "Endings", "end tokens, limits, the end of the context, stop strings", ("network", "greedy"), is_plural=True),
            Claim("configurations", "Other configurations", "other activations, switches and untied heads", ("network",), is_plural=True),
            Claim("processors", "Processors", "penalties, bans, biases, and the effect of all settings on logits", ("network",), is_plural=True),
            Claim("sampling", "Sampling", "the law of sampled tokens, and seeds", ("network",)),
            Claim("beams", "Beam search", "the best of several continuations", ("network",)),
            Claim("serving", "What the server returns besides the text", "usage, finish reasons, streams, logprobs", ("network",)),
            Claim("refusals", "Refusing wrong requests", "wrong ids and settings are errors, not answers", only_declared=True),
        )
    }
)  # fmt: skip

FAMILIES: Mapping[str, str] = MappingProxyType(  # of rules, where a question itself does not say what it is about
    {
        "FWD": "network", "CKPT": "network", "CANON": "network", "TOK": "tokenizer", "CACHE": "cache", "BATCH": "batch",
        "PAD": "padding", "STOP": "ending", "LEN": "ending", "SSTR": "ending", "BEAM": "beams", "SERVE": "serving",
        "SAMP": "sampling", "TEMP": "sampling", "TOPK": "sampling", "TOPP": "sampling", "MINP": "sampling", "PROC": "sampling",
        "SUP": "processors", "BIAS": "processors", "NGRAM": "processors", "REP": "processors", "BAD": "processors",
    }
)  # fmt: skip


def claim_of_rule(rule: str) -> str:
    """The claim that a rule belongs to; what is about text in general belongs to greedy text."""
    return FAMILIES.get(rule.partition("-")[0], "greedy")


@dataclass(frozen=True)
class ClaimVerdict:
    """What the results of one claim say together."""

    claim: Claim
    verdict: str
    good: int
    bad: int
    answered: int  # good, bad, or inconclusive
    asked: int
    waits_for: str = ""  # the claim to mend first

    @property
    def count(self) -> str:
        """How many went well of those answered, and of those asked if that is more."""
        if self.answered == self.asked:
            return f"{self.good} of {self.asked}"
        return f"{self.good} of {self.answered} answered, {self.asked} asked"


def claim_verdicts(results: Sequence[Result], declared: frozenset[str] = frozenset()) -> dict[str, ClaimVerdict]:
    """The verdict on every claim, by name, in the order of CLAIMS; without the smoke tests."""
    found: dict[str, ClaimVerdict] = {}
    for claim in CLAIMS.values():
        if claim.name != SMOKE:
            own = [each for each in results if each.claim == claim.name]
            found[claim.name] = claim_verdict(claim, own, declared, found)
    return found


def claim_verdict(
    claim: Claim, results: Sequence[Result], declared: frozenset[str], before: Mapping[str, ClaimVerdict]
) -> ClaimVerdict:
    """The verdict on one claim, given those before it."""
    good, bad = (sum(getattr(each.verdict, kind) for each in results) for kind in ("good", "bad"))
    answered = sum(each.verdict is not Verdict.SKIP for each in results)
    numbers = (good, bad, answered, len(results))
    if claim.only_declared and claim.name not in declared:
        return ClaimVerdict(claim, NOT_CLAIMED if results else NOT_ASKED, *numbers)
    if not results:
        return ClaimVerdict(claim, NOT_ASKED, *numbers)
    if not answered:
        return ClaimVerdict(claim, WRONG if claim.name in declared else NOT_CLAIMED, *numbers)
    if bad:
        waits = next((name for name in claim.rests_on if name in before and before[name].verdict == WRONG), "")
        return ClaimVerdict(claim, WAITING if waits else WRONG, *numbers, waits_for=waits)
    if good < ENOUGH * len(results):
        return ClaimVerdict(claim, INCONCLUSIVE, *numbers)
    return ClaimVerdict(claim, RIGHT, *numbers)


# --- Results together ---------------------------------------------------------------------------------------


def by_claim(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by claim, in the order of CLAIMS; claims without any are not there."""
    found = defaultdict(list)
    for each in sorted(results, key=lambda result: place(result.claim)):
        found[each.claim].append(each)
    return dict(found)


def place(claim: str) -> int:
    """The number of a claim; those of other versions come last."""
    return list(CLAIMS).index(claim) if claim in CLAIMS else len(CLAIMS)


def counts(results: Iterable[Result]) -> dict[str, dict[str, int]]:
    """How many results of each verdict, by claim; verdicts in their order, those that are not there left out."""
    found = {claim: Counter(each.verdict for each in own) for claim, own in by_claim(results).items()}
    return {claim: {str(each): number[each] for each in Verdict if number[each]} for claim, number in found.items()}
