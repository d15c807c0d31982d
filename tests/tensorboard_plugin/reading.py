"""Arrays as the browser reads them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def decoded(array: dict[str, str]) -> np.ndarray[Any, Any]:
    shape = [int(n) for n in array["shape"].split(",")]
    return np.frombuffer(base64.b64decode(array["bdata"]), f"<{array['dtype']}").reshape(shape)
