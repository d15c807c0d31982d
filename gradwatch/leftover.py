"""Leftover: whether a step's gradients were added to those of the step before, as nothing set them to zero."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gradwatch.closeup import spread
from gradwatch.compiling import has_compiled_backward
from gradwatch.sampled import thinned

FEW = 4
"""Parameters that are listened to: one that no optimizer has is never zeroed, and harms nobody."""


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
        self._heard: list[_Heard] = []

    def arm(self, parameters: Sequence[Tensor]) -> None:
        """Listen to a few of ``parameters`` whose gradient is dense; nothing where there is none, or it is done."""
        if not self._heard and not has_compiled_backward():
            self._heard = [_Heard(p) for p in spread([p for p in parameters if _has_dense(p)], FEW)]

    def take(self) -> bool | None:
        """What was heard since :meth:`arm`, from the device it is on; None where nothing was added to any gradient."""
        found = [heard.added_to for heard in self._heard]
        self.close()
        known = [bool(one) for one in found if one is not None]
        return all(known) if known else None

    def close(self) -> None:
        """Listen no more."""
        for heard in self._heard:
            heard.close()
        self._heard = []

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class _Heard:
    """One parameter's passes. The node that adds would tell as well, but who keeps one keeps the parameter alive."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = weakref.ref(parameter)
        self._always: Tensor | None = None
        """Whether there was a gradient before every pass so far: one bool on its device."""
        self._before: tuple[weakref.ref[Tensor], int] | None = None
        """The gradient that the latest pass found, and how often it had been written to; None of none."""
        self._handle = parameter.register_hook(partial(_listen, weakref.ref(self)))  # type: ignore[no-untyped-call]

    def listen(self) -> None:
        """A gradient has arrived, and is not added yet."""
        p = self._parameter()
        if p is not None and not torch.compiler.is_compiling():
            gradient = p.grad
            found = torch.zeros((), dtype=torch.bool, device=p.device) if gradient is None else thinned(gradient).any()
            self._always = found if self._always is None else self._always & found
            self._before = None if gradient is None else (weakref.ref(gradient), gradient._version)

    @property
    def added_to(self) -> Tensor | None:
        """Whether every pass has added to what was there; None where there was none, or it was put there otherwise."""
        p = self._parameter()
        if p is None or self._before is None:
            return self._always
        gradient, version = self._before
        return self._always if gradient() is p.grad and p.grad is not None and p.grad._version > version else None

    def close(self) -> None:
        self._handle.remove()
        p = self._parameter()
        if p is not None and not p._backward_hooks:
            p._backward_hooks = None  # an empty dict would be asked in every backward pass


def _has_dense(p: Tensor) -> bool:
    return p.is_leaf and p.requires_grad and p.grad is not None and p.grad.layout is torch.strided


def _listen(listener: weakref.ref[_Heard], arrived: Tensor) -> None:
    """As a hook of the parameter, which must not keep whoever listens."""
    heard = listener()
    if heard is not None:
        with contextlib.suppress(Exception), torch.no_grad():
            heard.listen()
