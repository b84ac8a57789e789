"""Reports of a run of the kit: terminal, JUnit, badge, page, matrix. The run is made up; what counts is how it is told."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from refgen.cli import main
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import LEVELS, Finding, Result, Verdict
from refgen.conformance.reports import badge, junit, matrix, page, pictures, terminal
from refgen.conformance.reports.record import write_jsonl
from refgen.conformance.subjects.protocol import About
from refgen.errors import ConformanceError
from tests.strategies import runs


def check(name, level, verdict, *rules, message="", why="text would differ", **finding):
    """One result."""
    found = Finding(Verdict(verdict), message, **finding)
    return Result(name, level, (*finding.get("rules", ()), *rules), why, found, 0.5)


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
        check("forward.a", "forward", "PASS", "FWD-16", facts={"overall": 0.9, "worst": 1.4}),
        *(check(f"forward.{name}", "forward", "FAIL", "FWD-04", message=GELU, why="every logit", rules=("FWD-16",), fault="gelu-erf",
                facts={"overall": 41.0, "worst": 70.0, "stages": STAGES}) for name in "bc"),
        check("loop.greedy", "loop", "TIE", "GREEDY-01", facts={"margins": [0.0, 1.5, 0.0]}),
        check("loop.end", "loop", "TIMEOUT", "STOP-02", message="no answer to generate\x1b[2J after 60 s"),
        check("process.a", "process", "SKIP", "TOPP-01", message="the subject does not process"),
        check("process.b", "process", "SKIP", "TOPK-01", message="the subject does not process"),
        check("sampling.law", "sampling", "INCONCLUSIVE", "TEMP-01", message="120 tokens are too few", facts={"power": POWER}),
    ),
    seed=7,
    models=("shakespeare",),
    levels=tuple(level for level in LEVELS if level != "probes"),
    command="refgen check mine.py:load",
    started="2026-01-02T03:04:05+00:00",
)  # fmt: skip
GOOD = replace(RUN, results=tuple(each for each in RUN.results if not each.verdict.bad and each.level != "sampling"))

TEXT = """\
mine 0.3 in float32 · refgen VERSION · seed 7 · choices top_k_ties=all · models shakespeare · 4.5 s

level     PASS  TIE  FAIL  TIMEOUT  SKIP  INCONCLUSIVE
smoke        1                                          the adapter answers sanely
forward      1          2                               logits, against their rounding error
process                                2                what settings make of logits
loop              1              1                      greedy text: lengths, ends, padding, batches, cache
sampling                                             1  the law of sampled text, and seeds

FAIL forward.b
  logits off: 61 times what rounding explains
  FWD-16 GELU: GPT-2's is the tanh form, `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`.
  also about FWD-04 Logits
  looks like gelu-erf: The activation is the exact GELU, by the error function.
  why it matters: every logit
  1 more like it: forward.c
  $ refgen check mine.py:load --only forward.b --seed 7

