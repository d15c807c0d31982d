"""LayerState: what a rule remembers of each layer, kept in step with a set of layers that may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LayerState:
    """Named arrays with one entry per layer, which survive checkpoints and changes of the model.

    Args:
        new: for each array, the value of a layer that was not there before; its type is the array's.

    Example:
        >>> state = LayerState(peak=0.0)
        >>> state.align(("a", "b"))
        >>> state["peak"] = np.array([1.0, 2.0])
        >>> state.align(("b", "c"))
        >>> state["peak"].tolist()
        [2.0, 0.0]
    """

    def __init__(self, **new: float | int | bool) -> None:
        self._new = new
        self.layers: tuple[str, ...] = ()
        self._arrays: dict[str, NDArray[Any]] = {name: np.array([value])[:0] for name, value in new.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __setitem__(self, name: str, values: NDArray[Any]) -> None:
        self._arrays[name] = values

    def align(self, layers: tuple[str, ...]) -> None:
        """Make the entries those of ``layers``."""
        if layers is self.layers:
            return
        if layers == self.layers:
            self.layers = layers
            return
        column = {name: i for i, name in enumerate(self.layers)}
        source = [column.get(name, -1) for name in layers]
        for name, value in self._new.items():
            old = self._arrays[name]
            self._arrays[name] = np.append(old, np.array([value], old.dtype))[source]
        self.layers = layers

    def state_dict(self) -> dict[str, Any]:
        return {"layers": list(self.layers), **{name: array.copy() for name, array in self._arrays.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.layers = tuple(state["layers"])
        for name, array in self._arrays.items():
            self._arrays[name] = np.array(state[name], array.dtype)
