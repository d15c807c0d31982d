"""In which mode a model was when it was called."""

from __future__ import annotations

from math import isnan

import pytest
import torch
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


@pytest.mark.parametrize("module", [nn.LSTM(2, 2, num_layers=2, dropout=0.5), nn.MultiheadAttention(4, 2, dropout=0.1)])
def test_modules_that_drop_by_themselves(module: nn.Module) -> None:
    assert seen(nn.Sequential(module).eval()).evaluates == 1.0
    assert seen(nn.Sequential(module).train()).evaluates == 0.0


def test_a_model_is_in_evaluation_mode_with_all_that_has_one() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    model[1].train()  # as a new head on a network that is frozen
    assert seen(model) == OfModel(0.5, 0.0)


def test_all_calls_count() -> None:
    """As of a second one in evaluation mode, for a term that is to be smooth."""
    model, mode = nn.Sequential(nn.Dropout(0.5)), Mode()
    mode.listen(model.train(), (), None)
    mode.listen(model.eval(), (), None)
    assert mode.take() == OfModel(0.5, 0.0)


def test_a_share_that_is_learned() -> None:
    class Learned(nn.Dropout):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.tensor(0.75))  # type: ignore[assignment]

    found = seen(nn.Sequential(Learned()))
    assert (found, type(found.dropped)) == (OfModel(0.75, 0.0), float)
