"""EvalMode: the model is trained in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.records import or_nan
from gradwatch.rules.base import Judgement
from gradwatch.rules.flagged import Flagged


@dataclass
class EvalMode(Flagged):
    """The model is in evaluation mode while it is trained, and has dropout or batch normalisation: a WARNING.

    So it is after ``model.eval()`` for a validation, without ``model.train()`` behind it: nothing is dropped, and
    batches are normalised by running statistics that stay as they are. It may be meant so, as where a model that was
    trained is fine-tuned. It becomes an ERROR once it is seen that nothing has been learned, or little and it stands
    still. It is seen at the first steps and at the sampled ones; where parts of the model alone are, it is no finding.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> history.append(replace(history.latest, step=1, evaluates=1.0))
        >>> [alert.message for alert in EvalMode(patience=1).check(history)]
        ['the model is trained in evaluation mode: its dropout and batch normalisation are switched off']

    Source: torch.nn.Module.eval.
    """

    name: ClassVar[str] = "eval_mode"
    looks_at: ClassVar[tuple[str, ...]] = ("evaluates",)
    of_model: ClassVar[bool] = True

    patience: int = 4
    recovery: int = 1

    def judge(self, history: History) -> Judgement:
        every = np.ones(len(history.layers))
        value = or_nan(history.now.evaluates) * every
        return Judgement(value, every, value == 1, value == 0, known=np.isfinite(value), worsens=LITTLE)

    def describe(self, value: float, threshold: float) -> str:
        return "the model is trained in evaluation mode: its dropout and batch normalisation are switched off"
