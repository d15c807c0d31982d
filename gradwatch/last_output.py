"""The gradient at the output of the layer nearest to the loss, where it follows the training error."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradwatch.loss_mismatch import loss_mismatch
from gradwatch.off_target import off_target
from gradwatch.out_of_reach import out_of_reach, reach
from gradwatch.output_error import output_error
from gradwatch.stats import wide
from gradwatch.torch_internals import has_compiled_backward

MOST = 1 << 20
"""Elements of which it is asked whether they have one size."""


class OfOutputs(NamedTuple):
    """What one step showed of the last layer's outputs, over all calls, and of the model's; NaN where it is unknown."""

    output_gradient: float
    """L2 norm of the gradient with respect to the last layer's. NaN for a loss whose gradient has one size however far
    off they are, as the mean absolute error's."""
    output_error: float
    """Of a cross entropy, see :func:`~gradwatch.output_error.output_error`; of the model's where the last layer's tell
    nothing."""
    loss_gradient: float
    """L2 norm of the gradient with respect to the model's own, behind whatever follows its last layer."""
    output_variation: float
    """Share of the mean square of those that differs from example to example, 0 where it is zero."""
    out_of_reach: float
    """See :func:`~gradwatch.out_of_reach.out_of_reach`."""
    loss_mismatch: float
    """See :func:`~gradwatch.loss_mismatch.loss_mismatch`, where all calls whose output is known agree on it."""
    output_scatter: float
    """Of the model's own outputs, see :func:`~gradwatch.off_target.off_target`: the least of all calls, NaN where one
    is not known. Of the last layer's where the model's have no gradient, as where it returns its loss."""
    output_offset: float
    """Likewise, what all examples share."""
    number: float
    """The last layer's."""


