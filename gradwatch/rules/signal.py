"""Signal: whether the forward signal still tells the examples apart where it arrives."""

from __future__ import annotations

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.records import FloatArray
from gradwatch.rules.state import ModelState

BETWEEN = 6e-4
"""Share of the last layer's input that differs from example to example, relative to the layer where it is largest. Of
the healthy networks of docs/detection.md few have less at the start, and those leave it within their first steps."""

WITHIN = 1e-9
"""The same from place to place within an example, where rounding alone is 1e-14."""

LOOKS = 4
"""In a row, from the first, before it counts: one look is one batch."""

LASTING = 10
"""The same where the weights move: by then the share has grown more than sixfold in the healthy networks of
docs/detection.md that begin below BETWEEN, as Adam finds their way out, and twofold at most in those of sigmoids."""

RISES = 3.0
"""Growth since the first look by which a network shows that it is on its way out."""


SLOW = 1e-3
"""Median update ratio of the layers below which the weights hardly move: 1% of their size in ten steps."""

DIM = 5e-3
"""Share up to which the last layer is given next to no difference at the start: with nothing learned later, too little.
Of the healthy networks of docs/detection.md that begin so none has more than NOTHING left after a hundred steps."""

STILL_DIM = 0.1
"""The same later on, after as many steps as healthy networks find their way out in."""

NOTHING = 0.9
"""Share of the outputs' error above which nothing has been learned; of those the most is 0.83."""

FEEBLE = 3e-4
"""Update ratio of the stillest layer up to which a network that cannot tell examples apart is not on its way out."""

UNEVEN = 0.1
"""Share of the most active layer's that this is at most: a learning rate that warms up moves all of them as little."""

FAR = 0.02
"""What the median layer's steps add up to by then; those of an Adam at 1e-3 to 0.03."""

FADED = 0.2
"""Size of the last layer's input below which the signal has faded; of healthy networks it is above 0.3."""

BOTH = 1.26e-2
"""What is left of signal and gradient together where both fade."""

HIGHEST = 0.2
"""Limit of the gradient's part in it."""

ALIKE = 0.3
"""The same where the signal no longer tells the examples apart."""


class Signal(ModelState):
    """What close looks tell of the last layer's input, one entry for the whole model.

    ``ratio`` and ``norm_ratio`` are the limits of the gradient that follow from it, 0 where nothing does.

    A network whose weights and biases make every example look alike to its last layers has lost the signal before any
    gradient does: what is left to learn from is the mean. (Schoenholz et al., ICLR 2017, for examples; Noci et al.,
    NeurIPS 2022, for the tokens of a transformer without skip connections.) What training has brought about itself, as
    a language model that learns the words' frequencies first, does not count. Of a network that has little of it at the
    start it is asked again later whether anything has been learned.
    """

    def __init__(self) -> None:
        super().__init__(
            so_far=True,
            looks=0,
            first=np.nan,
            share=np.nan,
            start=0.0,
            looks_within=0,
            ratio=0.0,
            norm_ratio=0.0,
            alike=False,
            late=False,
            path=0.0,
        )

    def look(self, history: History) -> None:
        """Take one close look in; nothing where there was none."""
        stats = history.now
        self._look_at_examples(history)
        if stats.input_size is None or stats.update_ratio is None:
            return
        known = stats.input_size[np.isfinite(stats.input_size)]
        moved = stats.update_ratio[np.isfinite(stats.update_ratio)]
        faded = len(known) > 0 and known[-1] < FADED and len(moved) > 0 and np.median(moved) < SLOW
        # By Adam a network may find its way out of that, if not at once, nor while its steps are small in all layers.
        feeble = len(moved) > 0 and moved.min() < min(FEEBLE, UNEVEN * moved.max())
        self["path"] += min(np.median(moved), 1.0) if len(moved) else 0.0
        lasts = self["looks"] >= LASTING and self["path"] > FAR
        alike = self["late"] or lasts or (feeble and self["looks"] >= LOOKS)
        least = min(BOTH / max(known[-1], BOTH), HIGHEST) if faded else 0.0
        self["ratio"] = max(least, ALIKE * alike)
        self["norm_ratio"] = max(HIGHEST * faded, ALIKE * alike)
        self["alike"] = alike

    def _look_again(self, nothing_learned: bool) -> None:
        if nothing_learned or self["late"]:
            self["alike"] = self["late"] = nothing_learned
            self["ratio"] = self["norm_ratio"] = ALIKE * nothing_learned

    def _look_at_examples(self, history: History) -> None:
        stats = history.now
        if stats.variation is None or stats.variation_within is None:
            return
        share, within = _last(stats.variation), _last(stats.variation_within)
        self["share"] = share
        if history.count <= EARLY:
            self["start"] = np.fmax(self["start"], share)
        elif 0 < self["start"] < DIM and not np.isnan(share):
            self._look_again(nothing_learned=share < STILL_DIM and history.progress.is_none(but=NOTHING))
        alike = self["so_far"] and share < BETWEEN and not share > RISES * self["first"]
        self["so_far"] = alike
        self["first"] = np.fmin(self["first"], share) if alike else np.nan
        self["looks"] = self["looks"] + 1 if alike else 0
        self["looks_within"] = self["looks_within"] + 1 if within < WITHIN else 0

    @property
    def is_lost(self) -> bool:
        """Whether all examples look alike, or all places within one, and nothing will come of it."""
        return bool(self["alike"]) or self.is_lost_within

    @property
    def is_lost_within(self) -> bool:
        """Whether all places within an example look alike."""
        return bool(self["looks_within"] >= LOOKS)

    @property
    def share(self) -> float:
        """Share of the last layer's input that differs from example to example, relative to the largest."""
        return float(self["share"])


def _last(shares: FloatArray) -> float:
    """That of the last layer of which it is known, relative to the largest; NaN where only one is known.

    >>> _last(np.array([0.5, np.nan, 0.1, np.nan]))
    0.2
    """
    known = shares[np.isfinite(shares)]
    return float(known[-1] / known.max()) if len(known) > 1 and known.max() > 0 else np.nan
