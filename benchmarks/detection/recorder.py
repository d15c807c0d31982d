"""record(): one run with everything written down that any detector needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch as gw
from benchmarks.detection.activations import ActivationStats, ActivationWatch
from benchmarks.detection.recording import Recording
from benchmarks.detection.task import Task
from benchmarks.detection.through_time import ThroughTime
from benchmarks.detection.training import Outcome, train
from gradwatch.alike import AlikeUnits
from gradwatch.closeup import Closeup, CloseupStats
from gradwatch.layers import Gradients, LayerTable
from gradwatch.leftover import Leftover
from gradwatch.monitor import is_first_look
from gradwatch.probe_schedule import EARLY
from gradwatch.probing import Probe
from gradwatch.profile import BackwardProfile
from gradwatch.records import FloatArray, IntArray
from gradwatch.sampled import COLUMNS, ParameterSample, element_sums, in_float16
from gradwatch.stats import measure
from gradwatch.towers import tower_of

SAMPLED_EVERY = 100
"""A Monitor's default ``histogram_every_n_steps``."""

TIME_POINTS = 10
"""Steps at which the gradient is followed through time, in the first tenth of the run and again in the rest."""


def record(task: Task) -> tuple[Recording, Outcome]:
    """Train ``task`` and record it; the training itself is the same, bit for bit, as without."""
    recorder = Recorder(task)
    try:
        outcome = train(task, recorder)
    finally:
        recorder.close()
    return recorder.recording(outcome), outcome


