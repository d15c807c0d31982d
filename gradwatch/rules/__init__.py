"""Rules: one per file, each judging the latest step of a history."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np

from gradwatch.protocols import Rule
from gradwatch.rules.base import LayerRule, StepRule
from gradwatch.rules.clipped import Clipped
from gradwatch.rules.dead import Dead
from gradwatch.rules.eval_mode import EvalMode
from gradwatch.rules.exploding import Exploding
from gradwatch.rules.flat_output import FlatOutput
from gradwatch.rules.heavy_dropout import HeavyDropout
from gradwatch.rules.loss_mismatch import LossMismatch
from gradwatch.rules.no_activation import NoActivation
from gradwatch.rules.no_gradient import NoGradient
from gradwatch.rules.nonfinite import NonFinite
from gradwatch.rules.not_zeroed import NotZeroed
from gradwatch.rules.off_target import OffTarget
from gradwatch.rules.out_of_reach import OutOfReach
from gradwatch.rules.overflow import Overflow
from gradwatch.rules.same_output import SameOutput
from gradwatch.rules.saturated import Saturated
from gradwatch.rules.shrinking import Shrinking
from gradwatch.rules.skipped import Skipped
from gradwatch.rules.spike import Spike
from gradwatch.rules.stalled import Stalled
from gradwatch.rules.symmetric import Symmetric
from gradwatch.rules.underflow import Underflow
from gradwatch.rules.unread import Unread
from gradwatch.rules.unregistered import Unregistered
from gradwatch.rules.unscaled_inputs import UnscaledInputs
from gradwatch.rules.unstable import Unstable
from gradwatch.rules.untrained import Untrained
from gradwatch.rules.update_ratio import UpdateRatio
from gradwatch.rules.vanishing import Vanishing
from gradwatch.rules.vanishing_in_time import VanishingInTime

__all__ = [
    "Clipped",
    "Dead",
    "EvalMode",
    "Exploding",
    "FlatOutput",
    "HeavyDropout",
    "LayerRule",
    "LossMismatch",
    "NoActivation",
    "NoGradient",
    "NonFinite",
    "NotZeroed",
    "OffTarget",
    "OutOfReach",
    "Overflow",
    "Rule",
    "SameOutput",
    "Saturated",
    "Shrinking",
    "Skipped",
    "Spike",
    "Stalled",
    "Symmetric",
    "Underflow",
    "Unread",
    "Unregistered",
    "UnscaledInputs",
    "Unstable",
    "Untrained",
    "UpdateRatio",
    "Vanishing",
    "VanishingInTime",
    "check",
    "default",
    "fresh",
]


def default() -> tuple[Rule, ...]:
    """Fresh rules with the default thresholds; of what two find at one step, the later one's may be a consequence.

    >>> print(*(rule.name for rule in default()[:10]))
    no_gradient not_zeroed untrained unregistered eval_mode loss_mismatch symmetric no_activation unread exploding
    >>> print(*(rule.name for rule in default()[10:19]))
    update_ratio nonfinite overflow underflow stalled shrinking flat_output out_of_reach unscaled_inputs
    >>> print(*(rule.name for rule in default()[19:]))
    heavy_dropout off_target same_output saturated vanishing vanishing_in_time dead spike unstable skipped clipped
    """
    return (
        NoGradient(),
        NotZeroed(),
        Untrained(),
        Unregistered(),
        EvalMode(),
        LossMismatch(),
        Symmetric(),
        NoActivation(),
        Unread(),
        Exploding(),
        UpdateRatio(),
        NonFinite(),
        Overflow(),
        Underflow(),
        Stalled(),
        Shrinking(),
        FlatOutput(),
        OutOfReach(),
        UnscaledInputs(),
        HeavyDropout(),
        OffTarget(),
        SameOutput(),
        Saturated(),
        Vanishing(),
        VanishingInTime(),
        Dead(),
        Spike(),
        Unstable(),
        Skipped(),
        Clipped(),
    )


def fresh(rules: Iterable[Rule]) -> list[Rule]:
    """The same rules; those with a memory of their own start without one, so that two monitors may be given one set.

    >>> mine = [Dead()]
    >>> fresh(mine) == mine, fresh(mine)[0] is mine[0]
    (True, False)
    """
    return [replace(rule) if isinstance(rule, StepRule) else rule for rule in rules]  # type: ignore[type-var]


def check(rules: Iterable[Rule], names: tuple[str, ...]) -> None:
    """Raise ValueError when a pattern matches no layer, or a norm could be vanishing and exploding at once.

    >>> check([Vanishing(ratio={"encodr.*": 1e-5})], ("encoder.0", "head"))
    Traceback (most recent call last):
    ValueError: Vanishing(ratio=...): the pattern 'encodr.*' matches no layer; the layers are: encoder.0, head
    """
    own = [rule for rule in rules if isinstance(rule, LayerRule)]
    for rule in own:
        rule.check_layers(names)
    lows = [rule for rule in own if isinstance(rule, Vanishing)]
    highs = [rule for rule in own if isinstance(rule, Exploding)]
    for low, high in product(lows, highs):
        floor, ceiling = low.limit("threshold", names), high.limit("threshold", names)
        for i in np.flatnonzero(floor >= ceiling)[:1]:
            raise ValueError(
                f"rules: Vanishing(threshold={floor[i]:g}) must be below Exploding(threshold={ceiling[i]:g}), "
                f"for layer {names[i]!r}"
            )
