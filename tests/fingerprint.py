"""Everything that training leaves behind, in a form that is equal only where every bit is."""

from __future__ import annotations

import hashlib
import random
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Print = dict[str, Any]


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None) -> Print:
    """The state of a training as a dict that can be compared: where two differ, the key says in what."""
    parameters = dict(model.named_parameters())
    return {
        "parameters": printed(parameters),
        "requires_grad": {name: p.requires_grad for name, p in parameters.items()},
        "gradients": printed({name: p.grad for name, p in parameters.items()}),
        "buffers": printed(dict(model.named_buffers())),
        "optimizer": printed(optimizer.state_dict()),
        "scaler": printed(scaler.state_dict() if scaler is not None else None),
        "random": printed([torch.get_rng_state(), np.random.get_state(), random.getstate()]),
        "training": {name: module.training for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "hooks": {name: hook_counts(module) for name, module in model.named_modules()}
        | {name: hook_counts(p) for name, p in parameters.items()},
        "settings": settings(),
    }


def differences(ours: Sequence[Print], theirs: Sequence[Print]) -> list[str]:
    """Where two trainings differ, each with a fingerprint per step; nothing where every bit is equal."""
    return [
        f"fingerprint {number}: {part}: {mine.get(part)} is not {other.get(part)}"
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        for part in {**mine, **other}
        if mine.get(part) != other.get(part)
    ]


def settings() -> Print:
    """Of the process."""
    return {
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "warnings": [repr(warning_filter) for warning_filter in warnings.filters],
        "numpy": np.geterr(),
        "global hooks": {
            name: len(hooks)
            for part in map(sys.modules.get, (nn.Module.__module__, torch.optim.Optimizer.__module__))
            for name, hooks in vars(part).items()
            if name.startswith("_global") and isinstance(hooks, dict)
        },
    }


def hook_counts(thing: Any) -> dict[str, int]:
    """How many hooks of each kind a module, parameter or optimizer has."""
    names = [name for name in dir(thing) if name.endswith("_hooks") and not name.startswith("__")]
    hooks = {name: getattr(thing, name) for name in names}
    return {name: len(found) for name, found in hooks.items() if isinstance(found, dict)}


def identities(tensors: Iterable[Tensor | None]) -> list[Any]:
    """Which tensors these are, where they lie, how often they were written to, and what is in them."""
    return [None if t is None else (id(t), t.data_ptr(), t._version, printed(t)) for t in tensors]


def printed(value: Any) -> Any:
    """``value`` with a digest in place of each array, and pairs in place of each mapping: order counts."""
    if isinstance(value, Tensor):
        stored = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        return value.dtype, tuple(value.shape), value.stride(), value.storage_offset(), _digest(stored)
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, _digest(value)
    if isinstance(value, Mapping):
        return [(key, printed(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return _digest(np.array(value)) if len(value) > 100 else [printed(item) for item in value]
    return value.hex() if isinstance(value, float) else value  # NaN is not equal to itself


def _digest(array: np.ndarray) -> str:
    return hashlib.sha1(array.tobytes()).hexdigest()
