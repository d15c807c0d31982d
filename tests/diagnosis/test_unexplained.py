from __future__ import annotations

import pytest

import gradwatch as gw
from gradwatch import Alert, History, Severity
from gradwatch.diagnosis.unexplained import BY_PROBE, BY_STEPS, unexplained
from tests.diagnosis.profiles import alert
from tests.models import backward, build


@pytest.mark.parametrize(("rule", "remedy"), [("exploding", BY_STEPS), ("vanishing", BY_PROBE)])
def test_the_first_error_is_told_with_what_would_tell(rule: str, remedy: str) -> None:
    warning, error = alert("spike", "a", severity=Severity.WARNING), alert(rule, "b", severity=Severity.ERROR)
    (found,) = unexplained([warning, error])
    assert (found.cause, found.layers, found.remedy, found.change) == ("unexplained", ("b",), remedy, "")


def test_without_an_error_there_is_nothing_to_say() -> None:
    assert unexplained([]) == unexplained([alert("spike", severity=Severity.WARNING)]) == ()


class Grave:
    """Says that all is lost."""

    def __init__(self, until: int) -> None:
        self.until = until

    def check(self, history: History) -> list[Alert]:
        if history.count > self.until:
            return []
        return [Alert(history.count - 1, "mine", None, Severity.ERROR, 1.0, 0.0, "all is lost")]


@pytest.mark.parametrize(("until", "diagnose", "causes"), [(99, None, ["unexplained"]), (2, None, []), (99, (), [])])
def test_a_report_says_so_while_it_lasts(until: int, diagnose: tuple[()] | None, causes: list[str]) -> None:
    example = build("mlp")
    more = {} if diagnose is None else {"diagnose": diagnose}
    with gw.Monitor(example.model, rules=[Grave(until)], sinks=(), **more) as monitor:
        for _ in range(5):
            backward(example)
            monitor.step()
        assert [found.cause for found in monitor.report().diagnoses] == causes
