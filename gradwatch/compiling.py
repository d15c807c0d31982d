"""Whether a compiler takes over the backward pass, which would compile it once more for a hook that was not there."""

from __future__ import annotations

import sys
from typing import Any


def has_compiled_backward() -> bool:
    """Whether compiled autograd has been at work in this process: with a hook in it its graph would be made anew."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["compiled_autograd"]["captures"] > 0
