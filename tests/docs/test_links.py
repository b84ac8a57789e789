"""Links of the documents lead somewhere, and every page is two clicks from README.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for folder in ("", "docs", "weights", "tests") for page in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """The file and the anchor of every link to a file of the repository."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#") for target in LINK.findall(text) if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in targets]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links that lead to no file, or to no heading of it."""
    return [
        f"{path.name}#{anchor}"
        for path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    """The file exists, and so does the heading."""
    assert broken(page) == []


def test_every_page_is_two_clicks_away():
    """README.md links docs/README.md, which links every page."""
    near = {ROOT / "README.md", *(path for path, _ in links(ROOT / "README.md"))}
    two_clicks = near | {path for page in near if page.suffix == ".md" for path, _ in links(page)}
    assert set(PAGES) - two_clicks == set()
    assert set((ROOT / "docs").glob("*.md")) - {path for path, _ in links(ROOT / "docs" / "README.md")} == {
        ROOT / "docs" / "README.md"
    }


def test_a_broken_link_is_found(tmp_path):
    """The tester tested: a missing file, a missing heading; code is left alone."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading: `code`\n\n[a](no.md) [b](page.md#no) [c](#one-heading-code)\n\n```text\n[d](no.md)\n```\n"
    )
    assert broken(page) == ["no.md#", "page.md#no"]
