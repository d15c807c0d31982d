"""Whether a loss is given what it does not take: the gradient that it asks of the outputs tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gradwatch.one_target import one_target
from gradwatch.output_error import CLASSES, error_of_classes, error_of_labels
from gradwatch.records import MISTAKES

MOST = 1 << 14
"""Elements that are looked at, from the first example on."""

EXACT = 1e-5
"""Share of the gradient's square that may be otherwise than a mistake makes it; float32 rounds to 1e-12 of it."""

OTHERWISE, TIMES = 1e-6, 1e3
"""Least share that is otherwise than a loss which is no mistake would make it, and how often what is otherwise than the
mistake does. With nearly the same outputs for all classes both are alike, and nothing is told."""

WRONG = 1e-3
"""Root mean square of p - y from which it is no rounding: where all is learned, the gradient is little else."""

STEEPNESS = 4.0
"""What a sigmoid divides small logits by: to divide them by it on purpose, as a temperature, is no mistake."""


class Told(NamedTuple):
    """What a gradient tells of the loss, 0-dim each."""

    mistake: Tensor
    """Its place in MISTAKES, NaN where none is told."""
    error: Tensor
    """How far off the outputs are all the same, as :func:`~gradwatch.output_error.output_error` has it; likewise."""


class _Squash(NamedTuple):
    name: str
    apply: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], Tensor]
    """From its output, and the gradient with respect to that, the gradient with respect to its input."""


_ELEMENTWISE = (
    _Squash("sigmoid", torch.sigmoid, lambda s, v: s * (1 - s) * v),
    _Squash("tanh", torch.tanh, lambda t, v: (1 - t * t) * v),
    _Squash("relu", torch.relu, lambda r, v: (r > 0) * v),
)


def _behind_softmax(p: Tensor, v: Tensor, dim: int = 1) -> Tensor:
    """From the gradient ``v`` with respect to a softmax ``p`` that with respect to its input."""
    return p * (v - (p * v).sum(dim, keepdim=True))


@torch.no_grad()
def loss_mismatch(outputs: Tensor, gradient: Tensor) -> Told:
    """Which of MISTAKES a loss is, by its gradient with respect to the last layer's output.

    ``CrossEntropyLoss`` and ``BCEWithLogitsLoss`` take logits, and apply a softmax or a sigmoid by themselves. Where
    the outputs have been through one already, the probabilities stay close to each other: the loss cannot come near
    zero, and the gradient is small where it should be large. The gradient then is (q - y) passed back through that
    activation, with q the second softmax; so y is known from it, and whether it was so at all, also where classes have
    weights. The same is asked of a binary one with labels that are not 0 and 1, of a loss that is negated, of a
    softmax over the examples where outputs are [N, C], and of ``NLLLoss``, which takes log-probabilities. Squared
    errors behind the same activations are no mistake, and where the gradient could be theirs, nothing is told.

    Of a single output it is also asked whether targets broadcast, see :func:`~gradwatch.one_target.one_target`.

    Args:
        outputs: logits [N, C], [N, C, ...] or [N, ..., C] for classes, or of any shape for labels.
        gradient: of the loss with respect to them.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.5, 3.0]], requires_grad=True)
        >>> torch.nn.functional.cross_entropy(logits.softmax(1), torch.tensor([0, 1])).backward()
        >>> MISTAKES[int(loss_mismatch(logits, logits.grad).mistake)]
        'softmax'
    """
    rows = MOST // max(1, outputs[:1].numel())
    z, g = outputs[:rows].float(), gradient[:rows].float()
    if z.numel() < 2:  # also where a single example is too large
        nothing = torch.full((), torch.nan, device=z.device)
        return Told(nothing, nothing)
    columns = z.shape[-1] if z.ndim > 1 else 1
    found = [_of_labels(z.reshape(-1, columns), g.reshape(-1, columns))]
    for dim in sorted({1, z.ndim - 1}) if z.ndim > 1 else ():
        if 2 <= z.shape[dim] <= CLASSES:
            found.append(_of_classes(*(t.movedim(dim, -1).flatten(0, -2) for t in (z, g))))
    mistakes, errors, rests, others = (torch.stack(column) for column in zip(*found))
    least, other = rests.min(0), others.min()
    is_told = (least.values < EXACT) & (other > OTHERWISE) & (other > TIMES * least.values)
    mistake, error = (torch.where(is_told, told.take(least.indices), torch.nan) for told in (mistakes, errors))
    if columns == 1:
        is_one = torch.isnan(mistake) & one_target(z.flatten(), g.flatten()) & (other > OTHERWISE)
        mistake = torch.where(is_one, MISTAKES.index("broadcast"), mistake)
    for number in (gradient.numel(), 1):  # of a mean, and of a sum
        is_odd = torch.isnan(mistake) & _has_odd_labels(z, g * number)
        mistake = torch.where(is_odd, MISTAKES.index("labels"), mistake)
    if gradient.dtype is torch.float16:  # where all that is left of a cross entropy's is that of the right class
        mistake = torch.where(mistake == MISTAKES.index("raw"), torch.nan, mistake)
    return Told(mistake, error)


