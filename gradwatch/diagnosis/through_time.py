"""Which layers go through time, and what their steps pass on."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gradwatch.diagnosis.start import first_update
from gradwatch.diagnosis.words import changes
from gradwatch.history import History
from gradwatch.profile import BackwardProfile, TimeSteps
from gradwatch.verdict import called

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


LARGE = 50.0
"""Total gradient norm of a first step that no learning rate can have made."""

SMALL, THROWS = 1.0, 0.3
"""Norm of a first gradient that no clipping would touch, and ``|step| / |parameters|`` that it must not make."""


def may_explode(history: History, times: Iterable[TimeSteps]) -> bool:
    """Whether a layer may blow the gradient up along time: it does, or nobody knows, or the first gradient was large.

    Not where a first step of a small gradient has thrown the weights off already, which is the learning rate's.

    >>> import numpy as np
    >>> shrinks = TimeSteps("rnn", np.full(29, 0.3), np.ones(30))
    >>> may_explode(History.from_grad_norms(rnn=[1.0]), [shrinks])
    False
    >>> may_explode(History.from_grad_norms(rnn=[1e4]), [shrinks])
    True
    """
    began = math.nan if history.first is None else history.first.total_norm
    if began <= SMALL and first_update(history) > THROWS:
        return False
    return any(not -math.inf < t.log_gain < 0 or not began < LARGE for t in times)


def in_words(steps: TimeSteps) -> str:
    """What each time step of a recurrent layer passes on, and all of them.

    >>> import numpy as np
    >>> in_words(TimeSteps("rnn", np.full(19, 1.5), np.ones(20)))
    'each of 20 time steps of rnn passes 1.5 of the squared gradient on: over all of them it grows 47-fold'
    """
    return (
        f"each of {len(steps.gains) + 1} time steps of {called(steps.layer)} passes {steps.gain_per_step:.3g} of the "
        f"squared gradient on: over all of them it {changes(steps.log_gain)}"
    )
