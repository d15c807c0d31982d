from __future__ import annotations

from dataclasses import replace

from gradwatch.records import Report, Severity
from gradwatch.sinks.verdicts import Verdicts
from tests.event_logs import DEEP, PROFILE, VANISHING, stats


def report(step: int, verdict: str = "", severity: Severity = Severity.INFO, **more: object) -> Report:
    return Report(verdict or f"healthy: {step + 1} steps", severity, stats=stats(step, ("a",), [1.0]), **more)  # type: ignore[arg-type]


def test_a_healthy_run_is_said_to_be_so_at_first_and_every_hundred_steps() -> None:
    verdicts = Verdicts()
    said = [step for step in range(250) if verdicts.due(report(step))]
    assert said == [0, 100, 200]
    (last,) = verdicts.last()
    assert last["began"] == 0
    assert (last["step"], last["verdict"], last["captured"]) == (249, "healthy: 250 steps", "before clipping")
    assert verdicts.last() == []


def test_steps_that_are_far_apart_are_each_said() -> None:
    verdicts = Verdicts()
    assert [step for step in (0, 70, 140, 150, 1000) if verdicts.due(report(step))] == [0, 140, 1000]


def test_words_that_stay_are_said_once() -> None:
    verdicts = Verdicts()
    said = [step for step in range(500) if verdicts.due(report(step, "vanishing: a", Severity.ERROR))]
    assert said == [0]
    assert verdicts.last() == []


def test_a_change_is_said_at_once() -> None:
    verdicts = Verdicts()
    verdicts.due(report(0))
    assert verdicts.due(report(1)) == []
    assert verdicts.due(report(2, severity=Severity.WARNING)) != []
    assert verdicts.due(report(3, severity=Severity.WARNING, alerts=(VANISHING,))) != []
    assert verdicts.due(report(4, severity=Severity.WARNING, diagnoses=(DEEP,))) != []
    assert verdicts.due(report(5, severity=Severity.INFO)) != []
    assert verdicts.due(report(6)) == []


def test_every_verdict_has_all_causes_so_far_each_as_it_was_found_last() -> None:
    verdicts, again = Verdicts(), replace(DEEP, confidence=0.1)
    other = replace(DEEP, cause="learning_rate")
    for step, found in enumerate([(DEEP,), (other,), (again,)]):
        (said,) = verdicts.due(report(step, diagnoses=found))
    assert said["diagnoses"] == [again, other]


def test_what_a_probe_tells_takes_the_place_of_what_was_guessed_since_the_last() -> None:
    names = ("first", "told", "guess", "better")
    first, told, guess, better = (replace(DEEP, cause=name) for name in names)
    verdicts, said = Verdicts(), []
    for step, (found, profile) in enumerate(
        [((first,), None), ((told,), PROFILE), ((guess,), None), ((), PROFILE), ((better,), PROFILE), ((guess,), None)]
    ):
        said = verdicts.due(report(step, diagnoses=found, profile=profile)) or said
        if step == 4:
            assert said[0]["diagnoses"] == [told, better]
    assert said[0]["diagnoses"] == [told, better, guess]


def test_of_no_step_nothing_is_said() -> None:
    assert Verdicts().last() == []
