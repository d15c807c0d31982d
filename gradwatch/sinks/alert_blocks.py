"""Blocks of alerts, written so that no sample of events loses one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gradwatch import tags
from gradwatch.records import Alert, to_plain


class AlertBlocks:
    """Puts alerts into blocks with a tag each. When one comes, all of its block are written again.

    So the last event of each tag, which TensorBoard always keeps, says all. A block is small, since it is written as
    often as it has alerts.

    Example:
        >>> blocks = AlertBlocks()
        >>> for step in (3, 7):
        ...     found = blocks.add([Alert(step, "dead", "fc", 1, 0.0, 0.0, "fc: zero")])
        ...     print({tag: [alert["step"] for alert in block] for tag, block in found.items()})
        {'gradwatch/alert_log/000000003/000000': [3]}
        {'gradwatch/alert_log/000000003/000000': [3, 7]}
    """

    MAX_BYTES = 16_384
    """Of a block, unless a single alert is larger."""

    def __init__(self) -> None:
        self._block: list[dict[str, Any]] = []
        self._number = 0
        self._bytes = 0

    def add(self, alerts: Iterable[Alert]) -> dict[str, list[dict[str, Any]]]:
        """What to write now, by its tag."""
        found = {}
        for alert in alerts:
            plain = to_plain(alert)
            size = len(json.dumps(plain))
            if self._block and self._bytes + size > self.MAX_BYTES:
                self._block, self._number, self._bytes = [], self._number + 1, 0
            self._block = [*self._block, plain]
            self._bytes += size
            found[tags.block_tag(self._number, self._block[0]["step"])] = self._block
        return found
