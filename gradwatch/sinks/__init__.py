"""Sinks: one per file, each taking a report per captured step. TensorBoard needs the extra gradwatch[tensorboard]."""

from typing import TYPE_CHECKING, Any

from gradwatch.protocols import Sink
from gradwatch.sinks.callback import Callback
from gradwatch.sinks.console import Console
from gradwatch.sinks.jsonl import JSONL
from gradwatch.sinks.memory import Memory

if TYPE_CHECKING:
    from gradwatch.sinks.tensorboard import TensorBoard

__all__ = ["JSONL", "Callback", "Console", "Memory", "Sink", "TensorBoard"]


def __getattr__(name: str) -> Any:
    if name == "TensorBoard":
        from gradwatch.sinks.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(f"module 'gradwatch.sinks' has no attribute {name!r}")
