"""Finding: what a detector says of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.records import BoolArray, IntArray

WHOLE_MODEL = (None,)
"""The names of the one column of a rule that judges the model as a whole."""


@dataclass(frozen=True)
class Finding:
    """When, what, how bad ("error" or "warning") and where; None for the whole model.

    The symptom is one of ``benchmarks.detection.task.SYMPTOMS`` where the detector names such a one; else it is the
    detector's own word.
    """

    step: int
    symptom: str
    severity: str = "error"
    layer: str | None = None


def onsets(
    bad: BoolArray, steps: IntArray, names: Sequence[str | None], symptom: str, severity: str = "error"
) -> list[Finding]:
    """A finding wherever a column of ``bad`` [checks, names] turns true; ``steps`` are those of the checks.

    So what goes on is one finding, however often the rule is asked.

    >>> onsets(np.array([[True], [True], [False], [True]]), np.arange(4), ["fc"], "dead")[1]
    Finding(step=3, symptom='dead', severity='error', layer='fc')
    """
    before = np.zeros_like(bad)
    before[1:] = bad[:-1]
    return [Finding(int(steps[i]), symptom, severity, names[k]) for i, k in np.argwhere(bad & ~before)]


def first(findings: Iterable[Finding]) -> list[Finding]:
    """The earliest finding alone, of equals the one given first: of tools that stop there."""
    return sorted(findings, key=lambda f: f.step)[:1]


def one_column(bad: BoolArray) -> BoolArray:
    """A judgement [checks] of the whole model as the one column that :func:`onsets` takes."""
    return bad.reshape(-1, 1)
