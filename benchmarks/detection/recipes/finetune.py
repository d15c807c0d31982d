"""Fine-tuning a perceptron that learned the digits in a mirror, on the digits as they are, with most of it held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.task import Task

WIDTH = 128


def finetune(seed: int, *, method: str = "lora", **loop: Any) -> Task:
    """One of ``METHODS``, from the same pre-trained weights for every seed.

    Args:
        seed: of what is new, and of batches.
        method: its name.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    model = _perceptron()
    model.load_state_dict(pretrained())
    model[-1].reset_parameters()
    METHODS[method](model)
    trained = [p for p in model.parameters() if p.requires_grad]
    task = supervised(model, packaged("digits"), seed, **loop, parameters=trained)
    if method == "gradual":
        task.scheduler = Unfreezing(model, task.steps)
    return task


@cache
def pretrained() -> Mapping[str, Tensor]:
    """Weights that tell the digits apart in a mirror."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, digits = _perceptron(), packaged("digits")
        mirrored = digits.x.view(-1, 8, 8).flip(2).flatten(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(mirrored), digits.y).backward()
            optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


class LowRank(nn.Module):
    """A linear layer that is held, and a product of two small matrices, the second zero at first (Hu et al., 2022)."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))


class Adapter(nn.Module):
    """A bottleneck after a layer that is held, zero at first (Houlsby et al., 2019)."""

    def __init__(self, base: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.adapter = nn.Sequential(nn.Linear(base.out_features, rank), nn.GELU(), nn.Linear(rank, base.out_features))
        nn.init.zeros_(self.adapter[-1].weight)
        nn.init.zeros_(self.adapter[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.base(x)
        return h + self.adapter(h)


class Unfreezing:
    """One layer more from the end at each quarter of the run (Howard and Ruder, 2018); stepped as a scheduler."""

    def __init__(self, model: nn.Sequential, steps: int) -> None:
        self._layers = [layer for layer in model if isinstance(layer, nn.Linear)]
        self._every, self._done = max(1, steps // len(self._layers)), 0
        self._hold()

    def step(self) -> None:
        self._done += 1
        self._hold()

    def _hold(self) -> None:
        held = len(self._layers) - 1 - self._done // self._every
        for i, layer in enumerate(self._layers):
            layer.requires_grad_(i >= held)


def _wrapped(wrapper: Callable[[nn.Linear], nn.Module]) -> Callable[[nn.Sequential], None]:
    def wrap(model: nn.Sequential) -> None:
        for i, layer in enumerate(model[:-1]):
            if isinstance(layer, nn.Linear):
                model[i] = wrapper(layer)

    return wrap


def _trained(chosen: Callable[[str], bool]) -> Callable[[nn.Sequential], None]:
    def hold(model: nn.Sequential) -> None:
        for name, p in model.named_parameters():
            p.requires_grad = chosen(name)

    return hold


HEAD = "6."
METHODS: Mapping[str, Callable[[nn.Sequential], None]] = {
    "lora": _wrapped(LowRank),
    "adapter": _wrapped(Adapter),
    "head": _trained(lambda name: name.startswith(HEAD)),
    "last_layers": _trained(lambda name: name.startswith(("4.", HEAD))),
    "first_held": _trained(lambda name: not name.startswith("0.")),
    "biases": _trained(lambda name: name.endswith("bias") or name.startswith(HEAD)),  # Ben Zaken et al., 2022
    "gradual": _trained(lambda name: True),
}


def _perceptron() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU())
    for _ in range(2):
        model.extend([nn.Linear(WIDTH, WIDTH), nn.ReLU()])
    return model.append(nn.Linear(WIDTH, 10))
