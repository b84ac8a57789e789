"""Products of a few rows: within the bound of a sum in every shape, memory order and number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen.engines.numpy import products
from refgen.engines.numpy.products import SMALL, divisor, has_tiles, product
from refgen.engines.numpy.threads import get_num_threads


@pytest.fixture(autouse=True)
def _forget():
    """What the BLAS has said."""
    has_tiles.cache_clear()
    yield
    has_tiles.cache_clear()


def bound(x, weight):
    """What a float32 or float64 sum of I products may be off: I u sum |x w|."""
    u = np.finfo(x.dtype).eps / 2
    return len(weight) * u * (np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64)) * 1.01


@pytest.mark.parametrize("threads", [1, 2, 3])
@given(st.data())
def test_tiles_make_the_product(threads, data):
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
        patch.setattr(products, "has_tiles", lambda: True)
        patch.setattr(products, "get_num_threads", lambda: threads)
        result = product(x, weight)
    assert result.dtype == x.dtype
    exact = x.astype(np.longdouble) @ weight.astype(np.longdouble)
    assert (np.abs(result - exact) <= bound(x, weight)).all()


def test_tiles_are_small(monkeypatch):
    """FWD-06: no tile is too large for the kernels that multiply in place."""
    sizes, original = [], np.matmul
    monkeypatch.setattr(products, "has_tiles", lambda: True)
    monkeypatch.setattr(
        np, "matmul", lambda a, b, **k: sizes.append(a.shape[-2] * b.shape[-2] * b.shape[-1]) or original(a, b, **k)
    )
    rng = np.random.default_rng(0)
    for M in (2, 8, 16, 32, 48):
        for order in "CF":
            weight = np.asarray(rng.normal(size=(768, 3072)), np.float32, order=order)
            product(rng.normal(size=(M, 768)).astype(np.float32), weight)
    assert len(sizes) == 5 * 2 * get_num_threads()
    assert max(sizes) <= SMALL


@pytest.mark.parametrize(("name", "cut"), [(b"SkylakeX", True), (b"Haswell", False), (b"Zen", False), (None, False)])
def test_the_blas_decides(monkeypatch, name, cut):
    """FWD-06: tiles only where the BLAS spares small matrices a copy; elsewhere they are slower than its own product."""
    calls = []
    monkeypatch.setattr(products, "openblas", lambda _: None)
    if name is not None:  # a function of ctypes has the attribute
        ask = type("Ask", (), {"restype": None, "__call__": lambda self: name})()
        monkeypatch.setattr(products, "openblas", lambda _: ask)
    monkeypatch.setattr(products, "by_tiles", lambda x, weight, out, *_: calls.append(1) or out.fill(768))
    for M in (1, 2, 8, 48, 49):
        assert (product(np.ones((M, 768), np.float32), np.ones((768, 768), np.float32)) == 768).all()
    assert len(calls) == (3 * get_num_threads() if cut else 0)


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
