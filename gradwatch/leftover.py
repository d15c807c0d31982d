"""Leftover: whether a step's gradients were added to those of the step before, as nothing set them to zero."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gradwatch.sampled import thinned

LARGE = 65_536
"""Elements of a parameter."""


class Leftover:
    """Looks at one parameter in every backward pass of one step: what is its gradient before more is added to it?

    Zero in one of them is enough: of accumulated gradients the first pass tells, and where a generator's loss went
    through a discriminator, that the latter's were zeroed later on.

    Example:
        >>> weight, leftover = torch.ones(2, requires_grad=True), Leftover()
        >>> weight.sum().backward()
        >>> leftover.arm([weight])
        >>> weight.sum().backward()  # the step after, without zero_grad()
        >>> leftover.take()
        True
    """

    def __init__(self) -> None:
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._seen: list[Tensor] = []

    def arm(self, parameters: Sequence[Tensor]) -> None:
        """Listen to the last of ``parameters`` whose gradient is dense; nothing where there is none, or it is done.

        Not to a large one, if another is there: while a hook has a gradient, torch makes ``.grad`` of a copy.
        """
        dense = [p for p in parameters if p.is_leaf and p.grad is not None and p.grad.layout is torch.strided]
        if self._handle is None and dense:
            chosen = max(dense[::-1], key=lambda p: p.numel() <= LARGE)
            listen = partial(_listen, self._seen, weakref.ref(chosen))
            self._handle = chosen.register_hook(listen)  # type: ignore[no-untyped-call]

    def take(self) -> bool | None:
        """What was seen since :meth:`arm`, from the device it is on; None where no backward pass was."""
        seen = self._seen
        self.close()
        return all(map(bool, seen)) if seen else None

    def close(self) -> None:
        """Listen no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._seen = None, []


def _listen(seen: list[Tensor], parameter: weakref.ref[Tensor], added: Tensor) -> None:
    """As a hook of the parameter, which comes before ``added`` is."""
    p = parameter()
    if p is None or torch.compiler.is_compiling():
        return
    with contextlib.suppress(Exception), torch.no_grad():
        seen.append(torch.zeros(()) if p.grad is None else thinned(p.grad).any())
