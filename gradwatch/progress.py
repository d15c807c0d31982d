"""Progress: how much of the training error is left, by what the loss asks of the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradwatch.records import StepStats, or_nan

EARLY = 20
"""Steps that count as the start of a run."""

FIRST = 5
"""Looks at the start of the run whose mean gradient is what there was to learn: batches differ."""

BEYOND = 1.1
"""What exceeds the first ones by more is no error that stayed what it was."""

APART = 100
"""Steps between two looks that count, and before the first that does: networks need some to learn anything."""

STAYS = 0.9
"""Share of the look before that is as much as before."""

SAME = 1e-3
"""Relative difference of the first gradients up to which they are one number."""

LITTLE = 0.7
"""Share of the error that is left where little has been learned: less than half of the squared error has gone."""

NOTHING = 0.95
"""The same where nothing has been. What is known by the size of a gradient alone is relied on where so much is left."""


class Progress:
    """What close looks tell of the outputs' error: as little as a loss that has not fallen.

    Of a cross entropy it is known as a share of the best constant prediction's, see
    :func:`~gradwatch.output_error.output_error`. Of other losses it is the gradient's norm relative to that of the
    first looks, which is the error of squares, and of some has nothing to do with it. So nearly all of it must be left,
    at two looks; and where it is the same at all of the first ones, as that of a root of squares, it says nothing.

    A network that has not learned anything may yet: many need a thousand steps, and one that plays against another
    never shows it. So it is no finding of its own, and a rule asks for it beside another sign.

    Example:
        >>> import numpy as np
        >>> progress = Progress()
        >>> for step, error in enumerate([1.0, 1.0, 0.95, 0.9]):
        ...     stats = StepStats(
        ...         step, ("fc",), np.ones(1), np.ones(1, bool), 1.0, output_gradient=0.2, output_error=error
        ...     )
        ...     progress.look(stats, count=100 * step)
        >>> progress.left, progress.is_none(but=0.85), progress.stands_still(but=0.85)
        (0.9, True, True)
    """

    def __init__(self) -> None:
        self._looks = 0
        self.first = 0.0
        """Mean norm of the gradient at the first looks; 0 before there was one."""
        self._range = (math.inf, 0.0)
        self.left = math.nan
        """Of the last look; NaN where that is not known."""
        self._before = math.nan
        self._due = APART
        self.looked_at = -1
        """The step of the last look that counts; -1 before there was one."""
        self.of_classes = False
        """Whether it is a cross entropy's."""
        self.has_one_size = False
        """Whether the gradient at the outputs had one size at a first look: that of a mean absolute error has, however
        far off they are."""

    def look(self, stats: StepStats, count: int) -> None:
        """Take in the step that is the ``count``-th; nothing where there was no close look.

        Nor is the gradient taken where a gradient scaler's scale may have changed, or where it is zero: that is as much
        as a dead network gets, and tells nothing of its error.
        """
        gradient = math.nan if not stats.output_gradient or stats.half else stats.output_gradient
        error = or_nan(stats.output_error)
        if count <= EARLY:
            heard = not math.isnan(or_nan(stats.output_row)) and math.isfinite(stats.total_norm)
            self.has_one_size |= heard and math.isnan(or_nan(stats.output_gradient))
            self._look_early(gradient)
            self.of_classes |= math.isfinite(error)
        elif count < self._due:
            return
        elif math.isfinite(error):
            self._take(error, of_classes=True)
            self._due, self.looked_at = count + APART, stats.step
        elif math.isfinite(gradient):
            least, most = self._range
            self._take(gradient / self.first if most > (1 + SAME) * least else math.nan, of_classes=False)
            self._due, self.looked_at = count + APART, stats.step

    def _look_early(self, gradient: float) -> None:
        if math.isfinite(gradient) and self._looks < FIRST:
            self.first = (self.first * self._looks + gradient) / (self._looks + 1)
            self._range = min(gradient, self._range[0]), max(gradient, self._range[1])
            self._looks += 1

    def _take(self, left: float, of_classes: bool) -> None:
        self._before, self.left = self.left if of_classes is self.of_classes else math.nan, left
        self.of_classes = of_classes

    @property
    def in_words(self) -> str:
        """What is left, as the end of a sentence."""
        return f"{self.left:.0%} of the outputs' error is left"

    @property
    def units(self) -> float:
        """The least gradient of the first looks; 0 before there was one. It is as large as the loss's units are."""
        return self._range[0] if self._looks else 0.0

    def was_learned(self, but: float) -> bool:
        """Whether less than the share ``but`` was left at the look before: what is lost again is another matter."""
        return self._before < but

    def is_none(self, but: float) -> bool:
        """Whether at least the share ``but`` of the error is left: next to nothing has been learned."""
        if self.of_classes:
            return but < self.left < math.inf
        return all(max(but, NOTHING) < left < BEYOND for left in (self._before, self.left))

    def stands_still(self, but: float) -> bool:
        """Whether that is so, and was at the look before, with hardly a difference between the two."""
        return self.is_none(but) and but < self._before and self.left > STAYS * self._before

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KEPT}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in KEPT:
            setattr(self, name, state[name])


KEPT = ("_looks", "first", "_range", "left", "_before", "of_classes", "has_one_size", "_due", "looked_at")
"""What a checkpoint keeps."""
