"""The two halves: even in each family, the same everywhere, and never changed by what is added."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.detection.split import DEV, TEST, assign, read, update
from tests.benchmarks_detection.tiny import RELU, SIGMOID

FAMILIES = {f"{family}/{i}": family for family, count in (("a", 6), ("b", 5), ("c", 1)) for i in range(count)}


def counts(halves: dict[str, str], family: str) -> dict[str, int]:
    return Counter(half for name, half in halves.items() if FAMILIES.get(name) == family)


def test_each_family_is_halved() -> None:
    halves = assign(FAMILIES)
    assert set(halves) == set(FAMILIES)
    assert counts(halves, "a") == {DEV: 3, TEST: 3}
    assert sorted(counts(halves, "b").values()) == [2, 3]
    assert sum(counts(halves, "c").values()) == 1


def test_the_order_of_the_programs_does_not_matter() -> None:
    assert assign(dict(reversed(FAMILIES.items()))) == assign(FAMILIES)


def test_the_halves_are_the_same_on_every_machine() -> None:
    """The first 8 bytes of SHA-256: d7e98967056f4828 of "a/0" is even, 008ab5044997b38f of "a/2" is odd."""
    assert assign({"a/0": "a"}) == {"a/0": DEV}
    assert assign({"a/2": "a"}) == {"a/2": TEST}
    assert assign({"a/0": "a", "a/2": "a"}) == {"a/2": TEST, "a/0": DEV}


@pytest.mark.parametrize("kept", [1, 3, 7, 11])
def test_what_is_added_moves_nothing(kept: int) -> None:
    before = assign(dict(list(FAMILIES.items())[:kept]))
    after = assign(FAMILIES, before)
    assert before.items() <= after.items()
    for family in "abc":
        assert abs(counts(after, family)[DEV] - counts(after, family)[TEST]) <= 1


def test_new_programs_even_out_a_family() -> None:
    recorded = {"a/0": TEST, "a/1": TEST, "a/2": TEST}
    halves = assign({f"a/{i}": "a" for i in range(6)}, recorded)
    assert [halves[f"a/{i}"] for i in range(6)] == [TEST] * 3 + [DEV] * 3


def test_a_program_that_is_gone_keeps_its_half_and_counts_no_more() -> None:
    halves = assign({"a/1": "a", "a/2": "a"}, {"a/0": TEST, "a/1": DEV})
    assert halves == {"a/0": TEST, "a/1": DEV, "a/2": TEST}


def test_the_file_is_written_once_and_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert read(path) == {}
    halves = update([SIGMOID], path)
    assert read(path) == halves
    path.write_text(path.read_text().replace(DEV, "x").replace(TEST, DEV).replace("x", TEST))
    moved = read(path)
    assert update([SIGMOID, RELU], path).items() >= moved.items() != halves.items()
    assert set(read(path)) == {SIGMOID.name, RELU.name}
