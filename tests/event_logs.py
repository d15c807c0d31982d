"""Event files as the sink writes them, of norms that are known."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradwatch as gw
from gradwatch import tags
from gradwatch.profile import BackwardProfile, Segment
from gradwatch.records import Alert, ClipRecord, Diagnosis, Report, Severity, StepStats

BINS = len(tags.HISTOGRAM_EDGES) - 1

VANISHING = Alert(7, "vanishing", "a", Severity.ERROR, 1e-9, 1e-7, "a: gradient norm 1e-09 stayed below 1e-07")
DEEP = Diagnosis("saturation", 0.9, ("a",), ("sigmoid passes 0.05 per layer",), "use ReLU", "activation")
PROFILE = BackwardProfile(
    (Segment("act", "activation", "Sigmoid", 0.05, 1.0), Segment("fc", "weight", "Addmm", 2.0, 0.2))
)


def layer_names(count: int) -> tuple[str, ...]:
    return tuple(f"blocks.{i}.fc" for i in range(count))


def stats(step: int, layers: Sequence[str], norms: Sequence[float | None] | np.ndarray, **more: Any) -> StepStats:
    has_grad = np.array([norm is not None for norm in norms])
    norm = np.array([0.0 if norm is None else norm for norm in norms], np.float64)
    return StepStats(step, tuple(layers), norm, has_grad, float(np.sqrt(np.sum(norm**2))), **more)


def sampled(count: int, step: int) -> dict[str, Any]:
    """The statistics of a sampled step, each different for every layer and step."""
    number = np.arange(count) + 1.0 + step
    counts = np.zeros((count, BINS), np.int64)
    counts[:, 10] = number
    counts[:, 12 + step % 5] = 2 * number
    return {
        "max_abs": number / 2,
        "zero_fraction": np.full(count, 0.25),
        "nonfinite": np.zeros(count, np.int64),
        "param_norm": number * 10,
        "update_ratio": number * 1e-3,
        "histogram": counts,
    }


def write(
    directory: str | os.PathLike[str],
    layers: Sequence[str],
    norms: Sequence[Sequence[float | None]] | np.ndarray,
    *,
    steps: Sequence[int] | None = None,
    said: Mapping[int, Mapping[str, Any]] | None = None,
    sample_every: int = 0,
    clip: Mapping[int, ClipRecord] | None = None,
    close: bool = True,
) -> gw.sinks.TensorBoard:
    """Write one row of ``norms`` a step with the real sink.

    Args:
        said: by step, what the report says: verdict, severity, alerts, diagnoses, profile.
        clip: by step, what was clipped.
    """
    sink = gw.sinks.TensorBoard(directory)
    for step, row in zip(range(len(norms)) if steps is None else steps, norms):
        more = sampled(len(layers), step) if sample_every and step % sample_every == 0 else {}
        words = {"verdict": f"healthy: {step + 1} steps", "severity": Severity.INFO, **(said or {}).get(step, {})}
        sink.write(Report(stats=stats(step, layers, row, **more), clip=(clip or {}).get(step), **words))
    if close:
        sink.close()
    return sink


def event_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*tfevents*"))
