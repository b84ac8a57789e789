"""Reports of a run of the kit: terminal, JUnit, badge, page, matrix. The run is made up; what counts is how it is told."""

import json
import re
import shlex
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.cli import main
from refgen.conformance import check as check_subject
from refgen.conformance.judging.claims import CLAIMS
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Finding, Result, Verdict
from refgen.conformance.reports import badge, junit, matrix, page, pictures, terminal
from refgen.conformance.reports.record import read_jsonl, write_jsonl
from refgen.conformance.subjects.protocol import About
from refgen.conformance.subjects.reference import ReferenceSubject
from refgen.errors import ConformanceError
from tests.strategies import runs


def check(name, claim, verdict, *rules, message="", why="text would differ", **finding):
    """One result."""
    found = Finding(Verdict(verdict), message, **finding)
    return Result(name, claim, (*finding.get("rules", ()), *rules), why, found, 0.5)


STAGES = [
    {"name": "drop", "overall": 0.9, "worst": 1.2, "passes": True},
    {"name": "h.0.ln_1", "overall": 1.0, "worst": 1.1, "passes": True},
    {"name": "h.0.mlp.act", "overall": 61.0, "worst": "inf", "passes": False},
    {"name": "lm_head", "overall": 41.0, "worst": 70.0, "passes": False},
]
POWER = [
    {"fault": "top_p_early", "tokens": 61, "detected": 0.9999},
    {"fault": "top_k_plus_one", "tokens": 5200, "detected": 0.3},
]
GELU = "logits off: 61 times what rounding explains"
RUN = Run(
    About("mine", "0.3", "float32", frozenset({"forward", "generate"}), {"top_k_ties": "all"}),
    (
        check("smoke.forward", "smoke", "PASS"),
        check("tokenizer.hang", "tokenizer", "TIMEOUT", message="no answer to encode\x1b[2J after 60 s"),
        check("forward.a", "network", "PASS", "FWD-16", facts={"overall": 0.9, "worst": 1.4}),
        *(check(f"forward.{name}", "network", "FAIL", "FWD-04", message=GELU, why="every logit", rules=("FWD-16",), fault="gelu-erf",
                facts={"overall": 41.0, "worst": 70.0, "stages": STAGES}) for name in "bc"),
        check("loop.greedy", "greedy", "TIE", "GREEDY-01", facts={"margins": [0.0, 1.5, 0.0]}),
        check("loop.end", "ending", "FAIL", "STOP-02", message="observed [1, 2], expected [1]"),
        check("process.a", "processors", "SKIP", "TOPP-01", message="the subject does not process"),
        check("process.b", "processors", "SKIP", "TOPK-01", message="the subject does not process"),
        check("sampling.law", "sampling", "INCONCLUSIVE", "TEMP-01", message="120 tokens are too few", facts={"power": POWER}),
        check("loop.rejects", "refusals", "FAIL", "IN-02", message="answered {}, must refuse"),
    ),
    seed=7,
    models=("shakespeare",),
    command="refgen check mine.py:load",
    started="2026-01-02T03:04:05+00:00",
)  # fmt: skip
GOOD = replace(RUN, results=tuple(each for each in RUN.results if not each.verdict.bad and each.claim != "sampling"))

TEXT = """\
mine 0.3 in float32 · refgen VERSION · seed 7 · choices top_k_ties=all · models shakespeare · 5.5 s

The tokenizer is wrong (1 of 1 failed).
The network is wrong: FWD-16 GELU (2 of 3 failed).
Greedy text is right (1 of 1).
Endings: 1 of 1 failed; that waits for the network.
Sampling is not shown (0 of 1).
Not claimed: processors, refusals.
Not asked: cache, batch, padding, configurations, beams, serving.

claim      PASS  TIE  FAIL  TIMEOUT  SKIP  INCONCLUSIVE       verdict
smoke         1                                                        the adapter gives sane answers
tokenizer                         1                             wrong  text to ids and back
network       1          2                                      wrong  the GPT-2 that OpenAI released, of any size: logits, and text that shows them
greedy             1                                            right  the best token at every step
ending                   1                                    waiting  end tokens, limits, the end of the context, stop strings
sampling                                              1  inconclusive  the law of sampled tokens, and seeds

TIMEOUT tokenizer.hang
  no answer to encode\\x1b[2J after 60 s
  why it matters: text would differ
  $ refgen check mine.py:load --only tokenizer.hang --seed 7

FAIL forward.b
  logits off: 61 times what rounding explains
  FWD-16 GELU: GPT-2 uses the tanh form, `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`.
  also about FWD-04 Logits
  looks like gelu-erf: The activation is the exact GELU, by the error function.
  why it matters: every logit
  1 more like it: forward.c
  $ refgen check mine.py:load --only forward.b --seed 7

Likely causes, the likeliest first:
  1. FWD-16 GELU: looks like gelu-erf; 2 of its 3 checks fail
  2. FWD-04 Logits: 2 of its 2 checks fail

Refused or not shown, by claim:
  processors: the subject does not process (2)
  sampling: 120 tokens are too few (1)"""