class LastOutput:
    """Listens to the outputs of some modules in one step, and remembers the one whose gradient comes first.

    A backward pass begins at the loss, so that is the last layer, whatever follows it without weights and whoever calls
    it. There the gradients of examples do not cancel and no weights scale them: p - y of a cross entropy, the error
    itself of squares.

    Args:
        maximizes: whether the optimizer makes the loss larger, so that the one it makes smaller is this times -1.

    Example:
        >>> net, last = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2)), LastOutput()
        >>> for number, module in enumerate(net):
        ...     handle = module.register_forward_hook(partial(last.listen, number))
        >>> (net(torch.ones(3, 1)) * torch.tensor([3.0, 4.0])).sum().backward()
        >>> found = last.take()
        >>> round(found.output_gradient**2), found.output_error  # 3 * (9 + 16), and no cross entropy
        (75, nan)
    """

    def __init__(self, maximizes: bool = False) -> None:
        self._maximizes = maximizes
        self._heard: dict[int, list[Tensor]] = {}
        self._asked: list[Tensor] = []
        self._outputs: list[tuple[int, Tensor]] = []
        """Of each call of the model, how many examples it had; their mean and that of their squares, flat."""
        self._latest: Tensor | None = None
        """The output of the layer called last, without its graph, unless it is large; else none is kept from being
        freed."""

    def listen(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        """As a forward hook of the module of this number; of several outputs the first counts."""
        value = _first(output)
        if value is not None:
            self._latest = value.detach() if value.numel() <= MOST else None
            value.register_hook(partial(self._hear, number))  # type: ignore[no-untyped-call]

    def listen_to_all(self, module: nn.Module, args: Any, output: Any) -> None:
        """As a forward hook of the model itself, whose output may have gone through an activation behind its layers."""
        value = _first(output)
        if value is not None and value.numel() > 1:  # the gradient of a model's own loss is 1, and tells nothing
            held = (value.detach(), reach(value)) if value.numel() <= MOST else None
            value.register_hook(partial(self._hear_all, held))  # type: ignore[no-untyped-call]
            y = value.detach()[: max(2, MOST // max(1, value[:1].numel()))].float()
            if y.ndim > 1 and y.shape[1] > 1:  # log-probabilities are asked for as much when all is learned
                y = torch.where(y.logsumexp(1, keepdim=True).abs().amax() < ROUNDING, torch.nan, y)
            self._outputs.append((len(y), torch.stack([y.mean(0).flatten(), y.square().mean(0).flatten()])))

    def _hear_all(self, held: tuple[Tensor, tuple[float, float] | None] | None, gradient: Tensor) -> None:
        """As a hook of the model's output, which is held with the reach of what made it, unless it is large."""
        if not torch.compiler.is_compiling():
            with contextlib.suppress(Exception), torch.no_grad():
                norm, alike = _size(gradient)
                beyond = error = scatter = offset = norm * torch.nan
                if held is not None:
                    (output, limits), asked = held, -gradient if self._maximizes else gradient
                    error = output_error(output, asked)
                    beyond = beyond if limits is None else out_of_reach(output, asked, limits)
                    scatter, offset = off_target(output, asked) if output.shape == gradient.shape else (scatter, offset)
                self._asked.append(torch.stack([norm, alike, *(t.to(norm) for t in (beyond, error, scatter, offset))]))

    def _hear(self, number: int, gradient: Tensor) -> None:
        """As a hook of an output."""
        if torch.compiler.is_compiling() or (self._heard and number not in self._heard):
            return
        calls = self._heard.setdefault(number, [])  # whatever comes of the look, this is the last layer
        output, self._latest = self._latest, None
        with contextlib.suppress(Exception), torch.no_grad():
            norm, alike = _size(gradient)
            error, mistake = norm * torch.nan, norm * torch.inf
            scatter = offset = error
            if output is not None and output.ndim and output.shape == gradient.shape:
                asked = -gradient if self._maximizes else gradient
                error, (mistake, its_error) = output_error(output, asked), loss_mismatch(output, asked)
                error = torch.where(torch.isnan(error), its_error, error)
                scatter, offset = off_target(output, asked)
            calls.append(torch.stack([norm, alike, *(t.to(norm) for t in (error, mistake, scatter, offset))]))

    def take(self) -> OfOutputs:
        """What was heard, from the device."""
        of_all = torch.stack(self._asked).tolist() if self._asked else []
        asked, beyond = joined([row[:3] for row in of_all])
        heard = [found for calls in self._heard.values() if calls for found in torch.stack(calls).tolist()]
        mistakes = {found[3] for found in heard if found[3] != float("inf")}
        mistake = mistakes.pop() if len(mistakes) == 1 else float("nan")
        number = next(iter(self._heard), float("nan"))
        scatter, offset = np.min([row[4:] for row in of_all or heard] or [[np.nan] * 2], axis=0).tolist()
        norm, error = joined([row[:3] for row in heard])
        if np.isnan(error):  # as where logits are divided by a temperature
            error = joined([[*row[:2], row[3]] for row in of_all])[1]
        return OfOutputs(norm, error, asked, self._variation(), beyond, mistake, scatter, offset, number)

    def _variation(self) -> float:
        """Of the examples of all calls: a discriminator may see each class in a call of its own."""
        sizes = {moments.shape for _, moments in self._outputs}
        number = sum(examples for examples, _ in self._outputs)
        if len(sizes) != 1 or number < 2:
            return float("nan")
        weighted = torch.stack([moments.double().cpu() * (n / number) for n, moments in self._outputs]).sum(0)
        whole = float(weighted[1].mean())
        alike = float(weighted[0].square().mean()) / whole if whole else 1.0
        return 0.0 if alike > 1 else 1 - alike  # above by rounding; NaN stays


def _first(output: Any) -> Tensor | None:
    """The first of several outputs, where a gradient will come to it that can be listened to."""
    value = output[0] if isinstance(output, tuple) else output
    value = value.data if isinstance(value, PackedSequence) else value
    if not isinstance(value, Tensor) or not value.is_floating_point() or has_compiled_backward():
        return None
    return value if value.requires_grad and not value.is_leaf else None


def _size(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """0-dim, its norm, and the share of its elements that have the largest size; inf where all are zero."""
    norm = torch.linalg.vector_norm(gradient, dtype=wide(gradient))
    size = gradient.detach().reshape(-1)[:MOST].abs()
    alike = torch.count_nonzero(size == size.max()) / torch.count_nonzero(size)
    if gradient.requires_grad:  # of a derivative that the loss is made of
        norm = norm * torch.nan
    return norm, alike.to(norm)


def joined(found: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The L2 norm of several gradients, given of each its norm, how many of its elements have the largest size, and the
    error; and the error of all, as far as it is known.

    Where most elements have one size, it is that however far the outputs are off, as the mean absolute error's.

    >>> joined([[3.0, 0.1, 0.5], [4.0, 1.0, np.nan]])
    (5.0, 0.5)
    >>> joined([[3.0, 1.0, np.nan], [4.0, 0.6, np.nan]])
    (nan, nan)
    >>> joined([[0.0, np.inf, np.nan]])
    (0.0, nan)
    """
    norms, alike, errors = np.asarray(found, np.float64).reshape(-1, 3).T
    told = (alike <= ONE_SIZE).any() or (len(norms) and not norms.any())
    norm = float(np.linalg.norm(norms)) if told else float("nan")
    errors = errors[np.isfinite(errors)]
    return norm, float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")


ROUNDING = 1e-3
"""By which a sum of probabilities may be off 1."""

ONE_SIZE = 0.5
"""Share of the elements that is most of them."""
