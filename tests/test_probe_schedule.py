"""When a monitor probes: for a reason, seldom, and without a trace."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.faults import GradwatchWarning
from gradwatch.layers import LayerTable
from gradwatch.probe_schedule import AGAIN, SHARDED, ProbeSchedule
from gradwatch.recording import TRANSFORMED, Recording
from tests.fingerprint import hook_counts
from tests.tensors import NAN, normal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def hooks_on(model: nn.Module) -> int:
    return sum(n for module in model.modules() for n in hook_counts(module).values())


def alert(step: int, rule: str = "vanishing", severity: gw.Severity = gw.Severity.WARNING) -> gw.Alert:
    return gw.Alert(step, rule, None, severity, 0.0, 0.0, "")


class Told:
    """A rule that alerts at given steps, with given names."""

    def __init__(self, rules: dict[int, str]) -> None:
        self._rules = rules

    def check(self, history: gw.History) -> list[gw.Alert]:
        step = history.latest.step
        return [alert(step, self._rules[step])] if step in self._rules else []


def run(steps: int, rules: dict[int, str] | None = None, **settings: Any) -> tuple[gw.Monitor, gw.sinks.Memory]:
    """Train ``steps`` steps with alerts at some of them."""
    sink = gw.sinks.Memory()
    model = network()
    settings = {"strict": True, "histogram_every_n_steps": 0, "rules": [Told(rules or {})], "sinks": [sink]} | settings
    monitor = gw.Monitor(model, **settings)
    monitor.model = model  # type: ignore[attr-defined]
    for _ in range(steps):
        step(monitor)
    return monitor, sink


def step(monitor: gw.Monitor, scale: float = 1.0) -> None:
    model = monitor.model  # type: ignore[attr-defined]
    model.zero_grad()
    (scale * model(normal(5, 4)).square().mean()).backward()
    monitor.step()


def probed(sink: gw.sinks.Memory) -> list[int]:
    return [report.stats.step for report in sink.reports if report.profile is not None]


# When


def test_a_healthy_run_is_probed_once_early() -> None:
    monitor, sink = run(40)
    assert probed(sink) == [1]
    profile = sink.reports[1].profile
    assert profile is not None
    assert (profile.step, profile.depth) == (1, 2)
    assert monitor.report().profile is profile
    assert hooks_on(monitor.model) == 0  # type: ignore[attr-defined]


def test_an_alert_is_followed_by_a_probe_of_the_next_step() -> None:
    _, sink = run(40, {20: "vanishing"})
    assert probed(sink) == [1, 21]


def test_each_rule_and_severity_asks_once() -> None:
    every_fifth = dict.fromkeys(range(10, 60, 5), "vanishing")
    assert probed(run(60, every_fifth)[1]) == [1, 11]
    assert probed(run(60, every_fifth | {30: "exploding"})[1]) == [1, 11, 31]


def test_it_asks_again_after_a_long_time() -> None:
    schedule, asked = ProbeSchedule(LayerTable(network())), []
    for at in (0, 500, 999, 1000, 1500, 2000):
        schedule.consider([alert(at)])
        asked += [at] * bool(schedule._alerts)
        schedule._alerts = []
    assert asked == [0, AGAIN, 2 * AGAIN]
    schedule.consider([alert(2001, severity=gw.Severity.ERROR)])
    assert len(schedule._alerts) == 1


def test_on_request_and_every_n_steps() -> None:
    monitor, sink = run(3)
    monitor.probe()
    step(monitor)
    step(monitor)
    assert probed(sink) == [1, 3]
    assert probed(run(13, probe_every_n_steps=4)[1]) == [1, 4, 8, 12]


def test_before_the_first_step_by_request() -> None:
    monitor, sink = run(0)
    monitor.probe()
    step(monitor)
    assert probed(sink) == [0]


def test_a_step_that_is_not_recorded_keeps_its_profile_for_the_next_that_is() -> None:
    monitor, sink = run(1, every_n_steps=5)
    monitor.probe()
    for _ in range(9):
        step(monitor)
    assert [(r.stats.step, r.profile.step) for r in sink.reports if r.profile] == [(5, 1)]


@pytest.mark.parametrize("every", [-1, 1.5, "a", None])
def test_what_is_no_number_of_steps_is_refused(every: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="probe_every_n_steps"):
        gw.Monitor(network(), probe_every_n_steps=every)


# What causes are given


class Asked:
    """A cause that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int | None, list[int]]] = []

    def explain(self, history: gw.History, probe: gw.BackwardProfile | None, alerts: list[gw.Alert]) -> gw.Diagnosis:
        self.given.append((history.latest.step, probe and probe.step, [a.step for a in alerts]))
        return gw.Diagnosis("asked", 0.5, (), (), "")