# --- Terminal ---------------------------------------------------------------------------------------------


def test_the_terminal():
    """The answer in words, a line a claim, a paragraph a kind of failure, whom to suspect, what was not tested and why."""
    assert "\n".join(terminal.lines(RUN)).replace(RUN.version, "VERSION") == TEXT


def test_a_good_run_is_short():
    """Without failures there are neither paragraphs nor suspects."""
    told = terminal.lines(GOOD)
    assert told[2:5] == [
        "The network is right (1 of 1).",
        "Greedy text is right (1 of 1).",
        "Not claimed: processors.",
    ]
    assert not [line for line in told if "causes" in line or line.startswith(("FAIL", "  $"))]


def test_only_so_many_failures_are_shown():
    """Behind the limit there are their number and some names."""
    told = terminal.lines(RUN, shown=1)
    assert "… and 2 more failures: forward.b, forward.c" in told
    assert sum(line.startswith("  $") for line in told) == 1


@given(runs())
def test_nothing_is_written_to_the_terminal_but_text(run):
    """Whatever a subject says, every line is printable."""
    assert all(line.isprintable() for line in terminal.lines(run))


@given(runs(), st.integers(20, 120))
def test_a_report_fits_the_terminal(run, width):
    """Of any run: only a command, and the id of a check, may be longer than a line."""
    verdicts = tuple(map(str, Verdict))
    lines = [line for line in terminal.lines(run, width=width) if not line.startswith(("  $ ", *verdicts))]
    assert all(len(line) <= width for line in lines)


# --- JUnit ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("report") / "file"


@given(runs())
def test_junit_counts_agree(path, run):
    """Any run is XML that parses; suites add up to their cases, and failures to the verdicts of claims that are made."""
    junit.write_junit(run, path)
    suites = ET.parse(path).getroot()
    assert int(suites.get("tests")) == len(run.results) == len(suites.findall("./testsuite/testcase"))
    for suite in (suites, *suites):
        inside = {kind: len(suite.findall(f".//testcase/{kind}")) for kind in ("failure", "error", "skipped")}
        told = (int(suite.get(name)) for name in ("failures", "errors", "skipped"))
        assert tuple(inside.values()) == tuple(told)
    made = [
        each.verdict for each in run.results if each.claim == "smoke" or run.claims[each.claim].verdict != "not claimed"
    ]
    bad = sum(each.verdict.bad for each in run.results) - sum(each.bad for each in made)  # of claims that are not made
    unshown = sum(each.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE) for each in run.results) + bad
    assert int(suites.get("failures")) == made.count(Verdict.FAIL)
    assert int(suites.get("errors")) == made.count(Verdict.CRASH) + made.count(Verdict.TIMEOUT)
    assert int(suites.get("skipped")) == unshown


@given(runs())
def test_junit_is_green_where_the_code_is_zero(path, run):
    """A right run has neither failures nor errors, so a CI server says what the exit code says."""
    junit.write_junit(run, path)
    suites = ET.parse(path).getroot()
    if run.overall.code == 0:
        assert (suites.get("failures"), suites.get("errors")) == ("0", "0")
    if run.overall.code == 1 and not run.declared:
        assert (suites.get("failures"), suites.get("errors")) != ("0", "0")


