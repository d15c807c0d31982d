"""Columns against the slow way: each cell looked at on its own."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch import tags
from gradwatch.tensorboard_plugin import pooling
from gradwatch.tensorboard_plugin.pooling import edges, pool
from gradwatch.tensorboard_plugin.tables import STRETCH, Norms

ODD = [np.nan, np.inf, 0.0, tags.NO_GRADIENT, 1e-45, 3e38]


def norms_of(parts: list[np.ndarray]) -> Norms:
    parts = [part.astype(np.float32) for part in parts]
    steps = np.arange(sum(map(len, parts)))
    return Norms(tuple(map(str, range(parts[0].shape[1]))), steps, tuple(parts), np.ones(len(steps)))


def random_parts(*lengths: int, odd: float) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(lengths))
    parts = [10.0 ** rng.uniform(-8, 4, (length, 5)) for length in lengths]
    return [np.where(rng.random(part.shape) < odd, rng.choice(ODD, part.shape), part) for part in parts]


@pytest.mark.parametrize("odd", [0.0, 0.02, 0.9])
@pytest.mark.parametrize("columns", [1, 2, 7, 1000])
@pytest.mark.parametrize("window", [(0, 260), (0, 1), (99, 101), (130, 260), (17, 203)])
def test_each_cell_is_what_its_rows_hold(window: tuple[int, int], columns: int, odd: float) -> None:
    parts = random_parts(100, 30, 1, 129, odd=odd)
    norms, whole = norms_of(parts), np.concatenate(parts).astype(np.float32)
    begin, end = window
    starts = edges(end - begin, columns, begin)
    found = pool(norms, starts, end)
    for c, (first, after) in enumerate(zip(starts, [*starts[1:], end])):
        for layer in range(5):
            cell = whole[first:after, layer]
            plain = cell[(cell > 0) & (cell < np.inf)]
            assert found.largest[c, layer] == (plain.max() if len(plain) else 0)
            assert found.least[c, layer] == (plain.min() if len(plain) else np.inf)
            wanted = (
                pooling.NAN * bool(np.isnan(cell).any())
                | pooling.INF * bool((cell == np.inf).any())
                | pooling.ZERO * bool((cell == 0).any())
                | pooling.NO_GRADIENT * bool((cell == tags.NO_GRADIENT).any())
            )
            assert found.marks[c, layer] == wanted


def test_a_spike_of_one_step_survives_any_number_of_columns() -> None:
    part = np.full((3 * STRETCH + 5, 2), 1e-3)
    part[STRETCH, 1], part[2 * STRETCH + 1, 0] = 1e6, np.nan
    for columns in (1, 10, 997, 4096):
        found = pool(norms_of([part]), edges(len(part), columns), len(part))
        assert found.largest[:, 1].max() == np.float32(1e6)
        assert (found.largest[:, 1] > 1).sum() == 1
        assert (found.marks[:, 0] == pooling.NAN).sum() == 1


@pytest.mark.parametrize(("size", "cells"), [(1, 1), (10, 3), (10, 10), (10, 99), (4097, 1000)])
def test_cells_cover_everything_and_differ_by_one_at_most(size: int, cells: int) -> None:
    starts = edges(size, cells)
    sizes = np.diff([*starts, size])
    assert starts[0] == 0
    assert len(starts) == min(size, cells)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1


def test_rows_of_several_layers_hold_what_any_of_them_holds() -> None:
    part = np.array([[1.0, np.nan, 0.0, 5.0, 2.0]])
    pooled = pool(norms_of([part]), edges(1, 1), 1).by_layers(edges(5, 2))
    assert pooled.largest.tolist() == [[1.0, 5.0]]
    assert pooled.least.tolist() == [[1.0, 2.0]]
    assert pooled.marks.tolist() == [[pooling.NAN, pooling.ZERO]]
