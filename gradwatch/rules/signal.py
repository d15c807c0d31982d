"""Signal: whether the forward signal still tells the examples apart where it arrives."""

from __future__ import annotations

import numpy as np

from gradwatch.records import FloatArray, StepStats
from gradwatch.rules.state import LayerState

BETWEEN = 6e-4
"""Share of the last layer's input that differs from example to example, relative to the layer where it is largest. Of
the healthy networks of docs/detection.md few have less at the start, and those leave it within their first steps."""

WITHIN = 1e-9
"""The same from place to place within an example, where rounding alone is 1e-14."""

LOOKS = 4
"""In a row, from the first, before it counts: one look is one batch."""

RISES = 3.0
"""Growth since the first look by which a network shows that it is on its way out."""


class Signal(LayerState):
    """What close looks tell of the last layer's input: one entry, for the whole model.

    A network whose weights and biases make every example look alike to its last layers has lost the signal before any
    gradient does: what is left to learn from is the mean. (Schoenholz et al., ICLR 2017, for examples; Noci et al.,
    NeurIPS 2022, for the tokens of a transformer without skip connections.) What training has brought about itself, as
    a language model that learns the words' frequencies first, does not count.
    """

    def __init__(self) -> None:
        super().__init__(so_far=True, looks=0, first=np.nan, share=np.nan, looks_within=0)
        self.align(("",))

    def look(self, stats: StepStats) -> None:
        """Take one close look in; nothing where there was none."""
        if stats.variation is None or stats.variation_within is None:
            return
        share, within = _last(stats.variation), _last(stats.variation_within)
        self["share"][0] = share
        alike = self["so_far"][0] and share < BETWEEN and not share > RISES * self["first"][0]
        self["so_far"][0] = alike
        self["first"][0] = np.fmin(self["first"][0], share) if alike else np.nan
        self["looks"][0] = self["looks"][0] + 1 if alike else 0
        self["looks_within"][0] = self["looks_within"][0] + 1 if within < WITHIN else 0

    @property
    def is_lost(self) -> bool:
        """Whether all examples look alike."""
        return bool(self["looks"][0] >= LOOKS)

    @property
    def is_lost_within(self) -> bool:
        """Whether all places within an example look alike."""
        return bool(self["looks_within"][0] >= LOOKS)

    @property
    def share(self) -> float:
        """Share of the last layer's input that differs from example to example, relative to the largest."""
        return float(self["share"][0])


def _last(shares: FloatArray) -> float:
    """That of the last layer of which it is known, relative to the largest; NaN where only one is known.

    >>> _last(np.array([0.5, np.nan, 0.1, np.nan]))
    0.2
    """
    known = shares[np.isfinite(shares)]
    return float(known[-1] / known.max()) if len(known) > 1 and known.max() > 0 else np.nan
