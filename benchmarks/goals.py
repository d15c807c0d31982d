"""The goals, each with what was measured and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import cost, probing

FLAT_MB = 1.0
"""What a process may grow and still be called flat: memory comes in pages and arenas."""

FLAT_OBJECTS = 1000
"""The same in Python's objects: a hundredth of one per step."""


@dataclass(frozen=True)
class Goal:
    """One figure, measured on one workload or on several.

    Args:
        figure: what is measured.
        measured: by workload, or by "" where it belongs to none.
        limits: what each may be at most, or must be at least.
        form: how the numbers are written, such as ``"{:.2f}x"``.
        at_least: whether more is better.
        remark: what else belongs to the numbers.
    """

    figure: str
    measured: Mapping[str, float]
    limits: Mapping[str, float]
    form: str = "{:.2f}x"
    at_least: bool = False
    remark: str = ""

    @property
    def missed(self) -> list[str]:
        """Where it is missed: also where nothing but NaN came out."""
        sign = -1 if self.at_least else 1
        return [w for w, value in self.measured.items() if not sign * value <= sign * self.limits[w]]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Figure, goal, measured, and whether it is met."""
        by_limit: dict[float, list[str]] = {}
        for w in self.measured:
            by_limit.setdefault(self.limits[w], []).append(w)
        several = len(by_limit) > 1
        bounds = [self.form.format(limit) + several * f" ({', '.join(places)})" for limit, places in by_limit.items()]
        values = [f"{w} {self.form.format(value)}".strip() for w, value in self.measured.items()]
        some = self.missed and len(self.missed) < len(self.measured)
        met = f"missed: {', '.join(self.missed)}" if some else "missed" if self.missed else "met"
        bound = "at least" if self.at_least else "at most"
        return self.figure, f"{bound} {', '.join(bounds)}", ", ".join(values) + self.remark, met


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Those of which something was measured."""
    found = [*_of_workloads(results["workloads"], results.get("slowdown", {}))]
    if histogram := results.get("histogram"):
        found += _of_histogram(histogram)
    if size := results.get("event_bytes"):
        mean = f" (mean with all that comes every 100 steps: {size['mean']:,.0f})"
        figure = f"bytes written per step for {size['layers']} layers"
        found.append(Goal(figure, {"": size["step"]}, {"": 1400}, "{:,.0f}", remark=mean))
    if probed := results.get("probed"):
        found.append(Goal("training step with a probe against one without", probed, probing.LIMITS))
        found.append(Goal("probe, of a step without one", {"": results["unprobed_us"]}, {"": 1.0}, "{:.2f} us"))
    if memory := results.get("memory_over_steps"):
        found += _of_memory(memory["in_use"])
    return found


def _of_workloads(costs: Mapping[str, Any], slowdown: Mapping[str, Mapping[str, float]]) -> list[Goal]:
    def ratio(above: str, below: str, **limits: float) -> tuple[dict[str, float], dict[str, float]]:
        return {w: costs[w]["ms"][above] / costs[w]["ms"][below] for w in limits if w in costs}, limits

    errors = {w: result["norm_error"] for w, result in costs.items() if w in ("W2", "W3")}
    each = {w: 1e3 * result["ms"][cost.NORMS] / result["tensors"] for w, result in costs.items() if w == "W4"}
    whole = {w: found["together"] for w, found in slowdown.items() if w == "W1"}
    clips = "monitor + GlobalNorm against clip_grad_norm_"
    found = [
        Goal("norms against one streaming read", *ratio(cost.NORMS, cost.READ, W2=1.4, W3=1.4)),
        Goal("norms, relative error", errors, {"W2": 1e-6, "W3": 1e-6}, "{:.0e}"),
        Goal("norms, for each tiny tensor", each, {"W4": 6.0}, "{:.1f} us"),
        Goal(f"{clips}, nothing to clip", *ratio(cost.GRADWATCH_CLIP, cost.CLIP, W1=1.0, W2=0.65, W3=0.65, W4=1.0)),
        Goal(f"{clips}, clips", *ratio(cost.GRADWATCH_CLIPS, cost.CLIPS, W1=1.02, W2=1.02, W3=1.02, W4=1.02)),
        Goal("share of a training step", *ratio(cost.GRADWATCH, cost.STEP, W2=0.025, W3=0.016), "{:.1%}"),
        Goal("with histograms every 10 steps", *ratio(cost.GRADWATCH_10, cost.STEP, W2=0.04, W3=0.025), "{:.1%}"),
        Goal("training step with gradwatch against one without", whole, {"W1": 1.15}),
        Goal(
            "against Ignite, scalars + histograms",
            *ratio(cost.GRADWATCH_10, cost.IGNITE_10, W2=1 / 8, W3=1 / 8),
            "{:.3f}x",
        ),
        Goal("against wandb.watch", *ratio(cost.GRADWATCH_10, cost.WANDB, W2=1 / 3, W3=1 / 3), "{:.3f}x"),
        Goal(
            "against log_dict(grad_norm), in a Trainer",
            *ratio(cost.CALLBACK, cost.LOG_DICT, W2=1 / 7, W3=1 / 7),
            "{:.3f}x",
        ),
    ]
    return [goal for goal in found if goal.measured]


def _of_histogram(found: Mapping[str, float]) -> list[Goal]:
    what = f"histogram of {found['elements'] / 1e6:.1f}M elements"
    faster = {
        "as add_histogram": (found["add_histogram_ms"] / found["gradwatch_ms"], 5.0),
        "in binning": (found["add_histogram_binning_ms"] / found["gradwatch_binning_ms"], 7.0),
    }
    written = f" (as written, in quarter decades: {found['written_quantile_error']:.1%})"
    return [
        *(
            Goal(f"{what}, times as fast {how}", {"": times}, {"": least}, "{:.1f}", at_least=True)
            for how, (times, least) in faster.items()
        ),
        Goal(f"{what}, error of p5 to p95", {"": found["quantile_error"]}, {"": 0.015}, "{:.1%}", remark=written),
    ]


def _of_memory(in_use: list[dict[str, Any]]) -> list[Goal]:
    *_, before, last = in_use
    figure = f"grown from {before['steps']:,} to {last['steps']:,} steps"
    objects = Goal(f"objects {figure}", {"": last["objects"] - before["objects"]}, {"": FLAT_OBJECTS}, "{:,.0f}")
    if last["resident_mb"] is None:
        return [objects]
    grown = last["resident_mb"] - before["resident_mb"]
    return [Goal(f"memory {figure}", {"": grown}, {"": FLAT_MB}, "{:.1f} MB"), objects]
