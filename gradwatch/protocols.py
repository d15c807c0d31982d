"""The four places to extend gradwatch: an object with the method is enough, there is nothing to register or inherit.

An object that keeps state may also have ``state_dict()`` and ``load_state_dict(state)``, with plain types, lists and
NumPy arrays inside; the monitor saves and restores it with its own state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gradwatch.history import History
from gradwatch.records import Alert, ClipRecord, Diagnosis, Report

if TYPE_CHECKING:
    from torch import Tensor

    from gradwatch.profile import BackwardProfile
    from gradwatch.stats import Measured


@runtime_checkable
class Rule(Protocol):
    """Judges the latest step. It may report the same finding at every step: the monitor keeps one per episode."""

    def check(self, history: History) -> Iterable[Alert]:
        """The alerts of the latest step of ``history``."""
        ...


@runtime_checkable
class ClipPolicy(Protocol):
    """Changes the gradients in place, on their device and without waiting for it.

    It may have ``check_parameters(parameters)``, called once with the model's parameters by their names, which raises
    ValueError where it cannot be right for them. An error of ``clip_`` is warned of and training goes on, but for a
    :class:`gradwatch.faults.StopTraining`.
    """

    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Clip ``gradients``; ``stats`` holds the norms that were just measured, so none needs to be read twice."""
        ...


@runtime_checkable
class Cause(Protocol):
    """Explains alerts: called when there are new ones, and by ``monitor.report()``."""

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        """The diagnosis, or None when this is not the cause. ``probe`` is None where no backward was probed."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Takes one report per captured step. One that raises is dropped after one warning.

    Of several ranks only rank 0 writes, unless the sink has an attribute ``every_rank`` that is true. With an attribute
    ``may_wait`` that is true it gets the reports of steps of less than 25 ms up to sixteen at a time, which costs less.
    """

    def write(self, report: Report) -> None:
        """Record ``report``."""
        ...

    def close(self) -> None:
        """Write out what is left; called once or more."""
        ...