def test_junit_tells_the_rule(path):
    """A suite a claim; a case has its rules as properties, and a failure what a person needs."""
    junit.write_junit(RUN, path)
    root = ET.parse(path).getroot()
    assert [suite.get("name") for suite in root] == [
        "smoke",
        "tokenizer",
        "network",
        "greedy",
        "ending",
        "processors",
        "sampling",
        "refusals",
    ]
    case = root.find(".//testcase[@name='forward.b']")
    assert [each.get("value") for each in case.findall("./properties/property[@name='rule']")] == ["FWD-16", "FWD-04"]
    failure = case.find("failure")
    assert (failure.get("type"), failure.get("message")) == ("FAIL", GELU)
    assert failure.text.splitlines() == [
        "FWD-16 GELU",
        "FWD-04 Logits",
        "gelu-erf: The activation is the exact GELU, by the error function.",
        "every logit",
        "refgen check mine.py:load --only forward.b --seed 7",
    ]
    assert root.find(".//testcase[@name='tokenizer.hang']/error").get("type") == "TIMEOUT"
    assert root.find(".//testcase[@name='loop.end']/failure").get("type") == "FAIL"
    spared = root.find(".//testcase[@name='loop.rejects']/skipped").get("message")
    assert spared == "not claimed: FAIL: answered {}, must refuse"
    assert root.find(".//testcase[@name='loop.greedy']/system-out").text == "TIE: "
    assert (
        root.find(".//testcase[@name='sampling.law']/skipped").get("message") == "INCONCLUSIVE: 120 tokens are too few"
    )


# --- Badge ------------------------------------------------------------------------------------------------


def made(**claims):
    """A run with so many passes a claim."""
    results = [check("a.b", claim, "PASS") for claim, count in claims.items() for _ in range(count)]
    return replace(RUN, results=tuple(results))


@pytest.mark.parametrize(("run", "message", "color"), [
    (made(smoke=4, network=3, greedy=1, sampling=25), "float32: network, greedy, sampling right", "brightgreen"),
    (made(tokenizer=1), "float32: tokenizer right", "brightgreen"),
    (GOOD, "float32: network, greedy right", "brightgreen"),
    (RUN, "float32: tokenizer, network wrong", "red"),
    (replace(made(network=1), declared=frozenset({"batch"})), "float32: network right", "yellow"),
    (made(smoke=2), "float32: inconclusive", "yellow"),
    (made(), "float32: inconclusive", "yellow"),
    (replace(RUN, results=(check("smoke.a", "smoke", "CRASH"),)), "adapter broken", "lightgrey"),
])  # fmt: skip
def test_badges(path, run, message, color):
    """A badge has the claims that are right, or those that are wrong, and the dtype; no more than was shown."""
    badge.write_badge(run, path)
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told == {"schemaVersion": 1, "label": "refgen", "message": message, "color": color}


@given(runs())
def test_a_badge_names_claims_of_its_verdict(path, run):
    """Of any run: green where claims are right, red where some are wrong, and never a claim of another verdict."""
    badge.write_badge(run, path)
    told = json.loads(path.read_text(encoding="utf-8"))
    assert (told["color"] == "brightgreen") == (run.overall.code == 0)
    named = {name for name in CLAIMS if re.search(rf"\b{name}\b", told["message"])}
    wanted = "wrong" if told["message"].endswith("wrong") else "right"
    assert (
        named == {name for name, each in run.claims.items() if each.verdict == wanted} or told["color"] == "lightgrey"
    )


# --- Page -------------------------------------------------------------------------------------------------

EMPTY = {"meta", "br"}  # tags that have no end
SVG = {"rect", "line"}  # and that end in themselves


class Page(HTMLParser):
    """Tags in their nesting, attributes, text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        """Opens."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Opens and closes."""
        assert tag in SVG
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        """Closes the last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Text."""
        self.text += data


def parsed(path):
    """The page, after the laws that all pages keep."""
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not {"src", "href"} & {name for name, _ in found.attributes}
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    return found


@given(runs())
def test_every_run_is_a_page(path, run):
    """Any run makes a page that needs nothing else and whose tags close."""
    page.write_html(run, path)
    parsed(path)


def test_the_page_tells_everything(path):
    """Verdict, claims, suspects, failures, what was not tested, strips, timelines, power and rules."""
    page.write_html(RUN, path)
    found = parsed(path)
    for words in (
        "wrong",
        "The network is wrong: FWD-16 GELU (2 of 3 failed).",
        "Endings: 1 of 1 failed; that waits for the network.",
        "Not claimed: processors, refusals.",
        "FWD-16",
        "looks like gelu-erf",
        "1 more like it",
        "refgen check mine.py:load --only tokenizer.hang --seed 7",
        "120 tokens are too few",
        "h.0.mlp.act",
        "largest 1.5 sigma",
        "top_k_plus_one",
        "5,200",
        "30 %",
        "8 rules have checks",
    ):
        assert words in found.text, words
    assert found.tags.count("svg") == 4  # the checks' strip, two passes' stages, one timeline


