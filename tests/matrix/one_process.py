"""What every rank must know: one process that trains on the whole batches in float64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from tests.matrix.reference import norms_now
from tests.matrix.workers.training import TRAININGS
from tests.models import as_float64


class Expected(NamedTuple):
    norms: list[dict[str, float]]
    """Of each step, before clipping."""
    coefficients: list[float]
    parameters: dict[str, np.ndarray]
    """After the last step."""


@cache
def expected(name: str, unclipped: tuple[int, ...] = (), steps: int | None = None) -> Expected:
    """One process, whole batches, float64, torch's own clipping but at the steps ``unclipped``."""
    training = TRAININGS[name]
    model = training.model().double()
    optimizer = training.optimizer(model)
    norms, coefficients = [], []
    for step in range(steps or training.steps):
        optimizer.zero_grad()
        for loss in training.losses(step):
            loss(model).backward()
        norms.append(norms_now(model))
        total = float(np.linalg.norm(list(norms[-1].values())))
        if step not in unclipped:
            nn.utils.clip_grad_norm_(model.parameters(), training.max_norm)
            coefficients.append(min(1.0, training.max_norm / total))
        optimizer.step()
    parameters = {name: as_float64(p).reshape(-1) for name, p in model.named_parameters()}
    return Expected(norms, coefficients, parameters)


def by_layer(result: dict[str, Any]) -> list[dict[str, float]]:
    """Of each step, the norms of the layers that have a gradient."""
    rows = zip(result["norms"], result["has_grad"])
    return [{n: norm for n, norm, has in zip(result["layers"], *row) if has} for row in rows]


def assert_close(found: Sequence[dict[str, float]], wanted: Sequence[dict[str, float]], within: float) -> None:
    """Step by step the same layers with the same norms."""
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for ours, theirs in zip(found, wanted):
        np.testing.assert_allclose(list(ours.values()), [theirs[name] for name in ours], rtol=within)


def assert_totals(result: dict[str, Any], wanted: Sequence[dict[str, float]], within: float) -> None:
    totals = [np.linalg.norm(list(norms.values())) for norms in wanted]
    np.testing.assert_allclose(result["totals"], totals, rtol=within)


def assert_parameters(result: dict[str, Any], wanted: dict[str, np.ndarray], within: float = 1e-6) -> None:
    assert result["parameters"].keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(result["parameters"][name], values, rtol=0, atol=within, err_msg=name)


def assert_same_on_all_ranks(by_rank: Sequence[dict[str, Any]], *but: str) -> None:
    """Bit for bit: the text of a float64 is another when a bit of it is."""
    texts = [json.dumps({key: value for key, value in result.items() if key not in but}) for result in by_rank]
    assert set(texts) == {texts[0]}
