"""In which mode a model was when it was called."""

from __future__ import annotations

from math import isnan

import pytest
from torch import nn

from gradwatch.mode import Mode, OfModel


def seen(model: nn.Module) -> OfModel:
    mode = Mode()
    mode.listen(model, (), None)
    return mode.take()


@pytest.mark.parametrize(
    ("layers", "dropped", "matters"),
    [
        ([nn.Linear(2, 2)], 0.0, False),
        ([nn.Dropout(0.0), nn.LayerNorm(2)], 0.0, False),
        ([nn.Dropout(0.3), nn.AlphaDropout(0.6)], 0.6, True),
        ([nn.Dropout2d(1.0)], 1.0, True),
        ([nn.BatchNorm2d(3)], 0.0, True),
        ([nn.BatchNorm1d(3, track_running_stats=False)], 0.0, False),
        ([nn.InstanceNorm1d(3)], 0.0, False),
        ([nn.InstanceNorm1d(3, track_running_stats=True)], 0.0, True),
    ],
)
def test_the_layers_to_which_it_makes_a_difference(layers: list[nn.Module], dropped: float, matters: bool) -> None:
    model = nn.Sequential(*layers)
    assert seen(model.train()) == OfModel(dropped, 0.0)
    assert seen(model.eval()) == OfModel(0.0, float(matters))


def test_parts_may_be_in_evaluation_mode() -> None:
    """As the normalisations of a network that is fine-tuned."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[0].eval()
    assert seen(model) == OfModel(0.5, 0.0)
    model[1].eval()
    assert seen(model) == OfModel(0.0, 0.0)


def test_a_model_that_was_not_called() -> None:
    assert all(isnan(value) for value in Mode().take())
