"""Flat output: no gradient gets from the loss to the last layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import place
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called


@dataclass(frozen=True)
class FlatOutput:
    """The gradient is lost before it comes to the last layer: in the loss, or in an activation behind the layers.

    So all layers are dead, which is then no consequence of some that are saturated.

    Example:
        >>> from gradwatch.profile import Segment
        >>> relu = Segment("act", "activation", "Relu", 0.0, 1.0)
        >>> alerts = [Alert(52, "dead", "fc", 2, 0.0, 0.0, "")]
        >>> found = FlatOutput().explain(History.from_grad_norms(fc=[0.0]), BackwardProfile((relu,), step=0), alerts)
        >>> print(found.remedy)
        leave Relu off the model's output: it is flat there
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        flat = told(alerts, "flat_output")
        if flat:
            return self._behind_the_last_layer(flat[0], probe)
        found = told([a if a.follows != "saturated" else replace(a, follows="") for a in alerts], "dead")
        if not found or probe is None or not is_cut_at_the_output(history, probe):
            return None
        if probe.segments:
            last = probe.segments[-1]
            evidence = f"nothing passes {last.operation}{place([last.layer])}, behind the last layer"
            remedy, change = f"leave {last.operation} off the model's output: it is flat there", "activation"
            if "Softmax" in last.operation:
                remedy = "of one output a softmax is always 1: use a sigmoid, or give the model one output per class"
        else:
            evidence, change = "the gradient is exactly zero where it leaves the loss", ""
            remedy = (
                "look at the loss: nothing in it depends on the model's output, which may be rounded, compared, "
                "clamped or multiplied by zero on the way; a cross entropy needs one output per class"
            )
            if history.grad_norm.any():
                evidence += ", and was not before"
                remedy = (
                    "look at the loss: a margin that is kept asks for nothing more; else it no longer depends on the "
                    "model's output, which may be clamped or multiplied by zero on the way"
                )
        return Diagnosis("flat_output", 0.9, layers_of(found), (evidence,), remedy, change)

    @staticmethod
    def _behind_the_last_layer(alert: Alert, probe: BackwardProfile | None) -> Diagnosis:
        what = activation_at_output(probe)
        share = f"{alert.value:.2g}" if math.isfinite(alert.value) else "next to nothing"
        evidence = (
            f"what lies behind {called(alert.layer or 'the last layer')} passes {share} of the gradient that it "
            "passed at first, and the loss asks for as much as it did"
        )
        remedy = f"leave {what} off the model's output, or scale the targets to what it can give: it is flat there"
        return Diagnosis("flat_output", 0.9, layers_of([alert]), (evidence,), remedy, "activation")


def activation_at_output(probe: BackwardProfile | None) -> str:
    """The activation behind the last layer in words, as far as ``probe`` saw it."""
    first = probe.segments[0] if probe is not None and probe.segments else None
    is_seen = first is not None and first.kind == "activation"
    return f"{first.operation}{place([first.layer])}" if first is not None and is_seen else "the activation"


def is_cut_at_the_output(history: History, probe: BackwardProfile | None) -> bool:
    """Whether no layer had a gradient but zero in the probed step, and none came to the last one."""
    if probe is None:
        return False
    rows = np.flatnonzero(history.steps == probe.step)
    nothing = len(rows) > 0 and not history.grad_norm[rows[-1]].any()
    return nothing and not probe.notes and all(s.kind != "weight" for s in probe.segments)
