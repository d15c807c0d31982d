"""NoGradient: layers that are to be trained never get a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming
from gradwatch.history import History
from gradwatch.records import Alert, Severity
from gradwatch.rules.base import StepRule, some_of
from gradwatch.rules.state import LayerState
from gradwatch.verdict import SILENT


@dataclass
class NoGradient(StepRule):
    """Since the run began no layer has had a gradient, or none of the first ones, though the optimizer has them.

    Without any gradient nothing trains: ERROR. Where the layers nearer to the output have one and those before them do
    not, the way between the two is cut, by ``detach()`` or ``torch.no_grad()``: a WARNING, since it may be meant so. It
    is none where their parameters do not require a gradient, or are not the optimizer's. Layers in between may belong
    to a part of the model that is not used.

    Args:
        patience: steps before the alert.

    Raises:
        ValueError: when ``patience`` is not at least 1.

    Example:
        >>> from dataclasses import replace
        >>> stats = History.from_grad_norms(trunk=[None], head=[1.0]).latest
        >>> history = History()
        >>> for step in range(20):
        ...     history.append(replace(stats, step=step, trained=np.array([True, True])))
        >>> for alert in NoGradient(patience=20).check(history):
        ...     print(alert.message.partition(" between")[0])
        trunk: no gradient came in 20 steps, though the optimizer has it: is there a detach() or no_grad()

    Source: torch.Tensor.detach.
    """

    name: ClassVar[str] = "no_gradient"
    takes_skipped: ClassVar[bool] = True

    patience: int = SILENT

    def __post_init__(self) -> None:
        self._check_steps("patience", at_least=1)
        super().__post_init__()

    def reset(self) -> None:
        super().reset()
        self._settled: tuple[str, ...] | None = None
        """The layers, once all of them that are trained have had a gradient, until the next look."""
        self._layers = self._remembered["layers"] = LayerState(heard=False, trained=False)

    def calm_steps(self, history: History, coming: Coming) -> int:
        return len(coming) if self._settled is coming.layers else 0

    def _check_latest(self, history: History) -> list[Alert]:
        stats, layers = history.now, self._layers
        if self._settled is stats.layers and stats.trained is None:  # nearly always
            return []
        layers.align(stats.layers)
        layers["heard"] |= stats.has_grad
        if stats.trained is not None:
            layers["trained"], self._settled = stats.trained, None
        if layers["heard"].any() and (layers["heard"] | ~layers["trained"]).all():
            self._settled = stats.layers
            return []
        if history.count < self.patience or not len(stats.layers):
            return []
        if not layers["heard"].any():
            message = (
                f"no layer had a gradient in {history.count} steps: is zero_grad() called between backward() and "
                "step(), is the loss detached, or has the optimizer other parameters?"
            )
            return [self._alert(stats.step, stats.layers, Severity.ERROR, message)]
        before = ~np.logical_or.accumulate(layers["heard"] | ~layers["trained"])
        names = tuple(np.array(stats.layers, object)[before])
        if not names:
            return []
        it, is_it = ("it", "is it") if len(names) == 1 else ("them", "are they")
        message = (
            f"{some_of(names)}: no gradient came in {history.count} steps, though the optimizer has "
            f"{it}: is there a detach() or no_grad() between {it} and the loss, or {is_it} not used?"
        )
        return [self._alert(stats.step, names, Severity.WARNING, message)]

    def _alert(self, step: int, names: tuple[str, ...], severity: Severity, message: str) -> Alert:
        layer, every = (names[0], ()) if len(names) == 1 else (None, names)
        return Alert(step, self.name, layer, severity, 0.0, 0.0, message, layers=every)
