"""What a step's vector is once it has arrived."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradwatch.arriving import Arriving, Sizes, input_size
from gradwatch.host_copy import HostCopy
from gradwatch.looks import Idle, Looked
from gradwatch.sampled import Moved
from tests.tensors import INF, NAN

LAYERS = ("a", "x" * 300, "frozen")


def arriving(norms: list[float], rows: list[int], scaled: bool = False, **more: object) -> Arriving:
    nothing = {"clip": None, "elements": None, "moved": None, "looked": None, "reduction": None}
    given = {"step": 7, "captured": "before clipping", "layers": LAYERS, "total_norm": NAN, "clip_numbers": 0}
    sizes = Sizes(np.array([4.0, 2.0, 1.0]), np.ones(3))
    copy = HostCopy(torch.tensor(norms, dtype=torch.float64))
    return Arriving(**{**nothing, **given, **more}, sizes=sizes, copy=copy, rows=rows, scaled=scaled)  # type: ignore[arg-type]


def test_norms_are_joined_by_layer() -> None:
    stats, clip = arriving([3.0, 4.0, 12.0], [0, 0, 1]).read()
    assert (stats.step, stats.layers, clip) == (7, LAYERS, None)
    assert stats.grad_norm.tolist() == [5.0, 12.0, 0.0]
    assert stats.has_grad.tolist() == [True, True, False]
    assert stats.total_norm == 13.0
    assert stats.is_plain


def test_without_any_gradient() -> None:
    stats, _ = arriving([], []).read()
    assert (stats.grad_norm.tolist(), stats.has_grad.any(), stats.total_norm) == ([0.0] * 3, False, 0.0)


@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_is_skipped_by_a_scaler_alone(value: float) -> None:
    for scaled in (False, True):
        stats, _ = arriving([value, 1.0], [0, 1], scaled=scaled).read()
        assert stats.skipped is scaled
        np.testing.assert_array_equal(stats.grad_norm, [value, 1.0, 0.0])


def test_what_a_close_look_showed() -> None:
    looked = Looked([2, 1, 2], True, np.array([True, True, False]), False, [1], Idle([2], 64), None)
    stats, _ = arriving([6.0, 2.0, 5.0], [0, 0, 1], looked=looked).read()
    assert stats.input_size is not None
    np.testing.assert_array_equal(stats.input_size, [3.0, NAN, NAN])
    assert [*map(np.ndarray.tolist, (stats.alike, stats.idle, stats.trained))] == [  # type: ignore[arg-type]
        [False, True, False],
        [False, False, True],
        [True, True, False],
    ]
    assert (stats.half, stats.not_zeroed, stats.unregistered) == (True, False, 64)
    unknown = looked._replace(alike=None, idle=None)
    stats, _ = arriving([6.0, 2.0, 5.0], [0, 0, 1], looked=unknown).read()
    assert (stats.alike, stats.idle, stats.unregistered) == (None, None, None)


def test_how_far_the_step_before_went() -> None:
    stats, _ = arriving([1.0], [0], moved=Moved([0, 1], [], np.array([[4.0, 16.0], [NAN, 1.0]]))).read()
    assert stats.update_ratio is not None
    np.testing.assert_array_equal(stats.update_ratio, [0.5, NAN, NAN])
    assert stats.broken is True
    assert math.isnan(stats.total_update or 0.0)


@pytest.mark.parametrize(
    ("matrix", "vector", "expected"),
    [(6.0, 2.0, 3.0), (0.0, 2.0, NAN), (6.0, 0.0, NAN), (NAN, 2.0, NAN), (INF, 2.0, INF), (6.0, INF, 0.0)],
)
def test_the_size_of_inputs_is_the_ratio_of_a_layers_two_gradients(
    matrix: float, vector: float, expected: float
) -> None:
    found = input_size(np.array([matrix, vector]), [1, 1], [2, 1], 2)
    np.testing.assert_array_equal(found, [NAN, expected])
