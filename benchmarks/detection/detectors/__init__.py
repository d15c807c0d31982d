"""Detectors: gradwatch and every published rule, each with the defaults that it was published with.

Where a rule needs what a recording does not hold, its file says what stands in for it. A tool with a single kind of
message has its messages counted as errors; a tool that stops at its first finding has only that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.detection.detectors import (
    autotrainer,
    deepdiagnosis,
    deeplocalize,
    default_callback,
    fixed_thresholds,
    gradwatch_rules,
    nan_only,
    sagemaker,
    thedeepchecker,
    umlaut,
)
from benchmarks.detection.detectors.finding import Finding
from benchmarks.detection.recording import Recording

__all__ = ["ALL", "Finding"]

ALL: Mapping[str, Callable[[Recording], Sequence[Finding]]] = {
    "gradwatch": gradwatch_rules.detect,
    "AutoTrainer": autotrainer.detect,
    "AutoTrainer, gradients only": autotrainer.detect_ungated,
    "DeepDiagnosis": deepdiagnosis.detect,
    "DeepLocalize": deeplocalize.detect,
    "DEFault callback": default_callback.detect,
    "SageMaker Debugger": sagemaker.detect,
    "TheDeepChecker": thedeepchecker.detect,
    "UMLAUT": umlaut.detect,
    "fixed thresholds": fixed_thresholds.detect,
    "NaN only": nan_only.detect,
}
