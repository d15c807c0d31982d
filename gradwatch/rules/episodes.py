"""Episodes: from "this step looks bad" to "one alert when it has lasted, one when it is over"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwatch.records import BoolArray, IntArray
from gradwatch.rules.state import LayerState

NONE: IntArray = np.zeros(0, np.int64)


ABSENT_STEPS = 100
"""Steps without a gradient after which an open episode is over: the layer was frozen, or is no longer used."""


class Episodes(LayerState):
    """Which layers are in an episode; vectorised over layers.

    An episode opens after ``patience`` bad steps in a row and closes after ``recovery`` good steps in a row. A step
    that is unknown (no gradient, or not finite where a rule judges size) counts as neither and interrupts nothing.
    """

    def __init__(self) -> None:
        super().__init__(bad_steps=0, good_steps=0, absent_steps=0, open=False, opened_at=0, warned=False)
        self.quiet = True
        """Whether no layer is in an episode, or on the way to one."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._note_quiet()

    def update(
        self,
        step: int,
        bad: BoolArray,
        good: BoolArray,
        known: BoolArray,
        absent: BoolArray,
        patience: int,
        recovery: int,
    ) -> tuple[IntArray, IntArray]:
        """Take one step's verdict in. Returns the indices of the layers whose episode opens and of those that close.

        Args:
            step: the optimizer step.
            bad: bool [L].
            good: bool [L].
            known: bool [L], the layers that could be judged.
            absent: bool [L], the layers without a gradient.
            patience: bad steps in a row that open an episode.
            recovery: good steps in a row that close it.
        """
        known = bad | good | known
        self["warned"] &= self["open"]  # what an episode that is over was told of counts no more
        self["bad_steps"] = np.where(bad, self["bad_steps"] + 1, np.where(known, 0, self["bad_steps"]))
        self["good_steps"] = np.where(good, self["good_steps"] + 1, np.where(known, 0, self["good_steps"]))
        self["absent_steps"] = np.where(absent, self["absent_steps"] + 1, 0)
        opened = ~self["open"] & bad & (self["bad_steps"] >= patience)
        closed = self["open"] & good & (self["good_steps"] >= recovery)
        gone = self["absent_steps"] >= ABSENT_STEPS
        self["open"] = (self["open"] | opened) & ~closed & ~gone
        self["bad_steps"] = np.where(gone, 0, self["bad_steps"])
        self["opened_at"] = np.where(opened, step, self["opened_at"])
        self._note_quiet()
        return np.flatnonzero(opened), np.flatnonzero(closed)

    def hasten(self, bad: BoolArray, steps: int | IntArray) -> None:
        """Count ``steps`` bad steps at least for the layers in ``bad``, as one that is told at once needs no more."""
        self["bad_steps"] = np.where(bad, np.fmax(self["bad_steps"], steps), self["bad_steps"])

    def _note_quiet(self) -> None:
        self.quiet = not (self["open"].any() or self["bad_steps"].any())
