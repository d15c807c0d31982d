"""Numbers and names as evidence and remedies put them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradwatch.verdict import is_number

PROBE_WOULD_TELL = "a probed step would settle it, and none was probed yet (monitor.probe() asks for one)"


def span(names: Sequence[str]) -> str:
    """The first and the last of some layers; the model where none has a name.

    >>> span(["fc0", "fc1", "fc2"]), span(["fc0"]), span(["0", "2"]), span([])
    ('fc0 ... fc2', 'fc0', 'layers 0 and 2', 'the model')
    """
    distinct = list(dict.fromkeys(filter(None, names)))
    numbers = distinct and all(map(is_number, distinct))
    return (f"layer{'s' * (len(distinct) > 1)} " if numbers else "") + ends(distinct) or "the model"


def ends(names: Sequence[str]) -> str:
    """The first and the last of some names.

    >>> ends(["fc0", "fc1", "fc2"]), ends(["fc0", "fc1"]), ends(["0"])
    ('fc0 ... fc2', 'fc0 and fc1', '0')
    """
    return (" ... " if len(names) > 2 else " and ").join([*names[:1], *names[1:][-1:]])


def drawn_at_random(names: Sequence[str]) -> str:
    """The remedy that breaks the symmetry of some layers.

    >>> drawn_at_random(["fc0"])
    'draw the initial weights of fc0 at random, as torch.nn.init.kaiming_normal_ does'
    """
    return f"draw the initial weights of {span(names)} at random, as torch.nn.init.kaiming_normal_ does"


def place(names: Sequence[str]) -> str:
    """Where, as the end of a phrase; nothing where no layer has a name.

    >>> place(["fc0", "fc1"]), place([""])
    (' in fc0 and fc1', '')
    """
    return f" in {span(names)}" if any(names) else ""


def changes(log_gain: float) -> str:
    """What a log gain of the squared gradient does to its norm.

    >>> changes(math.log(1e-6)), changes(2.0), changes(0.01), changes(-math.inf)
    ('shrinks 1e+03-fold', 'grows 2.7-fold', 'keeps its size', 'becomes exactly zero')
    """
    if log_gain == -math.inf:
        return "becomes exactly zero"
    fold = math.exp(min(abs(log_gain) / 2, 700.0))
    if fold < NOTICEABLE:
        return "keeps its size"
    return f"{'shrinks' if log_gain < 0 else 'grows'} {fold:.2g}-fold"


NOTICEABLE = 1.05
"""Ratio of two norms from which one is said to be larger."""


def with_skips(names: Sequence[str], branches: int) -> str:
    """The remedy that leads around each of some layers.

    >>> with_skips(["fc0", "fc1"], 2)
    'add skip connections around the layers fc0 and fc1, x + f(x) / 1.41: each branch divided by the root of their \
number, 2'
    """
    named = list(dict.fromkeys(filter(None, names)))
    around = f"the layers {ends(named)}" if len(named) > 1 else "each layer"
    return (
        f"add skip connections around {around}, x + f(x) / {math.sqrt(branches):.3g}: "
        f"each branch divided by the root of their number, {branches}"
    )


def makes_up(share: float) -> str:
    """How much of a change one of its parts makes up; more than all of it where other parts work against it.

    >>> makes_up(0.82), makes_up(1.02)
    ('makes up 82% of that, on a log scale', 'makes up all of that and more, of which other parts give some back')
    """
    return "makes up " + (
        f"{share:.0%} of that, on a log scale"
        if share <= 1
        else "all of that and more, of which other parts give some back"
    )


def mean_gain(log_gains: Sequence[float]) -> float:
    """The geometric mean of squared gains from their logarithms; 1 of none.

    >>> round(mean_gain([math.log(2.0), math.log(8.0)]), 9)
    4.0
    """
    return math.exp(sum(log_gains) / len(log_gains)) if log_gains else 1.0