class _Fit(NamedTuple):
    """The mistake that fits best, by a way to read the outputs, 0-dim each."""

    mistake: Tensor
    error: Tensor
    rest: Tensor
    """Share of the gradient's square that is otherwise."""
    other: Tensor
    """The same of what is no mistake."""


class _Guess(NamedTuple):
    """What a loss may be."""

    gradient: Tensor
    """That it leads to, [N, C] or [N, 1], but for a factor: one of each class, which may have a weight."""
    y: Tensor
    """The classes [N, C], or labels [N, 1], that it is the gradient for."""
    name: str = ""
    """Of the mistake that it is."""


def _of_classes(z: Tensor, g: Tensor) -> _Fit:
    """Of a softmax's: [N, C] each. An example that is masked has no gradient."""
    used = (g != 0).any(1, keepdim=True)
    p, of_examples = z.softmax(1), z.softmax(0)
    tiny = torch.finfo(p.dtype).tiny
    right, wrong = _least(g) * (g < 0), _least(-g)
    # Behind a softmax all share what the class loses, each by its probability.
    shared = _least(g / p.clamp(min=tiny))
    # Behind one over the examples, all that are of another class do.
    each = g / of_examples.clamp(min=tiny)
    less = each - each.amax(0)
    among, shared_out = _least(of_examples * less), _least(less)
    are_logarithms = (z.logsumexp(1).abs() < LOGARITHMS).all()  # of probabilities, as that loss takes them
    # Of one that is right to the last bit no gradient is below 0.
    known = torch.where(right.any(1, keepdim=True), right, _least(-p))
    likely = (p * wrong).sum(1, keepdim=True)
    guesses = [
        _Guess(p - known, known),
        _Guess((z / STEEPNESS).softmax(1) - right, right),
        _Guess(_behind_softmax(p, p - shared), shared),
        _Guess(wrong - (-z).softmax(1), wrong),  # of distances, the least of which is the likeliest
        _Guess(likely / (1 - likely) * (wrong - p), wrong),  # of classes that it is not
        _Guess(_behind_softmax(p, p.softmax(1) - shared), shared, "softmax"),
        _Guess(wrong - p, wrong, "sign"),
        _Guess(torch.where(are_logarithms, torch.nan, -right), right, "raw"),
        _Guess(_behind_softmax(p, -right), right, "probabilities"),
        # Where every example is a class of its own, it is told from all others: a contrast.
        _Guess(torch.where(among.sum(0).amax() > 1, among.sum(0) * of_examples - among, torch.nan), among, "examples"),
        _Guess(
            _behind_softmax(of_examples, of_examples.softmax(1) - shared_out, dim=0), shared_out, "softmax of examples"
        ),
    ]
    for squash in _ELEMENTWISE:
        a = squash.apply(z)
        guesses.append(_Guess(squash.pull(a, a - right), right))
        guesses.append(_Guess(squash.pull(a, a.softmax(1) - right), right, squash.name))
    several = {guess.name: ((guess.y * used) > 0).any(0).sum() > 1 for guess in guesses}
    errors = {guess.name: error_of_classes(z, guess.y, used[:, 0] & guess.y.any(1)) for guess in guesses if guess.name}
    return _best(g, used, p - known, guesses, several, errors)


