"""From alerts to one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradwatch.history import History
from gradwatch.progress import NOTHING
from gradwatch.records import Severity

SHOWN = 3
"""Layers named before the rest is counted."""

MANY = 200
"""Steps after which it is told that nothing has been learned yet."""

SILENT = 20
"""Steps in a row without any gradient after which it is no exception."""


def judge(
    history: History,
    ongoing: Mapping[str, tuple[str, ...]],
    counts: Mapping[str, int],
    worst: Mapping[str, Severity],
) -> tuple[str, Severity]:
    """The verdict on a run, and how bad it is.

    Args:
        history: the steps so far.
        ongoing: for each rule with an open episode, the layers concerned.
        counts: for each rule that has alerted, how often.
        worst: for each rule that has alerted, its worst severity.

    >>> judge(History(), {}, {}, {})
    ('no step was recorded yet', <Severity.INFO: 0>)
    >>> judge(History.from_grad_norms(a=[1.0], b=[1.0]), {"dead": ("a",)}, {"dead": 1}, {"dead": Severity.WARNING})
    ('dead: a (1 of 2 layers)', <Severity.WARNING: 1>)

    Steps that a gradient scaler skipped are normal, so they are only counted.
    """
    if history.latest is None:
        return "no step was recorded yet", Severity.INFO
    silent = 0
    if not history.latest.has_grad.any():
        heard = np.flatnonzero(np.any(history.has_grad, axis=1))
        silent = len(history) - (int(heard[-1]) + 1 if len(heard) else 0)
    if silent >= min(SILENT, len(history)):
        return (
            f"no layer had a gradient in the last {counted(silent, 'step')}: is the loss detached, is zero_grad() "
            "called between backward() and step(), or are the optimizer's parameters those of another model?",
            max([Severity.WARNING, *(worst.get(rule, Severity.WARNING) for rule in ongoing)]),
        )
    if ongoing:
        severity = {rule: worst.get(rule, Severity.WARNING) for rule in ongoing}
        rules = sorted(ongoing, key=lambda rule: -severity[rule])
        parts = [f"{rule}: {name_layers(ongoing[rule], len(history.layers))}" for rule in rules]
        return "; ".join(parts), max(severity.values())
    size = f"{counted(history.count, 'step')}, {counted(len(history.layers), 'layer')}"
    if history.skipped_count:
        size += f", {counted(history.skipped_count, 'step')} skipped by the gradient scaler"
    unlearned = _unlearned(history)
    what = " gradients" * bool(unlearned)
    if not counts:
        return f"healthy{what}: {size}, no alert{unlearned}", Severity.INFO
    seen = ", ".join(f"{count} x {rule}" for rule, count in counts.items())
    return f"healthy{what} now: {size}; earlier alerts: {seen}{unlearned}", Severity.INFO


def _unlearned(history: History) -> str:
    """What a run is told all the same whose gradients are fine, but which has not learned anything."""
    progress = history.progress
    is_known = progress.of_classes and history.count > MANY and progress.is_none(but=NOTHING)
    return f"; but {progress.in_words} (step {progress.looked_at})" if is_known else ""


def counted(number: int, thing: str) -> str:
    """In words.

    >>> counted(1, "step"), counted(2000, "layer")
    ('1 step', '2000 layers')
    """
    return f"{number} {thing}{'s' * (number != 1)}"


def called(name: str) -> str:
    """A layer's name within a sentence; those of nn.Sequential are numbers.

    >>> called("fc"), called("0"), called("net.0")
    ('fc', 'layer 0', 'net.0')
    """
    return f"layer {name}" if is_number(name) else name


def is_number(name: str) -> bool:
    """Whether it says nothing by itself."""
    return name.replace(".", "").isdecimal()


def name_layers(names: Sequence[str], of: int) -> str:
    """A few names and a count.

    >>> name_layers(["a", "b", "c", "d"], of=10)
    'a, b, c, ... (4 of 10 layers)'
    """
    if not names:
        return "the whole model"
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{shown} ({len(names)} of {of} layers)"


def name_ranks(ranks: Sequence[int]) -> str:
    """In words.

    >>> name_ranks((1,)), name_ranks((0, 3))
    ('rank 1', 'ranks 0, 3')
    """
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
