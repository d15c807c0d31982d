"""Interventions: whether the cause that is named is one, and whether its remedy, applied as written, rescues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.detection.diagnosing import Told
from benchmarks.detection.labels import SEEDS, Label, Remedy, gain_of, remedy_of, rounded
from benchmarks.detection.remedies import NotApplicable, apply
from benchmarks.detection.scores import Share
from benchmarks.detection.task import Program
from gradwatch.records import Diagnosis

DIAGNOSES = Path(__file__).with_name("diagnoses.json")


@dataclass(frozen=True)
class Intervention:
    """What became of a faulty program's diagnoses.

    Args:
        alerts: the rules that alerted.
        diagnoses: most confident first; the first one counts.
        applied: what its remedy does over all seeds; None where there is none, or nothing to apply it to.
    """

    alerts: tuple[str, ...]
    diagnoses: tuple[Diagnosis, ...] = ()
    applied: Remedy | None = None

    @property
    def change(self) -> str:
        """The kind of change that is asked for; "" where nothing is said."""
        return self.diagnoses[0].change if self.diagnoses else ""

    @property
    def layers(self) -> tuple[str, ...]:
        return self.diagnoses[0].layers if self.diagnoses else ()

    @property
    def rescues(self) -> bool:
        return self.applied is not None and self.applied.rescues

    def names(self, label: Label) -> bool:
        """Whether the change is one of those that rescue, by the labels."""
        return self.change in label.causes


def intervene(program: Program, label: Label, told: Told) -> Intervention:
    """Apply the remedy of the first diagnosis, seed by seed, and judge it as the labels judge theirs."""
    rules = tuple(dict.fromkeys(a.rule for a in told.alerts))
    if not told.diagnoses:
        return Intervention(rules)
    try:
        gains = [gain_of(apply(told.diagnoses[0], program, seed)) for seed in SEEDS]
    except NotApplicable:
        return Intervention(rules, told.diagnoses)
    return Intervention(rules, told.diagnoses, remedy_of(label, gains))


@dataclass(frozen=True)
class Summary:
    """The figures of one half.

    Args:
        named: of all faulty programs, those whose first diagnosis asks for a change that rescues, by the labels.
        rescued: those that its remedy, applied as written, rescues.
        told: those of which anything is said.
        first_layer: of the programs with labelled layers, those whose first named layer is one of them.
        made_up: healthy programs without an alert of which a cause is named all the same.
    """

    named: Share
    rescued: Share
    told: Share
    first_layer: Share
    made_up: Share
    missed: tuple[str, ...] = field(default=())