def _of_labels(z: Tensor, g: Tensor) -> _Fit:
    """Of sigmoids: [N, K] each, N examples of K labels."""
    shape = z.shape
    z, g = z.reshape(-1, 1), g.reshape(-1, 1)
    used, y = g != 0, (g < 0).float()
    p = z.sigmoid()
    # What is masked otherwise has no gradient either, but not exactly where a ReLU gives zero.
    behind_relu = (used == (z > 0)).all() & ~used.all()
    guesses = [
        _Guess(torch.where(behind_relu, torch.nan, p - y), y),
        _Guess(p - (2 * y - 1), y, "labels"),
        _Guess((1 - y) - p, 1 - y, "sign"),
    ]
    for squash in _ELEMENTWISE:
        a = squash.apply(z)
        guesses += [_Guess(squash.pull(a, a - label), y) for label in (y, 2 * y - 1)]
        guesses.append(_Guess(squash.pull(a, a.sigmoid() - y), y, squash.name))
    several = {guess.name: (used & (guess.y > 0)).any() & (used & (guess.y == 0)).any() for guess in guesses}
    whole = z.view(shape), used.view(shape)
    errors = {guess.name: error_of_labels(whole[0], guess.y.view(shape), whole[1]) for guess in guesses if guess.name}
    return _best(g, used, p - y, guesses, several, errors)


def _has_odd_labels(z: Tensor, g: Tensor) -> Tensor:
    """0-dim, whether ``g`` is the gradient of a binary cross entropy whose labels are whole numbers, not all 0 or 1.

    Outputs that are certain, or all the same, tell nothing: whole numbers come of other losses too.
    """
    p = z.sigmoid()
    labels = p - g
    are_whole = ((labels - labels.round()).abs() < ROUNDING).all() & (labels.abs() < LABELS).all()
    is_open = (p - 0.5).abs() < OPEN
    differ = torch.where(is_open, p, 0.0).amax() - torch.where(is_open, p, 1.0).amin() > 1 - 2 * OPEN
    return are_whole & differ & ((labels < -0.5) | (labels > 1.5)).any()


ROUNDING = 1e-3
"""By which a label that is a whole number may be off, of one in float32."""

LOGARITHMS = 1e-2
"""By how much the logarithm of a sum of probabilities may be off 0."""

LABELS = 1e4
"""What labels are below, as those of pixels; float32 has nothing but whole numbers from ten million on."""

OPEN = 0.45
"""Distance of a probability from a half up to which it is not certain."""


def _best(
    g: Tensor,
    used: Tensor,
    wrong_by: Tensor,
    guesses: list[_Guess],
    several: dict[str, Tensor],
    errors: dict[str, Tensor],
) -> _Fit:
    """How ``g`` fits what is guessed, where it is of ``several`` classes."""
    one = torch.ones((), device=g.device)
    several["sign"] = several["sign"] & used.all()  # some have no reward where others have one of -1
    rests = {m.name: torch.where(several[m.name], _rest(g, used, m), one) for m in guesses if m.name}
    least, place = torch.stack([rests.get(name, one) for name in MISTAKES]).min(0)
    other = torch.stack([_rest(g, used, guess) for guess in guesses if not guess.name]).min()
    error = torch.stack([errors.get(name, one) for name in MISTAKES]).take(place)
    is_known = (used * wrong_by).square().mean().sqrt() > WRONG
    return _Fit(place.float(), error, torch.where(is_known, least, one), other)


def _rest(g: Tensor, used: Tensor, guess: _Guess) -> Tensor:
    """Share of the square of ``g`` that is no multiple, above 0, of what is guessed."""
    found = used * guess.gradient
    kinds = torch.cat([guess.y, 1 - guess.y.sum(1, keepdim=True)], dim=1)
    if guess.name == "sign":  # what is rewarded by -1 may be so for some classes more than for others
        kinds = torch.ones_like(kinds[:, :1])
    along = (kinds * (g * found).sum(1, keepdim=True)).sum(0)
    size = (kinds * found.square().sum(1, keepdim=True)).sum(0)
    factor = torch.where(size > 0, along / size, 0.0)
    rest = (g - (kinds * factor).sum(1, keepdim=True) * found).square().sum() / g.square().sum()
    return torch.where(((factor > 0) | (size == 0)).all() & torch.isfinite(rest), rest, 1.0)


def _least(of: Tensor) -> Tensor:
    """[N, C], 1 at the least of each example and else 0."""
    return torch.zeros_like(of).scatter_(1, of.argmin(1, keepdim=True), 1.0)
