"""From a model to its layers: which gradients there are, and to which layer each belongs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from gradwatch.patterns import as_patterns, check_patterns, matches
from gradwatch.records import Layer

GRANULARITIES = ("layer", "parameter")

_WRAPPER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module"}
_WRAPPER_TYPES = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_NOT_WATCHED = -1


class Gradient(NamedTuple):
    """One parameter, its gradient and the index of the layer that it belongs to."""

    parameter: Tensor
    gradient: Tensor
    row: int


class _Plan(NamedTuple):
    """What the model looked like: compared at every step, it tells cheaply whether the layers must be found anew."""

    module: weakref.ref[nn.Module]
    parameters: tuple[tuple[str, int], ...]
    children: tuple[int, ...]
    rows: tuple[int, ...]


class LayerTable:
    """The layers of a model, followed through whatever happens to it while it trains.

    Parameters may be frozen, unfrozen, added, replaced or tied at any step: the structure is compared at each
    :meth:`collect` and the layers are found anew when it changed. The model is held by weak references only.

    Args:
        model: the module to watch.
        granularity: "layer", a module's own parameters together, or "parameter".
        include: patterns of the layer names to watch, all by default.
        exclude: patterns of the layer names to leave out.

    Raises:
        TypeError: when ``model`` is no module.
        ValueError: when the model has no parameters, ``granularity`` is unknown, a pattern matches nothing, or the
            patterns leave nothing to watch.

    Example:
        >>> table = LayerTable(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> [(layer.name, layer.kind, layer.numel) for layer in table.layers]
        [('0', 'Linear', 9), ('2', 'Linear', 4)]
    """

    def __init__(
        self,
        model: nn.Module,
        granularity: str = "layer",
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        check_granularity(granularity)
        self._model = weakref.ref(model)
        self._granularity = granularity
        self._include = as_patterns("include", include)
        self._exclude = as_patterns("exclude", exclude)
        self.layers: tuple[Layer, ...] = ()
        self.names: tuple[str, ...] = ()
        self._plans: list[_Plan] = []
        self._lazy = False
        self._check(model)
        self._find(model)

    def collect(self, only: Iterable[Tensor] | None = None) -> list[Gradient]:
        """The gradients that exist now, each parameter once, in the model's order.

        Args:
            only: the parameters to look at, as an optimizer's; all by default.
        """
        model = self._model()
        if model is None:
            return []
        if self._changed():
            self._find(model)
        wanted = None if only is None else {id(p) for p in only}
        seen: set[int] = set()
        found = []
        for plan in self._plans:
            module = plan.module()
            assert module is not None  # the model is alive and its structure was compared just now
            for (_, p), row in zip(module._parameters.items(), plan.rows):
                if p is None or row == _NOT_WATCHED or id(p) in seen:
                    continue
                seen.add(id(p))
                gradient = p.grad
                if gradient is not None and (wanted is None or id(p) in wanted):
                    found.append(Gradient(p, gradient, row))
        return found

    def _changed(self) -> bool:
        if self._lazy:
            return True
        for reference, parameters, children, _ in self._plans:
            module = reference()
            if (
                module is None
                or tuple([(name, id(p)) for name, p in module._parameters.items()]) != parameters
                or tuple([id(child) for _, child in module._modules.items()]) != children
            ):
                return True
        return False

    def _check(self, model: nn.Module) -> None:
        names = list(dict.fromkeys(name for place in _places(model) for name in self._names(place) if name))
        if not names:
            raise ValueError(f"model: {type(model).__name__} has no parameters, so there is no gradient to watch")
        check_patterns("include", self._include or (), names)
        check_patterns("exclude", self._exclude or (), names)
        if not any(self._watched(name) for name in names):
            raise ValueError(f"include={self._include} and exclude={self._exclude} leave no layer to watch")

    def _find(self, model: nn.Module) -> None:
        kinds: dict[str, str] = {}
        members: dict[str, list[tuple[str, Tensor]]] = {}
        index: dict[str, int] = {}
        row_of: dict[int, int] = {}  # by the parameter's id, valid while the model holds it, which is during this call
        self._plans, self._lazy = [], False
        for place in _places(model):
            items = list(place.module._parameters.items())
            rows = []
            for (key, p), name in zip(items, self._names(place)):
                if p is not None and id(p) not in row_of and self._watched(name):
                    kinds.setdefault(name, place.kind)
                    members.setdefault(name, []).append((_join(place.path, key), p))
                    row_of[id(p)] = index.setdefault(name, len(index))
                rows.append(_NOT_WATCHED if p is None else row_of.get(id(p), _NOT_WATCHED))
            children = tuple(id(child) for _, child in place.module._modules.items())
            parameters = tuple((key, id(p)) for key, p in items)
            self._plans.append(_Plan(weakref.ref(place.module), parameters, children, tuple(rows)))
        self._lazy = any(is_lazy(p) for parameters in members.values() for _, p in parameters)
        self.layers = tuple(
            Layer(
                name,
                kinds[name],
                numel=sum(0 if is_lazy(p) else p.numel() for _, p in parameters),
                parameters=tuple(full_name for full_name, _ in parameters),
            )
            for name, parameters in members.items()
        )
        self.names = tuple(members)

    def _names(self, place: _Place) -> list[str]:
        """The layer name of each of the module's own parameters, "" for one that cannot have a gradient."""
        by_parameter = self._granularity == "parameter"
        return [
            "" if p is None or p.is_meta else _join(place.path, key) if by_parameter else place.layer
            for key, p in place.module._parameters.items()
        ]

    def _watched(self, name: str) -> bool:
        included = self._include is None or matches(name, self._include)
        return bool(name) and included and not (self._exclude and matches(name, self._exclude))


def check_granularity(granularity: object) -> None:
    """Raise ValueError when it is none of GRANULARITIES."""
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be 'layer' or 'parameter', got {granularity!r}")


class _Place(NamedTuple):
    """A module, its path without the names of wrappers, and the layer that its own parameters belong to."""

    module: nn.Module
    path: str
    layer: str
    kind: str


def _places(root: nn.Module) -> Iterator[_Place]:
    """Each module once, in the order of ``named_modules()``."""
    seen: set[int] = set()

    def walk(module: nn.Module, path: str, layer: str, kind: str) -> Iterator[_Place]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield _Place(module, path, layer, kind)
        for name, child in module._modules.items():
            if child is None:
                continue
            if _is_wrapper(module, name):
                yield from walk(child, path, layer, _kind(child))
            elif name == "parametrizations" or ".parametrizations" in f".{path}":
                yield from walk(child, _join(path, name), layer, kind)  # parts of the layer that they parametrize
            else:
                child_path = _join(path, name)
                yield from walk(child, child_path, child_path, _kind(child))

    return walk(root, "", _kind(_unwrapped(root)), _kind(_unwrapped(root)))


def _is_wrapper(module: nn.Module, child_name: str) -> bool:
    return child_name in _WRAPPER_NAMES or (child_name == "module" and isinstance(module, _WRAPPER_TYPES))


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = next(
        (child for name, child in module._modules.items() if child is not None and _is_wrapper(module, name)),
        None,
    )
    return module if inner is None else _unwrapped(inner)


def _kind(module: nn.Module) -> str:
    name: str = module.original_name if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
    return name.removeprefix("Parametrized")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
