"""JUnit's XML, which CI servers show: a suite is a claim, a test case a check.

A failed check is a `failure`, and one that crashed or hung is an `error`. A check that was skipped or inconclusive is
`skipped`: it shows nothing, and JUnit has no other word for that. A failure in a claim that the subject does not make
is `skipped` too. TIE and CHOICE are passes that say so in `system-out`.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from refgen.conformance.judging.claims import NOT_CLAIMED, by_claim
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Result, Verdict
from refgen.conformance.reports.contents import failure, line, who

ERRORS, UNSHOWN = (Verdict.CRASH, Verdict.TIMEOUT), (Verdict.SKIP, Verdict.INCONCLUSIVE)


def write_junit(run: Run, path: Path) -> None:
    """The run as XML."""
    spared = {name for name, each in run.claims.items() if each.verdict == NOT_CLAIMED}
    suites = ET.Element("testsuites", {"name": f"refgen check {who(run)}"} | totals(run.results, spared))
    for claim, own in by_claim(run.results).items():
        named = {"name": line(claim), "timestamp": line(run.started)}
        suite = ET.SubElement(suites, "testsuite", named | totals(own, spared))
        properties = {
            "subject": who(run),
            "dtype": line(run.about.dtype),
            "refgen": line(run.version),
            "seed": str(run.seed),
            "verdict": run.overall.verdict,
            "sentence": line(run.overall.sentence),
        }
        put_properties(suite, properties.items())
        for each in own:
            put_case(suite, run, each, claim in spared)
    ET.indent(suites)
    ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def totals(results: Sequence[Result], spared: Collection[str]) -> dict[str, str]:
    """The counts that suites carry; nothing bad of the claims that are `spared`."""
    verdicts = [Verdict.SKIP if each.claim in spared and each.verdict.bad else each.verdict for each in results]
    return {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count(Verdict.FAIL)),
        "errors": str(sum(each in ERRORS for each in verdicts)),
        "skipped": str(sum(each in UNSHOWN for each in verdicts)),
        "time": f"{sum(each.seconds for each in results):.3f}",
    }


def put_properties(parent: ET.Element, pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values."""
    properties = ET.SubElement(parent, "properties")
    for name, value in pairs:
        ET.SubElement(properties, "property", name=name, value=value)


def put_case(suite: ET.Element, run: Run, result: Result, is_spared: bool) -> None:
    """One check; `is_spared` if the subject does not make its claim."""
    classname = f"refgen.{line(result.claim)}"
    case = ET.SubElement(suite, "testcase", name=line(result.id), classname=classname, time=f"{result.seconds:.3f}")
    if result.rules:
        put_properties(case, [("rule", line(rule)) for rule in result.rules])
    message = line(result.finding.message)
    if result.verdict.bad and is_spared:
        ET.SubElement(case, "skipped", message=f"not claimed: {result.verdict}: {message}")
    elif result.verdict.bad:
        bad = failure(run, result)
        kind = "error" if result.verdict in ERRORS else "failure"
        element = ET.SubElement(case, kind, message=bad.message, type=str(result.verdict))
        told = [*(f"{rule} {name}" for rule, name in bad.rules), bad.looks_like, bad.why, bad.repeat]
        element.text = "\n".join(line(each) for each in told if each)
    elif result.verdict in UNSHOWN:
        ET.SubElement(case, "skipped", message=f"{result.verdict}: {message}")
    elif result.verdict is not Verdict.PASS:
        ET.SubElement(case, "system-out").text = f"{result.verdict}: {message}"
