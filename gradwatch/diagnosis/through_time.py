"""Which layers go through time."""

from __future__ import annotations

from gradwatch.profile import BackwardProfile, TimeSteps

LEAST = 8
"""Time steps of a recurrent layer. What a model calls less often may as well be depth: layers that share weights."""


def through_time(probe: BackwardProfile | None) -> list[TimeSteps]:
    """Those of ``probe`` that are long enough.

    >>> import numpy as np
    >>> steps = [TimeSteps(name, np.ones(n - 1), np.ones(n)) for name, n in (("rnn", 30), ("shared", 4))]
    >>> [found.layer for found in through_time(BackwardProfile(time_steps=tuple(steps)))]
    ['rnn']
    """
    return [t for t in (probe.time_steps if probe is not None else ()) if len(t.gains) + 1 >= LEAST]
