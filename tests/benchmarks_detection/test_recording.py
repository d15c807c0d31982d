"""Recordings: every number against one worked out by hand, and gradwatch's records against a live Monitor's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import gradwatch as gw
from benchmarks.detection.activations import ActivationWatch, activation_stats
from benchmarks.detection.recorder import record
from benchmarks.detection.recording import Recording
from benchmarks.detection.task import Task
from benchmarks.detection.through_time import ThroughTime
from benchmarks.detection.training import Observer, train
from gradwatch.closeup import CloseupStats
from gradwatch.history import History
from gradwatch.probe_schedule import EARLY
from tests.benchmarks_detection.tiny import perceptron

# --- the same as a live Monitor -------------------------------------------------------------------------------------


class Live(Observer):
    """A Monitor in the place of the recorder."""

    def __init__(self, task: Task, granularity: str) -> None:
        self.records: list[gw.StepStats] = []
        self.monitor = gw.Monitor(
            task.model,
            scaler=task.scaler,
            granularity=granularity,
            sinks=[gw.sinks.Callback(lambda report: self.records.append(report.stats))],
            strict=True,
        )

    def gradients_ready(self, step: int) -> None:
        self.monitor.step()

    def stepped(self, step: int, loss: float) -> None:
        pass


class Odd(nn.Module):
    """What few models have: a sparse embedding, tied, frozen, unused, long and float64 parameters, one at the root."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.words = nn.Embedding(50, 8, sparse=True)
        self.long = nn.Linear(8, 900)
        self.frozen = nn.Linear(900, 8).requires_grad_(False)
        self.unused = nn.Linear(8, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3).double()

    def forward(self, words: Tensor) -> Tensor:
        h = self.words(words) * self.scale
        h = torch.relu(self.first(self.frozen(torch.relu(self.long(h)))))
        return self.head(self.second(h).double())


def odd(seed: int = 0) -> Task:
    torch.manual_seed(seed)
    model = Odd()
    words = torch.randint(0, 50, (130, 16))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return Task(model, optimizer, lambda s: F.cross_entropy(model(words[s]), words[s] % 3), lambda: 0.0, 0.0, 130)


def scaled(seed: int = 0) -> Task:
    """Steps 0, 100 and 120 overflow; the first two of them are sampled ones."""
    task = perceptron(seed, depth=3, steps=130)
    plain = task.loss
    return replace(
        task,
        loss=lambda step: plain(step) * (math.inf if step in (0, 100, 120) else 1.0),
        scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8),
        before_step=lambda step: nn.utils.clip_grad_norm_(task.model.parameters(), 0.1) and None,
    )


def exploding(seed: int = 0) -> Task:
    """The loss grows a billionfold at step 105 and is NaN at step 115."""
    task = perceptron(seed, depth=3, lr=1e-3, steps=130)
    plain = task.loss
    task.loss = lambda step: plain(step) * (math.nan if step == 115 else 1e9 if step >= 105 else 1.0)
    return task


TASKS: dict[str, Callable[[], Task]] = {
    "sigmoid, vanishing": lambda: perceptron(0, activation="sigmoid", steps=130),
    "relu, healthy": lambda: perceptron(0, depth=3, steps=130),
    "odd parameters": odd,
    "gradient scaler": scaled,
    "exploding": exploding,
}
ALERTS = {"sigmoid, vanishing": {"vanishing"}, "gradient scaler": {"skipped"}, "exploding": {"exploding", "nonfinite"}}


@pytest.mark.parametrize("granularity", ["layer", "parameter"])
@pytest.mark.parametrize("name", TASKS)
def test_replayed_records_and_alerts_are_those_of_a_live_monitor(name: str, granularity: str) -> None:
    task = TASKS[name]()
    live = Live(task, granularity)
    train(task, live)
    recording, _ = record(TASKS[name]())
    replayed = list(recording.stats(granularity))
    assert recording.layers(granularity) == live.monitor.layers
    assert len(replayed) == len(live.records) > 100
    for ours, theirs in zip(replayed, live.records):
        for f in fields(gw.StepStats):
            if granularity == "parameter" and f.name in CloseupStats._fields:
                continue
            if f.name in ("stacked", "towers") and theirs.step != EARLY:  # a Monitor probes again after an alert
                continue
            got, expected = getattr(ours, f.name), getattr(theirs, f.name)
            if isinstance(expected, np.ndarray):
                np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=f"{f.name} at step {theirs.step}")
            elif isinstance(expected, float):
                assert got == pytest.approx(expected, rel=1e-9, nan_ok=True), f"{f.name} at step {theirs.step}"
            else:
                assert got == expected, f"{f.name} at step {theirs.step}"

    alerts = judged(replayed)
    unseen = dict.fromkeys(CloseupStats._fields)  # of parameters
    told = live.monitor.alerts if granularity == "layer" else judged([replace(r, **unseen) for r in live.records])
    assert [(a.step, a.rule, a.layer, a.severity) for a in alerts] == [
        (a.step, a.rule, a.layer, a.severity) for a in told
    ]
    assert {a.rule for a in alerts} >= ALERTS.get(name, set())


