"""From alerts to one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gradwatch.history import History
from gradwatch.records import Alert, Severity

SHOWN = 3
"""Layers named before the rest is counted."""


def judge(history: History, alerts: Sequence[Alert], ongoing: Mapping[str, tuple[str, ...]]) -> tuple[str, Severity]:
    """The verdict on a run, and how bad it is.

    Args:
        history: the steps so far.
        alerts: all alerts so far.
        ongoing: for each rule with an open episode, the layers concerned.

    >>> judge(History(), [], {})
    ('no step was recorded yet', <Severity.INFO: 0>)
    >>> judge(History.from_grad_norms(a=[1.0], b=[1.0]), [], {"vanishing": ("a",)})
    ('vanishing: a (1 of 2 layers)', <Severity.WARNING: 1>)
    """
    if history.latest is None:
        return "no step was recorded yet", Severity.INFO
    worst = {rule: max((a.severity for a in alerts if a.rule == rule), default=Severity.WARNING) for rule in ongoing}
    if ongoing:
        rules = sorted(ongoing, key=lambda rule: -worst[rule])
        parts = [f"{rule}: {name_layers(ongoing[rule], len(history.layers))}" for rule in rules]
        return "; ".join(parts), max(worst.values())
    past = Counter(a.rule for a in alerts if a.severity > Severity.INFO)
    seen = ", ".join(f"{count} x {rule}" for rule, count in past.items())
    size = f"{history.count} steps, {len(history.layers)} layers"
    return (f"healthy now: {size}; earlier alerts: {seen}" if past else f"healthy: {size}, no alert"), Severity.INFO


def name_layers(names: Sequence[str], of: int) -> str:
    """A few names and a count.

    >>> name_layers(["a", "b", "c", "d"], of=10)
    'a, b, c, ... (4 of 10 layers)'
    """
    if not names:
        return "the whole model"
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{shown} ({len(names)} of {of} layers)"
