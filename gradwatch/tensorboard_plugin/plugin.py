"""The Gradients tab's routes: they only read, and only what TensorBoard reads."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

from gradwatch import tags
from gradwatch.tensorboard_plugin import views
from gradwatch.tensorboard_plugin.assets import NO_PLOTLY, STATIC, plotly_js
from gradwatch.tensorboard_plugin.store import Store
from gradwatch.tensorboard_plugin.tables import NoNormsError

TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DAY = 86_400

logger = logging.getLogger("gradwatch")


class BadParameterError(ValueError):
    """A parameter that is not what it may be, in a sentence."""


class Number(NamedTuple):
    """A parameter that is a whole number; by default any that a step can be."""

    least: int = -(10**18)
    most: int = 10**18
    required: bool = False

    def parse(self, name: str, text: str | None) -> int | None:
        """The number, None where it is not given."""
        if text is None and not self.required:
            return None
        if text is not None and re.fullmatch(r"-?[0-9]{1,19}", text) and self.least <= int(text) <= self.most:
            return int(text)
        raise BadParameterError(f"{name} must be a whole number from {self.least} to {self.most}, got {_short(text)}")


class Name(NamedTuple):
    """A parameter that is a name."""

    required: bool = True

    def parse(self, name: str, text: str | None) -> str | None:
        """The name, None where it is not given."""
        if text is None and self.required:
            raise BadParameterError(f"{name} must be given")
        return text


class Route(NamedTuple):
    """A view of a run, and the parameters that it takes."""

    view: Callable[..., views.View]
    parameters: Mapping[str, Number | Name]


STEPS = {"lo": Number(), "hi": Number()}
CELLS = Number(1, views.MAX_CELLS)
ROUTES = {
    "/overview": Route(
        views.overview,
        {**STEPS, "columns": CELLS, "rows": CELLS, "least": Number(0, 1), "match": Name(required=False)},
    ),
    "/step": Route(views.step, {"step": Number(required=True)}),
    "/layer": Route(views.layer, {"layer": Name(), **STEPS, "columns": CELLS}),
    "/report": Route(views.report, {}),
    "/profile": Route(views.profile, {"step": Number(required=True)}),
}


class GradientsPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the tab.

    Args:
        context: TensorBoard's.
    """

    plugin_name = tags.PLUGIN

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._store = Store(context.data_provider)

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """What answers each route."""
        answers: dict[str, Callable[[Request], Response]] = {
            f"/{path.relative_to(STATIC).as_posix()}": partial(_static, path)
            for path in STATIC.rglob("*")
            if path.suffix in TYPES
        }
        answers |= {"/runs": self._runs, "/plotly.min.js": self._plotly}
        answers |= {name: partial(self._view, route) for name, route in ROUTES.items()}
        return {name: _application(answer) for name, answer in answers.items()}

    def is_active(self) -> bool:
        """TensorBoard finds out by itself, by the plugin's name in the log."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Gradients")

    def _runs(self, request: Request) -> Response:
        context, experiment = _place(request)
        found = self._store.runs(context, experiment)
        runs = [views.run(name, *listed) for name, listed in found.items()]
        return _json(request, {"runs": runs, "plotly": plotly_js() is not None})

    def _view(self, route: Route, request: Request) -> Response:
        parameters = {"run": Name(), **route.parameters}
        given = {name: parameter.parse(name, request.args.get(name)) for name, parameter in parameters.items()}
        run = str(given.pop("run"))
        context, experiment = _place(request)
        try:
            tables = self._store.tables(context, experiment, run)
        except NoNormsError as error:
            raise views.NotRecordedError(f"there is no run {_short(run)} with gradients") from error
        chosen = {name: value for name, value in given.items() if value is not None}
        return _json(request, {"run": run, **route.view(tables, **chosen)})

    def _plotly(self, request: Request) -> Response:
        if self._library is None:
            raise views.NotRecordedError(NO_PLOTLY)
        return _respond(request, self._library, "text/javascript", content_encoding="gzip", expires=DAY)

    @cached_property
    def _library(self) -> bytes | None:
        """plotly.min.js, compressed."""
        path = plotly_js()
        return gzip.compress(path.read_bytes()) if path is not None else None


def _application(answer: Callable[[Request], Response]) -> Callable[..., Any]:
    """``answer`` as a WSGI application; what it raises becomes a sentence."""

    @Request.application
    def application(request: Request) -> Response:
        try:
            if request.method not in ("GET", "HEAD"):
                return _json(request, {"error": f"only GET is answered, got {request.method}"}, code=405)
            return answer(request)
        except BadParameterError as error:
            return _json(request, {"error": str(error)}, code=400)
        except views.NotRecordedError as error:
            return _json(request, {"error": str(error)}, code=404)
        except Exception as error:
            logger.exception("the Gradients tab could not answer %s", request.path)
            return _json(request, {"error": f"{type(error).__name__}: {error}"}, code=500)

    return application


def _static(path: Path, request: Request) -> Response:
    return _respond(request, path.read_bytes(), TYPES[path.suffix])


def _json(request: Request, content: views.View, code: int = 200) -> Response:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return _respond(request, text, "application/json", code=code)


def _respond(request: Request, content: str | bytes, kind: str, **more: Any) -> Response:
    response: Response = http_util.Respond(request, content, kind, **more)
    return response


def _place(request: Request) -> tuple[Any, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _short(text: str | None) -> str:
    shown = repr(text) if text is not None else "nothing"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
