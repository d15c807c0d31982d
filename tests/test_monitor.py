"""The contract of Monitor, by training that really happens."""

import gc
import io
import pickle
import random
import re
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.faults import GradwatchWarning
from gradwatch.monitor import AT_FIRST, FIRST_STEPS, is_first_look
from gradwatch.rules import NonFinite, Spike, Vanishing
from tests.models import GALLERY, BuffersOnly, backward, build, layer_norms

NAN, INF = float("nan"), float("inf")


def quiet(model: nn.Module, **arguments) -> gw.Monitor:
    """A strict monitor that writes nowhere."""
    return gw.Monitor(model, **{"sinks": (), "strict": True, **arguments})


class Loop:
    """A small regression, its loss multiplied by ``scales`` at some steps; a step that is not finite is skipped."""

    def __init__(self, scales: dict[int, float] | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02)
        self.scales = scales or {}
        self.step = 0

    def backward(self) -> None:
        generator = torch.Generator().manual_seed(self.step)
        x = torch.randn(32, 4, generator=generator)
        loss = (self.model(x) - x.sum(dim=1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        (loss * self.scales.get(self.step, 1.0)).backward()

    def run(self, monitor: gw.Monitor, steps: int) -> None:
        for _ in range(steps):
            self.backward()
            monitor.step()
            if all(p.grad.isfinite().all() for p in self.model.parameters()):
                self.optimizer.step()
            self.step += 1


def set_norms(model: nn.Module, *norms: float | None) -> None:
    """Give each parameter of ``model`` a gradient of that norm, in one element."""
    for parameter, norm in zip(model.parameters(), norms):
        parameter.grad = None if norm is None else torch.zeros_like(parameter)
        if norm is not None:
            parameter.grad.view(-1)[0] = norm


def found(monitor: gw.Monitor) -> list[tuple[int, str, str]]:
    return [(a.step, a.rule, a.severity.name) for a in monitor.alerts]


@pytest.mark.parametrize("name", GALLERY)
def test_norms_equal_the_reference_on_every_model(name):
    case = build(name)
    with quiet(case.model) as monitor:
        for _ in range(2):
            case.model.zero_grad()
            backward(case)
            monitor.step()
    expected = layer_norms(case)
    stats = monitor.history.latest
    assert stats.has_grad.tolist() == [layer in expected for layer in stats.layers]
    np.testing.assert_allclose(stats.grad_norm, [expected.get(layer, 0.0) for layer in stats.layers], rtol=1e-6)
    assert stats.total_norm == pytest.approx(np.linalg.norm(list(expected.values())), rel=1e-6)
    assert stats.layers == tuple(layer.name for layer in monitor.layers)
    assert monitor.alerts == []


@pytest.mark.parametrize("name", GALLERY)
def test_every_parameter_alone(name):
    case = build(name)
    with quiet(case.model, granularity="parameter") as monitor:
        backward(case)
        monitor.step()
    have = [p for p in case.model.parameters() if p.grad is not None and p.numel()]
    stats = monitor.history.latest
    assert int(stats.has_grad.sum()) == len(have)
    expected = [float(torch.linalg.vector_norm(p.grad.to_dense().to(torch.complex128))) for p in have]
    np.testing.assert_allclose(stats.grad_norm[stats.has_grad], expected, rtol=1e-6)


class TestCadence:
    def test_steps_count_from_zero(self):
        loop = Loop()
        monitor = quiet(loop.model)
        loop.run(monitor, 4)
        assert monitor.history.steps.tolist() == [0, 1, 2, 3]

    def test_steps_of_the_user(self):
        loop = Loop()
        monitor = quiet(loop.model)
        loop.backward()
        for step in (100, None, 250, None):
            monitor.step(step)
        assert monitor.history.steps.tolist() == [100, 101, 250, 251]

    def test_every_n_steps(self):
        loop = Loop()
        monitor = quiet(loop.model, every_n_steps=3)
        loop.run(monitor, 8)
        assert monitor.history.steps.tolist() == [0, 3, 6]

    def test_clips_at_every_step_and_records_every_third(self):
        loop = Loop()
        monitor = quiet(loop.model, every_n_steps=3, clip=gw.clipping.GlobalNorm(1e-3))
        for _ in range(5):
            loop.backward()
            monitor.step()
            assert torch.nn.utils.get_total_norm([p.grad for p in loop.model.parameters()]) <= 1e-3 * (1 + 1e-6)
        assert monitor.history.steps.tolist() == [0, 3]
        assert monitor.history.total_norm.min() > 1e-2  # as they were before

    def test_histograms(self):
        loop, memory = Loop(), gw.sinks.Memory()
        monitor = quiet(loop.model, histogram_every_n_steps=3, sinks=[memory])
        loop.run(monitor, 7)
        sampled = {r.stats.step for r in memory.reports if r.stats.histogram is not None}
        assert sampled == {r.stats.step for r in memory.reports if r.stats.param_norm is not None} == {0, 3, 6}

    @pytest.mark.parametrize(("every", "sampled"), [(0, []), (25, [0, 25])])
    def test_the_first_steps_are_looked_at_as_closely_as_sampled_ones(self, every, sampled):
        loop, memory = Loop(), gw.sinks.Memory()
        loop.run(quiet(loop.model, histogram_every_n_steps=every, sinks=[memory]), 30)
        looked = sorted({*range(FIRST_STEPS), *sampled})
        after = [step + 1 for step in looked]
        for name, steps in {"input_size": looked, "half": looked, "update_ratio": after, "total_update": after}.items():
            assert [r.stats.step for r in memory.reports if getattr(r.stats, name) is not None] == steps
        assert [r.stats.step for r in memory.reports if r.stats.histogram is not None] == sampled

    @pytest.mark.parametrize("every", [1, 2, 3, 4])
    def test_a_close_look_is_one_step_long_however_seldom_steps_are_recorded(self, every):
        loop, memory = Loop(), gw.sinks.Memory()
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
        loop.run(quiet(loop.model, every_n_steps=every, histogram_every_n_steps=90, sinks=[memory]), 200)
        heard = {r.stats.step: r.stats.output_gradient for r in memory.reports if r.stats.output_gradient is not None}
        first = {every * i for i in range(1, AT_FIRST) if is_first_look(i) and every * i < 200}
        assert [*heard] == sorted({*first, 92 if every == 4 else 90, 180})
        for step, norm in heard.items():
            x = torch.randn(32, 4, generator=torch.Generator().manual_seed(step))
            error = (loop.model(x) - x.sum(dim=1, keepdim=True)).detach()
            assert norm == pytest.approx(float((2 * error / 32).norm()), rel=1e-5)

    @pytest.mark.parametrize("numbers", [range(0, 2000, 10), range(5000, 5200), range(1, 201)])
    def test_close_looks_at_steps_that_the_user_numbers(self, numbers):
        loop, memory = Loop(), gw.sinks.Memory()
        monitor = quiet(loop.model, sinks=[memory])
        for number in numbers:
            loop.backward()
            monitor.step(number)
            loop.optimizer.step()
        heard = [r.stats.step for r in memory.reports if np.isfinite(r.stats.output_gradient or np.nan)]
        assert heard == [n for i, n in enumerate(numbers) if i and (is_first_look(i) or n % 100 == 0)]

    def test_nothing_listens_on_where_the_numbers_change_their_stride(self):
        loop, memory = Loop(), gw.sinks.Memory()
        monitor = quiet(loop.model, sinks=[memory])
        loop.run(monitor, 100)  # now it waits for step 100
        heard = [len(m._forward_hooks) for m in loop.model]
        assert any(heard)
        for number in (150, 151):
            loop.backward()
            monitor.step(number)
        assert [len(m._forward_hooks) for m in loop.model] == [0, 0, 0]

    def test_a_monitor_that_goes_on_has_no_first_steps(self):
        loop, memory = Loop(), gw.sinks.Memory()
        first = quiet(loop.model, histogram_every_n_steps=0)
        loop.run(first, FIRST_STEPS - 2)
        second = quiet(loop.model, histogram_every_n_steps=0, sinks=[memory])
        second.load_state_dict(first.state_dict())
        loop.run(second, 5)
        assert [r.stats.input_size is not None for r in memory.reports] == [True, True, False, False, False]

    def test_the_update_ratio_is_that_of_the_sampled_step(self):
        loop = Loop()
        monitor = quiet(loop.model, histogram_every_n_steps=1)
        loop.backward()
        monitor.step()
        before = [p.detach().clone() for p in loop.model.parameters()]
        loop.optimizer.step()
        after = [p.detach().clone() for p in loop.model.parameters()]
        monitor.step()
        expected = [
            torch.cat([(a - b).flatten() for a, b in zip(after[i : i + 2], before[i : i + 2])]).norm()
            / torch.cat([b.flatten() for b in before[i : i + 2]]).norm()
            for i in (0, 2)
        ]
        assert monitor.history.update_ratio.tolist() == pytest.approx([float(e) for e in expected], rel=1e-4)


class TestLayers:
    def test_granularity_and_patterns(self):
        model = build("mlp").model
        assert [layer.name for layer in quiet(model, granularity="parameter", include="2.*").layers] == [
            "2.weight",
            "2.bias",
        ]
        assert [layer.name for layer in quiet(model, exclude="0").layers] == ["2"]

    def test_only_the_parameters_of_the_optimizer(self):
        case = build("mlp")
        optimizer = torch.optim.SGD([case.model[2].weight], lr=0.1)
        monitor = quiet(case.model, optimizer=optimizer)
        backward(case)
        monitor.step()
        assert monitor.history.has_grad[-1].tolist() == [False, True]
        assert monitor.history.total_norm[-1] == pytest.approx(float(case.model[2].weight.grad.norm()), rel=1e-6)
        optimizer.add_param_group({"params": [case.model[0].weight]})
        monitor.step()
        assert monitor.history.has_grad[-1].tolist() == [True, True]

    def test_no_gradient_at_all(self):
        monitor = quiet(build("mlp").model, clip=gw.clipping.GlobalNorm(1.0))
        monitor.step()
        assert monitor.history.has_grad.tolist() == [[False, False]]
        assert monitor.history.total_norm.tolist() == [0.0]

    def test_a_layer_that_comes_while_training(self):
        case = build("mlp")
        monitor = quiet(case.model)
        backward(case)
        monitor.step()
        case.model.append(nn.Linear(3, 2))
        backward(case)
        monitor.step()
        assert monitor.history.has_grad.tolist() == [[True, True, False], [True, True, True]]


class TestAlerts:
    def test_one_alert_for_one_spike(self):
        loop = Loop({45: 1e3})
        monitor = quiet(loop.model, clip=gw.clipping.GlobalNorm(1.0))
        loop.run(monitor, 80)
        assert found(monitor) == [(45, "spike", "WARNING")]

    def test_one_alert_for_each_spike(self):
        loop = Loop({45: 1e3, 60: 1e3})
        monitor = quiet(loop.model, clip=gw.clipping.GlobalNorm(1.0))
        loop.run(monitor, 80)
        assert found(monitor) == [(45, "spike", "WARNING"), (60, "spike", "WARNING")]

    @pytest.mark.parametrize("value", [NAN, INF])
    def test_one_alert_for_a_nan_step_and_one_for_the_recovery(self, value):
        loop = Loop({30: value, 31: value})
        monitor = quiet(loop.model)
        loop.run(monitor, 60)
        assert found(monitor) == [(30, "nonfinite", "ERROR"), (31 + NonFinite().recovery, "nonfinite", "INFO")]

    def test_no_alert_in_a_run_that_learns(self):
        loop = Loop()
        monitor = quiet(loop.model)
        loop.run(monitor, 120)
        assert monitor.alerts == []
        assert str(monitor.report()) == "Verdict   healthy: 120 steps, 2 layers, no alert"

    def test_sinks_see_the_alerts_of_their_step(self):
        loop, memory = Loop({30: NAN}), gw.sinks.Memory()
        loop.run(quiet(loop.model, sinks=[memory]), 40)
        by_step = {r.stats.step: [a.rule for a in r.alerts] for r in memory.reports if r.alerts}
        assert by_step == {30: ["nonfinite"], 30 + NonFinite().recovery: ["nonfinite"]}
        assert memory.reports[30].severity is gw.Severity.ERROR
        assert [d.cause for d in memory.reports[30].diagnoses] == ["first_nonfinite"]
        assert memory.reports[32].diagnoses == ()

    def test_causes_of_the_users_own(self):
        class Explains:
            def explain(self, history, probe, alerts):
                return gw.Diagnosis("own", 0.99, (), (f"{len(alerts)} alerts",), "mend it")

        loop, memory = Loop({30: NAN}), gw.sinks.Memory()
        loop.run(quiet(loop.model, sinks=[memory], diagnose=[*gw.diagnosis.default(), Explains()]), 40)
        assert memory.reports[30].diagnoses[0].cause == "own"
        loop, memory = Loop({30: NAN}), gw.sinks.Memory()
        loop.run(quiet(loop.model, sinks=[memory], diagnose=(Explains(),)), 40)
        assert [d.cause for d in memory.reports[30].diagnoses] == ["own"]

    def test_without_diagnosis(self):
        loop, memory = Loop({30: NAN}), gw.sinks.Memory()
        loop.run(quiet(loop.model, sinks=[memory], diagnose=False), 40)
        assert all(r.diagnoses == () for r in memory.reports)

    def test_a_rule_that_repeats_itself_gives_one_alert_per_episode(self):
        class Above:
            def check(self, history):
                for layer, norm in zip(history.layers, history.latest.grad_norm):
                    if norm > 1:
                        yield gw.Alert(history.latest.step, "above", layer, gw.Severity.WARNING, norm, 1.0, "")

        model = nn.Linear(2, 2)
        monitor = quiet(model, rules=[Above()], granularity="parameter")
        for first, second in [(0, 0), (2, 0), (2, 2), (2, 2), (0, 2), (2, 2)]:
            set_norms(model, first, second)
            monitor.step()
        assert [(a.step, a.layer) for a in monitor.alerts] == [(1, "weight"), (2, "bias"), (5, "weight")]
        assert monitor.report().verdict.startswith("above: ")

    def test_thresholds_by_pattern_must_match(self):
        with pytest.raises(ValueError, match=r"Vanishing\(ratio=\.\.\.\): the pattern 'encoder\.\*' matches no layer"):
            quiet(nn.Linear(2, 1), rules=[Vanishing(ratio={"encoder.*": 1e-3})])


class TestClipping:
    def test_the_record(self):
        model = nn.Linear(2, 2)
        memory = gw.sinks.Memory()
        monitor = quiet(model, clip=gw.clipping.GlobalNorm(1.0), sinks=[memory])
        set_norms(model, 3.0, 4.0)
        monitor.step()
        clip = memory.reports[0].clip
        assert (clip.policy, clip.norm_before, clip.threshold) == ("global_norm", 5.0, 1.0)
        assert clip.norm_after == pytest.approx(1.0, rel=1e-6)
        assert all(type(v) is float for v in (clip.norm_before, clip.norm_after, clip.coefficient, clip.threshold))
        assert monitor.report().clip == clip

    @pytest.mark.parametrize("max_norm", [1e-2, 1.0, 1e3])
    def test_clip_grad_norm_is_that_of_torch(self, max_norm):
        ours, theirs = Loop(), Loop()
        monitor = quiet(ours.model)
        for _ in range(5):
            ours.backward()
            theirs.backward()
            mine = monitor.clip_grad_norm_(max_norm)
            torch.testing.assert_close(mine, nn.utils.clip_grad_norm_(theirs.model.parameters(), max_norm))
            for a, b in zip(ours.model.parameters(), theirs.model.parameters()):
                assert torch.equal(a.grad, b.grad)
            for a, b in zip(ours.model.parameters(), theirs.model.parameters()):
                assert torch.equal(a.grad, b.grad)
            ours.optimizer.step()
            theirs.optimizer.step()
        assert len(monitor.history) == 5

    @pytest.mark.parametrize("closed", [False, True])
    @pytest.mark.parametrize("scale", [1.0, 1024.0])
    @pytest.mark.parametrize("arguments", [{}, {"include": ["0"]}, {"optimizer": True}])
    def test_clip_grad_norm_clips_the_same_once_the_monitor_is_closed(self, closed, scale, arguments):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        part = model[0] if "optimizer" in arguments else model
        optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        given = {**arguments, "optimizer": optimizer} if "optimizer" in arguments else arguments
        monitor = gw.Monitor(model, sinks=(), scaler=scaler, **given)
        scaler.scale(model(torch.ones(4, 3)).sum()).backward()
        before = [p.grad / scale for p in model.parameters()]
        if closed:
            monitor.close()
        clipped = {id(p) for p in part.parameters()}
        total = torch.stack([g.norm() for p, g in zip(model.parameters(), before) if id(p) in clipped]).norm()
        assert float(monitor.clip_grad_norm_(0.5)) == pytest.approx(float(total), rel=1e-6)
        for p, g in zip(model.parameters(), before):
            expected = g * (0.5 / total) if id(p) in clipped else g
            torch.testing.assert_close(p.grad / scale, expected, rtol=1e-5, atol=0)

    def test_clip_grad_norm_refuses_a_bad_limit(self):
        with pytest.raises(ValueError, match="max_norm must be above 0, got 0"):
            quiet(nn.Linear(2, 1)).clip_grad_norm_(0)


class Broken:
    """Fails as a rule, a sink, a cause and a clip policy."""

    def __init__(self) -> None:
        self.calls = 0

    def fail(self, *_):
        self.calls += 1
        raise RuntimeError("broken on purpose")

    check = write = explain = clip_ = fail

    def close(self) -> None:
        pass


BROKEN = {
    "rule Broken failed, it is dropped": lambda part: {"rules": [part, *gw.rules.default()]},
    "sink Broken failed, it is dropped": lambda part: {"sinks": [part, gw.sinks.Memory()]},
    "clip Broken failed, this step is clipped in part or not at all": lambda part: {"clip": part},
}


class TestFaults:
    @pytest.mark.parametrize("message", BROKEN)
    def test_one_warning_and_training_goes_on(self, message):
        loop, part = Loop({10: NAN}), Broken()
        monitor = gw.Monitor(loop.model, **{"sinks": (), **BROKEN[message](part)})
        with pytest.warns(GradwatchWarning, match=re.escape(message) + ".*RuntimeError: broken on purpose") as caught:
            loop.run(monitor, 20)
        assert len(caught) == 1
        assert len(monitor.history) == 20
        assert found(monitor) == [(10, "nonfinite", "ERROR"), (10 + NonFinite().recovery, "nonfinite", "INFO")]
        assert part.calls == (20 if message.startswith("clip") else 1)

    @pytest.mark.parametrize("message", BROKEN)
    def test_strict_raises(self, message):
        loop = Loop()
        monitor = gw.Monitor(loop.model, strict=True, **{"sinks": (), **BROKEN[message](Broken())})
        with pytest.raises(RuntimeError, match="broken on purpose"):
            loop.run(monitor, 1)

    def test_a_cause_that_fails(self, monkeypatch):
        part = Broken()
        monkeypatch.setattr("gradwatch.diagnosis.default", lambda: (part,))
        loop = Loop({5: NAN, 15: NAN})
        monitor = gw.Monitor(loop.model, sinks=())
        with pytest.warns(GradwatchWarning, match="cause Broken failed, it is dropped") as caught:
            loop.run(monitor, 20)
        assert (len(caught), part.calls, len(monitor.alerts)) == (1, 1, 4)

    def test_the_other_sinks_go_on(self):
        loop, memory = Loop(), gw.sinks.Memory()
        with pytest.warns(GradwatchWarning):
            loop.run(gw.Monitor(loop.model, sinks=[Broken(), memory]), 5)
        assert [r.stats.step for r in memory.reports] == [0, 1, 2, 3, 4]

    def test_a_sink_that_cannot_close(self):
        class Stuck(gw.sinks.Memory):
            def close(self) -> None:
                raise OSError("disk full")

        first, last = Stuck(), Closed()
        monitor = gw.Monitor(nn.Linear(2, 1), sinks=[first, last])
        with pytest.warns(GradwatchWarning, match="sink Stuck failed.*OSError: disk full"):
            monitor.close()
        assert last.closed == 1

    def test_a_capture_that_fails_three_times_is_given_up(self, monkeypatch):
        loop, calls = Loop(), []

        def fail(gradients, by_torch):
            calls.append(1)
            raise RuntimeError("no norm")

        monkeypatch.setattr("gradwatch.capture.measure", fail)
        monitor = gw.Monitor(loop.model, sinks=())
        with pytest.warns(GradwatchWarning) as caught:
            loop.run(monitor, 6)
        first, last = (str(w.message) for w in caught)
        assert "the capture of gradients failed" in first
        assert "no norm" in first
        assert "is switched off" in last
        assert (len(calls), len(monitor.history)) == (3, 0)

    def test_keyboard_interrupts_pass(self):
        def interrupt(report):
            raise KeyboardInterrupt

        loop = Loop()
        with pytest.raises(KeyboardInterrupt):
            loop.run(gw.Monitor(loop.model, sinks=[gw.sinks.Callback(interrupt)]), 1)


class Closed(gw.sinks.Memory):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


class TestEnd:
    def test_close_is_idempotent(self):
        sink = Closed()
        monitor = quiet(nn.Linear(2, 1), sinks=[sink])
        monitor.close()
        monitor.close()
        assert sink.closed == 1

    def test_after_close_nothing_is_recorded(self):
        loop = Loop()
        monitor = quiet(loop.model)
        loop.run(monitor, 2)
        monitor.close()
        loop.run(monitor, 2)
        assert len(monitor.history) == 2

    def test_context_manager_closes_on_errors_too(self):
        sink = Closed()
        with pytest.raises(ZeroDivisionError), quiet(nn.Linear(2, 1), sinks=[sink]):
            raise ZeroDivisionError
        assert sink.closed == 1

    def test_report_before_the_first_step(self):
        report = quiet(nn.Linear(2, 1)).report()
        assert (report.verdict, report.severity, report.stats) == ("no step was recorded yet", gw.Severity.INFO, None)

    def test_report_during_an_episode_and_after_it(self):
        loop = Loop({30: NAN, 31: NAN})
        monitor = quiet(loop.model)
        loop.run(monitor, 31)
        during = monitor.report()
        assert during.verdict == "nonfinite: 0, 2 (2 of 2 layers)"
        assert during.severity is gw.Severity.ERROR
        assert "first_nonfinite" in [d.cause for d in during.diagnoses]
        assert during.stats.step == 30
        assert [line.split()[0] for line in str(during).splitlines() if line[0] != " "] == [
            "Verdict",
            "Why",
            "Evidence",
            "Next",
        ]
        loop.run(monitor, 10)
        after = monitor.report()
        assert after.verdict == "healthy now: 41 steps, 2 layers; earlier alerts: 1 x nonfinite"
        assert after.severity is gw.Severity.INFO
        assert len(after.alerts) == 2


def test_an_optimizer_that_is_made_anew_leaves_the_others_alone():
    model = nn.ModuleDict({"generator": nn.Linear(4, 4), "discriminator": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model["generator"].parameters(), lr=0.1)
    monitor = gw.Monitor(model, optimizer=optimizer, clip=gw.clipping.GlobalNorm(1e-3), sinks=())

    def step() -> list[bool]:
        model.zero_grad()
        model["discriminator"](model["generator"](torch.ones(2, 4))).sum().backward()
        monitor.step()
        assert model["discriminator"].weight.grad.norm() > 0.1  # as the loss made it
        return monitor.history.now.has_grad.tolist()

    assert step() == [True, False]
    optimizer = torch.optim.SGD(model["generator"].parameters(), lr=0.01)
    with pytest.warns(GradwatchWarning, match="an optimizer that the monitor was given is gone") as caught:
        assert [step(), step()] == [[False, False]] * 2
    assert len(caught) == 1


class TestState:
    def test_how_far_a_checkpoint_lies_back_is_no_step(self):
        loop = Loop()
        monitor = gw.Monitor(loop.model, optimizer=loop.optimizer, sinks=(), strict=True)
        state, weights = monitor.state_dict(), [p.detach().clone() for p in loop.model.parameters()]
        loop.run(monitor, 4)
        with torch.no_grad():
            for p, start in zip(loop.model.parameters(), weights):
                p.copy_(start + 100)
        monitor.load_state_dict(state)
        loop.backward()
        monitor.step()
        assert monitor.history.now.total_update is None
        assert monitor.alerts == []

    @pytest.mark.parametrize("missing", ["sampled_period", "recorded", "clip", "rules", "clip_log", "unexplained"])
    def test_a_state_that_is_none_changes_nothing(self, missing):
        monitor = quiet(nn.Linear(2, 1))
        state = {**monitor.state_dict(), "next_step": 7}
        del state[missing]
        with pytest.raises(ValueError, match=r"state must be what Monitor.state_dict\(\) returned"):
            monitor.load_state_dict(state)
        assert monitor.state_dict()["next_step"] == 0

    def drive(self, monitor: gw.Monitor, model: nn.Module, steps: range) -> None:
        for step in steps:
            norm = {25: 60.0, 30: NAN, 31: NAN, 45: 60.0, 60: INF}.get(step, 1.0 + 0.1 * (step % 7))
            set_norms(model, norm, None if step % 5 == 0 else 2 * norm, 1e-9)
            monitor.step()

    @pytest.mark.parametrize("pause", [1, 26, 31, 40, 61])
    def test_a_resumed_run_continues_step_for_step(self, pause):
        class Repeats:
            """Reports the same at each of its steps, and keeps no state."""

            def check(self, history):
                if 20 <= history.latest.step < 70:
                    yield gw.Alert(history.latest.step, "repeats", None, gw.Severity.WARNING, 0.0, 0.0, "")

        model = nn.RNNCell(2, 2)
        arguments = {"granularity": "parameter", "histogram_every_n_steps": 0, "exclude": "bias_hh"}
        whole = quiet(model, rules=[*gw.rules.default(), Repeats()], **arguments)
        self.drive(whole, model, range(80))
        first = quiet(model, rules=[*gw.rules.default(), Repeats()], **arguments)
        self.drive(first, model, range(pause))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = quiet(model, rules=[*gw.rules.default(), Repeats()], **arguments)
        second.load_state_dict(torch.load(file, weights_only=True))
        self.drive(second, model, range(pause, 80))

        assert {a.rule for a in whole.alerts} == {"spike", "nonfinite", "vanishing", "stalled", "repeats"}
        assert [str(a) for a in second.alerts] == [str(a) for a in whole.alerts]  # as strings, NaN equals itself
        assert all(isinstance(a.severity, gw.Severity) for a in second.alerts)
        assert str(second.report()) == str(whole.report())
        for part in ("steps", "grad_norm", "has_grad", "total_norm"):
            np.testing.assert_array_equal(getattr(second.history, part), getattr(whole.history, part))

    def test_a_resumed_run_is_told_what_the_whole_one_is(self):
        """What the first step showed goes along; the backward pass is looked at anew."""

        def stacked():
            torch.manual_seed(0)
            model = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Sigmoid())])
            return model, torch.optim.SGD(model.parameters(), lr=0.1)

        def train(monitor, model, optimizer, steps):
            for _ in range(steps):
                optimizer.zero_grad()
                model(torch.ones(4, 16)).square().mean().backward()
                monitor.step()
                optimizer.step()

        model, optimizer = stacked()
        train(whole := quiet(model), model, optimizer, 40)
        model, optimizer = stacked()
        train(first := quiet(model), model, optimizer, 20)
        second = quiet(model)
        second.load_state_dict(first.state_dict())
        train(second, model, optimizer, 20)
        assert whole.report().diagnoses
        assert [d.cause for d in second.report().diagnoses] == [d.cause for d in whole.report().diagnoses]

    def test_two_rules_of_one_class_keep_their_own_state(self):
        model = nn.Linear(2, 2)

        def monitor() -> gw.Monitor:
            return quiet(model, rules=[NonFinite(patience=1), NonFinite(patience=3)], granularity="parameter")

        first, second = monitor(), monitor()
        for _ in range(2):
            set_norms(model, NAN, 1.0)
            first.step()
        second.load_state_dict(first.state_dict())
        second.step()
        assert [a.step for a in second.alerts] == [0, 2]

    def test_a_policy_keeps_its_state(self):
        class Counting(gw.clipping.Value):
            seen = 0

            def clip_(self, gradients, stats):
                type(self).seen += 1
                return super().clip_(gradients, stats)

            def state_dict(self):
                return {"seen": self.seen}

            def load_state_dict(self, state):
                type(self).seen = state["seen"]

        model = nn.Linear(2, 2)
        monitor = quiet(model, clip=Counting(1.0))
        monitor.step()
        monitor.step()
        state = monitor.state_dict()
        Counting.seen = 0
        monitor.load_state_dict(state)
        assert Counting.seen == 2

    def test_a_state_is_a_copy(self):
        loop = Loop()
        monitor = quiet(loop.model, rules=[Spike()])
        loop.run(monitor, 3)
        state = monitor.state_dict()
        before = pickle.dumps(state)
        loop.run(monitor, 3)
        assert pickle.dumps(state) == before

    def test_more_rules_than_the_state_knows(self):
        loop = Loop()
        first = quiet(loop.model, rules=())
        loop.run(first, 3)
        second = quiet(loop.model)
        second.load_state_dict(first.state_dict())
        loop.run(second, 2)
        assert second.history.steps.tolist() == [0, 1, 2, 3, 4]


