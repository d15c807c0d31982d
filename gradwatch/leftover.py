"""Leftover: whether a step's gradients were added to those of the step before, as nothing set them to zero."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gradwatch.closeup import spread
from gradwatch.sampled import thinned

FEW = 4
"""Parameters that are listened to: one that no optimizer has is never zeroed, and harms nobody."""

LARGE = 65_536
"""Elements of a parameter that is not, if there are others: while a hook has a gradient, ``.grad`` becomes a copy."""


class Leftover:
    """Looks at a few parameters in every backward pass of one step: what is there before more is added to it?

    Zero once is enough: of accumulated gradients the first pass tells, and where a generator's loss went through a
    discriminator, that the latter's were zeroed later on. What is not added to ``.grad``, as by
    ``torch.autograd.grad``, does not count.

    Example:
        >>> weight, leftover = torch.ones(2, requires_grad=True), Leftover()
        >>> weight.sum().backward()
        >>> leftover.arm([weight])
        >>> weight.sum().backward()  # the step after, without zero_grad()
        >>> leftover.take()
        True
    """

    def __init__(self) -> None:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._heard: list[_Heard] = []

    def arm(self, parameters: Sequence[Tensor]) -> None:
        """Listen to a few of ``parameters`` whose gradient is dense; nothing where there is none, or it is done."""
        if self._handles:
            return
        dense = [p for p in parameters if p.is_leaf and p.requires_grad and _is_dense(p.grad)]
        for p in spread([p for p in dense if p.numel() <= LARGE] or dense, FEW):
            heard = _Heard()
            self._heard.append(heard)
            self._handles.append(p.register_hook(partial(_listen, heard, weakref.ref(p))))  # type: ignore[no-untyped-call]
            self._handles.append(p.register_post_accumulate_grad_hook(partial(_confirm, heard)))  # type: ignore[no-untyped-call]

    def take(self) -> bool | None:
        """What was heard since :meth:`arm`, from the device it is on; None where nothing was added to any gradient."""
        found = [heard.always for heard in self._heard if heard.always is not None]
        self.close()
        return all(map(bool, found)) if found else None

    def close(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._heard = [], []

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


@dataclass
class _Heard:
    """Of one parameter, tensors of one bool on its device."""

    now: Tensor | None = None
    """Whether there was a gradient before the one that has arrived."""
    always: Tensor | None = None
    """Whether there was in every pass so far."""


def _is_dense(gradient: Tensor | None) -> bool:
    return gradient is not None and gradient.layout is torch.strided


def _listen(heard: _Heard, parameter: weakref.ref[Tensor], added: Tensor) -> None:
    """As a hook of the parameter, which comes before ``added`` is."""
    p = parameter()
    if p is None or torch.compiler.is_compiling():
        return
    with contextlib.suppress(Exception), torch.no_grad():
        heard.now = torch.zeros((), dtype=torch.bool, device=p.device) if p.grad is None else thinned(p.grad).any()


def _confirm(heard: _Heard, parameter: Tensor) -> None:
    """As a hook that comes after it was added."""
    if heard.now is not None:
        heard.always, heard.now = heard.now if heard.always is None else heard.always & heard.now, None
