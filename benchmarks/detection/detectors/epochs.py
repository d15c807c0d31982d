"""Epochs: the places of a run at which rules made for Keras callbacks are asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.recording import Recording
from benchmarks.detection.training import curve_points
from gradwatch.records import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Epochs:
    """A run as E epochs: the 30 parts at whose ends the training metric is taken.

    Most runs see their data a few dozen times or less often, so the parts stand for the epochs that the rules are made
    for. The gradient on a fixed batch at an epoch's end becomes the gradient of the epoch's last step. A run that broke
    down ends with an epoch that is not complete, as Keras would have gone on.

    Args:
        last: [E] the last step of each.
        loss: [E] its mean over the steps.
        metric: [E] the training metric at the end; NaN where it was not taken.
        planned: epochs of the whole run.
    """

    last: IntArray
    loss: FloatArray
    metric: FloatArray
    planned: int

    @classmethod
    def of(cls, recording: Recording) -> Epochs:
        """The epochs of a run."""
        points = curve_points(recording.planned_steps)
        done = [point for point in points if point <= len(recording)]
        if len(recording) < recording.planned_steps and done[-1:] != [len(recording)]:
            done.append(len(recording))
        taken = dict(zip(recording.metric_steps.tolist(), recording.metric.tolist()))
        with np.errstate(over="ignore", invalid="ignore"):
            losses = [recording.loss[start:end].mean() for start, end in zip([0, *done], done)]
        return cls(
            last=np.array(done, np.int64) - 1,
            loss=np.array(losses),
            metric=np.array([taken.get(point, np.nan) for point in done]),
            planned=len(points),
        )

    def __len__(self) -> int:
        return len(self.last)

    @property
    def is_cut_short(self) -> bool:
        """Whether the run broke down before its end."""
        return len(self) < self.planned
