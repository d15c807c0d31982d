"""Frames without alignment to symbols: a recurrent network with the CTC loss (Graves et al., 2006)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

SYMBOLS, SPOKEN, FRAMES, FEATURES, EXAMPLES, SHOWN = 5, 3, 12, 8, 512, 128


@cache
def utterances() -> tuple[Tensor, Tensor]:
    """Frames float32 [EXAMPLES, FRAMES, FEATURES] and symbols 1 to SYMBOLS, int64 [EXAMPLES, SPOKEN].

    Each symbol sounds for two to four frames, and no symbol follows itself.
    """
    generator = torch.Generator().manual_seed(0)
    sounds = 1.5 * torch.randn(SYMBOLS, FEATURES, generator=generator)
    steps = torch.randint(1, SYMBOLS, (EXAMPLES, SPOKEN), generator=generator)
    spoken = steps.cumsum(1) % SYMBOLS
    starts = torch.randint(2, 5, (EXAMPLES, SPOKEN - 1), generator=generator).cumsum(1)
    at = (torch.arange(FRAMES) >= starts[..., None]).sum(1)
    frames = sounds[spoken.gather(1, at)] + 0.5 * torch.randn(EXAMPLES, FRAMES, FEATURES, generator=generator)
    return frames, spoken + 1


def speech(seed: int, *, width: int = 32, **loop: Any) -> Task:
    """A bidirectional LSTM; the metric is the share of utterances whose symbols are all right.

    Args:
        seed: of weights and batches.
        width: of the state, in each direction.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    frames, spoken = utterances()
    model = Recogniser(width)

    def loss(rows: Tensor) -> Tensor:
        lengths = [torch.full((len(rows),), n) for n in (FRAMES, SPOKEN)]
        return F.ctc_loss(model(frames[rows]).transpose(0, 1), spoken[rows], *lengths)

    def metric() -> float:
        paths = model(frames[:SHOWN]).argmax(2)
        right = [_collapsed(path) == wanted for path, wanted in zip(paths.tolist(), spoken[:SHOWN].tolist())]
        return sum(right) / SHOWN

    trivial = 1 / (SYMBOLS * (SYMBOLS - 1) ** (SPOKEN - 1))
    return run(model, seed, Loop(**loop), loss, metric, examples=EXAMPLES, trivial=trivial)


class Recogniser(nn.Module):
    """Log probabilities of the blank and each symbol, at each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.core = nn.LSTM(FEATURES, width, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, SYMBOLS + 1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.core(frames)[0]).log_softmax(-1)


def _collapsed(path: list[int]) -> list[int]:
    """Without repetitions and blanks."""
    return [now for before, now in zip([0, *path], path) if now not in (before, 0)]