def judged(records: Iterable[gw.StepStats]) -> list[gw.Alert]:
    """The alerts of the default rules."""
    history, rules, alerts = History(), gw.rules.default(), []
    for stats in records:
        history.append(stats)
        alerts += [alert for rule in rules for alert in rule.check(history)]
    return alerts


# --- by step and parameter ------------------------------------------------------------------------------------------


class Pair(nn.Module):
    """Two weights whose gradients are what the test says, one of them without a gradient at times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, -2.0, 2.0]))
        self.b = nn.Parameter(torch.tensor([3.0]))


def pair() -> Task:
    model = Pair()
    gradients = [torch.tensor([3.0, 0.0, -4.0]), torch.tensor([math.nan, 0.0, 7.0])]

    def train_step(step: int, gradients_ready: Callable[[], None]) -> float:
        model.a.grad = gradients[step].clone()
        model.b.grad = torch.tensor([2.0]) if step else None
        gradients_ready()
        model.a.grad.nan_to_num_()
        optimizer.step()
        scheduled = [0.5, 0.25]
        optimizer.param_groups[0]["lr"] = scheduled[min(step + 1, 1)]
        return 10.0 + step

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return Task(model, optimizer, lambda step: model.a.sum(), lambda: 1.0, 0.25, 2, train_step=train_step)


def test_each_parameter_is_recorded_at_each_step() -> None:
    recording, _ = record(pair())
    assert (recording.parameters, recording.modules, recording.kinds) == (("a", "b"), ("Pair", "Pair"), ("Pair",) * 2)
    assert recording.numel.tolist() == [3, 1]
    nan = math.nan
    expected = {
        "has_grad": [[1, 0], [1, 1]],
        "grad_norm": [[5, 0], [nan, 2]],
        "grad_mean_abs": [[7 / 3, 0], [nan, 2]],
        "grad_max_abs": [[4, 0], [7, 2]],
        "grad_zero_fraction": [[1 / 3, 0], [1 / 3, 0]],
        "grad_nonfinite": [[0, 0], [1, 0]],
        # a: (1, -2, 2), then (-0.5, -2, 4), then (-0.5, -2, 2.25); b: 3, 3, 2.5
        "param_norm": [[3, 3], [math.sqrt(20.25), 3]],
        "param_mean_abs": [[5 / 3, 3], [6.5 / 3, 3]],
        "update_norm": [[2.5, 0], [1.75, 0.5]],
        "loss": [10, 11],
        "lr": [0.5, 0.25],
        "skipped": [0, 0],
        "loss_scale": [1, 1],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(recording, name), values, rtol=1e-12, err_msg=name)
    assert (recording.planned_steps, recording.trivial) == (2, 0.25)
    assert recording.metric_steps.tolist() == [1, 2]
    assert recording.metric.tolist() == [1.0, 1.0]


def test_skipped_steps_and_the_scale_of_each_step_are_recorded() -> None:
    recording, _ = record(scaled())
    assert np.flatnonzero(recording.skipped).tolist() == [0, 100, 120]
    assert recording.loss_scale[[0, 1, 100, 101, 120, 121]].tolist() == [256, 128, 128, 64, 64, 32]
    assert recording.update_norm[[0, 100, 120]].max() == 0
    assert recording.update_norm[1:100].min() > 0


def test_recording_changes_nothing_of_the_training() -> None:
    plain, watched = perceptron(3), perceptron(3)
    losses = train(plain).losses
    recording, outcome = record(watched)
    assert recording.loss.tolist() == outcome.losses.tolist() == losses.tolist()
    for a, b in zip(plain.model.parameters(), watched.model.parameters()):
        assert torch.equal(a, b)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in watched.model.modules())


def test_a_file_holds_all_of_a_recording(tmp_path: Path) -> None:
    recording, _ = record(perceptron(0, depth=2, steps=20))
    path = tmp_path / "deep" / "run.npz"
    recording.save(path)
    loaded = Recording.load(path)
    for f in fields(Recording):
        saved, got = getattr(recording, f.name), getattr(loaded, f.name)
        assert type(saved) is type(got), f.name
        if isinstance(saved, np.ndarray):
            assert saved.dtype == got.dtype
            np.testing.assert_array_equal(got, saved, err_msg=f.name)
        else:
            assert got == saved, f.name
    assert [path.name for path in path.parent.iterdir()] == ["run.npz"]


def test_the_input_is_the_first_batch() -> None:
    task = perceptron(0, steps=2)
    seen: list[Tensor] = []
    task.model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recording, _ = record(task)
    first = seen[0].double().numpy()
    expected = (first.min(), first.max(), first.mean(), first.std())
    got = (recording.input_min, recording.input_max, recording.input_mean, recording.input_std)
    assert got == pytest.approx(expected, rel=1e-12)


def test_tokens_have_no_range() -> None:
    recording, _ = record(replace(odd(), steps=2))
    assert math.isnan(recording.input_min)


# --- activations ----------------------------------------------------------------------------------------------------


def test_a_relu_is_described_by_its_outputs() -> None:
    # Three units, four examples: one is always zero, one is next to nothing, one is ordinary.
    given = torch.tensor([[-1.0, 1e-6, 1.0], [-2.0, 2e-6, 2.0], [-3.0, 3e-6, -3.0], [-4.0, 4e-6, 5.0]]).double()
    found = activation_stats(nn.ReLU(), given, given.relu())
    assert found.mean == found.mean_abs == pytest.approx((8.0 + 1e-5) / 12, rel=1e-12)
    squares = (1 + 4 + 25 + 30e-12) / 12
    assert found.std == pytest.approx(math.sqrt(squares - found.mean**2), rel=1e-12)
    assert found.p95 == 5.0  # the largest of 12
    assert found.zero == 5 / 12
    assert found.dead_units == pytest.approx(1 / 3)
    assert found.quiet_units == pytest.approx(2 / 3)
    assert math.isnan(found.saturated)
    assert math.isnan(found.saturated_units)


@pytest.mark.parametrize(
    ("module", "inputs", "beyond_5", "beyond_sagemaker", "units"),
    [
        (nn.Tanh(), [[0.1, 6.0], [-0.1, 9.0], [0.2, 10.0], [0.3, -20.0]], 4 / 8, 2 / 8, 1 / 2),
        (nn.Sigmoid(), [[0.1, 6.0], [-0.1, 9.0], [0.2, 18.0], [-24.0, -20.0]], 5 / 8, 2 / 8, 1 / 2),
    ],
)
def test_saturation_is_judged_by_the_inputs(
    module: nn.Module, inputs: list[list[float]], beyond_5: float, beyond_sagemaker: float, units: float
) -> None:
    given = torch.tensor(inputs)
    found = activation_stats(module, given, module(given))
    assert (found.saturated, found.saturated_sagemaker, found.saturated_units) == (beyond_5, beyond_sagemaker, units)


def test_the_units_of_an_image_are_its_channels() -> None:
    image = torch.zeros(2, 3, 4, 4)
    image[1, 0, 2, 2] = 1.0
    assert activation_stats(nn.ReLU(), image, image).dead_units == pytest.approx(2 / 3)


def test_only_the_first_call_of_a_training_step_counts() -> None:
    model = nn.Sequential(nn.ReLU())
    watch = ActivationWatch(model)
    with torch.no_grad():
        model(torch.full((2, 2), 9.0))
    model(torch.full((2, 2), 3.0))
    model(torch.full((2, 2), 7.0))
    assert watch.take()[0, 0] == 3.0
    assert np.isnan(watch.take()).all()
    watch.close()
    model(torch.ones(2, 2))
    assert np.isnan(watch.take()).all()


# --- through time ---------------------------------------------------------------------------------------------------


def followed(model: nn.Module, loss: Callable[[], Tensor]) -> np.ndarray:
    watch = ThroughTime(model)
    watch.listen(True)
    loss().backward()
    (norms,) = watch.take()
    watch.close()
    return norms


def test_a_scalar_recurrence_forgets_by_its_weight() -> None:
    """h_t = relu(h_{t-1} / 2 + x_t) with x > 0: dL/dh_t of L = h_T is 2^-(T - t), far below what float32 can hold."""
    rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False, batch_first=True)
    with torch.no_grad():
        rnn.weight_ih_l0.fill_(1.0)
        rnn.weight_hh_l0.fill_(0.5)
    x = torch.ones(1, 200, 1)
    expected = [0.5 ** (200 - t) for t in range(1, 201)]
    assert followed(nn.Sequential(rnn), lambda: rnn(x)[0][:, -1].sum()) == pytest.approx(expected, rel=1e-6)
    assert followed(nn.Sequential(rnn), lambda: rnn(x)[1].sum()) == pytest.approx(expected, rel=1e-6)


CELLS = {"rnn": (nn.RNN, nn.RNNCell), "gru": (nn.GRU, nn.GRUCell), "lstm": (nn.LSTM, nn.LSTMCell)}


@pytest.mark.parametrize("kind", CELLS)
def test_a_sequence_at_once_and_step_by_step_are_the_same(kind: str) -> None:
    """The states of a cell are there for autograd to see; those of a layer are not."""
    torch.manual_seed(0)
    layer_type, cell_type = CELLS[kind]
    layer, cell = layer_type(3, 5).double(), cell_type(3, 5).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, wanted = torch.randn(7, 2, 3).double(), torch.randn(7, 2, 5).double()
    states: list[tuple[Tensor, ...]] = []

    def by_cell() -> Tensor:
        state = None
        for given in x:
            state = cell(given, state)
            states.append(state if isinstance(state, tuple) else (state,))
            states[-1][0].retain_grad()
        return (torch.stack([s[0] for s in states]) * wanted).sum()

    found = followed(nn.ModuleList([cell]), by_cell)
    assert found == pytest.approx([hidden.grad.norm().item() for hidden, *_ in states], rel=1e-12)
    assert followed(nn.ModuleList([layer]), lambda: (layer(x)[0] * wanted).sum()) == pytest.approx(found, rel=1e-12)

    def in_two_calls() -> Tensor:
        first, state = layer(x[:3], None)
        return (torch.cat([first, layer(x[3:], hx=state)[0]]) * wanted).sum()

    assert followed(nn.ModuleList([layer]), in_two_calls) == pytest.approx(found, rel=1e-12)


def test_two_layers_of_recurrence_count_together() -> None:
    torch.manual_seed(0)
    rnn = nn.RNN(2, 3, num_layers=2, batch_first=True).double()
    x = torch.randn(4, 6, 2).double()
    found = followed(nn.ModuleList([rnn]), lambda: rnn(x)[0][:, -1].sum())
    # Of the last step only the upper layer's state is wanted, each element by 1.
    assert found[-1] == pytest.approx(math.sqrt(4 * 3), rel=1e-12)
    assert found.shape == (6,)
    assert (np.diff(found) > 0).all()


def test_a_recurrent_run_is_followed_at_some_steps_with_the_scale_divided_out() -> None:
    def task(scaler: torch.amp.GradScaler | None) -> Task:
        torch.manual_seed(0)
        model = nn.ModuleDict({"core": nn.RNN(1, 4, batch_first=True)})
        x = torch.randn(8, 5, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        return Task(model, optimizer, lambda s: model["core"](x)[1].sum(), lambda: 0.0, 0.0, 40, scaler=scaler)

    plain, _ = record(task(None))
    scaled, _ = record(task(torch.amp.GradScaler("cpu", init_scale=1024.0)))
    assert plain.recurrent == ("core",)
    assert plain.time_steps[:5].tolist() == [0, 1, 2, 3, 4]
    assert plain.time_grad_norm.shape == (len(plain.time_steps), 1, 5)
    assert plain.time_grad_norm[:, 0, -1] == pytest.approx(math.sqrt(8 * 4), rel=1e-12)
    np.testing.assert_allclose(scaled.time_grad_norm, plain.time_grad_norm, rtol=1e-6)
