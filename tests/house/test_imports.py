"""Imports run one way only: a module may import what lies below it, and its own room."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradwatch

ROOT = Path(gradwatch.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"tags", "tfrecord"},
            {"records"},
            {"profile", "told"},
            {"graph_nodes", "stacked", "towers"},
            {"flow"},
            {"regions"},
            {"spine"},
            {"recurrence"},
            {"patterns"},
            {"progress"},
            {"coming"},
            {"history"},
            {"verdict", "faults", "torch_internals", "safe_hook", "linear_range", "mode"},
            {"sharding", "amp", "optimizers"},
            {"layers"},
            {"stats", "host_copy"},
            {"histograms", "inputs", "output_error", "one_target", "out_of_reach", "off_target"},
            {"loss_mismatch"},
            {"last_output"},
            {"saturated_outputs", "time_gradient", "sampled", "readings"},
            {"closeup"},
            {"leftover", "alike", "idle"},
            {"graph"},
            {"finiteness"},
            {"recording"},
            {"probing"},
            {"probe_schedule"},
            {"reduction", "looks"},
            {"protocols"},
            {"rules", "clipping", "diagnosis", "sinks"},
            {"alert_log", "clip_log", "rota", "clip_call"},
            {"arriving"},
            {"capture"},
            {"journal"},
            {"monitor"},
            {"hooks"},
            {"integrations"},
            {"tensorboard_plugin"},
            {"report"},
            {"demo"},
            {"cli"},
        ),
    )
)
PLUGIN = "tensorboard_plugin"
PLUGIN_MAY_IMPORT = {"records", "tags", "tfrecord", "clip_log", PLUGIN}
WITHOUT_TORCH = {
    "",
    "records",
    "tags",
    "tfrecord",
    "patterns",
    "history",
    "verdict",
    "faults",
    "clip_log",
    "rules",
    "diagnosis",
    "sinks",
    "profile",
    "graph_nodes",
    "flow",
    "regions",
    "spine",
    "recurrence",
    PLUGIN,
}

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def room(file: Path) -> str:
    """The part of the package that ``file`` belongs to, "" for the public face."""
    first = file.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def floor(name: str) -> int:
    found = [i for i, floor in enumerate(FLOORS) if name in floor]
    assert found, f"gradwatch/{name} has no floor: give it one in this file and in the design"
    return found[0]


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that ``file`` imports when it runs, anywhere in it."""
    package = ".".join(["gradwatch", *file.relative_to(ROOT).parts[:-1]])
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"gradwatch.{alias.name}" for alias in node.names) if module == "gradwatch" else (module,)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def rooms_imported(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("gradwatch.")} - {"__version__"}


def test_the_reader_of_imports_sees_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    (file := tmp_path / "rules" / "new.py").write_text(
        "import os.path\n"
        "from gradwatch import tags\n"
        "from . import base\n"
        "from ..history import History\n"
        "if TYPE_CHECKING:\n"
        "    import torch\n"
        "def late():\n"
        "    from gradwatch.monitor import Monitor\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert sorted(imports(file)) == [
        "gradwatch.history",
        "gradwatch.monitor",
        "gradwatch.rules",
        "gradwatch.tags",
        "os.path",
    ]


@every_file
def test_a_module_imports_only_what_lies_below_it(file: Path) -> None:
    here = room(file)
    found = rooms_imported(file)
    if here == PLUGIN:
        assert found <= PLUGIN_MAY_IMPORT
    elif here:
        assert {name for name in found - {here} if floor(name) >= floor(here)} == set()


def test_the_public_face_imports_nothing_of_its_own() -> None:
    assert rooms_imported(ROOT / "__init__.py") == set()


@every_file
def test_torch_stays_on_its_side_of_the_wall(file: Path) -> None:
    if room(file) in WITHOUT_TORCH:
        assert not {name.split(".")[0] for name in imports(file)} & {"torch", "lightning", "pytorch_lightning"}


@every_file
def test_an_optional_package_is_imported_only_where_it_is_needed(file: Path) -> None:
    homes = {
        "tensorboard": {"sinks", PLUGIN},
        "lightning": {"integrations"},
        "pytorch_lightning": {"integrations"},
        "sklearn": {"demo"},
        "rich": {"sinks", "report", "demo", "cli"},
    }
    for name in imports(file):
        assert room(file) in homes.get(name.split(".")[0], {room(file)}), name
