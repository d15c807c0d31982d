"""Loss mismatch: a loss is given what it does not take, or is negated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import MISTAKES, Alert, Diagnosis
from gradwatch.verdict import called

KNOWN = {
    **{
        name: (
            f"a cross entropy behind a {name}",
            f"leave the {name} off the model's output in training: the loss applies its own activation",
            "activation",
        )
        for name in ("softmax", "sigmoid", "tanh", "relu")
    },
    "labels": (
        "a binary cross entropy of labels that are not 0 and 1",
        "give the binary cross entropy labels of 0 and 1: of -1 and 1 (labels + 1) / 2, of 1 and 2 labels - 1",
        "loop",
    ),
    "sign": (
        "a cross entropy that training makes larger",
        "take out the minus sign, or the optimizer's maximize=True: step() makes a loss smaller by itself. Leave it "
        "where it is a reward's",
        "loop",
    ),
    "raw": (
        "a negative log likelihood of outputs that are no log-probabilities, or an absolute error of ones that are far "
        "too low",
        "use torch.nn.CrossEntropyLoss, or put a log_softmax before the loss: NLLLoss has no logarithm of its own",
        "loop",
    ),
    "probabilities": (
        "a negative log likelihood of probabilities, without their logarithm",
        "use log_softmax instead of softmax before the loss: NLLLoss and KLDivLoss have no logarithm of their own",
        "loop",
    ),
    "examples": (
        "a cross entropy whose log_softmax goes over the examples",
        "normalise over the classes, which is their dimension in log_softmax",
        "loop",
    ),
    "softmax of examples": (
        "a cross entropy behind a softmax over the examples",
        "leave the softmax off the model's output in training: the loss applies its own, over the classes",
        "activation",
    ),
    "broadcast": (
        "a squared error whose targets are all the same: as where targets [N] are subtracted from outputs [N, 1], each "
        "from each, and all that can be learned is their mean",
        "give the loss outputs and targets of one shape: outputs.squeeze(1), or targets.unsqueeze(1)",
        "loop",
    ),
}
"""Of each mistake whose gradient it is, the remedy, and the kind of change."""

MAY_BE_MEANT = {"sign": 0.8, "raw": 0.7, "probabilities": 0.7, "broadcast": 0.7}
"""The confidence where another loss has the same gradient: rewards, values that are far too low, the mean absolute
error of probabilities, batches of which all examples have one target."""


@dataclass(frozen=True)
class LossMismatch:
    """The outputs and the loss do not fit each other, which the loss's gradient tells exactly.

    A loss that applies a softmax to probabilities sees numbers between 0 and 1 for logits: of C classes the right one
    gets a probability of e / (e + C - 1) at most, so the loss stays far above zero, and the gradient is small where the
    network is sure and wrong.

    Example:
        >>> alerts = [Alert(4, "loss_mismatch", "fc", 1, MISTAKES.index("softmax"), 0.0, "")]
        >>> print(LossMismatch().explain(History(), None, alerts).remedy)
        leave the softmax off the model's output in training: the loss applies its own activation

    Source: torch.nn.CrossEntropyLoss and torch.nn.BCEWithLogitsLoss, whose input is unnormalised logits.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        for alert in told(alerts, "loss_mismatch"):
            mistake = dict(enumerate(MISTAKES)).get(alert.value)  # type: ignore[call-overload]
            if mistake is not None:
                what, remedy, change = KNOWN[mistake]
                evidence = f"the gradient at the output of {called(alert.layer or 'the last layer')} is that of {what}"
                confidence = MAY_BE_MEANT.get(mistake, 0.97)
                return Diagnosis("loss_mismatch", confidence, layers_of([alert]), (evidence,), remedy, change)
        return None
