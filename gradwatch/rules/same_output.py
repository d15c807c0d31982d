"""SameOutput: the model says the same of every example, whatever it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.progress import NOTHING
from gradwatch.records import Severity, or_nan
from gradwatch.rules.base import Judgement, of_layers
from gradwatch.rules.flagged import Flagged
from gradwatch.rules.state import ModelState
from gradwatch.verdict import called


@dataclass
class SameOutput(Flagged):
    """Since the run began the model's output has been the same for every example of a batch: a WARNING.

    Nothing about an example can be learned then, but what all of them have in common. The layer named is the first one
    that is given the same for all; where a layer before it is given what differs, the difference is lost between the
    two. What fades from layer to layer is for :class:`~gradwatch.rules.Vanishing`, and layers that pass nothing but
    zeros are for :class:`~gradwatch.rules.Dead`. It becomes an ERROR once it is seen that nothing has been learned, and
    is one where the output was different once. It is seen at the sampled steps: what begins so at the first ones may
    begin at zero.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0] * 20, out=[1.0] * 20)
        >>> history.append(replace(history.latest, step=20, output_variation=0.0, variation=np.array([0.5, 0.0])))
        >>> [alert.message for alert in SameOutput().check(history)]
        ["out: what it is given is the same for every example, and so is the model's output; what fc is given differs"]

    Source: the input-independent baseline of Karpathy, "A recipe for training neural networks", 2019.
    """

    name: ClassVar[str] = "same_output"
    looks_at: ClassVar[tuple[str, ...]] = ("output_variation",)
    follows: ClassVar[tuple[str, ...]] = (
        "not_zeroed",
        "exploding",
        "update_ratio",
        "nonfinite",
        "saturated",
        "vanishing",
        "dead",
    )

    patience: int = 1
    recovery: int = 1

    def look(self, history: History) -> None:
        """Whether any look has shown a difference."""
        output, variation = or_nan(history.now.output_variation), of_layers(history.now.variation, history.now)
        known = variation[np.isfinite(variation)]
        self._run["differs"] |= bool(output >= SAME or (len(known) > 0 and known[-1] >= SAME))

    def judge(self, history: History) -> Judgement:
        stats = history.now
        variation, nothing = of_layers(stats.variation, stats), of_layers(stats.given_nothing, stats)
        known, differs = np.isfinite(variation), np.flatnonzero(variation >= SAME)
        last = int(differs[-1]) if len(differs) else -1
        same = np.flatnonzero(known & (np.arange(len(known)) > last))
        self._before = stats.layers[last] if len(differs) else ""
        lost = self._run["differs"] and history.progress.is_none(but=NOTHING)
        bad = np.zeros(len(known), bool)
        counts = or_nan(stats.output_variation) < SAME and (lost or not self._run["differs"]) and history.count > EARLY
        if counts and len(same):
            elsewhere = len(differs) > 0 and (variation[last] < CLEARLY or nothing[same[0]] == 1)
            bad[same[0]] = not elsewhere
        severity = Severity.ERROR if lost else None
        limit = np.full(len(bad), SAME)
        return Judgement(variation, limit, bad, known & ~bad, known=known, severity=severity, worsens=NOTHING)

    def describe(self, value: float, threshold: float) -> str:
        before = f"; what {called(self._before)} is given differs" if self._before else ""
        return f"what it is given is the same for every example, and so is the model's output{before}"

    def reset(self) -> None:
        super().reset()
        self._run = self._remembered["run"] = ModelState(differs=False)
        self._before = ""


CLEARLY = 1e-2
"""Share that differs in what the layer before is given, below which it has faded from layer to layer."""

SAME = 1e-6
"""Share that differs from example to example up to which nothing does: float32 rounds to 1e-7."""
