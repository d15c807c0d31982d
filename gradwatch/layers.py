"""From a model to its layers: which gradients there are, and to which layer each belongs."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from gradwatch.patterns import as_patterns, check_patterns, matches
from gradwatch.records import BoolArray, FloatArray, Layer
from gradwatch.sharding import Sharding, fsdp_parameters, sharding_of

GRANULARITIES = ("layer", "parameter")

_WRAPPER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module"}
_WRAPPER_TYPES = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
NOT_WATCHED = -1
_NONE = -2
"""In place of a row: there is no parameter, it has its row elsewhere, or it cannot have a gradient."""


class Gradients(NamedTuple):
    """The gradients that exist at one step: P parameters, their gradients, and the index of the layer of each."""

    parameters: list[Tensor]
    values: list[Tensor]
    rows: list[int]
    """NOT_WATCHED for a gradient that is only clipped."""
    slots: Sequence[int] = ()
    """Of a sharded model, the index of each among all parameters; the values are then this rank's parts of them."""
    weights: Sequence[float] = ()
    """And what each part counts in a sum over the ranks."""
    shares: Sequence[float] = ()
    """Where the part is a summand of a Partial gradient what it counts in the sum of them, else 0."""

    def watched(self) -> Gradients:
        """Those that belong to a layer."""
        if NOT_WATCHED not in self.rows:
            return self
        kept = [i for i, row in enumerate(self.rows) if row != NOT_WATCHED]
        columns: Iterator[Any] = ([column[i] for i in kept] if column else [] for column in self)
        return Gradients(*columns)


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
        TypeError: when ``model`` is not a module.
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
        self.model = weakref.ref(model)
        self._granularity = granularity
        self._include = as_patterns("include", include)
        self._exclude = as_patterns("exclude", exclude)
        self.layers: tuple[Layer, ...] = ()
        self.names: tuple[str, ...] = ()
        self.paths: dict[int, str] = {}
        """The full name of each parameter that can have a gradient, watched or not, by its id."""
        self.sharding: Sharding | None = None
        """How the parameters are spread over ranks; None where every rank has the whole model."""
        self.numel: FloatArray = np.empty(0)
        """float64 [L], elements of each layer."""
        self.outputs: FloatArray = np.empty(0)
        """float64 [L], about the square of the norm of each layer's parameters when freshly initialised."""
        self.norm_dtype = torch.float32
        """Of torch's norm over all parameters, float32 at least."""
        self.version = 0
        """Counts how often the layers were found anew: rows of one version mean nothing in the next."""
        self._modules: list[weakref.ref[nn.Module]] = []
        self._structure: list[int] = []
        """What the modules looked like: compared at every step, it tells whether the layers must be found anew."""
        self._rows: list[int] = []
        """Of each module's parameters in turn, the row."""
        self._lazy = False
        self._check(model)
        self._find(model)

    def collect(self, only: Iterable[Tensor] | None = None, everything: bool = False) -> Gradients:
        """The gradients that exist now, each parameter once, in the model's order.

        Args:
            only: the parameters to look at, as an optimizer's; all by default.
            everything: also the gradients that ``include`` and ``exclude`` leave out.
        """
        model = self.model()
        if model is None:
            return Gradients([], [], [])
        if self._lazy:
            self._find(model)
        only = None if only is None else list(only)
        parameters, structure = self._look_again()
        if structure != self._structure:
            self._find(model)
            return self.collect(only, everything)
        wanted = None if only is None else {id(p) for p in only}
        lowest = NOT_WATCHED if everything else 0
        kept: list[Tensor] = []
        values: list[Tensor] = []
        rows: list[int] = []
        for p, row in zip(parameters, self._rows):
            if row < lowest or p is None or (wanted is not None and id(p) not in wanted):
                continue
            gradient = p.grad
            if gradient is not None:
                kept.append(p)
                values.append(gradient)
                rows.append(row)
        return Gradients(kept, values, rows)

    def parameters(self) -> list[tuple[Tensor, int]]:
        """Every parameter with its row, as of the latest :meth:`collect`; below 0 of one that is not watched."""
        parameters, _ = self._look_again()
        return [(p, row) for p, row in zip(parameters, self._rows) if p is not None]

    def trained(self, only: Collection[int] | None = None) -> BoolArray:
        """bool [L], the layers with a parameter that requires a gradient and whose id is in ``only``; None is all.

        As of the latest :meth:`collect`.
        """
        rows = [row for p, row in self.parameters() if row >= 0 and p.requires_grad and (only is None or id(p) in only)]
        found = np.zeros(len(self.layers), np.bool_)
        found[rows] = True
        return found

    def named_parameters(self) -> dict[str, Tensor]:
        """Every parameter that can have a gradient, watched or not, by its full name, in the model's order."""
        return {self.paths[id(p)]: p for p, row in self.parameters() if row != _NONE}

    def _look_again(self) -> tuple[list[Tensor | None], list[int]]:
        """At the modules as they are now."""
        return _look([module for reference in self._modules if (module := reference()) is not None])

    def watched_ids(self) -> set[int]:
        """The ids of the parameters watched, valid while the model holds them."""
        return {i for i, row in zip(self._structure, self._rows) if row >= 0}

    def _check(self, model: nn.Module) -> None:
        fsdp = fsdp_parameters(model)
        names = list(dict.fromkeys(name for place in places(model) for name in self._names(place, fsdp) if name))
        if not names:
            raise ValueError(f"model: {type(model).__name__} has no parameters, so there is no gradient to watch")
        check_patterns("include", self._include or (), names)
        check_patterns("exclude", self._exclude or (), names)
        if not any(map(self._watched, names)):
            raise ValueError(f"include={self._include} and exclude={self._exclude} leave no layer to watch")

    def _find(self, model: nn.Module) -> None:
        kinds: dict[str, str] = {}
        members: dict[str, list[tuple[str, Tensor]]] = {}
        index: dict[str, int] = {}
        slots: list[tuple[Tensor, int]] = []
        seen: set[int] = set()
        fsdp = fsdp_parameters(model)
        named = [(place, self._names(place, fsdp)) for place in places(model)]
        watched = {
            id(p)
            for place, names in named
            for p, name in zip(place.module._parameters.values(), names)
            if name and self._watched(name)
        }
        rows: list[int] = []
        self.paths = {}
        for place, names in named:
            for (key, p), name in zip(place.module._parameters.items(), names):
                included = bool(name) and self._watched(name)
                if p is None or not name or id(p) in seen or (id(p) in watched and not included):
                    rows.append(_NONE)
                    continue
                seen.add(id(p))
                self.paths[id(p)] = join(place.path, key)
                if included:
                    kinds.setdefault(name, place.kind)
                    members.setdefault(name, []).append((join(place.path, key), p))
                rows.append(index.setdefault(name, len(index)) if included else NOT_WATCHED)
                slots.append((p, rows[-1]))
        modules = [place.module for place, _ in named]
        self._modules, self._rows = [weakref.ref(module) for module in modules], rows
        _, self._structure = _look(modules)
        self._lazy = any(is_lazy(p) for parameters in members.values() for _, p in parameters)
        self.layers = tuple(
            Layer(
                name,
                kinds[name],
                numel=sum(fsdp[id(p)].numel if id(p) in fsdp else _numel(p) for _, p in parameters),
                parameters=tuple(full_name for full_name, _ in parameters),
            )
            for name, parameters in members.items()
        )
        self.names = tuple(members)
        self.numel = np.array([layer.numel for layer in self.layers], np.float64)
        outputs = [sum(_outputs(p, kinds[name]) for _, p in parameters) for name, parameters in members.items()]
        self.outputs = np.array(outputs, np.float64)
        wide = any(p.dtype in (torch.float64, torch.complex128) for p, _ in slots)
        self.norm_dtype = torch.float64 if wide else torch.float32
        self.version += 1
        self.sharding = sharding_of([p for p, _ in slots], [row for _, row in slots], fsdp)

    def _names(self, place: Place, fsdp: Container[int]) -> list[str]:
        """The layer name of each of the module's own parameters, "" for one that cannot have a gradient."""
        by_parameter = self._granularity == "parameter"
        return [
            "" if not can else join(place.path, key) if by_parameter else place.layer
            for key, p in place.module._parameters.items()
            # Of a sharded parameter this rank may hold no element, and others some.
            for can in [id(p) in fsdp or _can_have_gradient(p)]
        ]

    def _watched(self, name: str) -> bool:
        included = self._include is None or matches(name, self._include)
        return included and not (self._exclude and matches(name, self._exclude))