def test_what_a_subject_says_is_no_markup(path):
    """Names and messages are escaped."""
    evil = "<script>alert('x')</script>"
    results = (check(evil, "network", "FAIL", evil, message=evil, why=evil, fault=evil, facts={"margins": [9.0]}),)
    page.write_html(replace(RUN, about=About(evil), results=results, command=evil, models=(evil,)), path)
    assert parsed(path).text.count(evil) >= 6
    matrix.write_html([replace(RUN, about=About(evil))], path)
    assert evil in parsed(path).text


def test_without_jinja2(monkeypatch, tmp_path):
    """The page needs the extra, and says so."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page.environment.cache_clear()
    with pytest.raises(ConformanceError, match=r"^--html: needs jinja2. pip install 'refgen\[report\]'$"):
        page.write_html(RUN, tmp_path / "page.html")


def test_timelines():
    """Bars grow with the logarithm; what is infinite has the full height; the limit is where a tie ends."""
    (line,) = pictures.timelines([check("a", "greedy", "FAIL", facts={"margins": [0.0, 2.0, 4.0, 8.0, 80.0, "inf"]})])
    assert [bar.kind for bar in line.bars] == ["best", "tie", "tie", "off", "off", "off"]
    heights = [bar.height for bar in line.bars]
    assert heights == sorted(heights)
    assert (heights[0], heights[2], heights[4:], line.largest) == (0.0, line.limit, [1.0, 1.0], "inf")
    assert pictures.timelines([check("a", "greedy", "PASS", facts={"margins": [0.0, 0.0]})]) == []


def test_strips():
    """The stages of a pass lie beside each other under the parts of the network; the first off is named."""
    of_checks, *of_stages = pictures.strips(RUN.results)
    assert [cell.passes for cell in of_checks.cells] == [True, False, False]
    assert [strip.title for strip in of_stages] == ["FAIL forward.b", "FAIL forward.c"]
    assert of_stages[0].parts == [(0, "drop", 1), (1, "h.0", 2), (3, "head", 1)]
    assert (of_stages[0].first.name, of_stages[0].first.overall) == ("h.0.mlp.act", "61")


# --- Matrix -----------------------------------------------------------------------------------------------

MATRIX = """\
subject     dtype  smoke  tokenizer  network  greedy  ending  processors  sampling  refusals  verdict
mine 0.3  float32    1/1       0/1!     1/3!     1/1    0/1!           -       0/1         -  wrong: FWD-16 GELU
mine 0.3  float32    1/1          -      1/1     1/1       -           -         -         -  right
"""


@pytest.fixture
def records(tmp_path):
    """Two records as files."""
    paths = [tmp_path / "bad.jsonl", tmp_path / "good.jsonl"]
    for run, path in zip((RUN, GOOD), paths, strict=True):
        write_jsonl(run, path)
    return [str(path) for path in paths]


def test_matrix(records, capsys, tmp_path):
    """Subjects down, claims across, with the verdict; as a page too."""
    target = tmp_path / "matrix.html"
    assert main(["report", *records, "--html", str(target)]) == 0
    assert capsys.readouterr() == (MATRIX, "")
    found = parsed(target)
    assert "FWD-16 GELU" in found.text
    assert RUN.overall.sentence in found.text


def test_matrix_as_json(records, capsys):
    """The same for programs."""
    assert main(["report", *records, "--json"]) == 0
    bad, good = json.loads(capsys.readouterr().out)
    assert (bad["verdict"], bad["exit_code"], bad["suspects"][0]) == ("wrong", 1, "FWD-16")
    assert good["counts"] == GOOD.counts
    assert good["claims"] == {name: each.verdict for name, each in GOOD.claims.items()}


def test_one_record_again(records, capsys, tmp_path):
    """One record is shown as its check showed it, in every form; the exit code is 0 whatever the verdict."""
    files = [word for name in ("html", "junit", "badge") for word in (f"--{name}", str(tmp_path / name))]
    assert main(["report", records[0], *files]) == 0
    assert capsys.readouterr() == ("\n".join(terminal.lines(RUN)) + "\n", "")
    page.write_html(RUN, tmp_path / "page")
    assert (tmp_path / "html").read_text() == (tmp_path / "page").read_text()
    assert (tmp_path / "junit").stat().st_size
    assert (tmp_path / "badge").stat().st_size
    assert main(["report", records[0], "--quiet"]) == 0
    assert capsys.readouterr().out == RUN.overall.sentence + "\n"


def test_several_records_are_a_table_only(records, capsys):
    """What only one record has is refused for several."""
    for flag in (["--quiet"], ["--junit", "x"], ["--badge", "x"]):
        assert main(["report", *records, *flag]) == 2
        assert capsys.readouterr().err == f"refgen: error: {flag[0]}: works with one record, and several are given.\n"


def test_report_refuses_what_is_no_record(tmp_path, capsys):
    """One line on stderr."""
    (tmp_path / "x.jsonl").write_text("{}")
    assert main(["report", str(tmp_path / "x.jsonl")]) == 2
    assert capsys.readouterr().err.endswith("x.jsonl: is not a record of refgen check: it has no header.\n")


# --- Real runs ----------------------------------------------------------------------------------------------

SUBJECTS = """
from refgen.conformance.subjects.reference import ReferenceSubject

