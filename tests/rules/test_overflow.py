from __future__ import annotations

import pytest

from gradwatch import Alert, Severity
from gradwatch.rules import NonFinite, Overflow
from tests.histories import INF, NAN, history_of, layers, stats


def check(rule: NonFinite, half: bool | None, broken: float) -> list[Alert]:
    """What ``rule`` says of a step that is broken, after one at which it was seen how the gradients are made."""
    history = history_of([])
    history.append(stats(0, layers([1.0, 1.0]), half=half))
    found = list(rule.check(history))
    history.append(stats(1, layers([broken, 1.0])))
    return [*found, *rule.check(history)]


@pytest.mark.parametrize("broken", [INF, NAN])
@pytest.mark.parametrize("half", [True, False, None])
def test_one_of_two_rules_names_what_is_not_finite(half: bool | None, broken: float) -> None:
    overflow, nonfinite = check(Overflow(), half, broken), check(NonFinite(), half, broken)
    (alert,) = overflow + nonfinite
    assert alert.rule == ("overflow" if half else "nonfinite")
    assert (alert.step, alert.layer, alert.severity) == (1, "fc0", Severity.ERROR)
    assert alert.message.startswith(f"fc0: gradient is {broken}")
    assert alert.message.endswith("in float16, which ends at 65,504; use a GradScaler, or bfloat16") == bool(half)
