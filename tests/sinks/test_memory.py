from __future__ import annotations

import pytest

from gradwatch import Report, Severity
from gradwatch.sinks import Memory


def reports(count: int) -> list[Report]:
    return [Report(f"step {i}", Severity.INFO) for i in range(count)]


def test_the_newest_reports_are_kept_in_order() -> None:
    memory, written = Memory(max_reports=3), reports(5)
    for report in written:
        memory.write(report)
    assert list(memory.reports) == written[2:]


def test_reports_stay_readable_after_close() -> None:
    memory, written = Memory(), reports(2)
    for report in written:
        memory.write(report)
    memory.close()
    memory.close()
    assert list(memory.reports) == written


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None])
def test_the_number_of_reports_is_a_whole_number(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"Memory: max_reports must be a whole number from 1, got"):
        Memory(max_reports=value)  # type: ignore[arg-type]
