"""A rule of your own: an object with `check(history)`; there is nothing to register or inherit.

This one finds a layer that takes more than 90% of the squared gradient: the others hardly move in that step. In a
network of three sigmoid layers it is the last one at first, until the others wake up. Of a run of 300 steps:

    step 0: dominant: 6: 98% of the squared gradient norm
    step 162: dominant: 6: 91% of the squared gradient norm
    Verdict   healthy now: 300 steps, 4 layers; earlier alerts: 2 x dominant
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import gradwatch as gw


class Dominant:
    """One layer's share, in the median of ten steps, is above ``limit``; the monitor makes one alert per episode."""

    def __init__(self, limit: float = 0.9) -> None:
        self.limit = limit

    def check(self, history: gw.History) -> Iterator[gw.Alert]:
        share = np.median((history.grad_norm[-10:].T / history.total_norm[-10:]) ** 2, axis=1)
        for i in (share > self.limit).nonzero()[0]:
            name, value = history.layers[i], float(share[i])
            text = f"{name}: {value:.0%} of the squared gradient norm"
            yield gw.Alert(int(history.steps[-1]), "dominant", name, gw.Severity.WARNING, value, self.limit, text)


parser = argparse.ArgumentParser(description="a rule of your own")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--logdir", default="runs/custom_rule")
arguments = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(1)  # a network this small is faster on one
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = (images.float() - 8) / 8  # pixels are 0 to 16

hidden = [module for _ in range(3) for module in (nn.Linear(64, 64), nn.Sigmoid())]
model = nn.Sequential(*hidden, nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
rules = [*gw.rules.default(), Dominant()]
with gw.watch(model, optimizer, rules=rules, sinks=[gw.sinks.TensorBoard(arguments.logdir)]) as monitor:
    for _ in range(arguments.steps):
        batch = torch.randint(len(labels), (128,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

for alert in monitor.alerts:
    print(f"step {alert.step}: {alert.rule}: {alert.message}")
print(monitor.report())
