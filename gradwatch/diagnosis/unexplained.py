"""Unexplained: no cause was found, which is said, with what would tell."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.diagnosis.symptoms import UNSTABLE, layers_of
from gradwatch.records import Alert, Diagnosis, Severity


def unexplained(alerts: Sequence[Alert]) -> tuple[Diagnosis, ...]:
    """What to try, for a run with an ERROR that no cause explains; () of one without.

    >>> (found,) = unexplained([Alert(31, "exploding", "fc", Severity.ERROR, 5e3, 1e3, "fc: gradient norm 5e+03")])
    >>> found.confidence, found.evidence
    (0.05, ('fc: gradient norm 5e+03 (step 31)', 'no cause that is looked for explains it'))
    >>> print(found.remedy.partition(":")[0])
    train again with a tenth of the learning rate
    """
    errors = [alert for alert in alerts if alert.severity is Severity.ERROR]
    if not errors:
        return ()
    first = errors[0]
    by_steps = first.rule in UNSTABLE
    evidence = f"{first.message} (step {first.step})", "no cause that is looked for explains it"
    return (Diagnosis("unexplained", 0.05, layers_of([first]), evidence, BY_STEPS if by_steps else BY_PROBE),)


BY_STEPS = (
    "train again with a tenth of the learning rate: what is gone then came of the steps; what stays is in the data, "
    "the loss or the initial weights"
)

BY_PROBE = (
    "call monitor.probe() before the forward pass of a step: monitor.report().profile then tells what each operation "
    "passes of the gradient"
)
