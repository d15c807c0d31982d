"""Every record that gradwatch passes on: plain numbers, NumPy and the standard library only.

Nothing here knows torch, so a record can be pickled, compared, written as JSON and read where torch is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradwatch.tags import printable

if TYPE_CHECKING:
    from gradwatch.profile import BackwardProfile

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

BEFORE_CLIPPING, AFTER_CLIPPING = "before clipping", "after clipping"

T = TypeVar("T")

CHANGES = frozenset(
    ("activation", "init_scale", "residual", "norm", "lr", "clipping", "data_scaling", "precision", "width")
    + ("architecture", "warmup", "eps", "loop", "weight_decay", "dropout")
)
"""The kinds of change that a remedy may ask for."""

MISTAKES = (
    *("softmax", "sigmoid", "tanh", "relu", "labels", "sign"),
    *("raw", "probabilities", "examples", "softmax of examples", "broadcast"),
)
"""What may be wrong with a loss: the logits of a cross entropy went through one of the first four, its labels are 1 and
-1, or it is negated; a negative log likelihood is given logits or probabilities, or what is normalised over the
examples, as a cross entropy may be; or a squared error holds each output against all targets."""


class Severity(IntEnum):
    """How much an alert matters: ERROR, this run will not train; WARNING, look; INFO, good to know."""

    INFO = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Layer:
    """One row of every statistic: a module's own parameters together, or a single parameter.

    Args:
        name: as in ``named_modules()`` without the names that wrappers put in; the model's class name for the root.
        kind: class name of the module, such as ``"Linear"``.
        numel: number of elements, tied parameters counted once.
        parameters: full names of the parameters, as in ``named_parameters()``.
    """

    name: str
    kind: str
    numel: int
    parameters: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StepStats:
    """What one optimizer step's gradients measured; every array has one entry per layer.

    Args:
        step: the optimizer step, counted from 0.
        layers: names of the L layers, in the model's order (input first).
        grad_norm: float64 [L], L2 norm before clipping. NaN and inf stay what they are; 0 where there is no gradient.
        has_grad: bool [L], False where no gradient exists, which is not the same as a gradient of zero.
        total_norm: L2 norm over all layers.
        max_abs: float64 [L], largest absolute element. This and what follows, up to histogram, is None except on
            sampled steps; the update ratio is known at the step after those.
        zero_fraction: float64 [L], share of elements that are exactly zero.
        nonfinite: int64 [L], number of NaN and inf elements.
        param_norm: float64 [L], L2 norm of the parameters before the step.
        update_ratio: float64 [L], ``|change of the parameters| / |parameters|`` made by the step before, where
            that was looked at closely, estimated from a bounded sample of each parameter.
        histogram: int64 [L, bins], counts of ``log10 |gradient|`` between ``gradwatch.tags.HISTOGRAM_EDGES``; of a
            gradient of more than 262,144 elements those of a sample, scaled to all.
        numel: float64 [L], elements of each layer, None for 1 each. As it is the same at every step, it is not written.
        total_update: ``|step| / |parameters|`` over all layers that the step moved; a layer's parameters count as at
            least sqrt(outputs), their size when freshly initialised, so that what starts at zero may grow. Known, like
            the update ratio, one step after sampled ones and the first ones of a run; what follows on those themselves.
            Else None.
        broken: whether the step before made NaN or inf of parameters that were neither; known like the update ratio.
        input_size: float64 [L], gradient norm of the weights / gradient norm of the biases. It is the norm of the
            layer's input where the examples agree, whatever the loss; NaN of a layer without both.
        saturated: float64 [L], share of the outputs of the sigmoid or tanh behind the layer whose derivative is below
            5% of its largest; NaN where there is none.
        time_ratio: float64 [L], of a recurrent layer the gradient that reaches the first quarter of the time steps,
            relative to the largest at any; NaN of others.
        time_gain: float64 [L], the same per time step between the two.
        steps_read: float64 [L], of a recurrent layer, how many time steps there are up to the last with a gradient.
        sequences_read: float64 [L], how many sequences there are from the first one with a gradient on.
        output_gradient: L2 norm of the gradient with respect to the output of the layer nearest to the loss, over all
            examples: it falls with the training error of many losses. NaN where that is not known.
        output_error: of a cross entropy of up to 128 classes, or a binary one, what the probabilities miss, relative to
            the best constant prediction: 1 where nothing has been learned. Else NaN.
        loss_gradient: L2 norm of the gradient with respect to what the model itself returns, behind an activation that
            may follow its last layer. NaN where that is not known.
        output_variation: share of the mean square of what the model returns that differs from example to example.
        out_of_reach: share of the squared gradient with respect to it that asks for what the ReLU, sigmoid or softmax
            behind the last layer cannot give. NaN where there is none, or that is not known.
        output_row: the row of the layer nearest to the loss, whose output that is. NaN where it is none.
        loss_mismatch: of a loss that is given what it does not take, the mistake's place in ``MISTAKES``. Else NaN.
        output_scatter: share of a squared error that is the outputs' own scatter, which does not follow the targets.
        output_offset: share of a large squared error that all examples have in common.
        variation: float64 [L], share of the mean square of a layer's input that differs from example to example; NaN
            where that is not known.
        variation_within: float64 [L], of a linear layer whose input is a sequence, the share that differs from place
            to place within an example.
        given_nothing: float64 [L], share of the examples of which a layer's input is nothing but zeros.
        data_rms: float64 [L], root mean square of what is not zero in a layer's input, where that is data; NaN where
            other layers made it.
        dropped: the largest share that a dropout layer of the model sets to zero, 0 without one.
        evaluates: 1 where the model was in evaluation mode with all of its layers to which that makes a difference,
            else 0; NaN where it was not called.
        half: whether gradients were computed in float16, as under autocast; None where that is not known.
        trained: bool [L], whether a layer has parameters that require a gradient and that the optimizer, where it is
            known, has.
        not_zeroed: whether the gradients were added to those of the step before, which nothing had set to zero; None
            where that is not known.
        alike: bool [L], whether all units of a layer have the same weights and are given the same gradient.
        idle: bool [L], whether a layer has a gradient that no optimizer uses; None where none is known.
        unregistered: elements of parameters that the model uses and that are none of it, with a gradient that no
            optimizer uses. They are known once a step was probed.
        stacked: bool [L], of a probed step, whether a layer and those that follow it compute what one would, as no
            activation lies anywhere between. Else None.
        towers: int64 [L], of a probed step, the number of the network that a layer is in, of several between which no
            data flows; 0 where there is one. Else None.
        captured: BEFORE_CLIPPING; or AFTER_CLIPPING, as the optimizer used them, after any clipping of the user's own.
        skipped: whether a gradient scaler skips this step because a gradient is not finite.
        nonfinite_ranks: of a sharded model, the ranks that hold a NaN or inf.
    """

    step: int
    layers: tuple[str, ...]
    grad_norm: FloatArray
    has_grad: BoolArray
    total_norm: float
    max_abs: FloatArray | None = None
    zero_fraction: FloatArray | None = None
    nonfinite: IntArray | None = None
    param_norm: FloatArray | None = None
    update_ratio: FloatArray | None = None
    histogram: IntArray | None = None
    numel: FloatArray | None = field(default=None, metadata={"written": False})
    total_update: float | None = None
    broken: bool | None = None
    input_size: FloatArray | None = None
    saturated: FloatArray | None = None
    time_ratio: FloatArray | None = None
    time_gain: FloatArray | None = None
    steps_read: FloatArray | None = None
    sequences_read: FloatArray | None = None
    variation: FloatArray | None = None
    variation_within: FloatArray | None = None
    given_nothing: FloatArray | None = None
    data_rms: FloatArray | None = None
    output_gradient: float | None = None
    output_error: float | None = None
    loss_gradient: float | None = None
    output_variation: float | None = None
    out_of_reach: float | None = None
    output_row: float | None = None
    loss_mismatch: float | None = None
    output_scatter: float | None = None
    output_offset: float | None = None
    dropped: float | None = None
    evaluates: float | None = None
    half: bool | None = None
    trained: BoolArray | None = None
    not_zeroed: bool | None = None
    alike: BoolArray | None = None
    idle: BoolArray | None = None
    unregistered: int | None = None
    stacked: BoolArray | None = None
    towers: IntArray | None = None
    captured: str = BEFORE_CLIPPING
    skipped: bool = False
    nonfinite_ranks: tuple[int, ...] = ()

    @cached_property
    def is_plain(self) -> bool:
        """Whether nothing but the norms is known: neither this step nor the one before was looked at closely."""
        return {*map(type, _more_than_norms(self))} == {type(None)}

    @cached_property
    def norm_range(self) -> tuple[float, float]:
        """The least and the largest norm of the layers that have a gradient, NaN where one is; inf and 0 of none."""
        norms = self.grad_norm if np.logical_and.reduce(self.has_grad) else self.grad_norm[self.has_grad]
        return (float(np.minimum.reduce(norms)), float(np.maximum.reduce(norms))) if len(norms) else (math.inf, 0.0)


_more_than_norms = attrgetter(
    *[f.name for f in fields(StepStats) if f.default is None and f.name not in ("numel", "half")]
)


@dataclass(frozen=True)
class Alert:
    """One finding of one rule: it opens an episode, or with severity INFO reports that the episode is over.

    Args:
        step: the optimizer step at which it was found.
        rule: the rule's plain name, such as ``"vanishing"``.
        layer: the layer's name, None when it concerns the whole model or many layers at once.
        severity: see :class:`Severity`.
        value: the number that was judged.
        threshold: the limit that it was judged against.
        message: one sentence with the numbers in it.
        follows: the rule of an earlier alert of which this one may be the consequence, as "exploding" of a "nonfinite".
        layers: names of every layer concerned, input first, where one alert stands for many; else empty.
    """

    step: int
    rule: str
    layer: str | None
    severity: Severity
    value: float
    threshold: float
    message: str
    follows: str = ""
    layers: tuple[str, ...] = ()

    @property
    def concerned(self) -> tuple[str, ...]:
        """Names of the layers concerned, input first, one or many; () where it is the whole model."""
        return self.layers or (() if self.layer is None else (self.layer,))


@dataclass(frozen=True)
class ClipRecord:
    """What a clip policy did to one step's gradients.

    Args:
        policy: the policy's plain name, such as ``"global_norm"``.
        norm_before: total L2 norm before clipping.
        norm_after: total L2 norm after clipping; 0 of a step that was skipped.
        coefficient: what the gradients were multiplied by, 1 when nothing was clipped, 0 when the step was skipped, NaN
            when there is no one factor.
        threshold: the limit that was applied; inf where there was none yet.
        group: what was clipped on its own: a pattern of parameter names, or "" for all that the policy was given.
        clipped: share of what the policy limits on its own that was beyond the limit: of a total norm 0 or 1, else a
            share of the layers, units or elements. NaN where the policy does not tell.
        parts: the records of the groups, or of the policies of a chain, in their order.
        rate: share of the last 1,000 recorded steps of which anything was clipped, this one included; NaN where it is
            not known.
    """

    policy: str
    norm_before: float
    norm_after: float
    coefficient: float
    threshold: float
    group: str = ""
    clipped: float = math.nan
    parts: tuple[ClipRecord, ...] = ()
    rate: float = math.nan


@dataclass(frozen=True)
class ClipSummary:
    """What clipping did over the last steps, up to 1,000 that were recorded.

    Args:
        policy: as in :class:`ClipRecord`.
        part: the group or the policy of a chain, "" for the whole.
        steps: how many.
        rate: share of the steps of which anything was clipped, or that were skipped.
        share: what was clipped of a step, on average: as in :class:`ClipRecord`.
        median_norm: median of the total norms before clipping.
        threshold: the limit at the latest step.
        message: one sentence with the numbers in it; of a ``max_norm`` that most steps are clipped by also which one
            would not be.
    """

    policy: str
    part: str
    steps: int
    rate: float
    share: float
    median_norm: float
    threshold: float
    message: str


@dataclass(frozen=True)
class Diagnosis:
    """One cause, why it is believed, and what to change.

    Args:
        cause: the cause's plain name, such as ``"small_weights"``.
        confidence: between 0 and 1.
        layers: names of the layers concerned, the worst hit first: of weights that are too large or units that are dead
            the one nearest the output, where the gradient fades along depth the one with the most weights, else the one
            nearest the input.
        evidence: sentences with the measured numbers in them.
        remedy: what to change, precise enough to apply.
        change: the kind of change that this is, one of CHANGES; "" where the remedy only says what to look at.
    """

    cause: str
    confidence: float
    layers: tuple[str, ...]
    evidence: tuple[str, ...]
    remedy: str
    change: str = ""


@dataclass(frozen=True)
class Report:
    """Everything known at one step; ``str(report)`` reads as Verdict, Why, Evidence, Next.

    Args:
        verdict: one sentence.
        severity: the worst severity among what is still going on, INFO for a healthy run.
        alerts: for the report that a sink receives, the alerts of this step; for ``monitor.report()``, all of them.
        diagnoses: the causes found, most confident first.
        stats: the latest statistics, None before the first step.
        clip: what was clipped at this step, None without a clip policy.
        profile: of the backward pass of this step, where it was probed; for ``monitor.report()``, of the last one that
            was.
        clipping: of ``monitor.report()``, what clipping did over the last steps, with its parts.

    Example:
        >>> why = Diagnosis("dead_units", 0.5, ("fc",), ("1 of 2 layers receives nothing",), "look behind fc")
        >>> print(Report("dead: fc (1 of 2 layers)", Severity.WARNING, diagnoses=(why,)))
        Verdict   dead: fc (1 of 2 layers)
        Why       dead units (confidence 50%)
        Evidence  1 of 2 layers receives nothing
        Next      look behind fc
    """

    verdict: str
    severity: Severity
    alerts: tuple[Alert, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    stats: StepStats | None = None
    clip: ClipRecord | None = None
    profile: BackwardProfile | None = None
    clipping: tuple[ClipSummary, ...] = ()

    def sections(self) -> list[tuple[str, list[str]]]:
        """Verdict; where causes were found Why, Evidence and Next, else of a network that was probed the Margin that it
        has; what Clipping did, and Measured where that was after clipping.
        """
        sections = [("Verdict", [self.verdict])]
        if self.diagnoses:
            sections += [
                ("Why", [f"{d.cause.replace('_', ' ')} (confidence {d.confidence:.0%})" for d in self.diagnoses]),
                ("Evidence", [sentence for d in self.diagnoses for sentence in d.evidence]),
                ("Next", [*dict.fromkeys(d.remedy for d in self.diagnoses)]),
            ]
        elif self.severity is Severity.INFO and self.profile is not None and self.profile.margin:
            sections.append(("Margin", [self.profile.margin]))
        if self.clipping:
            sections.append(("Clipping", [summary.message for summary in self.clipping]))
        if self.stats is not None and self.stats.captured == AFTER_CLIPPING:
            sections.append(("Measured", ["as the optimizer used them: after any clipping of your own"]))
        return [(title, [printable(line) for line in lines]) for title, lines in sections]

    def __str__(self) -> str:
        return "\n".join(
            f"{title if i == 0 else '':<10}{line}" for title, lines in self.sections() for i, line in enumerate(lines)
        )

    def to_dict(self) -> dict[str, Any]:
        """The report in types that ``json.dumps`` takes; a non-finite number becomes "nan", "inf" or "-inf"."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return plain


def or_nan(value: float | None) -> float:
    """``value``, NaN where there is none.

    >>> or_nan(0.5), or_nan(None)
    (0.5, nan)
    """
    return math.nan if value is None else value


def to_state(record: Any, without: str = "") -> dict[str, Any]:
    """What a checkpoint keeps of ``record``, but for the field ``without``: arrays, and else plain types.

    >>> to_state(Diagnosis("dead_units", np.float64(0.5), ("fc",), (), "look"))["layers"]
    ['fc']
    """
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.name != without}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def from_state(kind: type[T], state: Mapping[str, Any]) -> T:
    """The record of which :func:`to_state` gave that."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in state.items()})


def to_plain(value: object) -> Any:
    """``value`` in JSON's own types: records become dicts, arrays lists, severities names, non-finite floats strings.

    >>> to_plain(Alert(3, "nonfinite", "fc", Severity.ERROR, float("nan"), 0.0, "fc: NaN"))["value"]
    'nan'
    """
    if isinstance(value, Severity):
        return value.name.lower()
    if hasattr(value, "__dataclass_fields__"):
        written = [f.name for f in fields(value) if f.metadata.get("written", True)]  # type: ignore[arg-type]
        return {name: to_plain(getattr(value, name)) for name in written}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
