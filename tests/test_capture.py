"""What a clip policy is given by the monitor, and what becomes of what it leaves."""

import io
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.clipping import (
    AGC,
    AutoClip,
    Chain,
    GlobalNorm,
    PerGroup,
    PerLayer,
    SkipNonFinite,
    SkipSpike,
    SpikeClip,
    TooManySkipped,
    Value,
    ZClip,
)
from gradwatch.faults import GradwatchWarning
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure
from tests.models import GALLERY, as_float64, backward, build

NAN = float("nan")


class Spy:
    """Clips nothing, and keeps what it is given."""

    def clip_(self, gradients, stats):
        self.gradients, self.stats = list(gradients), stats
        return ClipRecord("spy", stats.total_norm, stats.total_norm, 1.0, math.inf)


def watched(model: nn.Module, clip, **settings) -> gw.Monitor:
    return gw.Monitor(model, clip=clip, sinks=(), **{"strict": True, **settings})


def give(model: nn.Module, *norms: float) -> None:
    """Gradients of these norms, in one element each."""
    for p, norm in zip(model.parameters(), norms):
        p.grad = torch.zeros_like(p)
        p.grad.view(-1)[0] = norm


# -- what it is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(GALLERY) - {"lazy_layers"}))
def test_it_gets_every_gradient_with_its_name_and_parameter(name):
    case, spy = build(name), Spy()
    monitor = watched(case.model, spy)
    backward(case)
    monitor.step()
    expected = {}
    for full, p in case.model.named_parameters():
        if p.grad is not None and p.numel():
            for wrapper in case.wrappers:
                full = full.replace(wrapper, "")
            expected[full] = p
    assert list(spy.stats.names) == list(expected)
    for g, p, wanted in zip(spy.gradients, spy.stats.parameters, expected.values(), strict=True):
        assert p is wanted
        assert g is p.grad
    np.testing.assert_allclose(
        spy.stats.norms.numpy(),
        [np.linalg.norm(as_float64(g).reshape(-1)) for g in spy.gradients],
        rtol=1e-6,
    )
    assert (spy.stats.sharded, spy.stats.scaled) == (False, False)


def test_lazy_parameters_have_their_names():
    case, spy = build("lazy_layers"), Spy()
    monitor = watched(case.model, PerGroup({"*": spy}))
    backward(case)
    monitor.step()
    assert set(spy.stats.names) == {name for name, _ in case.model.named_parameters()}


def test_what_is_not_watched_and_what_an_optimizer_does_not_update():
    model, spy = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), Spy()
    monitor = watched(model, spy, include="1")
    give(model, 1.0, 2.0, 3.0, 4.0)
    monitor.step()
    assert list(spy.stats.names) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    optimizer = torch.optim.SGD(model[1].parameters(), lr=1.0)
    watched(model, spy, optimizer=optimizer).step()
    assert list(spy.stats.names) == ["1.weight", "1.bias"]


def test_a_parameter_that_is_added_or_replaced():
    model, spy = nn.Sequential(nn.Linear(2, 2)), Spy()
    monitor = watched(model, spy)
    give(model, 1.0, 1.0)
    monitor.step()
    model.append(nn.Linear(2, 1))
    model[0].weight = nn.Parameter(torch.ones(2, 2))
    give(model, 1.0, 2.0, 3.0, 4.0)
    monitor.step()
    assert list(spy.stats.names) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert spy.stats.parameters[0] is model[0].weight


@pytest.mark.parametrize("unscaled", [True, False])
def test_it_is_told_of_a_scaler(unscaled):
    model, spy, scaler = nn.Linear(2, 1), Spy(), torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = watched(model, spy, optimizer=optimizer, scaler=scaler)
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    if unscaled:
        scaler.unscale_(optimizer)
    monitor.step()
    assert spy.stats.scaled
    assert float(spy.stats.total_norm) == pytest.approx(math.sqrt(3))
    assert [float(g.norm()) for g in spy.gradients] == pytest.approx([math.sqrt(2), 1.0])


POLICIES = {
    "global_norm": lambda: GlobalNorm(0.05),
    "value": lambda: Value(0.01),
    "per_layer": lambda: PerLayer(0.02),
    "agc": lambda: AGC(0.001),
    "per_group": lambda: PerGroup({"*bias": 0.01, "*": PerLayer(0.02)}),
    "chain": lambda: Chain(SkipNonFinite(), Value(0.02), GlobalNorm(0.05)),
    "autoclip": lambda: AutoClip(20),
    "zclip": lambda: ZClip(warmup=2, z=0.1),
    "spike_clip": lambda: SpikeClip(warmup=2, factor=1.0, z=0.0),
    "skip_spike": lambda: SkipSpike(warmup=2, factor=1.0, z=0.0),
}

