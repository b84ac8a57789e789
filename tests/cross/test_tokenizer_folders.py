"""TOK-17, TOK-18: from a folder with any of the files that people have, refgen reads what transformers reads.

`scripts/compare_tokenizer_folders.py` draws thousands of them.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from tests.cross.tokenizer_folders import (
    REFUSED,
    REFUSED_CALLS,
    TAKEN,
    UNEXPLAINED,
    folders,
    ids,
    texts,
    verdict,
    write,
)


@settings(max_examples=150)
@given(
    files=folders(),
    some_texts=st.lists(texts, min_size=3, max_size=3),
    rows=st.lists(ids, min_size=2, max_size=2),
)
def test_any_folder(fresh, files, some_texts, rows):
    """TOK-17, TOK-18. Names, ids, texts and settings are transformers', or docs/differences.md says why not."""
    found = verdict(write(fresh(), files), files, some_texts, rows)
    assert not found.startswith(UNEXPLAINED), found


@pytest.mark.parametrize("difference", [*REFUSED, *REFUSED_CALLS, *TAKEN], ids=lambda each: each.name)
def test_every_difference_is_documented(difference):
    """docs/differences.md names each kind of folder that the two read differently."""
    document = Path(__file__).parents[2] / "docs" / "differences.md"
    assert f"**{difference.name}**" in document.read_text(encoding="utf-8")
