"""What comes with refgen beside its code, SPEC.md and the weights, and where a model of any name lies."""

from pathlib import Path

from refgen.errors import CheckpointError, did_you_mean

BUILT_IN = ("shakespeare",)


def find_model(path_or_name: str | Path) -> Path:
    """The folder of a model: one that exists, or the weights that come with refgen."""
    if not isinstance(path_or_name, str | Path):
        raise CheckpointError(f"{path_or_name!r}", "must be a folder or a name", "CKPT-09")
    folder = Path(path_or_name)
    try:
        if folder.is_dir():
            return folder
    except OSError as error:
        raise CheckpointError(str(path_or_name)[:200], f"cannot be looked at: {error.strerror}", "CKPT-09") from None
    if str(path_or_name) in BUILT_IN:
        return shipped("weights") / str(path_or_name)
    problem = "is a file, not a folder" if folder.exists() else "is neither a folder nor a built-in model"
    raise CheckpointError(
        str(path_or_name),
        problem,
        "CKPT-09",
        did_you_mean(path_or_name, BUILT_IN)
        or f"refgen works offline: give the folder with config.json, or one of {', '.join(BUILT_IN)}.",
    )


def shipped(name: str) -> Path:
    """Where it lies: in the wheel it is in the package, in a checkout beside it."""
    places = [Path(__file__).parents[i] / name for i in (0, 1)]
    return next(place for place in places if place.exists())
