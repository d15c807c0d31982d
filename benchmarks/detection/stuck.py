"""Stuck layers: which layers a fault keeps from learning, found out by training them one at a time.

Each layer that theory names is trained alone, all others as they were initialised, in the faulty program and in its
healthy twin. A layer by which the twin learns and the faulty program does not is one that the fault hits. That is the
freeze test turned round: of ten layers each can be frozen without harm, as the others make up for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.labels import Label, fingerprint, gain_of
from benchmarks.detection.task import Program
from gradwatch.layers import LayerTable

STUCK = Path(__file__).with_name("stuck_layers.json")

SEEDS = (0, 1, 2, 3, 4)

LEARNS = 0.3
"""Least q of a twin that learns by one layer alone."""

LOST = 0.5
"""Share of it below which the faulty program has lost what that layer could learn."""


@dataclass(frozen=True)
class Stuck:
    """What training each layer alone showed.

    Args:
        faulty: q by layer, the mean over the seeds.
        twin: the same of the healthy twin.
        layers: those that the fault hits, input first, theory agreeing.
        fingerprint: of the program.
    """

    faulty: Mapping[str, float]
    twin: Mapping[str, float]
    layers: tuple[str, ...]
    fingerprint: str

    def is_hit_by(self, names: Iterable[str]) -> bool:
        """Whether the first of ``names`` is one of the stuck layers, or stands in one block with one of them."""
        first = next(iter(names), "")
        return any(first == layer or (_block(first) and _block(first) == _block(layer)) for layer in self.layers)


def find(program: Program, label: Label) -> Stuck:
    """Train every layer of ``program`` that its theory names alone, and its twin's."""
    faulty, twin = (_alone(program, changes, label.reference) for changes in ({}, program.twin))
    hit = [name for name in faulty if twin[name] >= LEARNS and faulty[name] < LOST * twin[name]]
    return Stuck(faulty, twin, tuple(hit), fingerprint(program))


def _alone(program: Program, changes: Mapping[str, Any], reference: float) -> dict[str, float]:
    found = {}
    for layer in LayerTable(program.build(SEEDS[0], changes).model).layers:
        if not fnmatchcase(layer.name, program.layers):
            continue
        gains = []
        for seed in SEEDS:
            task = program.build(seed, changes)
            for name, p in task.model.named_parameters():
                p.requires_grad_(name in layer.parameters)
            gains.append(gain_of(task).value / reference)
        found[layer.name] = float(np.mean(gains))
    return found


def _block(name: str) -> str:
    """The module that holds it, where that is not the model itself."""
    return name.rpartition(".")[0] if name.count(".") > 1 else ""


@dataclass
class StuckFile:
    """The stuck layers found so far, by name of the program, with how they were found."""

    path: Path = STUCK
    made_by: Mapping[str, str] = field(default_factory=dict)
    found: dict[str, Stuck] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = STUCK) -> StuckFile:
        """What was written there; nothing where there is no such file."""
        if not path.exists():
            return cls(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = content["stuck"].items()
        return cls(path, content["made_by"], {n: Stuck(**{**row, "layers": tuple(row["layers"])}) for n, row in rows})

    def write(self) -> None:
        rows = {name: vars(self.found[name]) | {"layers": list(self.found[name].layers)} for name in sorted(self.found)}
        content = {"made_by": dict(self.made_by), "seeds": SEEDS, "stuck": _rounded(rows)}
        self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def missing(self, programs: Iterable[Program]) -> list[Program]:
        """Of those whose theory names layers, the ones that are not there or have changed since."""
        known = {name: found.fingerprint for name, found in self.found.items()}
        return [p for p in programs if p.layers and known.get(p.name) != fingerprint(p)]


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value
