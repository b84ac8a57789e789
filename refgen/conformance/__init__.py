"""The conformance kit: verdicts on other implementations. In your own test:
`refgen.conformance.assert_conformant(MyGPT2)`.

Its rooms, each of which imports only from those above it:

    subjects/   the implementations under test: the protocol, and one file for each way to reach them
    planted/    subjects and samplers with one real mistake each
    judging/    answers to verdicts: comparison, evidence, the verdict on a whole run, suspects
    questions/  what subjects are asked: stored cases, drawn questions, laws of sampling, servers, relations, probes
    reports/    a run for people and programs, one file a format

runner.py is above all of them: it takes the questions, asks the subject, and gives the run that reports show.
"""

from typing import Any

__all__ = ["assert_conformant", "check"]


def check(subject: Any, *, model: Any = None, **options: Any) -> Any:
    """The `Run` (judging/run.py) of a subject: a factory that makes an object of a model folder, or a `Subject`.

    With `model`, a folder, it is examined on that model alone; else on those of the kit. `options` are those of `runner.check`:
    only, seed, claims, models, progress. Raises `ConformanceError`.
    """
    from refgen.conformance.questions.models import only  # noqa: PLC0415
    from refgen.conformance.runner import check as checked  # noqa: PLC0415
    from refgen.conformance.subjects.python import PythonSubject, describe  # noqa: PLC0415 - who only reads a case needs none of it
    from refgen.names import find_model  # noqa: PLC0415

    if model is not None:
        options["models"] = only(model)
    if not hasattr(subject, "ask"):
        subject = PythonSubject(subject, describe(subject, find_model("shakespeare" if model is None else model)))
    return checked(subject, **options)


def assert_conformant(subject: Any, **options: Any) -> None:
    """Raises an `AssertionError` with the report, unless the subject is conformant."""
    from refgen.conformance.reports.terminal import lines  # noqa: PLC0415

    run = check(subject, **options)
    if run.overall.code:
        raise AssertionError("\n".join(lines(run)))