def fingerprint(watched: bool, optimizer_class: type, **arguments) -> list[bytes]:
    """Everything that training with dropout leaves behind."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 2))
    model.append(nn.Linear(3, 3))  # not used: no gradient may appear there
    optimizer = optimizer_class(model.parameters(), lr=0.05)
    monitor = quiet(model, histogram_every_n_steps=2, sinks=[gw.sinks.Memory()], **arguments) if watched else None
    for _ in range(6):
        model[:-1](torch.randn(8, 6)).square().mean().backward()
        if monitor:
            monitor.step()
        optimizer.step()
        optimizer.zero_grad()
    if monitor:
        monitor.report()
        monitor.close()
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    left = {name: sorted(vars(module)) for name, module in model.named_modules()}
    settings = (torch.is_grad_enabled(), torch.get_num_threads(), model.training, np.geterr(), len(warnings.filters))
    generators = (torch.get_rng_state().numpy().tobytes(), np.random.get_state(), random.getstate())
    return [file.getvalue(), repr(left).encode(), repr(settings).encode(), pickle.dumps(generators)]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("clip", [None, gw.clipping.GlobalNorm(1e9), gw.clipping.Value(1e9)])
def test_watching_changes_no_bit_of_training(optimizer_class, clip):
    assert fingerprint(True, optimizer_class, clip=clip) == fingerprint(False, optimizer_class)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "resnet50"}, TypeError, r"model must be a torch\.nn\.Module, got str"),
        ({"model": BuffersOnly()}, ValueError, "model: BuffersOnly has no parameters"),
        ({"optimizer": "adam"}, TypeError, r"optimizer must be a torch\.optim\.Optimizer or wrap one, got str"),
        (
            {"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))])},
            ValueError,
            "optimizer: SGD shares no parameter with model Linear",
        ),
        (
            {"rules": [Spike]},
            TypeError,
            r"rules takes objects with check\(\), such as gradwatch.rules.Vanishing\(\), got <class",
        ),
        ({"rules": Spike()}, TypeError, r"rules must be a list or tuple of objects with check\(\), .*, got Spike"),
        ({"rules": "spike"}, TypeError, r"rules must be a list or tuple of objects with check\(\), .*, got 'spike'"),
        ({"rules": [3]}, TypeError, r"rules takes objects with check\(\), .*, got 3"),
        (
            {"clip": 1.0},
            TypeError,
            r"clip takes objects with clip_\(\), such as gradwatch.clipping.GlobalNorm\(max_norm=1.0\), got 1\.0",
        ),
        ({"clip": gw.clipping.Value}, TypeError, r"clip takes objects with clip_\(\), .*, got <class"),
        (
            {"sinks": gw.sinks.Memory()},
            TypeError,
            r"sinks must be a list or tuple of objects with write\(\) and close\(\), .*, got <",
        ),
        (
            {"sinks": [print]},
            TypeError,
            r"sinks takes objects with write\(\) and close\(\), .*, got <built-in function print>",
        ),
        ({"diagnose": [print]}, TypeError, r"diagnose takes objects with explain\(\), such as gradwatch.diagnosis.Sat"),
        ({"diagnose": None}, TypeError, r"diagnose must be a list or tuple of objects with explain\(\), .*, got None"),
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be .* 1.*, got 0"),
        ({"every_n_steps": 2.5}, ValueError, r"every_n_steps must be .* 1.*, got 2\.5"),
        ({"every_n_steps": "5"}, TypeError, "every_n_steps must be .* 1.*, got '5'"),
        ({"every_n_steps": True}, TypeError, "every_n_steps must be .* 1.*, got True"),
        ({"histogram_every_n_steps": -1}, ValueError, "histogram_every_n_steps must be .* 0.*, got -1"),
        ({"granularity": "block"}, ValueError, "granularity must be 'layer' or 'parameter', got 'block'"),
        ({"include": "encoder.*"}, ValueError, r"include: the pattern 'encoder\.\*' matches no layer.*: Linear"),
        ({"exclude": "Linear"}, ValueError, "leave no layer to watch"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        gw.Monitor(**{"model": nn.Linear(2, 1), "sinks": (), **arguments})


class LateCopy:
    """Stands in for HostCopy on a GPU: a vector arrives when two later ones have left."""

    sent = 0

    def __init__(self, vector: torch.Tensor) -> None:
        self._vector = vector.clone()
        type(self).sent += 1
        self._ready_at = self.sent + 2

    def ready(self) -> bool:
        return self.sent >= self._ready_at

    def numpy(self) -> np.ndarray:
        return self._vector.double().numpy()


class TestLateArrival:
    @pytest.fixture(autouse=True)
    def late(self, monkeypatch):
        monkeypatch.setattr(LateCopy, "sent", 0)
        monkeypatch.setattr("gradwatch.capture.HostCopy", LateCopy)

    def test_order_is_kept_and_flush_takes_the_rest(self):
        model, memory = nn.Linear(2, 2), gw.sinks.Memory()
        monitor = quiet(model, sinks=[memory], granularity="parameter")
        for step in range(6):
            set_norms(model, float(step), 1.0)
            monitor.step()
            assert monitor.history.steps.tolist() == list(range(max(0, step - 1)))
        monitor.flush()
        assert monitor.history.grad_norm[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert [r.stats.step for r in memory.reports] == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("take", ["report", "close", "state_dict"])
    def test_nothing_is_lost_at_the_end(self, take):
        loop = Loop({4: NAN})
        monitor = quiet(loop.model)
        loop.run(monitor, 5)
        assert monitor.alerts == []
        getattr(monitor, take)()
        assert len(monitor.history) == 5
        assert found(monitor) == [(4, "nonfinite", "ERROR")]

    def test_the_update_ratio_stays_with_its_step(self):
        loop, memory = Loop(), gw.sinks.Memory()
        monitor = quiet(loop.model, sinks=[memory], histogram_every_n_steps=4)
        loop.run(monitor, 8)
        monitor.flush()
        assert [r.stats.step for r in memory.reports if r.stats.histogram is not None] == [0, 4]
        assert [r.stats.step for r in memory.reports if r.stats.update_ratio is not None] == [1, 2, 3, 4, 5, 6, 7]

    def test_layers_are_those_of_the_step(self):
        case = build("mlp")
        monitor = quiet(case.model)
        backward(case)
        monitor.step()
        case.model.append(nn.Linear(3, 2))
        backward(case)
        monitor.step()
        monitor.flush()
        assert monitor.history.has_grad.tolist() == [[True, True, False], [True, True, True]]

    def test_clipping_does_not_wait(self):
        model = nn.Linear(2, 2)
        monitor = quiet(model, clip=gw.clipping.GlobalNorm(1.0))
        set_norms(model, 3.0, 4.0)
        monitor.step()
        assert float(model.weight.grad.norm()) == pytest.approx(0.6, rel=1e-6)
        assert len(monitor.history) == 0


def small(*, width: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def give(model: nn.Module, norms: dict[str, float]) -> None:
    """Gradients of these norms, layer by layer; the others get 1."""
    for name, module in model.named_modules():
        for i, p in enumerate(module._parameters.values()):
            p.grad = torch.zeros_like(p)
            p.grad.view(-1)[0] = norms.get(name, 1.0) if i == 0 else 0.0


def test_two_monitors_may_be_given_one_set_of_rules():
    rules = gw.rules.default()
    well, ill = small(), small()
    first, second = (gw.Monitor(model, rules=rules, sinks=(), strict=True) for model in (well, ill))
    for norm in (1.0, float("nan")):
        give(well, {})
        give(ill, {"0": norm})
        first.step()
        second.step()
    assert first.alerts == []
    assert [(a.rule, a.layer) for a in second.alerts] == [("nonfinite", "0")]


def test_spikes_of_two_steps_in_a_row_in_other_layers_are_two():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    monitor = gw.Monitor(model, sinks=(), strict=True)
    for step in range(50):
        give(model, {40: {"0": 500.0, "1": 500.0}, 41: {"2": 500.0, "3": 500.0}}.get(step, {}))
        monitor.step()
    assert [(a.step, a.rule) for a in monitor.alerts] == [(40, "spike"), (41, "spike")]


def test_clipping_takes_all_gradients_whatever_is_watched():
    model, plain = small(), small()
    monitor = gw.Monitor(model, include="0", clip=gw.clipping.GlobalNorm(0.01), sinks=(), strict=True)
    for m in (model, plain):
        m(torch.ones(2, 3)).sum().backward()
    before = float(torch.linalg.vector_norm(model[0].weight.grad)), float(torch.linalg.vector_norm(model[0].bias.grad))
    monitor.step()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    for mine, theirs in zip(model.parameters(), plain.parameters()):
        assert torch.equal(mine.grad, theirs.grad)
    assert monitor.history.grad_norm[0].tolist() == pytest.approx([np.hypot(*before)])


def test_a_monitor_kept_for_its_history_keeps_no_parameters():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=(), strict=True) as monitor:
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    parameter, kept = weakref.ref(model[0].weight), weakref.ref(optimizer)
    del model, optimizer
    gc.collect()
    assert (parameter(), kept()) == (None, None)
    assert len(monitor.history) == 1


def test_every_sink_is_closed_whatever_the_others_raise():
    class Sink(gw.sinks.Memory):
        closed = False

        def close(self):
            self.closed = True
            raise OSError("disk full")

    sinks = [Sink(), Sink()]
    monitor = gw.Monitor(small(), sinks=sinks, strict=True)
    with pytest.raises(OSError, match="disk full"):
        monitor.close()
    assert [sink.closed for sink in sinks] == [True, True]


def test_a_state_with_numpy_numbers_from_a_rule_loads_with_weights_only(tmp_path):
    class Rule:
        def check(self, history):
            norm = history.grad_norm[-1, 0]
            yield gw.Alert(history.steps[-1], "own", "0", gw.Severity.WARNING, norm, norm, "0: own")

    model = small()
    monitor = gw.Monitor(model, rules=[Rule()], sinks=(), strict=True)
    give(model, {})
    monitor.step()
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    again = gw.Monitor(model, rules=[Rule()], sinks=(), strict=True)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.alerts == monitor.alerts


@pytest.mark.parametrize("state", [{}, None, 3, {"history": {}}])
def test_a_state_of_something_else_is_refused(state):
    with pytest.raises(ValueError, match=r"state must be what Monitor\.state_dict\(\) returned, got"):
        gw.Monitor(small(), sinks=()).load_state_dict(state)


def test_an_optimizer_of_layers_that_are_not_watched_is_refused():
    model = small()
    with pytest.raises(ValueError, match="optimizer: it updates none of the layers that include and exclude leave"):
        gw.Monitor(model, optimizer=torch.optim.SGD(model[2].parameters(), lr=0.1), include="0", sinks=())


def test_a_rule_that_gives_no_alerts_is_dropped():
    class Rule:
        def check(self, history):
            return ["oops"]

    model = small()
    monitor = gw.Monitor(model, rules=[Rule()], sinks=())
    give(model, {})
    with pytest.warns(
        GradwatchWarning, match=r"rule Rule failed, it is dropped: TypeError: check\(\) must give Alerts"
    ):
        monitor.step()
    monitor.step()
    assert len(monitor.history) == 2
