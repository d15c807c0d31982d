from __future__ import annotations

import pytest

from gradwatch import Report, Severity
from gradwatch.sinks import Callback, Sink


def test_the_function_gets_each_report_itself() -> None:
    seen: list[Report] = []
    sink = Callback(seen.append)
    written = [Report("a", Severity.INFO), Report("b", Severity.ERROR)]
    for report in written:
        sink.write(report)
    sink.close()
    sink.close()
    assert [id(report) for report in seen] == [id(report) for report in written]
    assert isinstance(sink, Sink)


def test_what_it_raises_is_for_the_monitor_to_catch() -> None:
    with pytest.raises(ZeroDivisionError):
        Callback(lambda report: 1 / 0).write(Report("a", Severity.INFO))


@pytest.mark.parametrize("function", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(function: object) -> None:
    with pytest.raises(TypeError, match=r"Callback: function must be callable, got"):
        Callback(function)  # type: ignore[arg-type]