class Recorder:
    """An observer of :func:`~benchmarks.detection.training.train` that reads by forward hooks and between the steps."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._modules = _modules_of_parameters(task.model)
        named = dict(task.model.named_parameters())
        self._names = tuple(self._modules)
        self._parameters = [named[name] for name in self._names]
        self._elements = Elements([p.numel() for p in self._parameters])
        self._through_time = ThroughTime(task.model)
        self._time_points = set(time_points(task.steps))
        self._activations = ActivationWatch(task.model)
        self._input = InputWatch(task.model)
        self._before = self._elements.join(self._parameters)
        self._sample: ParameterSample | None = None
        self._closeup = Closeup(task.model, LayerTable(task.model).layers)
        self._leftover, self._alike = Leftover(), AlikeUnits()
        self._probe, self._profile = Probe(task.model), BackwardProfile()
        self._rows: dict[str, list[Any]] = {}
        self._through_time.listen(0 in self._time_points)

    def gradients_ready(self, step: int) -> None:
        found = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        scale = 1.0 if self._task.scaler is None else float(self._task.scaler.get_scale())
        self._add_gradients(found, gradients)
        self._add(
            param_norm=self._elements.norms(self._before),
            param_mean_abs=self._elements.sums(np.abs(self._before)) / self._elements.sizes,
            lr=float(self._task.optimizer.param_groups[0]["lr"]),
            loss_scale=scale,
            activations=self._activations.take(),
        )
        if self._sample is not None:
            self._add_moved(step, self._sample)
            self._sample = None
        watched = Gradients([self._parameters[i] for i in found], gradients, found)
        if is_looked_at(step):
            self._sample = ParameterSample(watched)
            seen = self._closeup.take()
            if self._task.scaler is not None:  # as in a Monitor: its scale may have changed since the last look
                seen = seen._replace(loss_gradient=np.nan)
            self._add(closeup_steps=step, closeup=seen)
            half = in_float16(gradients)
            self._add(half=self._closeup.half if half is None else half)
            self._add(trained=[p.requires_grad for p in self._parameters], not_zeroed=self._leftover.take())
            self._add(alike=np.isin(np.arange(len(self._names)), self._alike.look(watched)))
        if step % SAMPLED_EVERY == 0:
            self._add_sample(step, watched)
        if step == EARLY and (profile := self._probe.take()) is not None:
            self._profile = profile
        if step + 1 == EARLY:
            self._probe.arm()
        if is_looked_at(step + 1):
            self._closeup.arm()
            self._leftover.arm(watched.parameters)
        if step in self._time_points:
            self._add(time_steps=step, time_grad_norm=[norms / scale for norms in self._through_time.take()])
        self._through_time.listen(step + 1 in self._time_points)
        self._input.close()

    def stepped(self, step: int, loss: float) -> None:
        now = self._elements.join(self._parameters)
        with np.errstate(all="ignore"):
            change = now - self._before
        self._add(update_norm=self._elements.norms(change), loss=loss)
        self._before = now

    def recording(self, outcome: Outcome) -> Recording:
        """All that was recorded, with what came of the run."""
        steps, count = len(self._rows["loss"]), len(self._names)
        by_step = {name: np.array(self._rows[name], np.float64) for name in self._rows if name not in _OTHERWISE}
        activations = np.array(self._rows["activations"]).reshape(steps, -1, len(ActivationStats._fields))
        return Recording(
            planned_steps=self._task.steps,
            trivial=float(self._task.trivial),
            parameters=self._names,
            modules=tuple(layer.name for layer in self._modules.values()),
            kinds=tuple(layer.kind for layer in self._modules.values()),
            numel=self._elements.sizes,
            has_grad=np.array(self._rows["has_grad"], bool),
            skipped=np.array(self._rows["skipped"], bool),
            **by_step,
            activations=self._activations.names,
            activation_kinds=self._activations.kinds,
            **{f"act_{name}": activations[:, :, i] for i, name in enumerate(ActivationStats._fields)},
            **self._input.stats,
            metric_steps=np.array([done for done, _ in outcome.metric_curve], np.int64),
            metric=np.array([value for _, value in outcome.metric_curve]),
            sampled_steps=np.array(self._rows["sampled_steps"], np.int64),
            sampled_sums=np.array(self._rows["sampled_sums"]).reshape(-1, count, COLUMNS),
            moved_steps=np.array(self._rows.get("moved_steps", []), np.int64),
            moved_squares=np.array(self._rows.get("moved_squares", [])).reshape(-1, count, 2),
            ndims=np.array([p.ndim for p in self._parameters], np.int64),
            outputs=LayerTable(self._task.model, "parameter").outputs,
            closeup_steps=np.array(self._rows["closeup_steps"], np.int64),
            **dict(zip(CloseupStats._fields, map(np.array, zip(*self._rows["closeup"])))),
            trained=np.array(self._rows["trained"], bool),
            alike=np.array(self._rows["alike"], bool),
            **{name: _or_unknown(self._rows[name]) for name in ("half", "not_zeroed")},
            stacked=self._profile.stacked,
            towers=tower_of(self._names, self._profile.towers),
            recurrent=self._through_time.names,
            time_steps=np.array(self._rows["time_steps"], np.int64),
            time_grad_norm=_padded(self._rows["time_grad_norm"], len(self._through_time.names)),
        )

    def close(self) -> None:
        """Take the hooks away."""
        for watch in (self._activations, self._input, self._through_time, self._closeup, self._leftover, self._probe):
            watch.close()

    def _add(self, **values: Any) -> None:
        for name, value in values.items():
            self._rows.setdefault(name, []).append(value)

    def _add_gradients(self, found: list[int], gradients: list[Tensor]) -> None:
        count = len(self._names)
        norms = measure(gradients).norms.double().numpy()  # as a Monitor does
        scaler = self._task.scaler
        part = Elements([self._elements.sizes[i] for i in found])
        values = np.abs(part.join(gradients))
        finite = np.isfinite(values)
        columns = {
            "has_grad": np.ones(len(found)),
            "grad_norm": norms,
            "grad_mean_abs": part.sums(values) / part.sizes,
            "grad_max_abs": part.largest(np.where(finite, values, 0.0)),
            "grad_zero_fraction": part.sums(values == 0) / part.sizes,
            "grad_nonfinite": part.sums(~finite),
        }
        self._add(**{name: _spread(column, found, count) for name, column in columns.items()})
        self._add(skipped=scaler is not None and scaler.is_enabled() and not np.isfinite(norms).all())

    def _add_sample(self, step: int, gradients: Gradients) -> None:
        count = len(self._names)
        sums = element_sums(gradients).sums if gradients.rows else np.zeros((0, COLUMNS))
        self._add(sampled_steps=step, sampled_sums=_spread(sums, gradients.rows, count))

    def _add_moved(self, step: int, sample: ParameterSample) -> None:
        moved = sample.moved()
        squares = _spread(moved.squares, list(moved.rows), len(self._names), missing=np.nan)
        self._add(moved_steps=step, moved_squares=squares)


class Elements:
    """The elements of several tensors one after the other in float64, and sums over each of them.

    >>> elements = Elements([2, 1])
    >>> elements.sums(elements.join([torch.tensor([1.0, 2.0]), torch.tensor([[5.0]])])).tolist()
    [3.0, 5.0]
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes: IntArray = np.array(sizes, np.int64)
        self._starts = np.cumsum(self.sizes) - self.sizes

    def join(self, tensors: Sequence[Tensor]) -> FloatArray:
        """Sparse gradients are made dense."""
        if not tensors:
            return np.empty(0)
        dense = [t.detach() if t.layout is torch.strided else t.detach().to_dense() for t in tensors]
        elements: FloatArray = torch.cat([t.reshape(-1) for t in dense]).to(torch.float64, copy=True).numpy()
        return elements

    def sums(self, values: Any) -> FloatArray:
        return self._reduce(np.add, values)

    def norms(self, values: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.sqrt(self.sums(values * values))

    def largest(self, values: Any) -> FloatArray:
        return self._reduce(np.maximum, values)

    def _reduce(self, how: np.ufunc, values: Any) -> FloatArray:
        if not len(self.sizes):
            return np.empty(0)
        with np.errstate(all="ignore"):
            reduced: FloatArray = how.reduceat(np.asarray(values, np.float64), self._starts)
        return reduced


class InputWatch:
    """The range of the first tensor that any module of the model is called with in training."""

    def __init__(self, model: nn.Module) -> None:
        self.stats = dict.fromkeys(("input_min", "input_max", "input_mean", "input_std"), float("nan"))
        self._handles = [module.register_forward_pre_hook(self._called) for module in model.modules()]

    def close(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor):
            return
        self.close()
        if args[0].is_floating_point():
            values = args[0].detach().double().numpy()
            found = (values.min(), values.max(), values.mean(), values.std())
            self.stats = dict(zip(self.stats, map(float, found)))


def is_looked_at(step: int) -> bool:
    """Whether a Monitor looks closely at this step."""
    return is_first_look(step) or step % SAMPLED_EVERY == 0


def time_points(steps: int) -> IntArray:
    """The steps at which the gradient is followed through time: early ones more often.

    >>> time_points(300)[:4].tolist(), time_points(300)[-2:].tolist(), len(time_points(300))
    ([0, 3, 6, 10], [269, 299], 19)
    """
    early = np.linspace(0, steps / 10, TIME_POINTS)
    late = np.linspace(steps / 10, steps - 1, TIME_POINTS)
    return np.unique(np.concatenate([early, late]).astype(np.int64))


def _modules_of_parameters(model: nn.Module) -> dict[str, gw.Layer]:
    """For each parameter that a Monitor watches, the layer that it belongs to."""
    layers = gw.Monitor(model, rules=(), sinks=()).layers
    by_name = {name: layer for layer in layers for name in layer.parameters}
    parameters = gw.Monitor(model, rules=(), sinks=(), granularity="parameter").layers
    return {name: by_name[name] for parameter in parameters for name in parameter.parameters}


def _spread(columns: FloatArray, rows: Sequence[int], count: int, missing: float = 0.0) -> FloatArray:
    """``columns`` of some of ``count`` parameters as those of all."""
    whole = np.full((count, *columns.shape[1:]), missing)
    whole[list(rows)] = columns
    return whole


def _padded(norms: Sequence[Sequence[FloatArray]], count: int) -> FloatArray:
    """[K, R, times] from a list of lists of different lengths, NaN beyond their ends."""
    longest = max((len(row) for rows in norms for row in rows), default=0)
    whole = np.full((len(norms), count, longest), np.nan)
    for k, rows in enumerate(norms):
        for r, row in enumerate(rows):
            whole[k, r, : len(row)] = row
    return whole


_OTHERWISE = {
    "has_grad",
    "skipped",
    "activations",
    "closeup_steps",
    "closeup",
    "half",
    "trained",
    "not_zeroed",
    "alike",
    "sampled_steps",
    "sampled_sums",
    "moved_steps",
    "moved_squares",
    "time_steps",
    "time_grad_norm",
}
"""What is not simply a row of numbers per step."""


def _or_unknown(values: Sequence[bool | None]) -> IntArray:
    """int64, 0 and 1, and -1 where nobody knows."""
    return np.array([-1 if value is None else value for value in values], np.int64)
