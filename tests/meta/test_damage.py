"""Damaged and hostile checkpoints of every form: one error of refgen for each, within twice the file's memory."""

from scripts import damage_files


def test_damaged_files_are_one_error_each():
    """CKPT-09, CKPT-16, CKPT-17. `scripts/damage_files.py` asks many more; these are its first."""
    counts, wrong, _ = damage_files.run(100, seed=1)
    assert not wrong
    assert sum(counts.values()) == 100
