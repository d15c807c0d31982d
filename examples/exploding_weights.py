"""Exploding gradients: weights three times too large overflow within a few steps; clipping or He's own scale rescue.

Of a run of 300 steps:

    --- large_weights: loss nan, accuracy 9.9%
    Verdict   exploding: 0, 2, 4, ... (7 of 7 layers); update_ratio: 0, 2, 4, ... (7 of 7 layers); ...
    Why       large weights (confidence 90%)
              learning rate (confidence 30%)
    Evidence  at the first step the weights of 0 ... 12 have a squared gain of 18.2 per layer; 2 would make up for
              the activations
              by that alone the signal grows 2.3e+03-fold over 7 layers, and so does the gradient
              the first step moved the weights by 3.8 of their size; 0.01 is healthy
              one step moved them by 7e+18 of their size
              but the initial weights are too large
    Next      multiply the initial weights of 0 ... 12 by 0.332: the squared gain is then 2 per layer, as of He
              initialisation
              divide the learning rate by 380

    --- clipped: loss 2, accuracy 98.1%
    Verdict   healthy: 300 steps, 7 layers, no alert

    --- he: loss 0.000766, accuracy 99.4%
    Verdict   healthy: 300 steps, 7 layers, no alert
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradwatch as gw

parser = argparse.ArgumentParser(description="exploding gradients from large initial weights")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--logdir", default="runs/exploding_weights")
arguments = parser.parse_args()

torch.set_num_threads(1)  # networks this small are faster on one
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = (images.float() - 8) / 8  # pixels are 0 to 16


def network(scale: float) -> nn.Sequential:
    """Six hidden ReLU layers with He's initialisation times ``scale``."""
    model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=scale * (2 / 64) ** 0.5)
            nn.init.zeros_(layer.bias)
    return model


def train(name: str, scale: float, clip: gw.clipping.GlobalNorm | None = None) -> None:
    torch.manual_seed(0)
    model = network(scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sinks = [gw.sinks.TensorBoard(f"{arguments.logdir}/{name}")]
    with gw.watch(model, optimizer, clip=clip, sinks=sinks) as monitor:
        for _ in range(arguments.steps):
            batch = torch.randint(len(labels), (128,))
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (model(images).argmax(dim=1) == labels).float().mean()
    print(f"--- {name}: loss {loss:.3g}, accuracy {accuracy:.1%}\n{monitor.report()}\n")


train("large_weights", scale=3.0)
train("clipped", scale=3.0, clip=gw.clipping.GlobalNorm(max_norm=1.0))
train("he", scale=1.0)
print(f"tensorboard --logdir {arguments.logdir}")
