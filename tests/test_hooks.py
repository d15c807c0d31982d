"""watch(): an optimizer drives a monitor."""

import copy
import gc
import io
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.optimizers import unwrap


def watch(model: nn.Module, optimizer, **arguments) -> gw.Monitor:
    return gw.watch(model, optimizer, **{"sinks": (), "strict": True, **arguments})


class Task:
    """A model whose gradients are different at every step, and what their norms were."""

    def __init__(self, make_optimizer=torch.optim.SGD, **arguments) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = make_optimizer(self.model.parameters(), **{"lr": 0.1, **arguments})
        self.norms: list[float] = []

    def loss(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        x = torch.randn(8, 3)
        return (self.model(x) - x.sum(dim=1, keepdim=True)).square().mean()

    def backward(self) -> torch.Tensor:
        """A closure: one new gradient."""
        loss = self.loss()
        loss.backward()
        self.norms.append(self.norm())
        return loss

    def norm(self) -> float:
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(np.linalg.norm([float(g.double().norm()) for g in grads]))

    def step(self) -> None:
        self.backward()
        self.optimizer.step()


def hook_counts(optimizer) -> tuple[int, int]:
    return len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)


def test_records_the_gradients_of_each_step():
    task = Task()
    with watch(task.model, task.optimizer) as monitor:
        for _ in range(4):
            task.step()
    assert monitor.history.steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)


@pytest.mark.parametrize("pass_closure", ["positional", "keyword"])
@pytest.mark.parametrize("make_optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_closure_is_never_one_step_late(make_optimizer, pass_closure):
    task = Task(make_optimizer)
    with watch(task.model, task.optimizer) as monitor:
        for _ in range(4):
            if pass_closure == "keyword":
                loss = task.optimizer.step(closure=task.backward)
            else:
                loss = task.optimizer.step(task.backward)
            assert loss > 0  # the closure's result comes back
    assert len(task.norms) == 4
    np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)


def test_gradients_are_clipped_before_the_optimizer_uses_them():
    task = Task(lr=1.0)
    before = [p.detach().clone() for p in task.model.parameters()]
    with watch(task.model, task.optimizer, clip=gw.clipping.GlobalNorm(1e-3)):
        task.step()
    moved = torch.cat([(p - b).flatten() for p, b in zip(task.model.parameters(), before)]).detach()
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


class Counting(gw.clipping.GlobalNorm):
    """Counts how often it clipped, and what."""

    def clip_(self, gradients, stats):
        self.norms.append(float(stats.total_norm))
        return super().clip_(gradients, stats)

    @property
    def norms(self) -> list[float]:
        return vars(self).setdefault("seen", [])


def test_lbfgs_records_once_per_step_and_clips_each_evaluation():
    task, clip = Task(torch.optim.LBFGS, max_iter=4), Counting(1e-3)
    firsts = []
    with watch(task.model, task.optimizer, clip=clip) as monitor:
        for _ in range(3):
            firsts.append(len(task.norms))
            task.optimizer.step(task.backward)
    assert len(task.norms) > 6
    np.testing.assert_allclose(monitor.history.total_norm, [task.norms[i] for i in firsts], rtol=1e-6)
    np.testing.assert_allclose(clip.norms, task.norms, rtol=1e-6)


