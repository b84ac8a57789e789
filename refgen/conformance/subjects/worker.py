"""The other end of process.py for a Python factory: `python -m refgen.conformance.subjects.worker pkg.module:factory [DIR]`.

With DIR the questions are about that model only, instead of the kit's models. A Python subject runs in its own process,
so it may crash or hang. Its prints go to stderr. Its answers pass the border (border.py) here, where they are still
Python values. An answer that does not pass is sent as {"garbled": why}.
"""

import base64
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.process import PROTOCOL
from refgen.conformance.subjects.protocol import GarbledError, SkippedError
from refgen.conformance.subjects.python import Factory, call, describe
from refgen.errors import ConformanceError, did_you_mean
from refgen.names import find_model
from refgen.shipped import BUILT_IN


def find_factory(name: str) -> Factory:
    """`pkg.module:factory`; raises `ConformanceError`."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        factory: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        beside = [each.stem for each in Path().glob("*.py")]
        known = dir(sys.modules[module]) if module in sys.modules else beside
        nearest = did_you_mean(attribute if module in sys.modules else module, known)
        raise ConformanceError(
            name, f"cannot be found: {error}", remedy=nearest or "Write pkg.module:factory."
        ) from None
    return factory


def serve(name: str, requests: TextIO, answers: TextIO, folder: Path) -> None:
    """Answers with objects of the factory of that name until bye or the end; hello with the one for `folder`."""
    factory: Any = None
    thing: Any = None
    for line in requests:
        request = json.loads(line)
        number, op = request.pop("id", None), request.pop("op")
        if op == "bye":
            return
        try:
            factory = factory or find_factory(name)
            if op == "load":
                thing, answer = factory(Path(request["model"])), {}
            else:
                answer = hello(factory, folder) if op == "hello" else checked(op, request, call(thing, op, request))
        except (NotImplementedError, SkippedError) as error:
            answer = {"skipped": str(error) or f"no {op} yet"}
        except GarbledError as error:
            answer = {"garbled": str(error)}
        except ConformanceError as error:
            answer = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever it raises is its answer
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps({"id": number, **answer}, default=packed) + "\n")
        answers.flush()


def hello(factory: Factory, folder: Path) -> dict[str, Any]:
    """The object's description of itself, for that model."""
    try:
        about = describe(factory, folder)
    except Exception as error:
        remedy = "A program that loads one model only is examined with --model DIR."
        raise ConformanceError(f"the model {folder.name}", f"was not taken: {error}", remedy=remedy) from error
    return {
        "protocol": PROTOCOL,
        "name": about.name,
        "version": about.version,
        "dtype": about.dtype,
        "can": sorted(about.can),
        "choices": dict(about.choices),
        "claims": sorted(about.claims),
        "takes": {op: sorted(names) for op, names in about.takes.items()},
    }


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array of float64 as JSON: its numbers, little-endian, in base64."""
    raw = np.ascontiguousarray(array, dtype="<f8").tobytes()
    return {"dtype": "F64", "shape": list(array.shape), "b64": base64.b64encode(raw).decode()}


def main() -> None:
    """Keeps stdout for answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, answers, find_model(sys.argv[2] if len(sys.argv) > 2 else BUILT_IN[0]))


if __name__ == "__main__":
    main()
