"""conformance/subjects/protocol.py: what counts as an answer."""

import base64
import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.protocol import OPERATIONS, GarbledError

KEYS = ("ids", "text", "logits", "scores", "rows", "new_ids", "finish", "logprobs", "dtype", "shape", "b64")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=4),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=3),
    max_leaves=8,
)
REQUESTS = {
    "encode": {"text": "x"},
    "decode": {"ids": [1]},
    "forward": {"input_ids": [[1, 2]]},
    "process": {"input_ids": [[1]], "logits": [[0.0, 1.0]]},
    "generate": {"input_ids": [[1]], "num_return_sequences": 2},
}


@given(st.sampled_from(OPERATIONS), JSON)
def test_anything_is_an_answer_or_garbled(op, value):
    """Whatever a subject says is taken or refused in words; nothing else happens."""
    for answer in (value, dict.fromkeys(KEYS, value)):
        with contextlib.suppress(GarbledError):
            checked(op, REQUESTS[op], answer)


@pytest.mark.parametrize(
    ("op", "answer", "message"),
    [
        ("encode", {"ids": [1, 2.0]}, "whole numbers"),
        ("encode", {"ids": [True]}, "whole numbers"),
        ("encode", [1], "must be an object"),
        ("decode", {"text": 3}, "must be a text"),
        ("forward", {"logits": [[[1.0], [1.0, 2.0]]]}, "must be numbers"),
        (
            "forward",
            {"logits": [[[1.0, 2.0]]]},
            r"logits must be numbers of shape \[1, 2, any\]; got shape \[1, 1, 2\]",
        ),
        ("forward", {"logits": {"dtype": "F32", "shape": [1, 2, 2], "b64": "AAAA"}}, "dtype, shape and b64 that fit"),
        ("process", {"scores": [[1.0]]}, "shape"),
        ("generate", {"rows": [[1]]}, "a list of 2"),
        ("generate", {"rows": [[1], {"finish": "eos"}]}, "row 1 has neither new_ids nor text"),
        ("generate", {"rows": [[1], {"new_ids": [1], "finish": "stop"}]}, "must be one of eos, length"),
    ],
)
def test_what_is_no_answer(op, answer, message):
    """Each says what is wrong."""
    with pytest.raises(GarbledError, match=message):
        checked(op, REQUESTS[op], answer)


def test_answers():
    """Lists, arrays and base64 are the same; null in scores is -inf."""
    array = np.arange(4, dtype="<f4").reshape(1, 2, 2)
    packed = {"dtype": "F32", "shape": [1, 2, 2], "b64": base64.b64encode(array.tobytes()).decode()}
    for logits in (array, array.tolist(), packed):
        np.testing.assert_array_equal(checked("forward", REQUESTS["forward"], {"logits": logits})["logits"], array)
    assert checked("process", REQUESTS["process"], {"scores": [[None, 1]]})["scores"].tolist() == [[-np.inf, 1]]
    rows = checked("generate", REQUESTS["generate"], {"rows": np.array([[1], [2]])})["rows"]
    assert rows == [{"new_ids": [1]}, {"new_ids": [2]}]