class TestOneRecordPerStep:
    def test_a_step_of_the_user_wins(self):
        task = Task()
        with watch(task.model, task.optimizer) as monitor:
            for _ in range(3):
                task.backward()
                monitor.step()
                nn.utils.clip_grad_norm_(task.model.parameters(), 1e-4)
                task.optimizer.step()
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    def test_clip_grad_norm_of_the_user_wins(self):
        task = Task()
        with watch(task.model, task.optimizer) as monitor:
            for _ in range(3):
                task.backward()
                monitor.clip_grad_norm_(1e-4)
                task.optimizer.step()
                assert task.norm() == pytest.approx(1e-4, rel=1e-2)
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    def test_the_hook_takes_over_when_the_user_stops(self):
        task = Task()
        with watch(task.model, task.optimizer) as monitor:
            for i in range(4):
                task.backward()
                if i < 2:
                    monitor.step()
                task.optimizer.step()
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    @pytest.mark.parametrize("parent_used_before", [False, True])
    def test_an_optimizer_that_calls_super(self, parent_used_before):
        class Parent(torch.optim.SGD):
            def step(self, closure=None):
                return super().step(closure)

        class Child(Parent):
            def step(self, closure=None):
                return super().step(closure)

        if parent_used_before:  # torch hooks a class with its first object, so this nests the hooks
            Parent([nn.Parameter(torch.ones(1))], lr=0.1)
        task = Task(Child)
        with watch(task.model, task.optimizer) as monitor:
            for _ in range(3):
                task.step()
            for _ in range(2):
                task.optimizer.step(task.backward)
            Parent([nn.Parameter(torch.ones(1))], lr=0.1)
            task.step()
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    @pytest.mark.parametrize("where", ["before super", "in the closure"])
    @pytest.mark.parametrize("nested", [False, True])
    def test_a_step_that_raises_does_not_wedge_it(self, nested, where):
        class Fails(torch.optim.SGD):
            fail = False

            def step(self, closure=None):
                if self.fail:
                    raise RuntimeError("no step")
                return super().step(closure)

        def failing():
            raise RuntimeError("no step")

        task = Task(Fails if nested else torch.optim.SGD)
        with watch(task.model, task.optimizer) as monitor:
            task.step()
            if nested and where == "before super":
                task.optimizer.fail = True
                with pytest.raises(RuntimeError, match="no step"):
                    task.step()
                task.optimizer.fail = False
            else:
                with pytest.raises(RuntimeError, match="no step"):
                    task.optimizer.step(failing)
            for _ in range(3):
                task.step()
        np.testing.assert_allclose(monitor.history.total_norm[-3:], task.norms[-3:], rtol=1e-6)
        assert len(monitor.history) == len(task.norms)

    def test_two_monitors_on_one_model(self):
        task = Task()
        with watch(task.model, task.optimizer) as first, watch(task.model, task.optimizer, every_n_steps=2) as second:
            for _ in range(4):
                task.step()
        np.testing.assert_allclose(first.history.total_norm, task.norms, rtol=1e-6)
        np.testing.assert_allclose(second.history.total_norm, task.norms[::2], rtol=1e-6)

    def test_two_optimizers_on_one_model(self):
        task = Task()
        other = torch.optim.SGD(task.model[2].parameters(), lr=0.1)
        one = torch.optim.SGD(task.model[0].parameters(), lr=0.1)
        with watch(task.model, one) as first, watch(task.model, other) as second:
            task.backward()
            one.step()
            other.step()
        assert first.history.has_grad.tolist() == [[True, False]]
        assert second.history.has_grad.tolist() == [[False, True]]
        both = np.hypot(first.history.total_norm, second.history.total_norm)
        np.testing.assert_allclose(both, task.norms, rtol=1e-6)


