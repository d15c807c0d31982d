"""The Gradients tab in one file: the same pages with the answers embedded, for whoever has no TensorBoard."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from gradwatch.records import Severity
from gradwatch.tensorboard_plugin import views
from gradwatch.tensorboard_plugin.assets import NO_PLOTLY, STATIC, plotly_js
from gradwatch.tensorboard_plugin.tables import Tables

T = TypeVar("T", int, str)

COLUMNS = 2000
"""Of the whole run: more than most screens have pixels, so that there is something to zoom into."""
ROWS = 1000
LAYER_COLUMNS = 500
MAX_LAYERS, MAX_STEPS, MAX_PROFILES = 200, 30, 30
"""Brought along in full, the ones with alerts first; of the others the page shows what is in the whole picture."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>{style}</style>
<script>{plotly}</script>
<script type="importmap">{modules}</script>
<script type="application/json" id="gradwatch-data">{data}</script>
</head>
<body><script type="module">import {{render}} from "gradwatch/index.js"; render();</script></body>
</html>
"""


class PlotlyMissingError(ImportError):
    """plotly is not installed."""


def page(runs: Mapping[str, Tables]) -> str:
    """A page that shows ``runs`` without a server or a network.

    Args:
        runs: by name, in the order in which they are offered.

    Returns:
        HTML that needs nothing but a browser.

    Raises:
        PlotlyMissingError: without the extra ``gradwatch[tensorboard]``.
        ValueError: when there are no runs.
    """
    library = plotly_js()
    if library is None:
        raise PlotlyMissingError(NO_PLOTLY)
    if not runs:
        raise ValueError("runs must hold at least one run, got none")
    return TEMPLATE.format(
        title=html.escape(f"Gradients of {', '.join(runs)}"),
        style=(STATIC / "style.css").read_text(encoding="utf-8"),
        plotly=library.read_text(encoding="utf-8").replace("</script", r"<\/script"),
        modules=_in_script({"imports": _modules()}),
        data=_in_script(
            {"runs": [_listed(*run) for run in runs.items()], "answers": [_answers(*r) for r in runs.items()]}
        ),
    )


def _modules() -> dict[str, str]:
    """Every module as a data: address, where "./" leads nowhere: they import each other by names of the import map."""
    addresses = {}
    for path in sorted(STATIC.glob("*.js")):
        source = re.sub(r"""(from\s+['"])\./""", r"\1gradwatch/", path.read_text(encoding="utf-8"))
        encoded = base64.b64encode(source.encode()).decode()
        addresses[f"gradwatch/{path.name}"] = f"data:text/javascript;base64,{encoded}"
    return addresses


def _listed(name: str, tables: Tables) -> views.View:
    report = views.report(tables)
    return {"name": name, **{key: report[key] for key in ("first", "last", "layers", "severity", "verdict")}}


def _answers(name: str, tables: Tables) -> tuple[str, views.View]:
    norms = tables.norms
    alerts = sorted((a for a in tables.alerts if a.severity > Severity.INFO), key=lambda alert: -alert.severity)
    concerned = [layer for alert in alerts for layer in alert.concerned]
    probed = [step for step, _ in tables.profiles][:MAX_PROFILES]
    steps = _first([int(norms.steps[-1]), int(norms.steps[0]), *(alert.step for alert in alerts), *probed], MAX_STEPS)
    layers = [layer for layer in _first([*concerned, *norms.layers], MAX_LAYERS) if layer in norms.layers]
    return name, {
        "overview": views.overview(tables, columns=COLUMNS, rows=ROWS, least=False),
        "report": views.report(tables),
        "steps": [views.step(tables, step) for step in steps],
        "layers": [views.layer(tables, layer, columns=LAYER_COLUMNS) for layer in layers],
        "profiles": [views.profile(tables, step) for step in probed],
    }


def _first(values: Sequence[T], most: int) -> list[T]:
    """The first different values."""
    return list(dict.fromkeys(values))[:most]


def _in_script(plain: object) -> str:
    """JSON that no text in it can end the script element around."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")
