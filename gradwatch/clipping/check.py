"""Whether a policy can be right for a model, before the first step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gradwatch.clipping.several import check_parameters
from gradwatch.protocols import ClipPolicy


def check_model(policy: ClipPolicy, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Raise ValueError, with what to do instead, where ``policy`` cannot be right for ``model``.

    Args:
        policy: asked by its ``check_parameters(parameters)``, where it has one.
        model: refused where it keeps its gradients to itself.
        parameters: of the model, by their names.

    Example:
        >>> from gradwatch.clipping import PerGroup
        >>> model = nn.Linear(2, 1)
        >>> check_model(PerGroup({"encoder.*": 1.0}), model, dict(model.named_parameters()))
        Traceback (most recent call last):
        ...
        ValueError: PerGroup: groups: the pattern 'encoder.*' matches no layer; the layers are: weight, bias
    """
    if any(base.__module__.partition(".")[0] == "deepspeed" for base in type(model).__mro__):
        raise ValueError(
            f"clip={policy!r}: DeepSpeed keeps its gradients to itself and clips them itself: set gradient_clipping in "
            "its config instead"
        )
    check_parameters(policy, parameters)