class Lookahead:
    """A wrapper that is no torch optimizer."""

    def __init__(self, optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


class Accelerated(torch.optim.Optimizer):
    """A wrapper that is a torch optimizer by its class, without the base class's own attributes."""

    def __init__(self, optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure=None) -> None:
        self.optimizer.step(closure)

    @property
    def param_groups(self):
        return self.optimizer.param_groups


class Renamed:
    """A wrapper that calls what it wraps otherwise."""

    def __init__(self, optimizer) -> None:
        self.base_optimizer = optimizer

    def step(self) -> None:
        self.base_optimizer.step()


class TestWrappers:
    @pytest.mark.parametrize("wrap", [Lookahead, Accelerated, Renamed, lambda o: Lookahead(Accelerated(o))])
    def test_the_optimizer_inside_is_watched(self, wrap):
        task = Task()
        wrapper = wrap(task.optimizer)
        assert unwrap(wrapper) is task.optimizer
        with watch(task.model, wrapper) as monitor:
            for _ in range(3):
                task.backward()
                wrapper.step()
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    def test_an_optimizer_is_itself(self):
        optimizer = Task().optimizer
        assert unwrap(optimizer) is optimizer

    def test_a_wrapper_around_itself_ends(self):
        wrapper = Lookahead(None)
        wrapper.optimizer = wrapper
        assert unwrap(wrapper) is None
        with pytest.raises(TypeError, match="got Lookahead"):
            watch(nn.Linear(2, 2), wrapper)


class TestEnd:
    @pytest.mark.parametrize("end", ["close", "with", "error in with"])
    def test_hooks_are_gone(self, end):
        task = Task()
        mine = task.optimizer.register_step_pre_hook(lambda *_: None)
        before = hook_counts(task.optimizer)
        monitor = watch(task.model, task.optimizer)
        assert hook_counts(task.optimizer) != before
        task.step()
        if end == "close":
            monitor.close()
            monitor.close()
        elif end == "with":
            with monitor:
                pass
        else:
            with pytest.raises(ZeroDivisionError), monitor:
                raise ZeroDivisionError
        assert hook_counts(task.optimizer) == before
        task.step()
        assert len(monitor.history) == 1
        mine.remove()

    def test_nothing_is_left_on_model_or_optimizer(self):
        task = Task()
        left = [set(vars(task.optimizer)), *[set(vars(m)) for m in task.model.modules()]]
        with watch(task.model, task.optimizer):
            assert [set(vars(task.optimizer)), *[set(vars(m)) for m in task.model.modules()]] == left
        assert [set(vars(task.optimizer)), *[set(vars(m)) for m in task.model.modules()]] == left
        assert all(not m._forward_hooks and not m._backward_hooks for m in task.model.modules())
        assert all(not p._backward_hooks for p in task.model.parameters())

    def test_model_and_optimizer_are_freed_without_close(self):
        task = Task()
        watch(task.model, task.optimizer)
        task.step()
        alive = weakref.ref(task.model), weakref.ref(task.optimizer)
        del task
        gc.collect()
        assert [ref() for ref in alive] == [None, None]

    def test_pickle_deepcopy_and_save_work_while_watched(self):
        task = Task(torch.optim.AdamW)
        task.step()
        plain = task.optimizer.state_dict()
        with watch(task.model, task.optimizer) as monitor:
            state = pickle.loads(pickle.dumps(task.optimizer)).state_dict()
            twin = copy.deepcopy(task.optimizer)
            copy.deepcopy(task.model)
            torch.save(task.model, io.BytesIO())
            twin.step()
            assert len(monitor.history) == 0  # a copy is not watched
        assert str(state) == str(plain) == str(task.optimizer.state_dict())


class TestScaledGradients:
    """fp16 training multiplies the loss, and so the gradients, by a scale."""

    @pytest.mark.parametrize("unscale", [False, True])
    def test_a_scaler_on_the_cpu(self, unscale):
        task = Task()
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with watch(task.model, task.optimizer) as monitor:
            for _ in range(3):
                scaler.scale(task.loss()).backward()
                task.norms.append(task.norm() / 1024.0)
                if unscale:
                    scaler.unscale_(task.optimizer)
                scaler.step(task.optimizer)
                scaler.update()
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-5)

    def test_a_step_that_the_scaler_skips_is_not_recorded(self):
        task = Task()
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        with watch(task.model, task.optimizer) as monitor:
            for factor in (1.0, float("inf"), 1.0):
                (scaler.scale(task.loss()) * factor).backward()
                scaler.step(task.optimizer)
                scaler.update()
        assert len(monitor.history) == 2
        assert monitor.alerts == []

    @pytest.mark.parametrize("clip", [None, gw.clipping.GlobalNorm(1e-2), gw.clipping.Value(1e-2)])
    def test_an_optimizer_that_unscales_in_its_kernel(self, clip):
        """A scaler gives a fused optimizer its scale as ``grad_scale``; gradients are unscaled only by the kernel."""
        scaled, plain = Task(fused=True), Task(fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        arguments = {"clip": clip, "histogram_every_n_steps": 1}
        with (
            watch(scaled.model, scaled.optimizer, **arguments) as monitor,
            watch(plain.model, plain.optimizer, **arguments) as expected,
        ):
            for step in range(3):
                torch.manual_seed(step)
                scaler.scale(scaled.loss()).backward()
                scaler.step(scaled.optimizer)
                scaler.update()
                torch.manual_seed(step)
                plain.loss().backward()
                plain.optimizer.step()
        np.testing.assert_array_equal(monitor.history.grad_norm, expected.history.grad_norm)
        np.testing.assert_array_equal(monitor.history.latest.max_abs, expected.history.latest.max_abs)
        np.testing.assert_array_equal(monitor.history.latest.histogram, expected.history.latest.histogram)
        np.testing.assert_array_equal(monitor.history.update_ratio, expected.history.update_ratio)
        for a, b in zip(scaled.model.parameters(), plain.model.parameters()):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (None, TypeError, r"optimizer must be a torch\.optim\.Optimizer, or several, got None"),
        ([], TypeError, r"optimizer must be a torch\.optim\.Optimizer, or several, got \[\]"),
        ("adam", TypeError, r"optimizer must be a torch\.optim\.Optimizer or wrap one, got str"),
        (Lookahead(3), TypeError, "got Lookahead"),
        (
            torch.optim.AdamW([nn.Parameter(torch.ones(1))]),
            ValueError,
            "optimizer: AdamW shares no parameter with model Linear; was the optimizer made before the model was moved",
        ),
    ],
)
def test_bad_optimizers(optimizer, error, message):
    with pytest.raises(error, match=message):
        watch(nn.Linear(2, 1), optimizer)


