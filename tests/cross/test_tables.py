"""docs/fields.md against the installed transformers: no setting of its generate() is forgotten."""

import pytest

from refgen.generation.refused import REFUSED
from scripts import make_tables


def test_fields_page_is_up_to_date():
    """CFG-12: every setting of transformers is implemented, refused or not applicable, and the page says which."""
    written = (make_tables.ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert written == make_tables.fields_page(*make_tables.of_transformers()), (
        "docs/fields.md is out of date: run scripts/tables"
    )
    assert all(f"\n| `{name}` | refused" in written for name in REFUSED)


def test_a_setting_nobody_knows_is_a_hole():
    """The tester tested: a field or an argument that transformers adds makes no page until refgen knows it."""
    config_fields, arguments = make_tables.of_transformers()
    assert len(config_fields) > 70
    assert {"streamer", "assistant_model"} <= set(arguments)
    with pytest.raises(make_tables.HoleError, match="brand_new: refgen does not know it"):
        make_tables.fields_page([*config_fields, "brand_new"], arguments)
    with pytest.raises(make_tables.HoleError, match="brand_new: refgen does not know it"):
        make_tables.fields_page(config_fields, [*arguments, "brand_new"])
