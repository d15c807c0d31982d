"""Flagged: a look at its word; the rules built on it say of what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch import History
from gradwatch.rules.flagged import Flagged
from tests.histories import layers, stats


@dataclass
class Alike(Flagged):
    name: ClassVar[str] = "alike"
    looks_at: ClassVar[tuple[str, ...]] = ("alike",)
    patience: int = 1
    recovery: int = 1

    def describe(self, value: float, threshold: float) -> str:
        return "alike"


def test_a_look_is_taken_at_its_word_of_layers_with_a_gradient() -> None:
    history = History()
    history.append(stats(0, layers([1.0, 1.0, None]), alike=np.array([True, False, True])))
    found = Alike().judge(history)
    assert found.bad.tolist() == [True, False, False]
    assert found.good.tolist() == [False, True, False]
    assert found.known is not None
    assert found.absent is not None
    assert found.known.tolist() == [True, True, False]
    assert found.absent.tolist() == [False, False, True]


def test_without_one_nothing_is_known() -> None:
    history = History()
    history.append(stats(0, layers([1.0, 1.0])))
    found = Alike().judge(history)
    assert found.known is not None
    assert not (found.bad | found.good | found.known).any()