each_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)


class Training:
    """A small regression in some micro-batches a step, clipped by hand or by whoever watches."""

    def __init__(self, make_optimizer=torch.optim.SGD, micro_batches: int = 1, scaler=None, **settings) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = make_optimizer(self.model.parameters(), **{"lr": 0.1, **settings})
        self.micro_batches, self.scaler = micro_batches, scaler
        self.count = 0

    def backward(self) -> None:
        self.optimizer.zero_grad()
        for _ in range(self.micro_batches):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(self.count))
            x *= 1 + self.count // self.micro_batches % 3  # norms that rise and fall
            self.count += 1
            loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean() / self.micro_batches
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def by_hand(self, policy) -> None:
        """As the loop would be without gradwatch."""
        names, parameters = zip(*self.model.named_parameters())
        gradients = [p.grad for p in parameters]
        found = measure(gradients)
        policy.clip_(gradients, Measured(found.norms, found.total_norm, names=names, parameters=parameters))

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def trained_by_hand(make, steps: int, micro_batches: int = 1) -> torch.Tensor:
    training, policy = Training(micro_batches=micro_batches), make()
    for _ in range(steps):
        training.backward()
        training.by_hand(policy)
        training.update()
    return training.weights()


@each_policy
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("how", ["step", "watch", "both", "closure"])
def test_training_is_that_of_the_policy_called_by_hand(make, how, micro_batches):
    """Bit for bit, so never clipped twice, nor before the last micro-batch."""
    training = Training(micro_batches=micro_batches)
    settings = {"clip": make(), "sinks": (), "strict": True}
    if how == "step":
        monitor = gw.Monitor(training.model, **settings)
    else:
        monitor = gw.watch(training.model, training.optimizer, **settings)
    with monitor:
        for _ in range(8):
            if how == "closure":
                training.optimizer.step(training.backward)
                continue
            training.backward()
            if how != "watch":
                monitor.step()
            training.update()
        assert len(monitor.history) == 8
    plain = trained_by_hand(make, 8, micro_batches)
    assert torch.equal(training.weights(), plain)
    unclipped = trained_by_hand(lambda: GlobalNorm(1e9), 8, micro_batches)
    assert not torch.equal(unclipped, plain)


@each_policy
@pytest.mark.parametrize("unscale", [True, False])
@pytest.mark.parametrize("how", ["step", "watch"])
def test_with_a_scaler_training_is_the_same(make, how, unscale):
    training = Training(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    settings = {"clip": make(), "sinks": (), "strict": True, "scaler": training.scaler}
    if how == "step":
        monitor = gw.Monitor(training.model, optimizer=training.optimizer, **settings)
    else:
        monitor = gw.watch(training.model, training.optimizer, **settings)
    with monitor:
        for _ in range(8):
            training.backward()
            if unscale:
                training.scaler.unscale_(training.optimizer)
            if how == "step":
                monitor.step()
            training.update()
    torch.testing.assert_close(training.weights(), trained_by_hand(make, 8), rtol=1e-5, atol=1e-6)


# -- what becomes of what it leaves ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"fused": True}),
    ],
)
@pytest.mark.parametrize("how", ["step", "watch"])
def test_a_skipped_step_moves_neither_parameters_nor_what_the_optimizer_remembers(optimizer, settings, how):
    training = Training(optimizer, **settings)
    arguments = {"clip": SkipNonFinite(), "sinks": (), "strict": True}
    if how == "step":
        monitor = gw.Monitor(training.model, **arguments)
    else:
        monitor = gw.watch(training.model, training.optimizer, **arguments)
    with monitor:
        for step in range(4):
            training.backward()
            if step == 2:
                training.model[0].weight.grad[0, 0] = NAN
                before = training.weights(), str(training.optimizer.state_dict()["state"])
            if how == "step":
                monitor.step()
            training.update()
            if step == 2:
                assert torch.equal(training.weights(), before[0])
                assert str(training.optimizer.state_dict()["state"]) == before[1]
        assert [r.clipped for r in [monitor.report().clip]] == [0.0]
    assert torch.isfinite(training.weights()).all()


