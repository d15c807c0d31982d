"""Unread: most of what a recurrent layer is given has nothing to do with the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.rules.base import Judgement, of_layers
from gradwatch.rules.flagged import Flagged


@dataclass
class Unread(Flagged):
    """Of the sequences of a batch the last one alone gets a gradient, or of each the first time step: a WARNING.

    The one is so where batch and time are mixed up: to a layer without ``batch_first=True`` the first dimension is
    time, so ``output[:, -1]`` is all of one sequence. The other where the output at the first time step is used, which
    has seen nothing of the others. It becomes an ERROR once it is seen that little has been learned and it stands
    still. It is seen at the first steps and at the sampled ones.

    Args:
        patience: looks in a row before the alert; a loss may be about one sequence now and then.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(lstm=[1.0], head=[1.0])
        >>> one = {"steps_read": np.array([64.0, np.nan]), "sequences_read": np.array([1.0, np.nan])}
        >>> history.append(replace(history.latest, step=1, **one))
        >>> for alert in Unread(patience=1).check(history):
        ...     print(alert.message)
        lstm: of the batch the last sequence alone gets a gradient, at 64 time steps: is batch_first right?

    Source: torch.nn.LSTM, batch_first.
    """

    name: ClassVar[str] = "unread"
    looks_at: ClassVar[tuple[str, ...]] = ("steps_read",)

    patience: int = 6
    recovery: int = 1

    def judge(self, history: History) -> Judgement:
        stats = history.now
        steps, sequences = of_layers(stats.steps_read, stats), of_layers(stats.sequences_read, stats)
        known = np.isfinite(steps) & np.isfinite(sequences)
        bad = known & ((steps == 1) != (sequences == 1))
        return Judgement(steps, np.ones(len(steps)), bad, known & ~bad, known=known, worsens=LITTLE)

    def describe(self, value: float, threshold: float) -> str:
        if value > 1:
            steps = f"at {value:.0f} time steps"
            return f"of the batch the last sequence alone gets a gradient, {steps}: is batch_first right?"
        return "of all time steps the first one alone gets a gradient: the output that is used has not seen the others"
