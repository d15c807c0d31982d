"""Causes: one per file, each explaining alerts by what was measured."""

from gradwatch.diagnosis.depth_profile import DepthProfile
from gradwatch.diagnosis.first_nonfinite import FirstNonFinite
from gradwatch.diagnosis.large_steps import LargeSteps
from gradwatch.diagnosis.no_signal import NoSignal
from gradwatch.protocols import Cause

__all__ = ["Cause", "DepthProfile", "FirstNonFinite", "LargeSteps", "NoSignal", "default"]


def default() -> tuple[Cause, ...]:
    """All causes.

    >>> len(default())
    4
    """
    return (DepthProfile(), LargeSteps(), FirstNonFinite(), NoSignal())
