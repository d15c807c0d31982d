from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Alert, Severity
from gradwatch.rules import UnscaledInputs
from tests.histories import INF, NAN, stats, told_by
from tests.tensors import normal

RULE = UnscaledInputs()


def check(
    rms: float, left: float, rule: UnscaledInputs | None = None, name: str = "fc0", moved: float = 1e-3
) -> list[Alert]:
    """Of a look at every hundredth step, where this share of a cross entropy is left."""
    look = {"data_rms": np.array([rms, NAN]), "output_error": left, "total_update": moved}
    first = look if np.isnan(left) else {**look, "output_error": 1.0}
    seen = {0: first, 100: first, 200: look, 300: look}
    return told_by(
        rule or UnscaledInputs(), [stats(i, {name: 1.0, "head": 1.0}, **seen.get(i, {})) for i in range(301)]
    )


def test_little_is_learned_of_large_data() -> None:
    (alert,) = check(100.0, 0.8)
    assert (alert.step, alert.layer, alert.severity, alert.value) == (200, "fc0", Severity.WARNING, 100.0)
    assert alert.message == (
        "fc0: the data have a root mean square of 100, standardised ones have 1, and little has been learned"
    )


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name = "x" * 300
    assert [a.message.partition(":")[0] for a in check(100.0, 0.8, name=name)] == [name]


@pytest.mark.parametrize(("moved", "is_error"), [(0.09, True), (0.2, False)])
def test_where_nothing_was_ever_learned_it_becomes_an_error_unless_steps_threw_it_off(
    moved: float, is_error: bool
) -> None:
    found = [(a.step, a.severity) for a in check(100.0, 0.99, moved=moved)]
    assert found == [(200, Severity.WARNING), (300, Severity.ERROR)][: 1 + is_error]


def test_of_tiny_data_it_is_an_error_as_soon_as_that_is_seen() -> None:
    early = {i: {"data_rms": np.array([1e-3, NAN]), "output_error": 1.0} for i in (1, 2, 3, 100)}

    def told() -> list[tuple[int, Severity]]:
        steps = [stats(i, {"fc0": 1.0, "head": 1.0}, **early.get(i, {})) for i in range(150)]
        return [(a.step, a.severity) for a in told_by(UnscaledInputs(), steps)]

    assert told() == [(100, Severity.ERROR)]
    early[100]["output_error"] = 0.8
    assert told() == []
    early[100]["output_error"] = 1.0
    early[3]["data_rms"] = np.array([1.0, NAN])  # in range a look before
    assert told() == []


@pytest.mark.parametrize(
    ("rms", "left"),
    [(100.0, 0.6), (9.0, 1.0), (1.0, 1.0), (4e-3, 1.0), (0.0, 1.0), (NAN, 1.0), (INF, 1.0), (100.0, NAN)],
)
def test_what_is_learned_or_small_or_not_known(rms: float, left: float) -> None:
    assert check(rms, left) == []


@pytest.mark.parametrize("rms", [2e-3, 1e-30])
def test_tiny_data(rms: float) -> None:
    (alert,) = check(rms, 0.8)
    assert (alert.step, alert.value, alert.threshold) == (200, rms, RULE.least)
    assert check(rms, 0.6) == []
    assert check(rms, 0.8, UnscaledInputs(least=0.0)) == []


def test_a_limit_of_ones_own() -> None:
    assert len(check(5.0, 0.8, UnscaledInputs(threshold={"fc0": 3.0}))) == 1
    assert check(100.0, 0.8, UnscaledInputs(threshold={"fc*": 1e3})) == []
    with pytest.raises(ValueError, match="UnscaledInputs: threshold must be above 0"):
        UnscaledInputs(threshold=0.0)


def train(scale: float) -> gw.Monitor:
    """Two of eight features tell the class; the others are in units in which their numbers are large."""
    torch.manual_seed(0)
    x = normal(256, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    x = x * torch.tensor([1.0, 1.0, *[scale] * 6])
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=(), rules=[UnscaledInputs()]) as monitor:
        for step in range(420):
            batch = slice(32 * (step % 8), 32 * (step % 8 + 1))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return monitor


def test_features_in_large_units() -> None:
    monitor = train(300.0)
    assert {(a.rule, a.layer) for a in monitor.alerts} == {("unscaled_inputs", "0")}
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.change, found.layers) == ("unscaled_inputs", "data_scaling", ("0",))
    assert train(1.0).alerts == []


def test_a_normalisation_right_behind_takes_the_size_out_again() -> None:
    torch.manual_seed(0)
    x, y = 300 * normal(64, 1, 8, 8).abs(), torch.randint(0, 2, (64,))  # noise: nothing is to be learned
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    with gw.watch(model, optimizer, sinks=(), rules=[UnscaledInputs()]) as monitor:
        for _ in range(420):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert monitor.history.progress.left > 0.9
    assert monitor.alerts == []
