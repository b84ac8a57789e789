"""Correct and wrong passes in which functions of model.py are replaced, for what no fault's vocabulary says."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from unittest.mock import patch

import numpy as np

from refgen.oracle.counterfactual import Pass, ignored


@dataclass(frozen=True)
class Stepping(Pass):
    """A pass with other functions in the place of model.py's."""

    functions: Mapping[str, Any] = field(default_factory=dict)

    def run(self, note=ignored):
        """The logits."""
        with patch.multiple("refgen.model", **self.functions):
            return super().run(note)


def stepping(p, **functions):
    """`p`, with these functions: attend, linear, layer_norm, …"""
    return Stepping(**{each.name: getattr(p, each.name) for each in fields(Pass)}, functions=functions)


class Sequential(np.ndarray):
    """float32 numbers whose products are added up one term after the other: the order with the largest errors."""

    def __array_ufunc__(self, ufunc, method, *operands, out=None, **options):
        plain = [each.view(np.ndarray) if isinstance(each, Sequential) else each for each in operands]
        y = one_by_one(*plain) if ufunc is np.matmul else getattr(ufunc, method)(*plain, **options)
        if out is None:
            return y.view(Sequential) if y.dtype == np.float32 else y
        out[0].view(np.ndarray)[...] = y
        return out[0]

    def __array_function__(self, function, types, arguments, options):
        result = super().__array_function__(function, types, arguments, options)
        return result.view(Sequential) if type(result) is np.ndarray and result.dtype == np.float32 else result


def one_by_one(a, b):
    """a b, float32, the terms added one after the other."""
    y = np.zeros(np.broadcast_shapes((*a.shape[:-1], 1), (*b.shape[:-2], 1, b.shape[-1])), np.float32)
    for k in range(a.shape[-1]):
        y += a[..., k : k + 1] * b[..., k : k + 1, :]
    return y
