"""The files that the browser gets: this package's own, and plotly's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

STATIC = Path(__file__).parent / "static"

NO_PLOTLY = 'the charts need plotly: pip install "gradwatch[tensorboard]"'


def plotly_js() -> Path | None:
    """plotly's own packaged plotly.min.js, None where it is not installed; plotly itself is not imported."""
    spec = importlib.util.find_spec("plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    return path if path is not None and path.is_file() else None
