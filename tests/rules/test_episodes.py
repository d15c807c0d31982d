from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.rules.episodes import ABSENT_STEPS, Episodes

BAD, GOOD, NEITHER, ABSENT = "-", "+", ".", " "


def reference(verdicts: str, patience: int, recovery: int) -> list[tuple[int, str]]:
    """One layer's episodes, a step at a time."""
    events = []
    bad = good = 0
    is_open = False
    for step, verdict in enumerate(verdicts):
        if verdict == BAD:
            bad, good = bad + 1, 0
            if not is_open and bad >= patience:
                is_open = True
                events.append((step, "opened"))
        elif verdict == GOOD:
            bad, good = 0, good + 1
            if is_open and good >= recovery:
                is_open = False
                events.append((step, "closed"))
        elif verdict == NEITHER:
            bad = good = 0
    return events


def run(columns: list[str], patience: int, recovery: int) -> list[list[tuple[int, str]]]:
    """The same by :class:`Episodes`, one column per layer."""
    episodes = Episodes()
    episodes.align(tuple(map(str, range(len(columns)))))
    events: list[list[tuple[int, str]]] = [[] for _ in columns]
    for step, row in enumerate(zip(*columns)):
        verdicts = np.array(row)
        given = (verdicts == BAD, verdicts == GOOD, verdicts != ABSENT, verdicts == ABSENT)
        for word, indices in zip(("opened", "closed"), episodes.update(step, *given, patience, recovery)):
            for i in indices:
                events[i].append((step, word))
    return events


@pytest.mark.parametrize(
    ("verdicts", "patience", "recovery", "events"),
    [
        ("", 1, 1, []),
        ("+-+", 1, 1, [(1, "opened"), (2, "closed")]),
        ("--+--+", 3, 1, []),
        ("---++++", 3, 2, [(2, "opened"), (4, "closed")]),
        ("-----", 2, 1, [(1, "opened")]),
        ("- - -", 3, 1, [(4, "opened")]),
        ("-.-.-", 2, 1, []),
        ("-+ +", 1, 2, [(0, "opened"), (3, "closed")]),
        ("-+.+", 1, 2, [(0, "opened")]),
        ("-+-+-++", 1, 2, [(0, "opened"), (6, "closed")]),
        ("....", 1, 1, []),
    ],
)
def test_episodes_worked_by_hand(verdicts: str, patience: int, recovery: int, events: list[tuple[int, str]]) -> None:
    assert run([verdicts], patience, recovery) == [events] == [reference(verdicts, patience, recovery)]


@given(
    rows=st.lists(st.tuples(*[st.sampled_from([BAD, GOOD, NEITHER, ABSENT])] * 4), min_size=1, max_size=40),
    patience=st.integers(1, 4),
    recovery=st.integers(1, 4),
)
def test_every_layer_by_itself(rows: list[tuple[str, ...]], patience: int, recovery: int) -> None:
    columns = ["".join(column) for column in zip(*rows)]
    assert run(columns, patience, recovery) == [reference(column, patience, recovery) for column in columns]


def test_the_step_at_which_it_opened_is_kept() -> None:
    episodes = Episodes()
    episodes.align(("a", "b"))
    bad = np.array([True, False])
    for step in (7, 8, 9):
        episodes.update(step, bad, ~bad, np.ones(2, bool), np.zeros(2, bool), patience=2, recovery=1)
    assert episodes["opened_at"].tolist() == [8, 0]
    assert episodes["open"].tolist() == [True, False]


def test_an_episode_is_over_when_its_layer_is_no_longer_seen() -> None:
    assert run(["-" + " " * ABSENT_STEPS + "-"], patience=1, recovery=1) == [
        [(0, "opened"), (ABSENT_STEPS + 1, "opened")]
    ]
    assert run(["-" + " " * (ABSENT_STEPS - 1) + "-"], patience=1, recovery=1) == [[(0, "opened")]]


def test_what_is_told_at_once_counts_as_many_bad_steps_and_never_fewer() -> None:
    episodes, patience = Episodes(), 4
    episodes.align(("a", "b", "c"))
    episodes["bad_steps"] = np.array([0, 3, 1])
    episodes.hasten(np.array([True, True, False]), np.array([2, 1, 3]))
    assert episodes["bad_steps"].tolist() == [2, 3, 1]
    episodes.hasten(np.array([True, False, False]), patience - 1)
    bad, nothing = np.ones(3, bool), np.zeros(3, bool)
    opened, _ = episodes.update(7, bad, nothing, bad, nothing, patience, recovery=1)
    assert opened.tolist() == [0, 1]
