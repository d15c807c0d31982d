"""gradwatch: watch every layer's gradient while PyTorch trains, and say why training goes wrong.

The public face is lazy (PEP 562): importing gradwatch imports neither torch nor any optional package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch import clipping, diagnosis, rules, sinks
    from gradwatch.history import History
    from gradwatch.hooks import watch
    from gradwatch.monitor import Monitor
    from gradwatch.probing import probe
    from gradwatch.profile import BackwardProfile, Segment
    from gradwatch.records import Alert, ClipRecord, ClipSummary, Diagnosis, Layer, Report, Severity, StepStats

__version__ = "0.1.0"

_HOME = {
    "Alert": "records",
    "BackwardProfile": "profile",
    "ClipRecord": "records",
    "ClipSummary": "records",
    "Diagnosis": "records",
    "Layer": "records",
    "Report": "records",
    "Segment": "profile",
    "Severity": "records",
    "StepStats": "records",
    "History": "history",
    "Monitor": "monitor",
    "probe": "probing",
    "watch": "hooks",
}
_SUBPACKAGES = ("clipping", "diagnosis", "rules", "sinks")

__all__ = [
    "Alert",
    "BackwardProfile",
    "ClipRecord",
    "ClipSummary",
    "Diagnosis",
    "History",
    "Layer",
    "Monitor",
    "Report",
    "Segment",
    "Severity",
    "StepStats",
    "clipping",
    "diagnosis",
    "probe",
    "rules",
    "sinks",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"gradwatch.{_HOME[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"gradwatch.{name}")
    raise AttributeError(f"module 'gradwatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
