"""The contents of every report of a run: failures with their rules, checks that were not made, and the rules that were
checked.

A check puts the numbers for its verdict into the facts of its finding. Reports know these facts, from any check:

    margins   of each greedy step, how far the token is below the best, in sigmas of rounding: 0 for the best; a list
    stages    of each stage of a forward pass, its error in units of the expected one: {name, overall, worst, passes}; a list
    overall, worst
              the same of the logits alone: two numbers
    layers    where a wrong forward pass begins, a sentence; or
    commands  those that say it, a list
    power     of each known sampler fault, whether it would have been seen: {fault, tokens, detected}; a list. `tokens` is how
              many it takes on average, `detected` the chance with those that were drawn, 0 to 1

Numbers that are not finite are the texts inf, -inf and nan (record.py).
"""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from refgen import spec
from refgen.conformance.judging.claims import SMOKE, WRONG, by_claim
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Result, Verdict
from refgen.oracle.faults import FAULTS

REASONS = 2  # of a claim's refusals that are told
SUSPECTS = 5  # at most
FAULT_SENTENCES = {fault.name: fault.sentence for fault in FAULTS}


@dataclass(frozen=True)
class Failure:
    """A check that went bad, for a person."""

    result: Result
    message: str
    why: str
    rules: tuple[tuple[str, str], ...]  # ids with their titles
    sentence: str  # of the first rule
    looks_like: str  # a fault and what it is; empty if none is known or the message says it
    repeat: str  # the command that asks it again
    begins: str = ""  # where, of a forward pass of which that is known
    commands: tuple[str, ...] = ()  # that say it, where it is not


@dataclass(frozen=True)
class Untested:
    """What of a claim showed nothing, and why: reasons with how many checks had them, the commonest first."""

    claim: str
    reasons: tuple[tuple[str, int], ...]

    @property
    def sentence(self) -> str:
        """The commonest reasons."""
        told = [f"{reason} ({number})" for reason, number in self.reasons[:REASONS]]
        return f"{self.claim}: {'; '.join(told)}{'; …' if len(self.reasons) > REASONS else ''}"


def failures(run: Run) -> list[Failure]:
    """All failures in claims that are wrong. Failures of a claim that waits for another are left out."""
    claims = run.claims
    return [
        failure(run, each)
        for name, own in by_claim(run.results).items()
        if name not in claims or claims[name].verdict == WRONG
        for each in own
        if each.verdict.bad
    ]


def grouped(several: Iterable[Failure]) -> list[list[Failure]]:
    """Failures of the same claim and verdict that point at the same rule and fault; one of them is enough to read."""
    groups = defaultdict(list)
    for each in several:
        result = each.result
        groups[result.claim, result.verdict, result.rules[:1], result.finding.fault].append(each)
    return list(groups.values())


def failure(run: Run, result: Result) -> Failure:
    """Everything to report about one failure."""
    finding = result.finding
    known = FAULT_SENTENCES.get(finding.fault or "", "")
    looks = f"{finding.fault}: {known}".rstrip(": ") if finding.fault and finding.fault not in finding.message else ""
    return Failure(
        result,
        message=line(finding.message) or "nothing was said",
        why=line(result.why),
        rules=tuple((rule, title(rule)) for rule in result.rules),
        sentence=spec.rules()[result.rules[0]].sentence if result.rules and result.rules[0] in spec.rules() else "",
        looks_like=line(looks),
        begins=line(str(finding.facts.get("layers", ""))),
        commands=tuple(line(str(each)) for each in finding.facts.get("commands", ())),
        repeat=repeat(run, result),
    )


def repeat(run: Run, result: Result) -> str:
    """The command that shows a failure again: its check alone, unless it fails only after the others."""
    only = " ".join(
        f"--only {shlex.quote(each)}" for each in (run.only if "again" in result.finding.facts else [result.id])
    )
    return " ".join(filter(None, [run.command or "refgen check SUBJECT", only, f"--seed {run.seed}"]))


def title(rule: str) -> str:
    """A rule's, empty for one that this version does not have."""
    return spec.rules()[rule].title if rule in spec.rules() else ""


def untested(run: Run) -> list[Untested]:
    """Claims of which questions were refused, or showed nothing, with the reasons."""
    found = []
    for claim, own in by_claim(run.results).items():
        reasons = Counter(
            line(each.finding.message) or "no reason given"
            for each in own
            if each.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE)
        )
        if reasons and claim != SMOKE:
            found.append(Untested(claim, tuple(reasons.most_common())))
    return found


def line(text: str) -> str:
    """A text on one line; what cannot be printed is escaped, so that no subject writes to the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def head(run: Run) -> str:
    """The subject that was checked, and the version that checked it."""
    parts = [f"{who(run)} in {run.about.dtype}", f"refgen {run.version}", f"seed {run.seed}"]
    parts += [f"choices {', '.join(f'{name}={option}' for name, option in run.about.choices.items())}"] * bool(
        run.about.choices
    )
    parts += [f"models {', '.join(run.models)}" if len(run.models) <= 3 else f"{len(run.models)} models"] * bool(
        run.models
    )
    return line(" · ".join([*parts, f"{run.seconds:.1f} s"]))


def who(run: Run) -> str:
    """Name and version."""
    return line(f"{run.about.name} {run.about.version}".strip())


def coverage(results: Iterable[Result]) -> dict[str, dict[str, list[Result]]]:
    """Of each rule, in the order of SPEC.md, its checks by verdict; rules without a check are not there."""
    found: defaultdict[str, defaultdict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        for rule in each.rules:
            found[rule][str(each.verdict)].append(each)
    order: Mapping[str, int] = {rule: number for number, rule in enumerate(spec.rules())}
    return {rule: dict(found[rule]) for rule in sorted(found, key=lambda rule: (order.get(rule, len(order)), rule))}