def test_bad_arguments_leave_no_hooks():
    task = Task()
    before = hook_counts(task.optimizer)
    with pytest.raises(ValueError, match="matches no layer"):
        watch(task.model, task.optimizer, include="encoder.*")
    assert hook_counts(task.optimizer) == before


def test_watch_takes_what_monitor_takes():
    task, memory = Task(), gw.sinks.Memory()
    with watch(
        task.model,
        task.optimizer,
        rules=[],
        clip=gw.clipping.Value(1.0),
        sinks=[memory],
        every_n_steps=2,
        histogram_every_n_steps=4,
        granularity="parameter",
        include="*.weight",
        exclude="0.*",
        diagnose=False,
        strict=True,
    ):
        for _ in range(5):
            task.step()
    assert [r.stats.step for r in memory.reports] == [0, 2, 4]
    assert [r.stats.histogram is not None for r in memory.reports] == [True, False, True]
    assert memory.reports[0].stats.layers == ("2.weight",)
    assert memory.reports[0].clip.policy == "value"


@pytest.mark.parametrize("make_optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS])
def test_watching_changes_no_bit_of_training(make_optimizer):
    def trained(watched: bool) -> bytes:
        task = Task(make_optimizer)
        monitor = watch(task.model, task.optimizer, histogram_every_n_steps=2) if watched else None
        for _ in range(4):
            task.optimizer.step(task.backward)
        if monitor:
            assert len(monitor.history) == 4
            monitor.close()
        file = io.BytesIO()
        torch.save([task.model.state_dict(), task.optimizer.state_dict(), torch.get_rng_state()], file)
        return file.getvalue()

    assert trained(True) == trained(False)


def test_a_closure_that_steps_the_monitor_itself_is_recorded_once():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    with watch(model, optimizer, sinks=(), strict=True) as monitor:

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            monitor.step()
            return loss

        for _ in range(3):
            optimizer.step(closure)
    assert monitor.history.steps.tolist() == [0, 1, 2]


class TestClosures:
    """What a user may hand to step() besides a plain function."""

    class Own(torch.optim.SGD):
        def step(self, closure=None):
            loss = self.evaluate(closure)
            super().step()
            return loss

    def losses(self, make, watched: bool) -> list[float]:
        task = Task(make)
        monitor = watch(task.model, task.optimizer) if watched else None
        found = [task.optimizer.step(self.argument(task)).item() for _ in range(3)]
        if monitor is not None:
            np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)
            monitor.close()
        return found

    class WithArguments(Own):
        def evaluate(self, closure):
            return closure(backward=True)

    class WithMethods(Own):
        def evaluate(self, closure):
            assert closure.name == "mine"
            return closure()

    @pytest.mark.parametrize("kind", ["arguments", "methods"])
    def test_a_closure_is_called_as_the_optimizer_likes(self, kind):
        def argument(task):
            if kind == "arguments":
                return lambda backward: task.backward() if backward else task.loss()
            closure = type("Closure", (), {"name": "mine", "__call__": lambda self: task.backward()})
            return closure()

        self.argument = argument
        make = self.WithArguments if kind == "arguments" else self.WithMethods
        assert self.losses(make, watched=True) == self.losses(make, watched=False)

    def test_new_gradients_in_the_place_of_the_old_are_new(self):
        """The memory of a gradient that was set to None is likely that of the next one."""
        task = Task()
        with watch(task.model, task.optimizer) as monitor:
            for _ in range(200):
                task.optimizer.step(task.backward)
        np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)

    def test_a_module_is_no_closure(self):
        class TakesModel(torch.optim.SGD):
            def step(self, model):
                self.seen = model.weight.shape
                return super().step()

        model = nn.Linear(3, 1)
        optimizer = TakesModel(model.parameters(), lr=0.1)
        with watch(model, optimizer) as monitor:
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step(model)
        assert optimizer.seen == (1, 3)
        assert len(monitor.history) == 1

    def test_gradients_that_the_optimizer_computes_are_said_to_be_missing(self):
        class LineSearch(torch.optim.SGD):
            def step(self, closure=None):
                loss = closure()
                loss.backward()
                super().step()
                return loss

        task = Task(LineSearch)
        with watch(task.model, task.optimizer) as monitor:
            with pytest.warns(
                gw.faults.GradwatchWarning, match="closure of LineSearch leaves all gradients as they are"
            ):
                task.optimizer.step(lambda: task.loss())
            task.optimizer.step(lambda: task.model(torch.ones(2, 3)).sum())
        assert len(monitor.history) == 0


