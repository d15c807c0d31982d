"""First non-finite: where NaN or inf came in, and what the gradients did before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.broken_step import broken_by_a_step
from gradwatch.diagnosis.clip_at import clip_at
from gradwatch.diagnosis.reference import beside
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.words import place
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.profile import FirstNonFinite as Origin
from gradwatch.records import Alert, BoolArray, Diagnosis
from gradwatch.verdict import SHOWN, called

FIXES: Mapping[str, str] = {
    **dict.fromkeys(("Log", "Log2", "Log10", "Xlogy"), "log(x + 1e-6) in place of log(x)"),
    **dict.fromkeys(("Sqrt", "Pow", "Rsqrt"), "sqrt(x + 1e-6) in place of sqrt(x): its derivative at 0 is infinite"),
    **dict.fromkeys(("LinalgVectorNorm", "Norm", "Std", "Var"), "sqrt((x * x).sum() + 1e-6) in place of the norm of x"),
    **dict.fromkeys(("Div", "Reciprocal"), "y / (x + 1e-6) in place of y / x"),
    **dict.fromkeys(("Exp", "Expm1"), "exp(x.clamp(max=10)) in place of exp(x), or as an activation a ReLU"),
}
"""What makes each operation finite everywhere, by the name of its node."""

ANYWHERE = "add 1e-6 to what a division divides by and to what a log, a root or a norm is taken of"
"""Where the operation is not known."""


@dataclass(frozen=True)
class FirstNonFinite:
    """Tells an overflow that was coming from a NaN out of a clear sky, and names the operation where it was probed.

    Args:
        growth: times the median norm that the step before had, for an overflow that was coming.
        factor: times the median norm to clip at, where it was.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> history = History.from_grad_norms(a=[1.0] * 20 + [float("nan")], b=[1.0] * 21)
        >>> alerts = [Alert(20, "nonfinite", "a", 2, float("nan"), float("inf"), "")]
        >>> print(FirstNonFinite().explain(history, None, alerts).evidence[0])
        at step 20 the gradient was not finite in 1 of 2 layers: a
        >>> profile = BackwardProfile(nonfinite=Origin("forward", "features", "Log"))
        >>> print(FirstNonFinite().explain(history, profile, alerts).remedy)
        in features, log(x + 1e-6) in place of log(x)
    """

    growth: float = 100.0
    factor: float = 3.0

    def __post_init__(self) -> None:
        check_number("FirstNonFinite: growth", self.growth, above=1)
        check_number("FirstNonFinite: factor", self.factor, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        broken = history.has_grad & ~np.isfinite(history.grad_norm) & ~history.skipped[:, None]
        asked = [a.step for a in told(alerts, "nonfinite")]
        ill: BoolArray = np.any(broken, axis=1)
        rows = np.flatnonzero(ill & (history.steps <= max(asked, default=-1)))
        if not len(rows) or broken_by_a_step(history) is not None:
            return None
        well = np.flatnonzero(~ill[: rows[-1]])
        start = int(well[-1]) + 1 if len(well) else 0
        names = tuple(np.array(history.layers, dtype=object)[broken[start]].tolist())
        shown = ", ".join(map(called, names[-3:][::-1]))
        evidence = [
            f"at step {history.steps[start]} the gradient was not finite in {len(names)} of {len(history.layers)} "
            f"layers: {shown}{', ...' if len(names) > 3 else ''}"
        ]
        before = history.total_norm[:start]
        before = before[np.isfinite(before) & (before > 0)]
        grew = len(before) > 1 and before[-1] > self.growth * np.median(before[:-1])
        if grew:
            ratio = before[-1] / np.median(before[:-1])
            evidence.append(f"the last finite total norm before was {before[-1]:.2g}, {ratio:.2g} times the median")
        elif len(before):
            usual = ", nothing unusual" * (len(before) > 1)
            evidence.append(f"the last finite total norm before was {before[-1]:.2g}{usual}")
        origin = probe.nonfinite if probe is not None else None
        if origin is not None:
            evidence.append(_words(origin))
        suspects = _suspects(probe) if probe is not None else {}
        if suspects:
            more = f" and {len(suspects) - SHOWN} more" * (len(suspects) > SHOWN)
            few = ", ".join([*suspects][:SHOWN])
            evidence.append(f"on the way are operations that are not finite at some input: {few}{more}")
        if grew:
            return Diagnosis(
                "first_nonfinite",
                0.8,
                names,
                tuple(evidence),
                f"{clip_at(history, self.factor)}; or lower the learning rate: the gradients grew first",
                "clipping",
            )
        half = probe is not None and probe.half
        remedy, change, confidence = _remedy(origin, names, history.layers, suspects)
        if origin is None and np.isinf(history.grad_norm[start]).any() and not history.skipped_count:
            remedy += "; if a GradScaler is in use, give it to the monitor (scaler=): the steps it skips are no fault"
        return Diagnosis(
            "first_nonfinite", confidence / 2 if half else confidence, names, tuple(evidence), remedy, change
        )


def _suspects(probe: BackwardProfile) -> dict[str, str]:
    """In words the operations that may have made it, the one nearest the input first, and what makes each finite."""
    found = [s for s in (*beside(probe)[::-1], *probe.segments[::-1]) if s.operation in FIXES]
    return {f"{s.operation}{place([s.layer])}": FIXES[s.operation] for s in found}


def _words(origin: Origin) -> str:
    module = called(origin.module)
    what = f"{origin.operation} of {module}" if origin.operation and module else module
    said = {
        "forward": f"in the forward pass {what or 'the model'} is the first to make NaN or inf of what is finite",
        "backward": f"the forward pass is finite; in the backward pass it begins at {what or 'the loss'}",
        "input": f"{what or 'the model'} was given NaN or inf",
        "parameter": f"the parameter {what} holds NaN or inf by now",
    }
    return said[origin.where]


def _remedy(
    origin: Origin | None, broken: Sequence[str], layers: Sequence[str], suspects: Mapping[str, str]
) -> tuple[str, str, float]:
    """What to change, its kind, and how certain that is."""
    anomaly = "torch.autograd.set_detect_anomaly(True) names the operation"
    if origin is not None and origin.where == "input":
        return "leave out the examples that hold NaN or inf, or fill them in", "data_scaling", 0.9
    if origin is not None and origin.where == "backward" and not origin.module:
        return (
            "take the loss of the logits: cross_entropy or binary_cross_entropy_with_logits in place of a softmax or "
            "sigmoid and a log by hand",
            "architecture",
            0.8,
        )
    if origin is not None and origin.where != "parameter":
        where = f"in {called(origin.module)}, " if origin.module else ""
        return where + FIXES.get(origin.operation, ANYWHERE), "eps", 0.9
    if len(broken) < len(layers):
        behind = list(layers).index(broken[-1]) + 1
        until = f" and before {called(layers[behind])}" if behind < len(layers) else ""
        return f"behind {called(broken[-1])}{until}, {ANYWHERE}; {anomaly}", "eps", 0.6
    if len(fixes := {*suspects.values()}) == 1:
        return f"use {fixes.pop()}; {anomaly}", "eps", 0.6
    return (
        f"in the first operations or in the loss, {ANYWHERE}; or the batch holds NaN; {anomaly}",
        "eps",
        0.5,
    )
