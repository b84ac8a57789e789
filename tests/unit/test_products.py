"""Products of a few rows: equal to the exact ones within their bound, in every shape, order and number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import products
from refgen.engines.numpy.products import divisor, product
from refgen.engines.numpy.threads import get_num_threads


def bound(x, weight):
    """What a float32 or float64 sum of I products may be off: I u sum |x w|."""
    u = np.finfo(x.dtype).eps / 2
    return len(weight) * u * (np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64)) * 1.01


@pytest.mark.parametrize("workers", [1, 2, 3])
@given(st.data())
def test_tiles_are_the_product(workers, data):
    """FWD-06: any shape and memory order gives x W within the bound of a sum, however it is cut."""
    M, width = data.draw(st.integers(1, 52)), data.draw(st.integers(1, 200))
    depth = data.draw(st.one_of(st.integers(1, 20).map(lambda n: 16 * n), st.sampled_from([809, 1000, 1536, 2304])))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x, weight = rng.normal(size=(M, depth)).astype(dtype), rng.normal(size=(depth, width)).astype(dtype)
    if data.draw(st.booleans()):
        weight = np.asfortranarray(weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "LARGE", 1)
        patch.setattr(products, "get_num_threads", lambda: workers)
        result = product(x, weight)
    assert result.dtype == x.dtype
    exact = x.astype(np.longdouble) @ weight.astype(np.longdouble)
    assert (np.abs(result - exact) <= bound(x, weight)).all()


def test_tiles_lie_within_the_product(monkeypatch):
    """FWD-06: a product of a few rows is cut, and no tile is so large that OpenBLAS would start threads in a thread."""
    sizes = []
    original = np.matmul
    monkeypatch.setattr(
        np, "matmul", lambda a, b, **k: sizes.append(a.shape[-2] * b.shape[-2] * b.shape[-1]) or original(a, b, **k)
    )
    rng = np.random.default_rng(0)
    for M in (2, 8, 16, 32, 48):
        for order in "CF":
            weight = np.asarray(rng.normal(size=(768, 3072)), np.float32, order=order)
            product(rng.normal(size=(M, 768)).astype(np.float32), weight)
    assert len(sizes) == 5 * 2 * get_num_threads()
    assert max(sizes) <= 10**6


def test_one_row_and_many_rows_are_left_to_the_blas(monkeypatch):
    """FWD-06: where the BLAS is at its best it is used as it is."""
    monkeypatch.setattr(products, "by_tiles", None)
    weight = np.ones((768, 768), np.float32)
    for M in (1, 49, 100):
        assert (product(np.ones((M, 768), np.float32), weight) == 768).all()


@pytest.mark.parametrize(
    ("size", "most", "found"),
    [
        (768, 768, 768), (3072, 768, 768), (1600, 768, 400), (1280, 768, 640), (16, 768, 16), (37, 768, 37),
        (768, 96, 96), (1600, 96, 80), (2 * 809, 768, None), (2 * 809, 96, None), (14, 768, None),
    ],
)  # fmt: skip
def test_depths(size, most, found):
    """FWD-06: tiles are as deep as divides the inner size, and not shallow."""
    assert divisor(size, most) == found


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 3), st.sampled_from(["float32", "float64"]))
def test_laying_out_changes_no_number(depth, width, workers, dtype):
    """CKPT-14: the same matrix, its longer side in a row of memory; what lies so already is not copied."""
    weight = np.random.default_rng(depth).normal(size=(depth, width)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "LARGE", 1)
        patch.setattr(products, "get_num_threads", lambda: workers)
        laid = products.laid_out(weight)
    np.testing.assert_array_equal(laid, weight)
    assert laid.flags.c_contiguous if width > depth else laid.flags.f_contiguous
    assert products.laid_out(laid) is laid