def check_granularity(granularity: object) -> None:
    """Raise ValueError when it is none of GRANULARITIES."""
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be 'layer' or 'parameter', got {granularity!r}")


def _look(modules: Sequence[nn.Module]) -> tuple[list[Tensor | None], list[int]]:
    """Every parameter of ``modules``, and their structure: the identity of each parameter and child, and how many of
    both each module has. At each step this reads what lies all over the memory, most of what :meth:`collect` costs.
    """
    parameters_of = [module._parameters for module in modules]
    children_of = [module._modules for module in modules]
    parameters: list[Tensor | None] = [p for named in parameters_of for p in named.values()]
    children = [child for named in children_of for child in named.values()]
    return parameters, [*map(id, parameters), *map(id, children), *map(len, parameters_of), *map(len, children_of)]


class Place(NamedTuple):
    """A module, its path without the names of wrappers, and the layer that its own parameters belong to."""

    module: nn.Module
    path: str
    layer: str
    kind: str


def places(root: nn.Module) -> Iterator[Place]:
    """Each module once, in the order of ``named_modules()``."""
    seen: set[int] = set()

    def walk(module: nn.Module, path: str, layer: str, kind: str) -> Iterator[Place]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield Place(module, path, layer, kind)
        for name, child in module._modules.items():
            if child is None:
                continue
            if _is_wrapper(module, name):
                yield from walk(child, path, layer, _kind(child))
            elif name == "parametrizations" or ".parametrizations" in f".{path}":
                yield from walk(child, join(path, name), layer, kind)  # parts of the layer that they parametrize
            else:
                child_path = join(path, name)
                yield from walk(child, child_path, child_path, _kind(child))

    return walk(root, "", _kind(_unwrapped(root)), _kind(_unwrapped(root)))


def _numel(p: Tensor) -> int:
    return 0 if is_lazy(p) else p.numel()


def _outputs(p: Tensor, kind: str) -> int:
    """The number of outputs; of a table that is looked up, whose elements are about 1 each, that of elements."""
    if is_lazy(p) or p.ndim == 0:
        return 1
    return p.numel() if kind.startswith("Embedding") else p.shape[0]


def _can_have_gradient(p: Tensor | None) -> bool:
    return p is not None and not p.is_meta and (is_lazy(p) or p.numel() > 0)


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
    if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):  # fully_shard() makes a class of its own
        name = name.removeprefix("FSDP")
    return name.removeprefix("Parametrized")


def join(path: str, name: str) -> str:
    """The full name of what a module at ``path`` calls ``name``; the root's path is empty."""
    return f"{path}.{name}" if path else name
