"""RNN: a gradient that vanishes through time, and a gate that lets it pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradwatch.demo.networks import Remember, remembering_gru
from gradwatch.demo.screen import norms
from gradwatch.demo.stage import Stage
from gradwatch.demo.training import Run

TIME_STEPS = 40
BATCH = 64


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-3)


def rnn(stage: Stage) -> list[Run]:
    """The encoder is the only layer that sees the image, and it stands at the far end of the recurrence."""
    stage.console.print(
        f"Two recurrent networks see a digit once and name it {TIME_STEPS} time steps of noise later.\n"
    )
    builds = {
        "tanh rnn": lambda: Remember(nn.RNNCell, TIME_STEPS),
        "gru open gate": lambda: remembering_gru(TIME_STEPS),
    }
    runs = []
    for name, build in builds.items():
        run, model = stage.run(name, build, adam, batch_size=BATCH)
        show_time(stage, model)
        runs.append(run)
    return runs


def gradient_through_time(model: Remember, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The norm of the loss's gradient with respect to each hidden state, the first one first."""
    states = model.states(images)
    for state in states:
        state.retain_grad()
    cross_entropy(model.out(states[-1]), labels).backward()  # type: ignore[no-untyped-call]
    return [float(state.grad.norm()) for state in states if state.grad is not None]


def show_time(stage: Stage, model: nn.Module) -> None:
    """Print the gradient at every fifth time step, measured on one batch."""
    assert isinstance(model, Remember)
    found = gradient_through_time(model, stage.digits.train_images[:BATCH], stage.digits.train_labels[:BATCH])
    stage.console.print(norms("time step", range(0, len(found), 5), found[::5]))
    factor = (found[0] / found[-1]) ** (1 / TIME_STEPS)
    stage.console.print(f"Measured on one batch: a time step passes {factor:.2g} of the gradient back.\n")
