"""Flagged: what the rules share that take a look at its word."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.records import BoolArray, Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule


class Flagged(LayerRule):
    """What a look says is wrong: a WARNING, which becomes an ERROR where nothing is learned meanwhile.

    A subclass is a dataclass with ``patience`` and ``recovery``, in looks, and a ``flag``, of which it is also enough
    that little is learned and it stands still; or with a judgement of its own.
    """

    severity: ClassVar[Severity] = Severity.WARNING
    reports_recovery: ClassVar[bool] = False
    by_looks: ClassVar[bool] = True
    flag: ClassVar[str]
    """The field of StepStats that tells, bool [L]."""

    def among(self, stats: StepStats) -> BoolArray:
        """bool [L], the layers that may be judged."""
        return stats.has_grad

    def judge(self, history: History) -> Judgement:
        among, flags = self.among(history.now), getattr(history.now, self.flag)
        known = among & (flags is not None)
        bad = known & (np.False_ if flags is None else flags)
        zeros = np.zeros(len(bad))
        return Judgement(zeros, zeros, bad, known & ~bad, known=known, absent=~among, worsens=LITTLE)
