"""One HTML page that needs nothing else: no script, no file beside it, no network. Needs the extra `report`."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refgen import spec
from refgen.conformance.judging.claims import CLAIMS, by_claim
from refgen.conformance.judging.run import Run
from refgen.conformance.judging.verdicts import Result, Verdict
from refgen.conformance.reports import contents, pictures
from refgen.errors import ConformanceError

if TYPE_CHECKING:
    from jinja2 import Environment

KINDS = {  # how a verdict is coloured
    "PASS": "good", "TIE": "soft", "CHOICE": "soft", "FAIL": "bad", "CRASH": "bad", "TIMEOUT": "bad",
    "SKIP": "none", "INCONCLUSIVE": "warn",
    "right": "good", "wrong": "bad", "adapter broken": "warn", "inconclusive": "warn", "waiting": "warn",
    "not claimed": "none", "not asked": "none",
}  # fmt: skip


def write_html(run: Run, path: Path) -> None:
    """The run as a page. Raises `ConformanceError` without jinja2."""
    coverage, said = contents.coverage(run.results), {name: each.verdict for name, each in run.claims.items()}
    page = render(
        "run.html.j2",
        run=run,
        who=contents.who(run),
        head=contents.head(run),
        sentences=[contents.line(each) for each in run.overall.sentences],
        claims={
            name: (CLAIMS[name].what if name in CLAIMS else "", said.get(name, ""), shares(own))
            for name, own in by_claim(run.results).items()
        },
        verdicts=[str(each) for each in Verdict if any(str(each) in own for own in run.counts.values())],
        failures=contents.grouped(contents.failures(run)),
        untested=contents.untested(run),
        suspects=run.suspects[: contents.SUSPECTS],
        title=contents.title,
        coverage={rule: {verdict: len(own) for verdict, own in checks.items()} for rule, checks in coverage.items()},
        unchecked=[rule for rule in spec.rules() if rule not in coverage],
        timelines=pictures.timelines(run.results),
        strips=pictures.strips(run.results),
        powers=pictures.powers(run.results),
        drawn=pictures.DRAWN,
    )
    path.write_text(page, encoding="utf-8")


def shares(results: list[Result]) -> list[tuple[str, int, float]]:
    """Of each verdict its count and its share in percent."""
    verdicts = [each.verdict for each in results]
    return [
        (str(each), verdicts.count(each), 100 * verdicts.count(each) / len(verdicts))
        for each in Verdict
        if each in verdicts
    ]


def render(template: str, **values: Any) -> str:
    """A page from its template."""
    return environment().get_template(template).render(kinds=KINDS, line=contents.line, **values)


@cache
def environment() -> "Environment":
    """Where templates are found; every value is escaped."""
    try:
        import jinja2  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConformanceError("--html", "needs jinja2", remedy="pip install 'refgen[report]'") from None
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
