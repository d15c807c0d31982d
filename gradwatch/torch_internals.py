"""What torch tells of itself only privately: what is compiled or transformed, and which operation a node belongs to."""

from __future__ import annotations

import sys
from typing import Any

import torch


def has_compiled_backward() -> bool:
    """Whether compiled autograd has been at work in this process: with a hook in it its graph would be made anew."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["compiled_autograd"]["captures"] > 0


def compiles_backward() -> bool:
    """Whether a compiler takes over the backward pass, which it would compile once more for hooks on nodes."""
    compiled_autograd = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(compiled_autograd, "compiled_autograd_enabled", False))


def in_transform() -> bool:
    """Whether a transform of torch.func is running, whose tensors stand for others."""
    peek = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return peek is not None and peek() is not None


def can_number() -> bool:
    """Whether this torch numbers its operations, as its profiler needs."""
    return hasattr(torch.autograd, "_get_sequence_nr")


def next_number() -> int:
    """The number that the next operation of this thread gets."""
    return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]


def number_of(node: Any) -> int:
    """The number of the operation that made ``node``."""
    return int(node._sequence_nr())
