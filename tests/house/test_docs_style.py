"""Every public class and function says what it is and shows it."""

from __future__ import annotations

import enum
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import gradwatch
from gradwatch import records


def public_objects() -> dict[str, Any]:
    """The classes and functions that some ``__all__`` names, each once."""
    root = Path(gradwatch.__file__).parent
    found = {}
    for file in sorted(root.rglob("*.py")):
        if "\n__all__ = " in file.read_text(encoding="utf-8"):
            module = ".".join(["gradwatch", *file.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
            for name in importlib.import_module(module).__all__:
                value = getattr(importlib.import_module(module), name)
                if inspect.isclass(value) or inspect.isfunction(value):
                    found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


OBJECTS = public_objects()
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}


def needs_no_example(found: Any) -> bool:
    """An exception, a protocol, or a record that is nothing but its fields."""
    if not inspect.isclass(found):
        return False
    methods = [name for name, value in vars(found).items() if inspect.isfunction(value) and name[0] != "_"]
    plain = found.__module__ == records.__name__ and not methods
    return issubclass(found, (Exception, enum.Enum)) or getattr(found, "_is_protocol", False) or plain


@pytest.mark.parametrize("found", OBJECTS.values(), ids=OBJECTS)
def test_it_has_a_docstring_with_an_example(found: Any) -> None:
    text = found.__doc__ or ""
    assert text.strip(), "no docstring"
    assert text.splitlines()[0].strip(), "the first line is the summary"
    assert ">>> " in text or needs_no_example(found), "no example"


@pytest.mark.parametrize("found", CLASSES.values(), ids=CLASSES)
def test_its_public_methods_have_a_docstring(found: type) -> None:
    said_by_base = {
        "check",
        "judge",
        "calm_steps",
        "passes_over",
        "describe",
        "explain",
        "write",
        "close",
        "clip_",
        "reset",
    }
    said_by_base |= {"state_dict", "load_state_dict"}
    for name, value in vars(found).items():
        if inspect.isfunction(value) and not name.startswith("_") and name not in said_by_base:
            assert value.__doc__, f"{name} has no docstring"
