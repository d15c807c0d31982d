"""OffTarget: a squared error that is in the size of the outputs, and not in what they say of the examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import APART, NOTHING, STAYS
from gradwatch.records import or_nan
from gradwatch.rules.base import Judgement, last_layer
from gradwatch.rules.flagged import Flagged
from gradwatch.rules.state import ModelState


@dataclass
class OffTarget(Flagged):
    """The outputs of a regression vary far more than the targets do, or still lie far to one side of them: a WARNING.

    A mean of the targets would do better than such outputs. So it is where the data are in large units or the targets
    in small ones, which makes outputs that are noise; or where the targets are in large units, and an optimizer whose
    steps do not grow with the error has far to go. Where the noise has gone down to a quarter since the first look that
    counts, or the outputs have come nearer to the targets, nothing is told: it will be gone. It becomes an ERROR where
    two hundred steps have not taken half of the noise, or the outputs have come no nearer at all. It is seen at the
    sampled steps, see :func:`~gradwatch.off_target.off_target`.

    Args:
        scatter: limit of the share of the squared error that is the outputs' own scatter.
        offset: limit of the share that all examples have in common.
        warmup: steps at the start that are not judged.
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0] * 100)
        >>> history.append(replace(history.latest, step=100, output_scatter=0.9, output_offset=0.0))
        >>> [alert.message for alert in OffTarget(patience=1).check(history)]
        ['fc: 90% of the squared error is the scatter of the outputs themselves, which does not follow the targets']

    Source: LeCun et al., Efficient BackProp, 1998, sections 4.3 and 4.5, for data and targets of one size.
    """

    name: ClassVar[str] = "off_target"
    looks_at: ClassVar[tuple[str, ...]] = ("output_scatter", "output_offset")
    quantity: ClassVar[str] = "share of the squared error"
    follows: ClassVar[tuple[str, ...]] = (
        "loss_mismatch",
        "not_zeroed",
        "exploding",
        "update_ratio",
        "unstable",
        "unscaled_inputs",
    )

    scatter: float = 0.5
    # The outputs vary as much as the targets do: any constant would do better.
    offset: float = 0.7
    # The outputs' mean is off by one and a half times as much as single examples are, as of prices or ages.
    warmup: int = 100
    patience: int = 3
    recovery: int = 1

    def __post_init__(self) -> None:
        for argument in ("scatter", "offset"):
            check_number(f"OffTarget: {argument}", getattr(self, argument), above=0, at_most=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """Since when the outputs scatter, and by how much at first."""
        value, run = or_nan(history.now.output_scatter), self._run
        if history.count <= self.warmup or not value >= self.scatter:
            run["since"] = 0
        elif not run["since"]:
            run["since"], run["odds"] = history.count, _odds(value)

    def judge(self, history: History) -> Judgement:
        stats, run = history.now, self._run
        scatter, offset, last = or_nan(stats.output_scatter), or_nan(stats.output_offset), last_layer(stats)
        left = _odds(scatter) / run["odds"] if run["since"] else 0.0
        self._scatters = left > 1 / 4
        value, limit = (scatter, self.scatter) if self._scatters else (offset, self.offset)
        lies_off = offset >= self.offset and history.progress.left > STAYS
        bad = last & (self._scatters or lies_off) & (history.count > self.warmup)
        good = last & (scatter < self.scatter / 2) & (offset < self.offset)
        lasts = left > 1 / 2 and history.count - run["since"] >= 2 * APART
        of_all = np.full(len(last), value), np.full(len(last), limit)
        known, worsens = last & np.isfinite(value), 0.0 if self._scatters else NOTHING
        return Judgement(*of_all, bad, good, known=known, certain=bad & bool(lasts), worsens=worsens)

    def describe(self, value: float, threshold: float) -> str:
        if self._scatters:
            what = "is the scatter of the outputs themselves, which does not follow the targets"
        else:
            what = "is common to all examples: the outputs lie far to one side of the targets"
        return f"{value:.0%} of the squared error {what}"

    def reset(self) -> None:
        super().reset()
        self._run = self._remembered["run"] = ModelState(since=0, odds=0.0)
        self._scatters = False


def _odds(share: float) -> float:
    """How many times as much the outputs vary as the targets do."""
    return share / max(1 - share, 1e-12)
