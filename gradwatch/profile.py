"""What one probed backward pass showed: operations as they were measured, and the profile along depth made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gradwatch.records import FloatArray

KINDS = (
    "activation",
    "weight",
    "norm",
    "residual",
    "attention",
    "multiply",
    "dropout",
    "pool",
    "embedding",
    "loss",
    "parallel",
    "other",
)
"""What a segment can be; "parallel" is a region of several ways that is none of the others."""

DEEP = frozenset({"weight", "residual", "attention", "parallel"})
"""The kinds that count as a layer of depth."""

ENDS = frozenset({"embedding", "loss", "pool"})
"""Kinds at the ends of a network, that gradients of every network pass once."""

SEVERE = 6.0
"""Log gain of the squared gradient from which depth is a fault, a norm 20 times smaller or larger.

Networks train to a depth of about 6 depth scales (Schoenholz et al., ICLR 2017); of 55 perceptrons 31 of 35 trained
below it with SGD, and 2 of 20 above.
"""


@dataclass(frozen=True)
class Derivative:
    """An element-wise activation's derivative, recovered as gradient going out / gradient coming in.

    Args:
        mean_square: mean of its square, each element alike: E[phi'^2].
        zero: share of the elements where it is exactly zero.
        small: share where its magnitude is below 5% of the largest that the activation can have.
        elements: how many elements were looked at.
    """

    mean_square: float
    zero: float
    small: float
    elements: int


@dataclass(frozen=True)
class Weight:
    """The matrix or kernel of an operation.

    Args:
        name: full name of the parameter, as in ``named_parameters()``.
        norm: its L2 norm, of a large one estimated from some of its rows.
        fan_in: inputs of one output.
        fan_out: outputs that one input reaches, as torch.nn.init counts them.
        outputs: its features or channels on the way out; of a transposed convolution, times the stride.
    """

    name: str
    norm: float
    fan_in: int
    fan_out: int
    outputs: int

    @property
    def isotropic(self) -> float:
        """The squared gain of a gradient that has nothing to do with the weights: ``|W|^2 / outputs``."""
        return self.norm**2 / self.outputs if self.outputs else math.nan


@dataclass(frozen=True)
class Operation:
    """One operation of the forward pass, as its node of the autograd graph saw the gradient pass.

    Only the data path is listed, in the order of the forward pass: each operation comes after its inputs. What computes
    a weight from parameters, as weight_norm does, is not, and the way to a parameter is an input that is None.

    Args:
        index: its place in the list of operations.
        name: of the autograd node without "Backward0", such as ``"Relu"`` or ``"Addmm"``.
        kind: one of KINDS, or "add", "shape" (moves values and changes none) and "leaf" (an input that has a gradient).
        module: name of the innermost module whose call made it, "" outside of all.
        call: which call of that module, counted from 0.
        inputs: (index of the operation that made the input, which of its outputs), None where no gradient goes.
        grad_norm: L2 norm of the loss's gradient with respect to its output, all outputs together; NaN where unseen.
        sent: what it sends to each of its inputs, L2 norm; NaN where that was not taken, as it equals what arrives.
        elements: of its output.
        derivative: of an element-wise activation.
        weight: the matrix or kernel that it multiplies with.
        calls: how often the node ran; more than once under ``retain_graph`` or double backward, 0 where nothing came.
        module_kind: class of that module, such as ``"LayerNorm"``.
        outlet: whether the caller of the model has its output.
        constants: how many of its inputs have no gradient: numbers, and tensors that do not require one.
    """

    index: int
    name: str
    kind: str
    module: str
    call: int
    inputs: tuple[tuple[int, int] | None, ...]
    grad_norm: float
    sent: tuple[float, ...] = ()
    elements: int = 0
    derivative: Derivative | None = None
    weight: Weight | None = None
    calls: int = 1
    module_kind: str = ""
    outlet: bool = False
    constants: int = 0


@dataclass(frozen=True)
class Branch:
    """One way through a residual block beside the skip.

    Args:
        gain: squared gain of the branch alone.
        segments: along it, from the block's output to its input.
    """

    gain: float
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A stretch of the spine: one operation, or a region of several ways that begins and ends in one tensor.

    Args:
        layer: name of the module that it belongs to, "" outside of all.
        kind: one of KINDS.
        operation: name of the autograd node at its end nearer to the output, such as ``"Sigmoid"``.
        gain: squared norm of the gradient that leaves it towards the input / of the gradient that comes in.
        grad_norm: L2 norm of the gradient that comes in.
        call: which call of the module.
        skip: of a residual block, the squared gain of its skip.
        branches: of a residual block, the ways beside the skip.
        derivative: of an element-wise activation.
        weight: of a weight.

    Example:
        >>> round(Segment("act", "activation", "Sigmoid", gain=0.0625, grad_norm=1.0).log_gain, 3)
        -2.773
    """

    layer: str
    kind: str
    operation: str
    gain: float
    grad_norm: float
    call: int = 0
    skip: float = math.nan
    branches: tuple[Branch, ...] = ()
    derivative: Derivative | None = None
    weight: Weight | None = None

    @property
    def log_gain(self) -> float:
        """Natural logarithm of the squared gain; -inf where nothing passes, NaN of what is not finite."""
        return math.log(self.gain) if self.gain > 0 else -math.inf if self.gain == 0 else math.nan


@dataclass(frozen=True, eq=False)
class TimeSteps:
    """A recurrent layer along time.

    Args:
        layer: name of the module.
        gains: float64 [T - 1], squared gain of the hidden state's gradient from each time step to the one before it,
            the last time step first: of the way between the two alone, not of what losses in between add.
        grad_norm: float64 [T], L2 norm of the gradient that reaches each time step's hidden state, the last first.
        path: "hidden", or "cell" of an LSTM's cell state.
    """

    layer: str
    gains: FloatArray
    grad_norm: FloatArray
    path: str = "hidden"

    @property
    def log_gain(self) -> float:
        """Over all time steps together."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sum(np.log(self.gains)))

    @property
    def gain_per_step(self) -> float:
        """Geometric mean squared gain of a time step; 1 of none."""
        return math.exp(self.log_gain / len(self.gains)) if len(self.gains) else 1.0


@dataclass(frozen=True)
class FirstNonFinite:
    """Where NaN or inf came from.

    Args:
        where: "forward", "backward", "parameter" or "input".
        module: name of the module; of a parameter, its full name.
        operation: the operation, such as ``"Log"``; "" where only the module is known.
    """

    where: str
    module: str
    operation: str = ""


@dataclass(frozen=True)
class BackwardProfile:
    """How one backward pass shrank or grew the gradient on its way from the output to the input.

    The spine is the chain of tensors that every way from the output to the deepest input passes (its dominators). So no
    way is chosen, and the logarithms of the segments' gains add up to that of the whole.

    Args:
        segments: of the spine, from the output to the input.
        time_steps: of recurrent layers.
        nonfinite: where NaN or inf came from, None where all is finite.
        step: the optimizer step, -1 outside of a monitor.
        notes: what could not be seen, in sentences.
        weights: every matrix and kernel that was multiplied with, input first, those beside the spine among them.
        half: whether any module gave float16, as under autocast.
        stacked: names of weights that others follow with nothing between that bends, see
            :func:`~gradwatch.stacked.stacked_weights`.
        towers: names of the modules of each of several networks between which no data flows, see
            :func:`~gradwatch.towers.towers`.

    Example:
        >>> block = (Segment("act", "activation", "Sigmoid", 0.05, 1.0), Segment("fc", "weight", "Addmm", 2.0, 0.2))
        >>> profile = BackwardProfile(block * 10)
        >>> round(profile.gain_per_layer, 3), round(profile.factor("activation"), 3)
        (0.1, 0.05)
    """

    segments: tuple[Segment, ...] = ()
    time_steps: tuple[TimeSteps, ...] = ()
    nonfinite: FirstNonFinite | None = None
    step: int = -1
    notes: tuple[str, ...] = field(default=())
    weights: tuple[Weight, ...] = ()
    half: bool = False
    stacked: tuple[str, ...] = ()
    towers: tuple[tuple[str, ...], ...] = ()

    @property
    def log_gain(self) -> float:
        """Lambda: natural logarithm of the squared gain from the output to the input, the sum over the segments."""
        return math.fsum(s.log_gain for s in self.segments) if self._finite else sum(s.log_gain for s in self.segments)

    @property
    def depth(self) -> int:
        """Layers of depth: weights on the spine and regions around some."""
        return sum(s.kind in DEEP for s in self.segments)

    @property
    def gain_per_layer(self) -> float:
        """chi: geometric mean squared gain of a layer of depth; 1 of an empty profile."""
        return math.exp(self.log_gain / max(self.depth, 1))

    @property
    def depth_scale(self) -> float:
        """xi: layers over which the squared gradient changes e-fold, inf where it does not."""
        per_layer = abs(self.log_gain) / max(self.depth, 1)
        return 1 / per_layer if per_layer > 0 else math.inf

    @property
    def margin(self) -> str:
        """How far the network is from where depth hurts, in a sentence; "" where there is no depth to speak of.

        >>> block = (Segment("act", "activation", "Relu", 0.5, 1.0), Segment("fc", "weight", "Addmm", 1.6, 0.7))
        >>> BackwardProfile(block * 10, step=1).margin
        'over 10 layers the gradient shrinks 3.1-fold (step 1): depth scale xi 4.5 layers, L / xi 2.2 of 6'
        """
        body = BackwardProfile(tuple(s for s in self.segments if s.kind not in ENDS))
        if body.depth < 2 or not math.isfinite(body.log_gain):
            return ""
        scales, changes = abs(body.log_gain), "grows" if body.log_gain > 0 else "shrinks"
        of = f"of {SEVERE:g}" if scales <= SEVERE else f"and plain networks train up to {SEVERE:g}"
        at = f" (step {self.step})" if self.step >= 0 else ""
        return (
            f"over {body.depth} layers the gradient {changes} {math.exp(scales / 2):.2g}-fold{at}: "
            f"depth scale xi {body.depth_scale:.2g} layers, L / xi {scales:.2g} {of}"
        )

    def is_normalised_next(self, layer: str) -> bool:
        """Whether a normalisation comes between ``layer`` and the next weights.

        >>> fc, norm = Segment("fc", "weight", "Addmm", 2.0, 1.0), Segment("bn", "norm", "NativeBatchNorm", 0.5, 2.0)
        >>> behind = BackwardProfile((fc, norm))  # the first layer, whose weights no gradient goes through
        >>> behind.is_normalised_next("first"), behind.is_normalised_next("fc")
        (True, False)
        """
        normalised = False
        for segment in self.segments:  # from the output to the input
            if segment.kind == "weight" and segment.layer == layer:
                return normalised
            normalised = segment.kind == "norm" or (normalised and segment.kind != "weight")
        return normalised  # no gradient goes through the weights of the first layer

    def factor(self, kind: str) -> float:
        """Geometric mean squared gain of the segments of ``kind``; NaN where there is none.

        Raises:
            ValueError: when ``kind`` is none of KINDS.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        logs = [s.log_gain for s in self.segments if s.kind == kind]
        return math.exp(sum(logs) / len(logs)) if logs else math.nan

    @property
    def _finite(self) -> bool:
        return all(math.isfinite(s.log_gain) for s in self.segments)