@pytest.mark.parametrize("fused", [True, False])
def test_a_spike_is_skipped_under_a_scaler_that_has_not_unscaled(fused):
    """A scaler that finds no gradient at all would raise."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    training = Training(torch.optim.SGD, scaler=scaler, fused=fused)
    clip = SkipSpike(warmup=3, factor=2.0)
    with watched(training.model, clip, optimizer=training.optimizer, scaler=scaler) as monitor:
        for step in range(5):
            training.backward()
            if step == 4:
                training.model[0].weight.grad *= 1000
                before = training.weights()
            monitor.step()
            training.update()
        assert torch.equal(training.weights(), before)
        assert monitor.report().clip.coefficient == 0.0


@pytest.mark.parametrize("how", ["step", "watch", "chained"])
def test_too_many_skipped_steps_stop_the_run(how):
    """It is no fault of the monitor, and nobody's warning: with strict=False too."""
    training = Training()
    clip = SkipNonFinite(max_consecutive=2)
    clip = Chain(clip, GlobalNorm(1.0)) if how == "chained" else clip
    settings = {"clip": clip, "sinks": ()}
    if how == "watch":
        monitor = gw.watch(training.model, training.optimizer, **settings)
    else:
        monitor = gw.Monitor(training.model, **settings)
    steps = []

    def train() -> None:
        for step in range(10):
            training.backward()
            training.model[0].weight.grad[0, 0] = NAN
            training.model[2].bias.grad[0] = NAN
            steps.append(step)
            if how != "watch":
                monitor.step()
            training.update()

    with pytest.raises(
        TooManySkipped, match=r"for 3 steps in a row, max_consecutive=2 .*: 0.weight, 2.bias \(2 of 4\)"
    ):
        train()
    assert steps == [0, 1, 2]
    assert torch.isfinite(training.weights()).all()


def test_a_policy_that_fails_is_told_of_once_and_training_goes_on():
    training = Training()
    monitor = gw.Monitor(training.model, clip=PerGroup({"0": AGC(), "*": Broken()}), sinks=())
    with warnings.catch_warnings(record=True, action="always") as caught:
        for _ in range(3):
            training.backward()
            monitor.step()
            training.update()
    assert [w.category for w in caught] == [GradwatchWarning]
    assert "clip PerGroup failed, this step is clipped in part or not at all: RuntimeError: on purpose" in str(
        caught[0].message
    )
    assert len(monitor.history) == 3


class Broken:
    def clip_(self, gradients, stats):
        raise RuntimeError("on purpose")


# -- its numbers on their way to the host ----------------------------------------------------------------------------


def test_the_record_is_plain_numbers_with_its_parts():
    training = Training()
    monitor = watched(training.model, Chain(PerGroup({"0": 0.01, "*": AutoClip()}), PerLayer(0.005)))
    training.backward()
    monitor.step()

    def all_floats(record: ClipRecord) -> bool:
        numbers = (record.norm_before, record.norm_after, record.coefficient, record.threshold, record.clipped)
        return all(type(n) is float for n in numbers) and all(map(all_floats, record.parts))

    clip = monitor.report().clip
    assert all_floats(clip)
    assert [part.policy for part in clip.parts] == ["per_group", "per_layer"]
    assert [part.group for part in clip.parts[0].parts] == ["0", "*"]
    assert clip.parts[0].parts[0].norm_after == pytest.approx(0.01, rel=1e-3)


@each_policy
def test_a_policy_can_be_sent_to_another_process(make):
    """As ddp_spawn does, and with its memory."""
    policy = make()
    training = Training()
    training.backward()
    training.by_hand(policy)
    again = pickle.loads(pickle.dumps(policy))
    assert repr(again) == repr(policy)
    if hasattr(policy, "state_dict"):
        assert str(again.state_dict()) == str(policy.state_dict())


# -- state -----------------------------------------------------------------------------------------------------------

MEMORIES = {
    **{name: POLICIES[name] for name in ("autoclip", "zclip", "spike_clip", "skip_spike", "chain")},
    "per_group": lambda: PerGroup({"0": Chain(SkipNonFinite(), ZClip(warmup=2, z=0.1)), "*": AutoClip(20)}),
}


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
def test_a_resumed_run_clips_as_the_uninterrupted_one_bit_for_bit(make):
    def run(training: Training, monitor: gw.Monitor, steps: int) -> None:
        for _ in range(steps):
            training.backward()
            monitor.step()
            training.update()

    whole, first, second = Training(), Training(), Training()
    with watched(whole.model, make()) as monitor:
        run(whole, monitor, 10)
        expected = monitor.state_dict()
    file = io.BytesIO()
    with watched(first.model, make()) as monitor:
        run(first, monitor, 6)
        torch.save((first.model.state_dict(), monitor.state_dict()), file)
    file.seek(0)
    model_state, state = torch.load(file, weights_only=True)
    second.model.load_state_dict(model_state)
    second.count = first.count
    with watched(second.model, make()) as monitor:
        monitor.load_state_dict(state)
        run(second, monitor, 4)
        found = monitor.state_dict()
    assert torch.equal(second.weights(), whole.weights())
    for part in ("clip", "clip_log"):
        assert str(found[part]) == str(expected[part])
