"""The development and the test half: by program, fixed before any tuning, and kept when programs are added."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.detection.task import Program

DEV, TEST = "dev", "test"
HALVES = (DEV, TEST)
SPLIT = Path(__file__).with_name("split.json")


def assign(families: Mapping[str, str], recorded: Mapping[str, str] | None = None) -> dict[str, str]:
    """The half of each program: those of ``recorded`` stay where they are, new ones even out each family.

    Within a family new programs come in the order of a hash of their names. Each goes to the half that holds fewer of
    the family; where both hold as many, a bit of the hash decides.

    Args:
        families: name of each program -> its family.
        recorded: name of a program -> its half, as assigned before.

    >>> assign({"a/1": "a", "a/2": "a"}, {"a/1": "test"})
    {'a/1': 'test', 'a/2': 'dev'}
    """
    halves = dict(recorded or {})
    held = Counter((families[name], half) for name, half in halves.items() if name in families)
    for name in sorted(set(families) - set(halves), key=_hash):
        family = families[name]
        surplus = held[family, DEV] - held[family, TEST]
        half = HALVES[_hash(name) % 2] if surplus == 0 else (TEST if surplus > 0 else DEV)
        halves[name] = half
        held[family, half] += 1
    return halves


def read(path: Path = SPLIT) -> dict[str, str]:
    """The halves recorded so far; none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def update(programs: Iterable[Program], path: Path = SPLIT) -> dict[str, str]:
    """Record the half of every program that has none yet."""
    recorded = read(path)
    halves = assign({program.name: program.family for program in programs}, recorded)
    if halves != recorded:
        path.write_text(json.dumps(dict(sorted(halves.items())), indent=1) + "\n", encoding="utf-8")
    return halves


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
