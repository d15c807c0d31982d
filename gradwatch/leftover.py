"""Leftover: whether a step's gradients were added to those of the step before, as nothing set them to zero."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gradwatch.closeup import spread
from gradwatch.sampled import thinned
from gradwatch.torch_internals import has_compiled_backward

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
        found = [heard.always for heard in self._heard]
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
        self._there: Tensor | None = None
        """Whether there was a gradient when the latest one arrived: one bool on its device."""
        self.always: Tensor | None = None
        """Whether there was one whenever another was added; None where none was."""
        self._handles = [
            parameter.register_hook(partial(_listen, weakref.ref(self), _Heard.arrives)),  # type: ignore[no-untyped-call]
            parameter.register_post_accumulate_grad_hook(partial(_listen, weakref.ref(self), _Heard.is_added)),  # type: ignore[no-untyped-call]
        ]

    def arrives(self) -> None:
        """A gradient has, and is not added yet."""
        if (p := self._parameter()) is not None:
            zero = torch.zeros((), dtype=torch.bool, device=p.device)
            self._there = zero if p.grad is None else thinned(p.grad).any()

    def is_added(self) -> None:
        """What has arrived is; that of ``torch.autograd.grad`` never is."""
        if self._there is not None:
            self.always = self._there if self.always is None else self.always & self._there

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        p = self._parameter()
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if p is not None and not getattr(p, name):
                setattr(p, name, None)  # an empty dict would be asked in every backward pass


def _has_dense(p: Tensor) -> bool:
    return p.is_leaf and p.requires_grad and p.grad is not None and p.grad.layout is torch.strided


def _listen(listener: weakref.ref[_Heard], happens: Callable[[_Heard], None], _: Tensor) -> None:
    """As a hook of the parameter, which must not keep whoever listens."""
    heard = listener()
    if heard is not None and not torch.compiler.is_compiling():
        with contextlib.suppress(Exception), torch.no_grad():
            happens(heard)
