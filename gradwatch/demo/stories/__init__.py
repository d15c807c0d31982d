"""Stories: one per file, each letting a few networks train on a stage and returning their runs."""

from __future__ import annotations

from collections.abc import Callable

from gradwatch.demo.stage import Stage
from gradwatch.demo.stories.exploding import exploding
from gradwatch.demo.stories.healthy import healthy
from gradwatch.demo.stories.rnn import rnn
from gradwatch.demo.stories.vanishing import vanishing
from gradwatch.demo.training import Run

STORIES: dict[str, Callable[[Stage], list[Run]]] = {
    "vanishing": vanishing,
    "exploding": exploding,
    "rnn": rnn,
    "healthy": healthy,
}
