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


class ModelState:
    """Named numbers of the whole model, which survive checkpoints.

    Args:
        new: the value of each at the start; its type is the number's.

    Example:
        >>> state = ModelState(looks=0)
        >>> state["looks"] += 1
        >>> state.load_state_dict(state.state_dict())
        >>> state["looks"]
        1
    """

    def __init__(self, **new: float | int | bool) -> None:
        self._numbers = new

    def __getitem__(self, name: str) -> Any:
        return self._numbers[name]

    def __setitem__(self, name: str, value: float | int | bool) -> None:
        self._numbers[name] = type(self._numbers[name])(value)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._numbers)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self._numbers:
            self[name] = state[name]