class Right(ReferenceSubject):
    name = "right"

class Warm(ReferenceSubject):
    name = "warm"
    def generate(self, input_ids, **arguments):
        return super().generate(input_ids, **arguments | {"temperature": 1.0})
"""
SAMPLING = ("sampling.temperature.low", "sampling.top-k.three", "sampling.uniforms.plain", "tokenizer.special.*")


@pytest.mark.parametrize(("factory", "code"), [("Right", 0), ("Warm", 1)])
def test_every_report_of_a_real_run(tmp_path, monkeypatch, capsys, factory, code):
    """`refgen check` writes each report of a subject that samples, right or wrong, and what it wrote can be read again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn.py").write_text(SUBJECTS)
    names = ("html", "junit", "badge", "record", "traffic")
    files = [word for name in names for word in (f"--{name}", f"run.{name}")]
    only = [word for each in SAMPLING for word in ("--only", each)]
    assert (
        main(["check", f"drawn:{factory}", *only, "--claim", "sampling", "--choice", "top_k_ties=all_stay", *files])
        == code
    )
    out, err = capsys.readouterr()
    assert err == ""
    run = read_jsonl(tmp_path / "run.record")
    assert out == "\n".join(terminal.lines(run)) + "\n"
    assert (run.overall.code, run.declared, run.about.claims) == (code, {"sampling"}, {"sampling"})
    assert run.claims["sampling"].verdict == ("wrong" if code else "right")
    assert run.claims["tokenizer"].verdict == "right"
    found = parsed(tmp_path / "run.html")
    powers = [each for each in pictures.powers(run.results) if each.fault == "temperature-ignored"]
    assert len(powers) >= 1
    assert "Power of the sampling checks" in found.text
    assert all(each.fault in found.text for each in pictures.powers(run.results))
    suites = ET.parse(tmp_path / "run.junit").getroot()
    assert (suites.get("failures") == "0") == (code == 0)
    message = json.loads((tmp_path / "run.badge").read_text())["message"]
    assert message == ("float32: sampling wrong" if code else "float32: tokenizer, sampling right")
    assert main(["check", "run.traffic", "--record", "again.record"]) == code
    again = read_jsonl(tmp_path / "again.record")
    assert [(each.id, each.finding) for each in again.results] == [(each.id, each.finding) for each in run.results]
    assert again.declared == run.declared
    assert main(["report", "run.record", "again.record", "--html", "matrix.html"]) == 0
    for repeat in [line.removeprefix("  $ refgen ") for line in out.splitlines() if line.startswith("  $ ")][:1]:
        assert "--claim sampling" in repeat
        assert main(shlex.split(repeat)) == 1


def test_a_report_of_a_whole_claim(tmp_path):
    """Every check of sampling, in every writer; what a finding holds is what the reports draw."""
    run = check_subject(ReferenceSubject, only=["sampling.[!t]*", "probe.dice*"])
    page.write_html(run, tmp_path / "page")
    junit.write_junit(run, tmp_path / "junit")
    badge.write_badge(run, tmp_path / "badge")
    write_jsonl(run, tmp_path / "record")
    assert read_jsonl(tmp_path / "record").overall == run.overall
    laws = [each for each in run.results if "power" in each.finding.facts]
    assert len(laws) > 12
    for each in laws:
        for power in each.finding.facts["power"]:
            assert set(power) == {"fault", "tokens", "detected"}
            assert 0 <= power["detected"] <= 1
            assert power["tokens"] == "inf" or power["tokens"] > 0
    assert {power.check for power in pictures.powers(run.results)} == {each.id for each in laws}
