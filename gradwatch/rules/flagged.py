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

    A subclass is a dataclass with ``patience`` and ``recovery``, in looks, that ``looks_at`` a flag, bool [L], of which
    it is also enough that little is learned and it stands still; or that has a judgement of its own.
    """

    severity: ClassVar[Severity] = Severity.WARNING
    reports_recovery: ClassVar[bool] = False
    by_looks: ClassVar[bool] = True

    def among(self, stats: StepStats) -> BoolArray:
        """bool [L], the layers that may be judged."""
        return stats.has_grad

    def judge(self, history: History) -> Judgement:
        among, (flags,) = self.among(history.now), [getattr(history.now, name) for name in self.looks_at]
        known = among & (flags is not None)
        bad = known & (np.False_ if flags is None else flags)
        zeros = np.zeros(len(bad))
        return Judgement(zeros, zeros, bad, known & ~bad, known=known, absent=~among, worsens=LITTLE)
