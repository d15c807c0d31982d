"""Reinforcement learning: a pole on a cart, with REINFORCE and actor-critic, and a grid, with deep Q-learning."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

CARTS, LONGEST, DISCOUNT = 8, 40, 0.97
SIDE, GOAL, WANDERINGS = 5, 24, 1000


def cart_pole(seed: int, *, critic: bool = True, width: int = 32, **loop: Any) -> Task:
    """Keep poles upright for up to LONGEST time steps; the metric is the mean share of it.

    Trivial is what a coin gets.

    Args:
        seed: of weights, starts and actions.
        critic: subtract a learned value from the return; else its mean over the batch (REINFORCE, Williams, 1992).
        width: of the hidden layer.
        loop: see ``Loop``; a batch is CARTS episodes.
    """
    torch.manual_seed(seed)
    model = ActorCritic(width) if critic else ActorOnly(width)

    def loss(rows: Tensor) -> Tensor:
        log_probability, values, alive = _episodes(model)
        returns = torch.zeros(LONGEST, CARTS)
        future = torch.zeros(CARTS)
        for t in reversed(range(len(alive))):
            future = alive[t] * (1 + DISCOUNT * future)
            returns[t] = future
        returns = returns[: len(alive)]
        mean = returns[alive].mean()
        scaled = (returns - mean) / (returns[alive].std() + 1e-6)
        advantage = (scaled - values.detach())[alive] if critic else scaled[alive]
        policy = -(log_probability[alive] * advantage).mean()
        return policy + F.smooth_l1_loss(values[alive], scaled[alive]) if critic else policy

    generator = torch.Generator()

    def metric() -> float:
        return _episodes(model, generator.manual_seed(seed))[2].sum().item() / (CARTS * LONGEST)

    settings = Loop(**{"batch": 1, **loop})
    return run(model, seed, settings, loss, metric, examples=settings.steps, trivial=COIN)


COIN = 0.54
"""Mean share of LONGEST that random actions last."""


def _episodes(model: nn.Module, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities and values, float32 [time, CARTS], and whether each pole still stood, bool."""
    state = 0.1 * torch.rand(CARTS, 4, generator=generator) - 0.05
    standing = torch.ones(CARTS, dtype=torch.bool)
    log_probabilities, values, alive = [], [], []
    for _ in range(LONGEST):
        logit, value = model(state)
        action = (torch.rand(CARTS, generator=generator) < logit.detach().sigmoid()).float()
        log_probabilities.append(-F.binary_cross_entropy_with_logits(logit, action, reduction="none"))
        values.append(value)
        alive.append(standing)
        state = _pushed(state, 20 * action - 10)
        standing = standing & (state[:, 0].abs() < 2.4) & (state[:, 2].abs() < 0.2095)
        if not standing.any():
            break
    return torch.stack(log_probabilities), torch.stack(values), torch.stack(alive)


def _pushed(state: Tensor, force: Tensor) -> Tensor:
    """0.02 seconds later (Barto, Sutton and Anderson, 1983): cart of 1 kg, pole of 0.1 kg, half of it 0.5 m."""
    place, speed, angle, turn = state.unbind(1)
    push = (force + 0.05 * turn.square() * angle.sin()) / 1.1
    spin = (9.8 * angle.sin() - angle.cos() * push) / (0.5 * (4 / 3 - 0.1 * angle.cos().square() / 1.1))
    pull = push - 0.05 * spin * angle.cos() / 1.1
    return torch.stack([place + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * turn, turn + 0.02 * spin], dim=1)


class ActorCritic(nn.Module):
    """One hidden layer for both: the logit of pushing to the right, and the value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.actor, self.critic = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(state)
        return self.actor(h)[:, 0], self.critic(h)[:, 0]


class ActorOnly(nn.Module):
    """The logit of pushing to the right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.2), nn.ReLU())
        self.actor = nn.Linear(width, 1)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        logit = self.actor(self.hidden(state))[:, 0]
        return logit, torch.zeros_like(logit)


def q_learning(seed: int, *, every: int = 20, width: int = 48, **loop: Any) -> Task:
    """Walk to the far corner of a 5 x 5 grid, from stored steps and a target network (DQN, Mnih et al., 2015).

    The metric is the share of cells from which the greedy walk gets there; 0 for constant values.

    Args:
        seed: of weights and batches.
        every: steps after which the target becomes a copy.
        width: of the hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    cells, actions, following = _wanderings()

    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )

    model = nn.ModuleDict({"online": network(), "target": network()})
    model["target"].requires_grad_(False)
    states = torch.eye(SIDE * SIDE)

    def loss(rows: Tensor) -> Tensor:
        after = following[rows]
        arrived = (after == GOAL).float()
        wanted = arrived + 0.9 * (1 - arrived) * model["target"](states[after]).max(1).values
        return F.smooth_l1_loss(model["online"](states[cells[rows]]).gather(1, actions[rows, None])[:, 0], wanted)

    def copy(step: int) -> None:
        if step % every == 0:
            model["target"].load_state_dict(model["online"].state_dict())

    def metric() -> float:
        best = model["online"](states).argmax(1)
        here = torch.arange(SIDE * SIDE)
        for _ in range(2 * SIDE):
            here = torch.where(here == GOAL, here, _walked(here, best[here]))
        return (here[:GOAL] == GOAL).double().mean().item()

    return run(model, seed, Loop(**loop), loss, metric, examples=WANDERINGS, after_step=copy)


def _wanderings() -> tuple[Tensor, Tensor, Tensor]:
    """Cell, action and next cell of steps at random places, int64 [WANDERINGS]."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(GOAL, (WANDERINGS,), generator=generator)
    actions = torch.randint(4, (WANDERINGS,), generator=generator)
    return cells, actions, _walked(cells, actions)


def _walked(cells: Tensor, actions: Tensor) -> Tensor:
    """One step up, down, left or right; walls hold."""
    move = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])[actions]
    row = (cells // SIDE + move[:, 0]).clamp(0, SIDE - 1)
    column = (cells % SIDE + move[:, 1]).clamp(0, SIDE - 1)
    return row * SIDE + column