def test_causes_are_asked_again_when_the_profile_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = Asked()
    monkeypatch.setattr("gradwatch.diagnosis.default", lambda: (cause,))
    monitor, sink = run(40, {20: "vanishing", 25: "vanishing", 30: "vanishing"} | {21: "exploding"})
    # at an alert nothing is known but of a probe for the same rule; with a profile the alerts that it was made for
    assert cause.given == [
        (20, None, [20]),
        (21, 21, [20, 21]),
        (22, 22, [21]),
        (25, None, [25]),
        (30, None, [30]),
    ]
    assert [r.stats.step for r in sink.reports if r.diagnoses] == [20, 21, 22, 25, 30]
    monitor.report()
    assert cause.given[-1] == (39, 22, [20, 21, 25, 30])


def test_a_later_alert_of_the_same_rule_is_explained_by_the_same_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = Asked()
    monkeypatch.setattr("gradwatch.diagnosis.default", lambda: (cause,))
    run(30, {20: "vanishing", 25: "vanishing"})
    assert cause.given == [(20, None, [20]), (21, 21, [20]), (25, 21, [25])]


def test_where_nan_came_from_is_looked_for_after_an_alert_that_asks() -> None:
    monitor, sink = run(3, rules=None)
    monitor, sink = run(3, {2: "nonfinite"})
    step(monitor, NAN)
    assert sink.reports[3].profile.nonfinite == gw.profile.FirstNonFinite("backward", "")  # the loss's own


# What may go wrong


def test_a_probe_that_fails_warns_once_and_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(Recording, "_arrive", broken)
    with pytest.warns(GradwatchWarning, match=r"the probe failed, no step is probed any more: .*ZeroDivision") as told:
        monitor, sink = run(40, {20: "vanishing"}, strict=False)
    assert len(told) == 1
    assert probed(sink) == []
    assert len(monitor.history) == 40
    assert hooks_on(monitor.model) == 0  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="a look at the gradient failed"):
        run(3)


def test_closing_takes_the_hooks_off() -> None:
    monitor, _ = run(1)
    assert hooks_on(monitor.model) > 0  # type: ignore[attr-defined]
    monitor.close()
    assert hooks_on(monitor.model) == 0  # type: ignore[attr-defined]
    monitor.probe()
    assert hooks_on(monitor.model) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("steps", [1, 2])
def test_an_armed_monitor_keeps_no_model(steps: int) -> None:
    monitor, _ = run(steps)
    model = monitor.model  # type: ignore[attr-defined]
    references = [weakref.ref(thing) for thing in (model, *model.modules(), *model.parameters())]
    del monitor.model, model  # type: ignore[attr-defined]
    gc.collect()
    assert [r() for r in references if r() is not None] == []


def test_a_monitor_that_is_gone_leaves_no_hooks() -> None:
    monitor, _ = run(1)
    model = monitor.model  # type: ignore[attr-defined]
    del monitor
    gc.collect()
    assert hooks_on(model) == 0


def test_a_sharded_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table = LayerTable(model := network())
    monkeypatch.setattr(table, "sharding", object())
    schedule = ProbeSchedule(table)
    schedule.consider([alert(0)])
    schedule.get_ready(turn=1, recorded=3)
    assert hooks_on(model) == 0
    assert schedule.last is not None
    assert schedule.last.profile.notes == (SHARDED,)
    schedule.consider([alert(0, "exploding")])
    assert schedule._alerts == []


def test_a_compiled_model_is_compiled_once_and_asked_no_more() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fast = torch.compile(network(), backend="aot_eager")
    sink = gw.sinks.Memory()
    monitor = gw.Monitor(fast, strict=True, rules=[Told({i: f"rule {i}" for i in range(5, 15)})], sinks=[sink])
    for _ in range(20):
        fast(normal(5, 4)).square().mean().backward()
        monitor.step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert probed(sink) == [1]
    assert sink.reports[1].profile.notes[0].startswith("Sequential: compiled code is one operation")


def test_under_functorch_nothing_changes() -> None:
    def gradients(watching: bool) -> list[Tensor]:
        model = network()
        monitor = gw.Monitor(model, strict=True, sinks=())
        if watching:
            monitor.probe()
        parameters = dict(model.named_parameters())
        loss = torch.func.grad(lambda p: torch.func.functional_call(model, p, (normal(5, 4),)).square().mean())
        found = list(loss({name: p.detach() for name, p in parameters.items()}).values())
        for p, gradient in zip(model.parameters(), found):
            p.grad = gradient
        monitor.step()
        profile = monitor.report().profile
        assert profile is None or profile.notes == (TRANSFORMED,)
        return found

    assert all(map(torch.equal, gradients(True), gradients(False)))


# The report


def test_a_healthy_report_has_its_margin() -> None:
    monitor, sink = run(3)
    text = str(monitor.report())
    assert text.splitlines()[0].startswith("Verdict   healthy: 3 steps")
    margin = monitor.report().profile.margin
    assert f"Margin    {margin}" in text
    assert margin.startswith("over 2 layers the gradient shrinks ")
    assert "Margin" not in str(sink.reports[2])


def test_one_with_alerts_going_on_has_none() -> None:
    monitor, _ = run(21, {20: "vanishing"})
    assert "Margin" not in str(monitor.report())
