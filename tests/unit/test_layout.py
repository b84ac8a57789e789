"""Weights in another memory order, and products of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.engines.numpy import layout


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 3), st.sampled_from(["float32", "float64"]))
def test_laying_out_changes_no_number(depth, width, workers, dtype):
    """CKPT-14: the same matrix, its longer side in a row of memory; what lies so already is not copied."""
    weight = np.random.default_rng(depth).normal(size=(depth, width)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LARGE", 1)
        patch.setattr(layout, "get_num_threads", lambda: workers)
        laid = layout.laid_out(weight)
    np.testing.assert_array_equal(laid, weight)
    assert laid.flags.c_contiguous if width > depth else laid.flags.f_contiguous
    assert layout.laid_out(laid) is laid
