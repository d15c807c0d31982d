"""Recording: everything that any detector needs of one training run, as arrays in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gradwatch.arriving import input_size
from gradwatch.closeup import CloseupStats
from gradwatch.layers import check_granularity
from gradwatch.probe_schedule import EARLY
from gradwatch.records import BoolArray, FloatArray, IntArray, Layer, StepStats
from gradwatch.sampled import Elements, Moved
from gradwatch.stacked import are_among
from gradwatch.stats import per_layer


@dataclass(frozen=True, eq=False)
class Recording:
    """One run: T recorded steps, P parameters, A activation modules, R recurrent modules.

    Every array by step and parameter describes the gradients when they are complete: accumulated and unscaled, before
    any clipping of the user's own. A parameter without gradient has 0 there, and False in ``has_grad``. What could not
    be measured, as an activation module that did not run in a step, is NaN.

    Args:
        planned_steps: steps of the whole run; T is smaller where the run broke down before.
        trivial: the trivial predictor's value of the metric.
        parameters: [P] full names, tied parameters once, in the model's order.
        modules: [P] names of the modules that they belong to: gradwatch's layers.
        kinds: [P] class names of those modules.
        numel: [P] numbers of elements.
        grad_norm: [T, P] L2 norm.
        grad_mean_abs: [T, P] mean magnitude.
        grad_max_abs: [T, P] largest finite magnitude.
        grad_zero_fraction: [T, P] share of elements that are exactly zero.
        grad_nonfinite: [T, P] number of NaN and inf.
        has_grad: [T, P].
        param_norm: [T, P] L2 norm before the step.
        param_mean_abs: [T, P] mean magnitude before the step.
        update_norm: [T, P] L2 norm of what the step changed.
        loss: [T].
        lr: [T] of the first parameter group.
        skipped: [T] whether the gradient scaler skipped the step.
        loss_scale: [T] of the gradient scaler, 1 without one.
        activations: [A] names of the activation modules, in the model's order; of those that are called several times
            in a step, the first call counts.
        activation_kinds: [A] class names.
        act_mean: [T, A] mean output.
        act_mean_abs: [T, A] mean |output|.
        act_std: [T, A] standard deviation of the output.
        act_p95: [T, A] 95th percentile of |output|.
        act_zero: [T, A] share of outputs that are zero or, from a ReLU and its like, less.
        act_dead_units: [T, A] share of units that are zero on the whole batch. A unit is a channel of what has four
            dimensions or more, else an entry of the last one.
        act_quiet_units: [T, A] share of units with |output| < 1e-5 on at least 95% of the batch.
        act_saturated: [T, A] of sigmoid and tanh, share of inputs beyond +-5; NaN for others.
        act_saturated_sagemaker: [T, A] the same by SageMaker's limits: tanh +-9.4999, sigmoid -23 and 16.99999.
        act_saturated_units: [T, A] share of units whose mean |output|, rescaled to [-1, 1], is above 0.85.
        input_min: of the model's first input; NaN for integers, as tokens.
        input_max: likewise.
        input_mean: likewise.
        input_std: likewise.
        metric_steps: [M] number of steps done when the metric was taken.
        metric: [M] its value, higher is better.
        sampled_steps: [S] gradwatch's sampled steps.
        sampled_sums: [S, P, COLUMNS] what a Monitor adds up of each parameter there.
        moved_steps: [U] the steps after those.
        moved_squares: [U, P, 2] what a Monitor then knows of the step before; NaN of a parameter not in the sample.
        ndims: [P] dimensions of each parameter.
        outputs: [P] see ``LayerTable.outputs``.
        closeup_steps: [C] the steps that a Monitor looks at closely.
        saturated: [C, L] what it sees there: see :class:`~gradwatch.records.StepStats`.
        time_ratio: [C, L] likewise.
        time_gain: [C, L] likewise.
        steps_read: [C, L] likewise.
        sequences_read: [C, L] likewise.
        variation: [C, L] likewise.
        variation_within: [C, L] likewise.
        given_nothing: [C, L] likewise.
        data_rms: [C, L] likewise.
        output_gradient: [C] likewise.
        output_error: [C] likewise.
        loss_gradient: [C] likewise.
        output_variation: [C] likewise.
        out_of_reach: [C] likewise.
        output_row: [C] likewise.
        loss_mismatch: [C] likewise.
        output_scatter: [C] likewise.
        output_offset: [C] likewise.
        dropped: [C] likewise.
        evaluates: [C] likewise.
        half: [C] likewise; -1 where it is not known.
        not_zeroed: [C] likewise.
        alike: [C, P] whether all units of the parameter are.
        trained: [C, P] whether the parameter requires a gradient.
        stacked: names of the weights that others follow with nothing between that bends.
        towers: [P] the number of the network that the parameter is in, of several beside each other.
        recurrent: [R] names of the recurrent modules.
        time_steps: [K] some 20 steps. For the oracle only.
        time_grad_norm: [K, R, times] norm of the loss's gradient with respect to the state at each time step of the
            sequence, the first batch's; NaN beyond its end.
    """

    planned_steps: int
    trivial: float
    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    kinds: tuple[str, ...]
    numel: IntArray
    grad_norm: FloatArray
    grad_mean_abs: FloatArray
    grad_max_abs: FloatArray
    grad_zero_fraction: FloatArray
    grad_nonfinite: FloatArray
    has_grad: BoolArray
    param_norm: FloatArray
    param_mean_abs: FloatArray
    update_norm: FloatArray
    loss: FloatArray
    lr: FloatArray
    skipped: BoolArray
    loss_scale: FloatArray
    activations: tuple[str, ...]
    activation_kinds: tuple[str, ...]
    act_mean: FloatArray
    act_mean_abs: FloatArray
    act_std: FloatArray
    act_p95: FloatArray
    act_zero: FloatArray
    act_dead_units: FloatArray
    act_quiet_units: FloatArray
    act_saturated: FloatArray
    act_saturated_sagemaker: FloatArray
    act_saturated_units: FloatArray
    input_min: float
    input_max: float
    input_mean: float
    input_std: float
    metric_steps: IntArray
    metric: FloatArray
    sampled_steps: IntArray
    sampled_sums: FloatArray
    moved_steps: IntArray
    moved_squares: FloatArray
    ndims: IntArray
    outputs: FloatArray
    closeup_steps: IntArray
    saturated: FloatArray
    time_ratio: FloatArray
    time_gain: FloatArray
    steps_read: FloatArray
    sequences_read: FloatArray
    variation: FloatArray
    variation_within: FloatArray
    given_nothing: FloatArray
    data_rms: FloatArray
    output_gradient: FloatArray
    output_error: FloatArray
    loss_gradient: FloatArray
    output_variation: FloatArray
    out_of_reach: FloatArray
    output_row: FloatArray
    loss_mismatch: FloatArray
    output_scatter: FloatArray
    output_offset: FloatArray
    dropped: FloatArray
    evaluates: FloatArray
    half: IntArray
    not_zeroed: IntArray
    alike: BoolArray
    trained: BoolArray
    stacked: tuple[str, ...]
    towers: IntArray
    recurrent: tuple[str, ...]
    time_steps: IntArray
    time_grad_norm: FloatArray

    def __len__(self) -> int:
        return len(self.loss)

    def layers(self, granularity: str = "layer") -> tuple[Layer, ...]:
        """The rows of :meth:`stats`, as ``Monitor.layers`` has them.

        Raises:
            ValueError: when ``granularity`` is neither "layer" nor "parameter".
        """
        check_granularity(granularity)
        names = self.modules if granularity == "layer" else self.parameters
        members = {name: [i for i, other in enumerate(names) if other == name] for name in names}
        return tuple(
            Layer(name, self.kinds[rows[0]], int(self.numel[rows].sum()), tuple(self.parameters[i] for i in rows))
            for name, rows in members.items()
        )

    def stats(self, granularity: str = "layer") -> Iterator[StepStats]:
        """gradwatch's records of every step, as a live Monitor with default settings would have made them.

        What it saw of activations and time steps is known by layer only.

        Args:
            granularity: "layer" or "parameter".

        Raises:
            ValueError: when ``granularity`` is neither.
        """
        layers = self.layers(granularity)
        names = tuple(layer.name for layer in layers)
        numel = np.array([layer.numel for layer in layers], np.float64)
        rows = np.array([names.index(name) for name in (self.modules if granularity == "layer" else self.parameters)])
        sampled = {int(step): i for i, step in enumerate(self.sampled_steps)}
        moved = {int(step): i for i, step in enumerate(self.moved_steps)}
        looked = {int(step): i for i, step in enumerate(self.closeup_steps)}
        for step in range(len(self)):
            found = self.has_grad[step]
            norm, has_grad = per_layer(self.grad_norm[step, found], rows[found], len(names))
            more: dict[str, Any] = {}
            if step in sampled:
                sums = self.sampled_sums[sampled[step], found]
                more |= Elements(rows[found], (), sums, self.grad_max_abs[step, found]).stats(len(names))
            if step in moved and not self.skipped[step - 1]:  # what did not step did not move
                squares = self.moved_squares[moved[step]]
                known = ~np.isnan(squares).all(axis=1)
                change = Moved(rows[known], (), squares[known])
                more["update_ratio"] = change.update_ratio(len(names))
                more["total_update"] = change.total_update(np.bincount(rows, self.outputs))
                more["broken"] = change.has_broken()
            if step in looked:
                norms = self.grad_norm[step, found]
                more["input_size"] = input_size(norms, rows[found], self.ndims[found], len(names))
                for name in ("half", "not_zeroed"):
                    told = getattr(self, name)[looked[step]]
                    more[name] = None if told < 0 else bool(told)
                more["alike"] = np.bincount(rows, self.alike[looked[step]], len(names)) > 0
                more["trained"] = np.bincount(rows, self.trained[looked[step]], len(names)) > 0
                if granularity == "layer" and step > 0:  # a Monitor has no hooks in place before its first step
                    more |= {name: getattr(self, name)[looked[step]] for name in CloseupStats._fields}
            if step == EARLY:
                more["stacked"] = are_among(names, self.stacked)
                more["towers"] = self.towers[np.unique(rows, return_index=True)[1]]
            with np.errstate(over="ignore", invalid="ignore"):
                total = float(np.sqrt(np.sum(norm * norm)))
            yield StepStats(step, names, norm, has_grad, total, numel=numel, skipped=bool(self.skipped[step]), **more)

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file; a file that is there is one that is whole."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        rest = json.dumps({name: value for name, value in values.items() if name not in arrays})
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **arrays, rest=np.array(rest))
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """What :meth:`save` wrote."""
        with np.load(path) as file:
            rest = json.loads(str(file["rest"]))
            arrays = {name: file[name] for name in file.files if name != "rest"}
        return cls(**arrays, **{name: tuple(v) if isinstance(v, list) else v for name, v in rest.items()})
