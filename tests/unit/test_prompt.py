"""Prompts: what is padding, and what is refused because it could be read two ways."""

import numpy as np
import pytest

from refgen import GenerationConfig, InputError
from refgen.generation.prompt import Prompt, read_prompt


def config(**settings):
    """Only the ids matter here."""
    return GenerationConfig(**settings)


def test_ids_are_copied_as_int64():
    """IN-01, IN-04: any whole numbers are taken, and the caller's array is never touched."""
    ids = np.array([[1, 2]], dtype=np.uint8)
    prompt = read_prompt(ids, None, config())
    assert prompt.ids.dtype == np.int64
    assert not np.shares_memory(prompt.ids, ids)
    assert read_prompt([[1, 2]], None, config()).mask.tolist() == [[1, 1]]


def test_no_prompt_is_the_beginning_of_text():
    """IN-02: without ids the prompt is one bos token, which is text, also where it pads."""
    assert read_prompt(None, None, config(bos_token_id=7)).ids.tolist() == [[7]]
    assert read_prompt(None, None, config(bos_token_id=7, pad_token_id=7)).mask.tolist() == [[1]]
    with pytest.raises(InputError, match=r"input_ids=None: there is no bos_token_id.*IN-02.*Pass a prompt"):
        read_prompt(None, None, config())


@pytest.mark.parametrize(("ids", "message"), [
    ([1, 2], r"input_ids of shape \[2\]: must be \[rows, tokens\] \[IN-01\].*pass \[ids\]"),
    ([[]], r"input_ids of shape \[1, 0\]: the prompt is empty \[IN-03\].*bos_token_id"),
    (np.zeros((0, 3), int), r"the prompt is empty"),
    ({"input_ids": [[1]]}, r"input_ids: is a mapping, not an array \[IN-01\]. Pass \*\*encoding"),
    ([[2**64 - 1]], r"input_ids contain 18446744073709551615: does not fit"),
    ([[1.0, 2.0]], r"input_ids of dtype float64: must be whole numbers \[IN-01\]"),
    ([["a"]], r"must be whole numbers"),
    ([[1], [2, 3]], r"rows of different lengths.*padding=True"),
    ([[True, False]], r"input_ids of dtype bool: must be whole numbers"),
])  # fmt: skip
def test_ids_that_are_refused(ids, message):
    """IN-01, IN-03: wrong shape, type or emptiness, each with its own sentence."""
    with pytest.raises(InputError, match=message):
        read_prompt(ids, None, config())


@pytest.mark.parametrize(("mask", "message"), [
    ([[1, 1, 1]], r"attention_mask of shape \[1, 3\]: must be \[1, 2\], like input_ids \[PAD-07\]"),
    ([[1]], r"attention_mask of shape \[1, 1\]"),
    ([[0, 2]], r"must hold only 0 \(padding\) and 1 \(token\) \[PAD-07\]"),
    ([[0.5, 1]], r"attention_mask of dtype float64"),
    ([[1, 0]], r"row 0 of input_ids: is padded on the right.*PAD-06.*padding_side = \"left\""),
    ([[0, 0]], r"row 0 of attention_mask: is all padding"),
])  # fmt: skip
def test_masks_that_are_refused(mask, message):
    """PAD-06, PAD-07: masks that transformers takes and answers wrongly."""
    with pytest.raises(InputError, match=message):
        read_prompt([[3, 4]], mask, config())


def test_bool_masks_are_masks():
    """PAD-07: True and False count as 1 and 0."""
    assert read_prompt([[3, 4]], [[False, True]], config()).mask.tolist() == [[0, 1]]


def test_left_padding_is_inferred():
    """PAD-01: without a mask, pad ids on the left are padding."""
    ids = [[0, 0, 5], [0, 6, 7], [5, 6, 7]]
    assert read_prompt(ids, None, config(pad_token_id=0)).mask.tolist() == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("ids", [[[7, 2, 0, 2]], [[7, 2, 0]], [[0, 0]]])
def test_a_pad_id_inside_the_text_is_an_error(ids):
    """PAD-02: transformers masks a legitimate token there without a word."""
    with pytest.raises(InputError, match=r"hold pad_token_id=0 inside or after the text.*PAD-02.*all ones"):
        read_prompt(ids, None, config(pad_token_id=0))


def test_pad_that_is_also_the_end():
    """PAD-03: then leading ids are text if they can only be text, and an error if they might be padding."""
    both = config(pad_token_id=9, eos_token_id=9)
    assert read_prompt([[9, 2], [9, 3]], None, both).mask.tolist() == [[1, 1], [1, 1]]
    assert read_prompt([[9, 2, 9, 9]], None, both).mask.tolist() == [[1, 1, 1, 1]]
    for ids in ([[9, 2], [3, 4]], [[9, 9, 2]], [[2, 9, 9], [2, 3, 4]]):
        with pytest.raises(
            InputError, match=r"begin or end with pad_token_id=9, which is an end token too.*PAD-03.*attention_mask"
        ):
            read_prompt(ids, None, both)


def test_repeated_rows_stand_together():
    """SAMP-07: a a b b, not a b a b."""
    prompt = Prompt(np.array([[1], [2]]), np.array([[1], [1]])).repeated(2)
    assert prompt.ids.ravel().tolist() == [1, 1, 2, 2]
