"""Family: what the faulty programs of one kind share, so that each of them is a few settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.detection.task import Program, Task

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """A kind of fault.

    Args:
        name: of the family.
        symptom: what theory predicts.
        cause: the factor that is seeded.
        source: of the theory.
    """

    name: str
    symptom: str
    cause: str
    source: str

    def program(
        self,
        name: str,
        recipe: Callable[..., Task],
        base: Settings,
        seeded: Mapping[str, tuple[Any, Any]],
        remedies: Mapping[str, Settings],
        layers: str = "",
        severity: str = "dead",
        symptom: str = "",
        cause: str = "",
    ) -> Program:
        """A faulty program.

        Args:
            name: within the family.
            recipe: builds it.
            base: settings that a program and its healthy twin share.
            seeded: setting -> (its value in the twin, its value in the program).
            remedies: other causes -> what is changed to try whether they rescue it.
            layers: pattern of the layers that are hit.
            severity: ``"dead"`` or ``"degraded"``, "" where it was not designed to be either.
            symptom: where it is not the family's.
            cause: where it is not the family's.
        """
        healthy = {key: value for key, (value, _) in seeded.items()}
        faulty = {key: value for key, (_, value) in seeded.items()}
        return Program(
            name=f"{self.name}/{name}",
            family=self.name,
            recipe=recipe,
            settings={**base, **faulty},
            twin=healthy,
            remedies={cause or self.cause: healthy, **remedies},
            symptom=symptom or self.symptom,
            layers=layers,
            source=self.source,
            severity=severity,
        )