TIMEOUT loop.end
  no answer to generate\\x1b[2J after 60 s
  STOP-02 End tokens: A row ends when its newest token is an end token, which stays in the output; end tokens
    in the prompt stop nothing.
  why it matters: text would differ
  $ refgen check mine.py:load --only loop.end --seed 7

NOT CONFORMANT in float32: 3 checks failed (forward 2 of 3, loop 1 of 2). Right: smoke 1/1. Not tested:
  tokenizer, process, sampling, serving, relations, probes.

Suspects, the likeliest first:
  1. FWD-16 GELU: looks like gelu-erf; 2 of its 3 checks fail
  2. STOP-02 End tokens: 1 of its 1 checks fails
  3. FWD-04 Logits: 2 of its 2 checks fail

Not tested:
  2 checks of process: the subject does not process
  1 check of sampling: inconclusive: 120 tokens are too few
  probes: not asked for
  tokenizer, serving, relations: no check fits the subject"""


# --- Terminal ---------------------------------------------------------------------------------------------


def test_the_terminal():
    """A line a level, a paragraph a kind of failure, the verdict, whom to suspect, what was not tested and why."""
    assert "\n".join(terminal.lines(RUN)).replace(RUN.version, "VERSION") == TEXT


def test_a_good_run_is_short():
    """Without failures there are neither paragraphs nor suspects."""
    told = terminal.lines(GOOD)
    assert "CONFORMANT in float32 at levels smoke 1/1, forward 1/1, loop 1/1. Not tested:" in " ".join(told)
    assert not [line for line in told if "Suspects" in line or line.startswith(("FAIL", "  $"))]


def test_only_so_many_failures_are_shown():
    """Behind the limit there are their number and some names."""
    told = terminal.lines(RUN, shown=1)
    assert "… and 1 more failures: loop.end" in told
    assert sum(line.startswith("  $") for line in told) == 1


@given(runs())
def test_nothing_is_written_to_the_terminal_but_text(run):
    """Whatever a subject says, every line is printable."""
    assert all(line.isprintable() for line in terminal.lines(run))


# --- JUnit ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("report") / "file"


@given(runs())
def test_junit_counts_agree(path, run):
    """Any run is XML that parses; suites add up to their cases, and failures to the verdicts."""
    junit.write_junit(run, path)
    suites = ET.parse(path).getroot()
    assert int(suites.get("tests")) == len(run.results) == len(suites.findall("./testsuite/testcase"))
    for suite in (suites, *suites):
        inside = {kind: len(suite.findall(f".//testcase/{kind}")) for kind in ("failure", "error", "skipped")}
        told = (int(suite.get(name)) for name in ("failures", "errors", "skipped"))
        assert tuple(inside.values()) == tuple(told)
    verdicts = [each.verdict for each in run.results]
    assert int(suites.get("failures")) == verdicts.count(Verdict.FAIL)
    assert int(suites.get("errors")) == verdicts.count(Verdict.CRASH) + verdicts.count(Verdict.TIMEOUT)
    assert int(suites.get("skipped")) == verdicts.count(Verdict.SKIP) + verdicts.count(Verdict.INCONCLUSIVE)


def test_junit_tells_the_rule(path):
    """A suite a level; a case has its rules as properties, and a failure what a person needs."""
    junit.write_junit(RUN, path)
    root = ET.parse(path).getroot()
    assert [suite.get("name") for suite in root] == ["smoke", "forward", "process", "loop", "sampling"]
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
    assert root.find(".//testcase[@name='loop.end']/error").get("type") == "TIMEOUT"
    assert root.find(".//testcase[@name='loop.greedy']/system-out").text == "TIE: "
    assert (
        root.find(".//testcase[@name='sampling.law']/skipped").get("message") == "INCONCLUSIVE: 120 tokens are too few"
    )


# --- Badge ------------------------------------------------------------------------------------------------


def made(**levels):
    """A run with so many passes a level."""
    results = [check("a.b", level, "PASS") for level, count in levels.items() for _ in range(count)]
    return replace(RUN, results=tuple(results))


@pytest.mark.parametrize(("run", "message", "color"), [
    (made(smoke=4, tokenizer=2, forward=3, process=1, loop=1, sampling=1, relations=25),
     "levels 1-5 float32 8/8 · R 25/25", "brightgreen"),
    (made(tokenizer=1, process=1, loop=1, probes=2), "levels 1,3-4 float32 3/3 · P 2/2", "brightgreen"),
    (made(forward=1), "level 2 float32 1/1", "brightgreen"),
    (made(relations=2), "float32 · R 2/2", "brightgreen"),
    (RUN, "levels 2,4 float32 2/5", "red"),
    (made(smoke=2), "inconclusive · float32", "yellow"),
    (made(), "inconclusive", "yellow"),
    (replace(RUN, results=(check("smoke.a", "smoke", "CRASH"),)), "adapter broken", "lightgrey"),
])  # fmt: skip
def test_badges(path, run, message, color):
    """A badge says levels, dtype and counts, and no more than was shown."""
    badge.write_badge(run, path)
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told == {"schemaVersion": 1, "label": "refgen", "message": message, "color": color}


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
    """Verdict, levels, suspects, failures, what was not tested, strips, timelines, power and rules."""
    page.write_html(RUN, path)
    found = parsed(path)
    for words in (
        "not conformant",
        "3 checks failed",
        "FWD-16",
        "looks like gelu-erf",
        "1 more like it",
        "refgen check mine.py:load --only loop.end --seed 7",
        "120 tokens are too few",
        "h.0.mlp.act",
        "largest 1.5 sigma",
        "top_k_plus_one",
        "5,200",
        "30 %",
        "7 rules have checks",
    ):
        assert words in found.text, words
    assert found.tags.count("svg") == 4  # the checks' strip, two passes' stages, one timeline


def test_what_a_subject_says_is_no_markup(path):
    """Names and messages are escaped."""
    evil = "<script>alert('x')</script>"
    results = (check(evil, "loop", "FAIL", evil, message=evil, why=evil, fault=evil, facts={"margins": [9.0]}),)
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
    (line,) = pictures.timelines([check("a", "loop", "FAIL", facts={"margins": [0.0, 2.0, 4.0, 8.0, 80.0, "inf"]})])
    assert [bar.kind for bar in line.bars] == ["best", "tie", "tie", "off", "off", "off"]
    heights = [bar.height for bar in line.bars]
    assert heights == sorted(heights)
    assert (heights[0], heights[2], heights[4:], line.largest) == (0.0, line.limit, [1.0, 1.0], "inf")
    assert pictures.timelines([check("a", "loop", "PASS", facts={"margins": [0.0, 0.0]})]) == []


def test_strips():
    """The stages of a pass lie beside each other under the parts of the network; the first off is named."""
    of_checks, *of_stages = pictures.strips(RUN.results)
    assert [cell.passes for cell in of_checks.cells] == [True, False, False]
    assert [strip.title for strip in of_stages] == ["FAIL forward.b", "FAIL forward.c"]
    assert of_stages[0].parts == [(0, "drop", 1), (1, "h.0", 2), (3, "head", 1)]
    assert (of_stages[0].first.name, of_stages[0].first.overall) == ("h.0.mlp.act", "61")


# --- Matrix -----------------------------------------------------------------------------------------------

MATRIX = """\
subject     dtype  smoke  forward  process  loop  sampling  verdict
mine 0.3  float32    1/1     1/3!        -  1/2!       0/1  not conformant: FWD-16 GELU
mine 0.3  float32    1/1      1/1        -   1/1         -  conformant
"""


@pytest.fixture
def records(tmp_path):
    """Two records as files."""
    paths = [tmp_path / "bad.jsonl", tmp_path / "good.jsonl"]
    for run, path in zip((RUN, GOOD), paths, strict=True):
        write_jsonl(run, path)
    return [str(path) for path in paths]


def test_matrix(records, capsys, tmp_path):
    """Subjects down, levels across, with the verdict; as a page too."""
    target = tmp_path / "matrix.html"
    assert main(["matrix", *records, "--html", str(target)]) == 0
    assert capsys.readouterr() == (MATRIX, "")
    found = parsed(target)
    assert "FWD-16 GELU" in found.text
    assert RUN.overall.sentence in found.text


def test_matrix_as_json(records, capsys):
    """The same for programs."""
    assert main(["matrix", *records, "--json"]) == 0
    bad, good = json.loads(capsys.readouterr().out)
    assert (bad["verdict"], bad["exit_code"], bad["suspects"][0]) == ("not conformant", 1, "FWD-16")
    assert good["levels"] == GOOD.counts


def test_matrix_refuses_what_is_no_record(tmp_path, capsys):
    """One line on stderr."""
    (tmp_path / "x.jsonl").write_text("{}")
    assert main(["matrix", str(tmp_path / "x.jsonl")]) == 1
    assert capsys.readouterr().err.endswith("x.jsonl: is not a record of refgen check: it has no header.\n")
