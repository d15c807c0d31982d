from __future__ import annotations

import json
from dataclasses import replace

from gradwatch.sinks.alert_blocks import AlertBlocks
from tests.event_logs import VANISHING


def size(block: object) -> int:
    return len(json.dumps(block))


def test_the_last_of_each_block_has_all_that_came_into_it() -> None:
    blocks, last = AlertBlocks(), {}
    for step in range(500):
        last.update(blocks.add([replace(VANISHING, step=step, layer=name) for name in ("a", "b")]))
    assert [(alert["step"], alert["layer"]) for tag in sorted(last) for alert in last[tag]] == [
        (step, name) for step in range(500) for name in ("a", "b")
    ]
    assert len(last) > 1
    assert all(size(block) < 1.1 * AlertBlocks.MAX_BYTES for block in last.values())


def test_what_was_returned_does_not_grow_afterwards() -> None:
    blocks = AlertBlocks()
    (first,) = blocks.add([VANISHING]).values()
    blocks.add([VANISHING])
    assert len(first) == 1


def test_an_alert_that_is_larger_than_a_block_has_one_of_its_own() -> None:
    large = replace(VANISHING, layers=tuple("x" * 300 for _ in range(100)))
    blocks = AlertBlocks()
    found = blocks.add([VANISHING, large, VANISHING])
    assert [len(block) for block in found.values()] == [1, 1, 1]


def test_runs_that_begin_at_different_steps_have_different_tags() -> None:
    assert not AlertBlocks().add([VANISHING]).keys() & AlertBlocks().add([replace(VANISHING, step=8)]).keys()


def test_no_alert_writes_nothing() -> None:
    assert AlertBlocks().add([]) == {}
