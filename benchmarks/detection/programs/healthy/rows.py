"""How a table of healthy programs is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.detection.task import HEALTHY, Program, Task

Row = Callable[..., Program]


def group(name: str) -> Row:
    """What makes the programs of one group.

    >>> group("sparse")("word2vec", lambda seed: None, "Mikolov et al., 2013").name
    'healthy-sparse/word2vec'
    """

    def row(program: str, recipe: Callable[..., Task], why: str, **settings: Any) -> Program:
        """``why``: what a detector may stumble over, the source of it, and what the outcome is compared with."""
        return Program(f"healthy-{name}/{program}", HEALTHY, recipe, settings, source=why)

    return row
