"""LossMismatch: a loss is given what it does not take, or is negated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import APART, BEYOND, LITTLE
from gradwatch.records import MISTAKES, StepStats, or_nan
from gradwatch.rules.base import Judgement, last_layer
from gradwatch.rules.flagged import Flagged
from gradwatch.rules.state import ModelState

WORDS = {
    **{
        name: f"its outputs go through a {name} before a cross entropy that takes logits"
        for name in ("softmax", "sigmoid", "tanh", "relu")
    },
    "labels": "the labels of its binary cross entropy are not 0 and 1, as they should be",
    "sign": "training makes its cross entropy larger: the loss is negated, or the optimizer has maximize=True",
    "raw": "its outputs go into a negative log likelihood that takes log-probabilities",
    "probabilities": "its probabilities go into an absolute error, or a likelihood that takes their logarithms",
    "examples": "its outputs are normalised over the examples, and should be over the classes",
    "softmax of examples": "its outputs go through a softmax over the examples before a cross entropy of logits",
    "broadcast": "all its outputs are held against one target, as where targets [N] are subtracted from outputs [N, 1]",
}

SIGN, RAW, PROBABILITIES = map(MISTAKES.index, ("sign", "raw", "probabilities"))

LONG = 300
"""Steps for which outputs may be too low by any amount."""

SURE = 10
"""Looks at which a cross entropy is negated, and none at which it may be otherwise, before that is told: of rewards all
are below zero now and then, while little is known."""

GROWN = (1.2, 2.0)
"""Of the gradient at the outputs, relative to the first looks, where all is predicted wrongly: of C classes it is
sqrt(2 C / (C - 1)), which is 1.4 to 2. Rewards, some of which are below zero, make it anything."""


@dataclass
class LossMismatch(Flagged):
    """The gradient at the last layer's output is that of a loss that is given what it does not take.

    Its logits go through a softmax, sigmoid, tanh or ReLU before, as where a network ends with the activation that
    the loss applies as well; its labels are not 0 and 1; or it is negated. Or a negative log likelihood is not given
    logarithms of probabilities, a softmax goes over the examples, or targets [N] broadcast against outputs [N, 1]. It
    follows exactly from outputs and gradient, see :func:`~gradwatch.loss_mismatch.loss_mismatch`, at the first steps
    and at the sampled ones. Many such networks learn all the same, if less well: it is a WARNING, and an ERROR once it
    is seen that nothing has been learned, or little and it stands still; of a negated one, which rewards of -1 look
    like, once the outputs have become worse.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> history.append(replace(history.latest, step=1, loss_mismatch=0.0))
        >>> [alert.message for alert in LossMismatch(patience=1).check(history)]
        ['fc: its outputs go through a softmax before a cross entropy that takes logits']

    Source: torch.nn.CrossEntropyLoss and torch.nn.BCEWithLogitsLoss, whose input is unnormalised logits.
    """

    name: ClassVar[str] = "loss_mismatch"
    looks_at: ClassVar[tuple[str, ...]] = ("loss_mismatch", "output_error", "output_row")

    patience: int = 4
    recovery: int = 4

    def judge(self, history: History) -> Judgement:
        stats = history.now
        last = last_layer(stats)
        mistake = or_nan(stats.loss_mismatch)
        error = or_nan(stats.output_error)
        if mistake == SIGN and not error > LITTLE:
            mistake = np.nan  # what has learned so much is pushed back on purpose, as by a loss that is flooded
        late = history.count > APART
        if (mistake == RAW and not late) or (mistake == PROBABILITIES and not (late and error > LITTLE)):
            mistake = np.nan  # values that are far too low, and the mean absolute error of probabilities, look so too
        silent = self._is_silent(stats)
        wrong = silent and self._went_wrong(history)
        negated = mistake == SIGN or wrong
        if negated or silent:
            self._latest["negated"] = self._latest["negated"] + 1 if negated else 0
        is_sure = self._latest["negated"] >= SURE or self._episodes["open"].any()
        bad = last & bool(is_sure if negated else np.isfinite(mistake))
        if stats.trained is not None:  # of an adversary's loss, that of who is to fool it is negated
            bad = bad & stats.trained
        good = last & bool((np.isnan(mistake) and np.isfinite(error)) or (silent and not wrong))
        if np.isfinite(mistake):
            self._latest["mistake"] = mistake
        if late or negated:  # at the first steps, which tell of a passing start as well, it must last
            self._episodes.hasten(bad, self.patience - 1)
        worsens = BEYOND if self._latest["mistake"] == SIGN else LITTLE
        if mistake == RAW and history.count <= LONG:
            worsens = 0.0  # values may take so long to come near
        certain = bad & wrong
        of_all = np.full(len(last), self._latest["mistake"]), np.zeros(len(last))
        return Judgement(*of_all, bad, good, known=bad | good, worsens=worsens, certain=certain)

    def _is_silent(self, stats: StepStats) -> bool:
        """Whether a loss that was negated tells neither that it is nor that it is not."""
        mistake, error, heard = map(or_nan, (stats.loss_mismatch, stats.output_error, stats.output_row))
        return self._latest["mistake"] == SIGN and bool(np.isnan(mistake) and np.isnan(error) and not np.isnan(heard))

    def _went_wrong(self, history: History) -> bool:
        """Whether it has done its work: all is predicted wrongly, so that all gradients have one size, or they are
        larger than at first by as much as that makes them."""
        asked, first = or_nan(history.now.output_gradient), history.progress.first
        return bool(np.isnan(asked) or GROWN[0] * first < asked < GROWN[1] * first)

    def describe(self, value: float, threshold: float) -> str:
        return WORDS[MISTAKES[int(value)]]

    def reset(self) -> None:
        super().reset()
        self._latest = self._remembered["latest"] = ModelState(mistake=np.nan, negated=0)
