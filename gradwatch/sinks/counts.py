"""Counts: numbers that stay the same at nearly every step, written so that they cost nothing while they do."""

from __future__ import annotations

from collections.abc import Mapping


class Counts:
    """Tells when numbers must be written for a chart of them to be right.

    That is at the first step, now and then, and when one changes; then also what they were at the step before, since a
    chart joins two points by a line: without it a jump would look like a slope.

    Example:
        >>> counts = Counts()
        >>> for step, alerts in enumerate([0, 0, 0, 0, 1, 1, 2]):
        ...     print(step, counts.due(step, {"alerts": alerts}))
        0 {0: {'alerts': 0}}
        1 {}
        2 {}
        3 {}
        4 {3: {'alerts': 0}, 4: {'alerts': 1}}
        5 {}
        6 {5: {'alerts': 1}, 6: {'alerts': 2}}
    """

    EVERY = 100
    """Steps after which they are written again, so that the chart of a live run goes on."""

    def __init__(self) -> None:
        self._before: tuple[int, Mapping[str, float]] | None = None
        self._written = -1

    def due(self, step: int, numbers: Mapping[str, float]) -> dict[int, Mapping[str, float]]:
        """What to write now, by the step it belongs to."""
        before, self._before = self._before, (step, numbers)
        changed = before is not None and numbers != before[1]
        if before is not None and not changed and step // self.EVERY == self._written // self.EVERY:
            return {}
        earlier = dict([before]) if before is not None and changed and before[0] != self._written else {}
        self._written = step
        return {**earlier, step: numbers}
