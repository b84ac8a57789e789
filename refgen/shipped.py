"""What comes with refgen beside its code: SPEC.md and the weights."""

from pathlib import Path

BUILT_IN = ("shakespeare",)


def shipped(name: str) -> Path:
    """Where it lies: in the wheel it is in the package, in a checkout beside it."""
    places = [Path(__file__).parents[i] / name for i in (0, 1)]
    return next(place for place in places if place.exists())
