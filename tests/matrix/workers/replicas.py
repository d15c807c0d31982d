"""Cases in which every rank holds the whole model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.matrix.workers.registry import case
from tests.matrix.workers.training import LEARNING_RATE, MOMENTUM, TRAININGS
from tests.matrix.workers.watched import train


def ddp(name: str, **settings: Any) -> DistributedDataParallel:
    return DistributedDataParallel(TRAININGS[name].model(), **settings)


def average_by_hand(model: nn.Module) -> None:
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@case(2, 4)
def ddp_plain() -> Any:
    return train("net", ddp("net"))


@case(2)
def ddp_hooked() -> Any:
    return train("net", ddp("net"), hooked=True)


@case(2)
def ddp_no_sync() -> Any:
    def all_but_the_last(model: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else model.no_sync()

    return train("net in micro-batches", ddp("net in micro-batches"), accumulate=all_but_the_last)


@case(2, 4)
def ddp_unused() -> Any:
    return train("branches", ddp("branches", find_unused_parameters=True))


@case(2)
def ddp_bucket_views() -> Any:
    return train("net", ddp("net", gradient_as_bucket_view=True))


@case(2)
def ddp_static_graph() -> Any:
    return train("net", ddp("net", static_graph=True))


@case(2)
def ddp_tied() -> Any:
    return train("tied", ddp("tied"))


@case(2)
def averaged_by_hand() -> Any:
    return train("net", TRAININGS["net"].model(), after_backward=average_by_hand)


@case(2)
def zero_redundancy() -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns of torch.jit, so not where tests are collected

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=LEARNING_RATE, momentum=MOMENTUM)

    return train("net", ddp("net"), optimizer=optimizer, hooked=True)