class Hybrid(torch.optim.SGD):
    """Steps matrices itself, and vectors by another optimizer inside, as Muon does."""

    def __init__(self, parameters, lr):
        parameters = list(parameters)
        super().__init__([p for p in parameters if p.ndim > 1], lr)
        self.optim = torch.optim.AdamW([p for p in parameters if p.ndim == 1], lr)

    def step(self, closure=None):
        super().step()
        self.optim.step()


def test_an_optimizer_that_steps_another_for_the_rest():
    task = Task(Hybrid)
    with watch(task.model, task.optimizer) as monitor:
        for _ in range(3):
            task.step()
    np.testing.assert_allclose(monitor.history.total_norm, task.norms, rtol=1e-6)


class TestScalerStep:
    def scaled(self):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

        def step(infinite: bool = False) -> None:
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(2, 3)).sum()).backward()
            if infinite:
                model.weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()

        return model, optimizer, scaler, step

    def test_two_monitors_share_a_scaler(self):
        model, optimizer, scaler, step = self.scaled()
        first = watch(model, optimizer, scaler=scaler)
        second = watch(model, optimizer, scaler=scaler)
        step()
        second.close()
        step(infinite=True)
        first.close()
        step()
        assert first.history.skipped.tolist() == [False, True]
        assert second.history.skipped.tolist() == [False]
        assert "step" not in vars(scaler)

    def test_in_the_other_order(self):
        model, optimizer, scaler, step = self.scaled()
        first = watch(model, optimizer, scaler=scaler)
        second = watch(model, optimizer, scaler=scaler)
        first.close()
        step(infinite=True)
        second.close()
        assert len(first.history) == 0
        assert second.history.skipped.tolist() == [True]

    def test_the_users_own_step_is_back_afterwards(self):
        model, optimizer, scaler, step = self.scaled()
        calls, own = [], scaler.step
        scaler.step = lambda *arguments: (calls.append(1), own(*arguments))
        with watch(model, optimizer, scaler=scaler):
            step()
        step()
        assert len(calls) == 2

    def test_a_scaler_that_is_off_is_no_scaler(self):
        model, optimizer, _, _ = self.scaled()
        off = torch.amp.GradScaler("cpu", enabled=False)
        with watch(model, optimizer, scaler=off) as monitor:
            off.scale(model(torch.ones(2, 3)).sum()).backward()
            off.step(optimizer)
            off.update()
        assert monitor.history.total_norm.tolist() == pytest.approx([float(np.sqrt(16.0))])


@pytest.mark.parametrize("unscaled", [[], [0], [1], [0, 1]])
@pytest.mark.parametrize("way", ["step", "step and clip", "clip_grad_norm_"])
def test_optimizers_of_which_the_scaler_has_unscaled_some(way, unscaled):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    clip = gw.clipping.GlobalNorm(0.5) if way == "step and clip" else None
    monitor = gw.Monitor(model, optimizer=optimizers, scaler=scaler, clip=clip, sinks=(), strict=True)
    model(torch.ones(2, 3)).sum().backward()
    expected = [float(np.sqrt(sum(float(p.grad.square().sum()) for p in layer.parameters()))) for layer in model]
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    scaler.scale(model(torch.ones(2, 3)).sum()).backward()
    for i in unscaled:
        scaler.unscale_(optimizers[i])
    if way == "clip_grad_norm_":
        assert monitor.clip_grad_norm_(0.5) == pytest.approx(np.linalg.norm(expected), rel=1e-6)
    else:
        monitor.step()
    np.testing.assert_allclose(monitor.history.grad_norm, [expected], rtol=1e-6)
    before, share = [p.detach().clone() for p in model.parameters()], min(1.0, 0.5 / np.linalg.norm(expected))
    for optimizer in optimizers:
        scaler.step(optimizer)
    for p, was, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), was - 0.1 * gradient * (1.0 if way == "step" else share))


def test_of_two_monitors_on_one_scaler_none_is_left_behind():
    scaler = torch.amp.GradScaler("cpu")
    tasks = [Task() for _ in range(2)]
    monitors = [watch(t.model, t.optimizer, scaler=scaler) for t in tasks]
    for monitor in monitors:  # in the order in which they were made
        monitor.close()
    assert "step" not in vars(scaler)


def test_an_optimizer_that_is_given_twice_steps_once():
    task = Task()
    with watch(task.model, [task.optimizer, task.optimizer]) as monitor:
        for _ in range(3):
            task.backward()
            task.optimizer.step()
    assert monitor.history.count == 3
