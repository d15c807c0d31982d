"""Interventions: whether the cause that is named is one, and whether its remedy, applied as written, rescues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.detection.diagnosing import Told
from benchmarks.detection.labels import SEEDS, Label, Remedy, fingerprint, gain_of, remedy_of, rounded
from benchmarks.detection.remedies import NotApplicableError, apply
from benchmarks.detection.scores import Share
from benchmarks.detection.split import HALVES
from benchmarks.detection.stuck import Stuck
from benchmarks.detection.task import Program
from gradwatch.records import Diagnosis, to_plain

INTERVENTIONS = Path(__file__).with_name("interventions.json")


@dataclass(frozen=True)
class Intervention:
    """What a user is told of a program, and what following it does.

    Args:
        alerts: the rules that alerted.
        diagnoses: most confident first; the first one counts.
        applied: what its remedy does over all seeds; None where nothing is said, or nothing can be applied.
        fingerprint: of the program.
    """

    alerts: tuple[str, ...]
    diagnoses: tuple[Diagnosis, ...] = ()
    applied: Remedy | None = None
    fingerprint: str = ""

    @property
    def change(self) -> str:
        """The kind of change that is asked for first; "" where nothing is said."""
        return self.diagnoses[0].change if self.diagnoses else ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Those named first."""
        return self.diagnoses[0].layers if self.diagnoses else ()

    @property
    def rescues(self) -> bool:
        return self.applied is not None and self.applied.rescues

    def names(self, label: Label) -> bool:
        """Whether the change is one of those that rescue, by the labels."""
        return self.change in label.causes


def intervene(program: Program, label: Label, told: Told) -> Intervention:
    """Apply the first diagnosis's remedy to a faulty program, seed by seed, and judge it as the labels judge theirs."""
    rules, mark = tuple(dict.fromkeys(a.rule for a in told.alerts)), fingerprint(program)
    applied = None
    if told.diagnoses and not program.is_healthy:
        try:
            applied = remedy_of(label, [gain_of(apply(told.diagnoses[0], program, seed)) for seed in SEEDS])
        except NotApplicableError:
            applied = None
    return Intervention(rules, told.diagnoses, applied, mark)


@dataclass(frozen=True)
class Summary:
    """The figures of some programs.

    Args:
        told: faulty ones of which anything is said.
        named: those whose first diagnosis asks for a change that rescues, by the labels.
        rescued: those that its remedy, applied as written, rescues.
        first_layer: of those with stuck layers, the ones whose first named layer is one of them.
        made_up: healthy ones without an alert of which a cause is named all the same.
    """

    told: Share
    named: Share
    rescued: Share
    first_layer: Share
    made_up: Share


def summarise(
    programs: Iterable[Program],
    labels: Mapping[str, Label],
    found: Mapping[str, Intervention],
    stuck: Mapping[str, Stuck],
) -> Summary:
    """The figures of those of ``programs`` that are in ``found``."""
    seen = [(p.name, found[p.name], labels[p.name]) for p in programs if p.name in found]
    ill = [(name, i, label) for name, i, label in seen if label.label == "faulty"]
    quiet = [i for _, i, label in seen if label.label == "healthy" and not i.alerts]
    placed = [(i, stuck[name]) for name, i, _ in ill if name in stuck and stuck[name].layers]
    return Summary(
        told=_share([bool(i.diagnoses) for _, i, _ in ill]),
        named=_share([i.names(label) for _, i, label in ill]),
        rescued=_share([i.rescues for _, i, _ in ill]),
        first_layer=_share([where.is_hit_by(i.layers) for i, where in placed]),
        made_up=_share([bool(i.diagnoses) for i in quiet]),
    )


HEADS = (
    "",
    "a cause is named",
    "it is one that rescues",
    "its remedy, applied as written, rescues",
    "the first layer named is stuck",
    "causes made up for healthy runs",
)


def section(
    programs: Sequence[Program],
    halves: Mapping[str, str],
    labels: Mapping[str, Label],
    file: InterventionFile,
    stuck: Mapping[str, Stuck],
) -> str:
    """In markdown: the figures of each half, and every program that is not named right or not rescued."""
    rows, missed = [], []
    for half in HALVES:
        of_half = [p for p in programs if halves[p.name] == half]
        s = summarise(of_half, labels, file.found, stuck)
        shares = (s.told, s.named, s.rescued, s.first_layer)
        rows.append([f"{half} half", *(_words(share) for share in shares), f"{s.made_up.count} of {s.made_up.total}"])
        for program in of_half:
            found, label = file.found.get(program.name), labels.get(program.name)
            if found is None or label is None or label.label != "faulty" or (found.rescues and found.names(label)):
                continue
            first = found.diagnoses[0] if found.diagnoses else None
            q = f"q = {found.applied.q:.2f}" if found.applied else "nothing to apply"
            said = (
                f"{first.cause.replace('_', ' ')}: {first.change}" if first else "no alert" if not found.alerts else "-"
            )
            missed.append([half, f"`{program.name}`", said, ", ".join(label.causes), q if first else "-"])
    tables = [_markdown(HEADS, rows), _markdown(("half", "missed", "said", "what rescues", "its remedy"), missed)]
    made = f"{file.made_by['machine']}. Made by `{file.made_by['command']}`." if file.made_by else ""
    return "\n\n".join([*tables, made])


@dataclass
class InterventionFile:
    """The interventions made so far, by name of the program, with how they were made."""

    path: Path = INTERVENTIONS
    made_by: Mapping[str, str] = field(default_factory=dict)
    found: dict[str, Intervention] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = INTERVENTIONS) -> InterventionFile:
        """What was written there; nothing where there is no such file."""
        if not path.exists():
            return cls(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, content["made_by"], {name: _from_json(row) for name, row in content["programs"].items()})

    def write(self) -> None:
        rows = {name: rounded(to_plain(self.found[name])) for name in sorted(self.found)}
        content = {"made_by": dict(self.made_by), "seeds": SEEDS, "programs": rows}
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def _from_json(row: Mapping[str, Any]) -> Intervention:
    diagnoses = [
        Diagnosis(**{**d, "layers": tuple(d["layers"]), "evidence": tuple(d["evidence"])}) for d in row["diagnoses"]
    ]
    applied = Remedy(**row["applied"]) if row["applied"] else None
    return Intervention(tuple(row["alerts"]), tuple(diagnoses), applied, row["fingerprint"])


def _share(hits: Sequence[bool]) -> Share:
    return Share(sum(hits), len(hits))


def _words(share: Share) -> str:
    low, high = share.interval
    return f"{share.count} of {share.total}, {share.value:.0%} ({low:.2f}-{high:.2f})" if share.total else "-"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
