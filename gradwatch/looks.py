"""Looks: what a close look at a step is made of, beside its norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from torch import Tensor

from gradwatch.alike import AlikeUnits
from gradwatch.closeup import Closeup, CloseupStats
from gradwatch.faults import Faults
from gradwatch.graph import Stranger
from gradwatch.idle import IdleParameters
from gradwatch.layers import Gradients, LayerTable
from gradwatch.leftover import Leftover
from gradwatch.records import BoolArray
from gradwatch.sampled import in_float16

CLOSEUP = "the close look at activations", "it is missing at this step"
ALIKE = "the look at units that are alike", "it is missing at this step"
IDLE = "the look at parameters that no optimizer has", "it is missing at this step"
LEFTOVER = "the look at gradients that were not zeroed", "it is missing at this step"


class Idle(NamedTuple):
    """What has a gradient that no optimizer uses."""

    rows: list[int]
    """Of the layers."""
    strangers: int | None
    """Number of elements of parameters that are none of the model's; None where these are not known."""


class Looked(NamedTuple):
    """What a close look at one step showed; None of what is not known."""

    ndims: list[int]
    """Of each gradient."""
    half: bool | None
    trained: BoolArray
    not_zeroed: bool | None
    alike: list[int] | None
    """The rows of the layers whose units are."""
    idle: Idle | None
    closeup: CloseupStats | None


class Looks:
    """Looks at one step: :meth:`expect` before its forward pass, :meth:`add` and :meth:`take` after its backward pass.

    Not at activations, units and idle parameters of a sharded model, whose ranks see different examples and must come
    to the same alerts.

    Args:
        table: the layers of the model.
        faults: runs what may fail without the rest.
    """

    def __init__(self, table: LayerTable, faults: Faults) -> None:
        self.strangers: Sequence[Stranger] | None = None
        """Parameters that the model uses and that are none of it; None where that is not known."""
        self._table, self._faults = table, faults
        self._closeup: tuple[int, Closeup] | None = None
        self._alike: tuple[int, AlikeUnits] | None = None
        self._leftover, self._idle = Leftover(), IdleParameters()
        self._met: set[int] = set()
        """The ids of the strangers at the last look."""
        self._expecting = False
        self._ndims: list[int] = []
        self._half: list[bool | None] = []
        self._rows_alike: list[int] | None = None

    def close(self) -> None:
        """Take the hooks off the model."""
        self._leftover.close()
        if self._closeup is not None:
            self._closeup[1].close()

    def expect(self, only: Sequence[Tensor] | None, maximizes: bool = False) -> None:
        """The coming step will be looked at.

        Args:
            only: the optimizers' parameters.
            maximizes: whether they make the loss larger.
        """
        if self._table.sharding is None:
            self._expecting = True
            self._faults.run(*CLOSEUP, self._arm, maximizes, otherwise=None)
            self._faults.run(*LEFTOVER, self._arm_leftover, only, otherwise=None)

    def begin(self, look: bool) -> None:
        """A new step begins.

        Args:
            look: whether it is looked at; where it is not, nobody shall listen on.
        """
        if self._expecting and not look:
            self.close()
        self._expecting = False
        self._ndims, self._half, self._rows_alike = [], [], None

    def add(self, found: Gradients) -> None:
        """Look at the gradients of one optimizer's parameters, or of all, the watched ones among them."""
        self._ndims += [p.ndim for p in found.parameters]
        if self._table.sharding is None:
            watched = found.watched()
            self._half.append(in_float16(watched.values))
            alike = self._faults.run(*ALIKE, self._look_for_alike, watched, otherwise=None)
            self._rows_alike = alike if self._rows_alike is None else self._rows_alike + (alike or [])

    def take(self, only: set[int] | None, scaled: bool) -> Looked:
        """What was seen of the step.

        Args:
            only: ids of the optimizers' parameters; None where these are not known.
            scaled: whether a GradScaler has multiplied the loss; its scale may have changed since the last look.
        """
        closeup = self._take_closeup()
        if closeup is not None and scaled:
            closeup = closeup._replace(loss_gradient=math.nan)
        if closeup is not None and self._closeup is not None:  # gradients that are all zero do not tell
            self._half.append(self._closeup[1].half)
        return Looked(
            self._ndims,
            next((half for half in self._half if half is not None), None),
            self._table.trained(only),
            self._faults.run(*LEFTOVER, self._leftover.take, otherwise=None),
            self._rows_alike,
            self._faults.run(*IDLE, self._look_for_idle, only, otherwise=None),
            closeup,
        )

    def _arm(self, maximizes: bool) -> None:
        model, version = self._table.model(), self._table.version
        if model is None:
            return
        if self._closeup is None or self._closeup[0] != version:
            self.close()
            self._closeup = version, Closeup(model, self._table.layers)
        self._closeup[1].arm(maximizes)

    def _arm_leftover(self, only: Sequence[Tensor] | None) -> None:
        self._leftover.arm(self._table.collect(only).parameters)

    def _look_for_alike(self, watched: Gradients) -> list[int]:
        if self._alike is None or self._alike[0] != self._table.version:
            self._alike = self._table.version, AlikeUnits()
        return self._alike[1].look(watched)

    def _look_for_idle(self, only: set[int] | None) -> Idle | None:
        if only is None or self._table.sharding is not None:
            return None
        layers = len(self._table.layers)
        strangers = [p for stranger in self.strangers or () if (p := stranger.parameter()) is not None]
        gone = sum(stranger.numel for stranger in self.strangers or () if stranger.parameter() is None)
        rows = self._idle.look([*self._table.parameters(), *zip(strangers, count(layers))], only)
        before, self._met = self._met, {*map(id, strangers)}
        is_known = self.strangers is not None and before >= self._met  # it takes two looks
        idle = sum(strangers[row - layers].numel() for row in rows if row >= layers)
        return Idle(rows, idle + gone if is_known else None)  # what each call makes anew nobody can train

    def _take_closeup(self) -> CloseupStats | None:
        if self._closeup is None:
            return None
        if self._closeup[0] != self._table.version:
            self.close()
            return None
        return self._faults.run(*CLOSEUP, self._closeup[1].take, otherwise=None)
