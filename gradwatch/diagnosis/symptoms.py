"""Which alerts a cause explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.history import History
from gradwatch.records import Alert, Severity

UNSTABLE = ("exploding", "update_ratio", "unstable")
"""Rules that tell of gradients or steps that are too large."""


def told(alerts: Sequence[Alert], *rules: str) -> list[Alert]:
    """The alerts of ``rules`` that are no consequence of another.

    >>> told([Alert(3, "dead", "fc", Severity.ERROR, 0.0, 0.0, "", follows="exploding")], "dead")
    []
    """
    return [a for a in alerts if a.rule in rules and not a.follows and a.severity > Severity.INFO]


def count_at(history: History, alert: Alert) -> int:
    """How many steps had been recorded before that of ``alert``, whatever their numbers.

    >>> history = History.from_grad_norms(fc=[1.0, 2.0, 3.0])
    >>> count_at(history, Alert(2, "dead", "fc", Severity.ERROR, 0.0, 0.0, ""))
    2
    """
    return history.count - len(history) + int(np.searchsorted(history.steps, alert.step))


def layers_of(alerts: Sequence[Alert]) -> tuple[str, ...]:
    """The layers that they are about, each once.

    >>> layers_of([Alert(3, "dead", name, Severity.ERROR, 0.0, 0.0, "") for name in ("fc0", None, "fc0")])
    ('fc0',)
    """
    return tuple(dict.fromkeys(name for a in alerts for name in a.concerned))


def never_had_one(history: History, layers: Sequence[str]) -> bool:
    """Whether none of ``layers`` had a gradient at the first steps that are known: no step has taken it away.

    >>> history = History.from_grad_norms(fc0=[0.0, 0.0], fc1=[1.0, 0.0])
    >>> never_had_one(history, ["fc0"]), never_had_one(history, ["fc0", "fc1"])
    (True, False)
    """
    columns = [i for i, name in enumerate(history.layers) if name in layers]
    start = history.grad_norm[:2, columns]
    return history.count == len(history) and bool(columns) and not np.nan_to_num(start, nan=1.0).any()
