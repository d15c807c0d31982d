from __future__ import annotations

import warnings

import pytest

from gradwatch.faults import DROPPED, LIMIT, Faults, GradwatchWarning, StopTraining


def divide(a: float, b: float) -> float:
    return a / b


def test_what_works_is_passed_on() -> None:
    assert Faults(strict=False).run("rule", "it is dropped", divide, 6, 3, otherwise=None) == 2.0


def test_what_fails_warns_once_with_the_part_the_consequence_and_the_reason() -> None:
    faults = Faults(strict=False)
    words = r"^gradwatch: the clock failed, it shows nothing: ZeroDivisionError: division by zero$"
    with pytest.warns(GradwatchWarning, match=words):
        assert faults.run("the clock", "it shows nothing", divide, 1, 0, otherwise=-1) == -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert faults.run("the clock", "it shows nothing", divide, 1, 0, otherwise=-1) == -1


def test_two_dropped_parts_of_one_name_are_told_of_both() -> None:
    faults = Faults(strict=False)
    for _ in range(2):
        with pytest.warns(GradwatchWarning, match="sink Broken failed, it is dropped"):
            faults.run("sink Broken", DROPPED, divide, 1, 0, otherwise=None)


def test_each_part_has_its_own_warning() -> None:
    faults = Faults(strict=False)
    for part in ("rule A", "rule B"):
        with pytest.warns(GradwatchWarning, match=part):
            faults.run(part, "it is dropped", divide, 1, 0, otherwise=None)


@pytest.mark.filterwarnings("ignore::gradwatch.faults.GradwatchWarning")
def test_a_part_is_exhausted_after_its_limit() -> None:
    faults = Faults(strict=False)
    for failures in range(LIMIT + 1):
        assert faults.exhausted("capture") is (failures >= LIMIT)
        faults.run("capture", "this step is not recorded", divide, 1, 0, otherwise=None)
    assert not faults.exhausted("another part")


@pytest.mark.filterwarnings("ignore::gradwatch.faults.GradwatchWarning")
def test_failures_count_in_a_row() -> None:
    faults = Faults(strict=False)
    for divisor in (0, 0, 1) * LIMIT:
        faults.run("capture", "this step is not recorded", divide, 1, divisor, otherwise=None)
    assert not faults.exhausted("capture")


def test_a_part_that_is_given_up_is_told_of_once() -> None:
    faults = Faults(strict=False)

    def run() -> None:
        for _ in range(LIMIT + 2):
            faults.run("capture", "this step is not recorded", divide, 1, 0, otherwise=None)
            faults.exhausted("capture")

    with pytest.warns(GradwatchWarning) as caught:
        run()
    assert [str(w.message) for w in caught] == [
        "gradwatch: capture failed, this step is not recorded: ZeroDivisionError: division by zero",
        f"gradwatch: capture is switched off: it failed {LIMIT} times in a row",
    ]
    assert {w.filename for w in caught} == {__file__}  # it points at the user's own line


def test_a_message_of_any_length_is_cut() -> None:
    def fail() -> None:
        raise ValueError("x" * 100_000)

    with pytest.warns(GradwatchWarning) as caught:
        Faults(strict=False).run("rule", DROPPED, fail, otherwise=None)
    assert len(str(caught[0].message)) < 1100


def test_warnings_that_are_errors_are_not_faults_again() -> None:
    """A user who has warnings raised gets the first, from however deep, and not one about it."""
    faults = Faults(strict=False)

    def inner() -> None:
        faults.run("sink Broken", DROPPED, divide, 1, 0, otherwise=None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(GradwatchWarning, match=r"^gradwatch: sink Broken failed"):
            faults.run("the record of a step", "this step is not recorded", inner, otherwise=None)


def test_an_error_whose_words_fail_is_still_named() -> None:
    class WordlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        raise WordlessError

    with pytest.warns(GradwatchWarning, match=r": WordlessError: \(no message: str\(\) of the error failed\)$"):
        Faults(strict=False).run("rule", DROPPED, fail, otherwise=None)


def test_words_are_printed_line_by_line_and_obeyed_by_no_terminal() -> None:
    def fail() -> None:
        raise ValueError("one\ntwo \x1b[31m")

    with pytest.warns(GradwatchWarning) as caught:
        Faults(strict=False).run("rule", DROPPED, fail, otherwise=None)
    assert str(caught[0].message) == "gradwatch: rule failed, it is dropped: ValueError: one\ntwo \\x1b[31m"


def test_strict_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        Faults(strict=True).run("rule", "it is dropped", divide, 1, 0, otherwise=None)


def test_an_interrupt_is_no_fault() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Faults(strict=False).run("rule", "it is dropped", interrupt, otherwise=None)


def test_what_a_policy_raises_on_purpose_is_no_fault() -> None:
    def stop() -> None:
        raise StopTraining("enough")

    faults = Faults(strict=False)
    with pytest.raises(StopTraining, match="enough"):
        faults.run("outer", "-", lambda: faults.run("inner", "-", stop, otherwise=None), otherwise=None)
    assert not faults.exhausted("inner")
