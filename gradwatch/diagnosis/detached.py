"""Detached: the graph between the loss and some layers is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis, Severity


@dataclass(frozen=True)
class Detached:
    """No gradient ever comes to layers that the optimizer has, or to any layer, or all are set to zero before the step.

    Example:
        >>> alerts = [Alert(19, "no_gradient", "trunk", 1, 0.0, 0.0, "")]
        >>> found = Detached().explain(History.from_grad_norms(trunk=[None] * 20, head=[1.0] * 20), None, alerts)
        >>> print(found.remedy.partition(";")[0])
        look for detach(), .data, torch.no_grad() and .item() between trunk and the loss
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, dead = told(alerts, "no_gradient"), told(alerts, "dead")
        if not found:
            return _zeroed(layers_of(dead)) if dead and is_zeroed(history) else None
        layers = found[0].layers or tuple(filter(None, [found[0].layer]))
        if found[0].severity is Severity.ERROR:
            evidence = f"none of {len(history.layers)} layers had a gradient when the optimizer stepped"
            remedy = (
                "call zero_grad() before backward(), not between backward() and step(); look whether the loss is "
                "computed from the model's output, and whether the optimizer was given the parameters that the model "
                "has now"
            )
        else:
            evidence = f"no gradient ever came to {span(layers)}, and one came to the layers after"
            remedy = (
                f"look for detach(), .data, torch.no_grad() and .item() between {span(layers)} and the loss; if it is "
                "meant so, leave these parameters out of the optimizer"
            )
        return Diagnosis("detached", 0.9, layers, (evidence,), remedy, change="loop")


def is_zeroed(history: History) -> bool:
    """Whether every gradient was zero at every step, though the loss asks for something at the last layer's output.

    >>> history = History.from_grad_norms(fc=[0.0, 0.0])
    >>> is_zeroed(history)
    False
    >>> history.progress.first = 0.1
    >>> is_zeroed(history)
    True
    """
    return history.progress.first > 0 and bool(history.has_grad.any()) and not history.total_norm.any()


def _zeroed(layers: tuple[str, ...]) -> Diagnosis:
    evidence = "the loss asks for something at the output of the last layer, and no layer has any of it at the step"
    remedy = "call zero_grad() before backward(), not between backward() and step()"
    return Diagnosis("detached", 0.9, layers, (evidence,), remedy, change="loop")
